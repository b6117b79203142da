"""Preloaded by embedded worker processes: Ctrl-C is the run's own business, and the event loop's log is nobody's."""

from __future__ import annotations

import logging
import signal
import threading

logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
