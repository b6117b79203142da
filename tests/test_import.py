"""What is slow to import is imported by those who need it, not by `import ffdask`."""

from __future__ import annotations

import subprocess
import sys


def test_import_leaves_out_what_is_slow():
    slow = {"numba", "bokeh", "pandas", "xarray", "matplotlib", "networkx", "sklearn", "joblib"}
    code = f"import sys, ffdask.train, ffdask.dashboard; print(*{slow} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
