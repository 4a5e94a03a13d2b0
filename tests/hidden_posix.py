"""Runs the suite as if this system were Windows: python -m pytest -p tests.hidden_posix

`fcntl`, `resource`, `os.fork` and `os.sched_getaffinity` are hidden and processes are spawned, in the test process and
in all that it starts; tests that need one of them skip with the reason. See `tests.no_network.hide_posix`.
"""

from __future__ import annotations

import pytest

from tests.no_network.hide_posix import hide

hide()


def pytest_configure(config: pytest.Config) -> None:
    """filelock says that only its second-best kind of lock is left; that is what is tried here."""
    config.addinivalue_line("filterwarnings", "ignore:only soft file lock is available:UserWarning")
