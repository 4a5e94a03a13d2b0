"""Several test processes at once (``pytest -n 2``): each keeps to one core, so that they do not fight for them."""

from __future__ import annotations

import os
import re

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def share_cores() -> None:
    """One thread for the libraries of a worker of pytest-xdist and of what it starts, on a core of its own (Linux)."""
    worker = re.fullmatch(r"gw(\d+)", os.environ.get("PYTEST_XDIST_WORKER", ""))
    if worker is None:
        return
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if hasattr(os, "sched_getaffinity") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[1]) % len(cores)]})
