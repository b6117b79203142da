"""A preload of `dask worker` in tests: records what the worker sends; takes its guards off where a test says so."""

from __future__ import annotations

import os
from typing import Any

from tests.system.frames import record_frames

record_frames(os.environ["FFDASK_TEST_FRAMES"])

if os.environ.get("FFDASK_TEST_UNGUARDED"):
    from ffdask import job, stay

    def open_to_all(self: stay.Kept) -> Any:
        return stay.Kept, (self.value, self.what)

    stay.Kept.__reduce__ = open_to_all  # type: ignore[assignment,method-assign]
    job.Data.of_node = classmethod(lambda cls, calendar, node, data: data)  # type: ignore[assignment]
