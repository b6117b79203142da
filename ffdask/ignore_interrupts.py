"""Preloaded by embedded worker processes: Ctrl-C reaches the whole process group, and is the run's own business."""

from __future__ import annotations

import signal
import threading

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
