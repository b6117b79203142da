"""An embedded cluster listens to this machine only."""

from __future__ import annotations

import psutil
import pytest

from ffdask.embedded import embedded_cluster
from ffdask.tables import ClusterTable


@pytest.mark.parametrize("processes", [False, True])
def test_every_socket_listens_on_loopback(processes):
    with embedded_cluster(ClusterTable(processes=processes, workers=2, units=2)):
        mine = psutil.Process()
        everyone = [mine, *mine.children(recursive=True)]
        listening = [one.laddr.ip for p in everyone for one in p.net_connections() if one.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}
