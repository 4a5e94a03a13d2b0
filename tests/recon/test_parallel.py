"""Commands of every kind at once on one place lose nothing; `benchmarks/parallel_commands.py` does it for longer."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import parallel_commands
from recon.drawing.folders import write_index

SHORT = ("targets", "predict", "import")
MORE = ("train", "generate seeds", "sweep", "evaluate", "evaluate while drawing", "convert")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    parallel_commands.warm()
    return parallel_commands


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts commands as copies of this process")
@pytest.mark.parametrize(("names", "commands"), [(SHORT, 8), pytest.param(MORE, 14, marks=pytest.mark.long)])
def test_commands_at_once_lose_nothing(
    benchmark: ModuleType, tmp_path: Path, names: tuple[str, ...], commands: int
) -> None:
    base, found = benchmark.prepare(tmp_path / "base"), benchmark.Found()
    kinds = [kind for kind in benchmark.KINDS if kind.name in names]
    assert len(kinds) == len(names)
    benchmark.one_round(base, tmp_path / "round", kinds, found)
    assert (found.losses, found.false_successes) == ([], [])
    assert found.commands == commands


def test_a_loss_is_noticed(benchmark: ModuleType, tmp_path: Path) -> None:
    """What two drawings leave without a lock: the index of one is written over that of the other."""
    place, found = benchmark.Place(tmp_path), benchmark.Found()
    for kind in ("reconstructions", "controls/shuffled", "controls/oracle", "controls/zero_brain"):
        folder = place.run / kind / "mini" / "sub-01"
        folder.mkdir(parents=True)
        names = [f"p{k}_seed-1.png" for k in range(benchmark.TEST)]
        rows = [{"stimulus_id": name[:-11], "file": name, "seed": 1} for name in names]
        write_index(folder, rows)
        for name in names:
            (folder / name).touch()
    benchmark._check_seeds(place, [0, 0], found, (1,))
    assert not found.false_successes
    benchmark._check_seeds(place, [0, 0], found, (0, 1))
    assert len(found.false_successes) == 4 and "lists 0 of 12 of seed 0" in found.false_successes[0]
    benchmark._check_seeds(place, [0, 124], found, (1,))
    assert found.losses == ["generate: exit codes [0, 124]"]
