"""What every test shares: no network, no colour, no settings of the user; where optional real data lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tests.no_network.sitecustomize  # noqa: F401 - blocks sockets in this process from here on
from tests.no_network.no_flush import leave_to_the_system
from tests.no_network.one_thread import share_cores

share_cores()  # before anything imports torch
leave_to_the_system()

PROJECT = Path(__file__).resolve().parent.parent
NO_NETWORK = str(PROJECT / "tests" / "no_network")
LONG = (  # files that take a minute or so with few tests: run first, so that no worker is left with one at the end
    "test_parallel",
    "test_distributed",
    "test_killed",
    "test_sweep_processes",
    "test_site",
    "test_commands",
    "test_resume",
    "test_quickstart",
    "test_wheel",
    "test_control_command",
    "test_ensemble",
    "test_words_null",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of files; within a file it stays."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True)
def offline_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test starts find the project, have no network either, and no RECON_HOME of the user."""
    paths = [NO_NETWORK, str(PROJECT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.delenv("RECON_HOME", raising=False)


def shared_path(relative: str) -> Path:
    """Real data for optional tests: below the folder in RECON_SHARED, else ../shared beside the project.

    Skips the test, with the reason, when the file or folder is absent.
    """
    root = Path(os.environ.get("RECON_SHARED") or PROJECT.parent / "shared")
    path = root / relative
    if not path.exists():
        pytest.skip(f"needs real data: {path} is absent (set RECON_SHARED to the folder that holds {relative})")
    return path
