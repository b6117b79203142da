"""An embedded cluster listens to this machine only."""

from __future__ import annotations

import socket
import warnings

import psutil
import pytest

from ffdask import embedded
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


def test_a_port_that_is_taken_in_the_meantime_is_left_to_whoever_has_it_and_nothing_is_said(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, warnings.catch_warnings(record=True) as said:
        port = taken.getsockname()[1]
        monkeypatch.setattr(embedded, "_dashboard_port", lambda: port)
        with embedded_cluster(ClusterTable(units=1)) as cluster:
            assert f":{port}/" not in cluster.dashboard_link
    assert not [one for one in said if "already in use" in str(one.message)]
