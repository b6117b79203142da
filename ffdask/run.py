"""What a program calls: `fit`, `Run`, `open_run`."""

from __future__ import annotations

from ffdask.conduct import Finished as Run
from ffdask.conduct import conduct as fit
from ffdask.store import open_network as open_run

__all__ = ["Run", "fit", "open_run"]
