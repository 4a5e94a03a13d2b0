"""Several test processes at once (``pytest -n 2``): each keeps to one thread, so that they do not fight for cores."""

import os

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def share_cores() -> None:
    """In a worker of pytest-xdist and in what it starts: one thread for libraries, one core for commands to find."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if hasattr(os, "sched_getaffinity"):
        os.sched_getaffinity = lambda pid: {0}
