"""Commands of every kind at once on one place lose nothing; `benchmarks/parallel_commands.py` does it for longer."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import PROJECT

SHORT = ("train", "targets", "sweep", "predict", "generate seeds", "evaluate", "evaluate while drawing")
LIGHT = ("convert", "import")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parallel_commands", PROJECT / "benchmarks" / "parallel_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parallel_commands"] = module
    spec.loader.exec_module(module)
    module.warm()
    return module


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts commands as copies of this process")
def test_commands_at_once_lose_nothing(benchmark: ModuleType, tmp_path: Path) -> None:
    base, found = benchmark.prepare(tmp_path / "base"), benchmark.Found()
    kinds = [kind for kind in benchmark.KINDS if kind.name in (*SHORT, *LIGHT)]
    assert len(kinds) == len(SHORT) + len(LIGHT)
    benchmark.one_round(base, tmp_path / "round", kinds, found)
    assert (found.losses, found.false_successes) == ([], [])
    assert found.commands == 24


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts commands as copies of this process")
def test_a_loss_is_noticed(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks, one index is written over the other."""
    from contextlib import contextmanager

    from recon.drawing import folders, generate, record

    @contextmanager
    def unlocked(*_: object, **__: object):  # type: ignore[no-untyped-def]
        yield

    def overwrite(folder: Path, rows: list[dict[str, object]], *_: object) -> None:
        folders.write_index(folder, rows)

    from recon.drawing import sets

    monkeypatch.setattr(sets, "merge_index", overwrite)
    for module in (folders, generate, record):
        monkeypatch.setattr(module, "locked", unlocked)
    base, found = benchmark.prepare(tmp_path / "base"), benchmark.Found()
    kinds = [kind for kind in benchmark.KINDS if kind.name == "generate seeds"]
    benchmark.one_round(base, tmp_path / "round", kinds, found)
    assert found.false_successes and "lists" in found.false_successes[0]
