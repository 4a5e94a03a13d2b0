"""Two processes on every batch end where one does, because every row is compared with the negatives of both."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from align.files import read_tensors
from align.training.distributed import all_rows, own_part, world
from benchmarks import parallel_commands
from tests.align import shared_batch
from tests.align.fixture_studies import write_folder
from tests.recon.together import launch

forked = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts trainings as copies of this process")

N_TRAIN, N_BATCH = 45, 15  # rows; a batch of 15 is shared as 8 and 7


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parallel_commands.warm()
    root = tmp_path_factory.mktemp("shared")
    shown = [(i, "train") for i in range(N_TRAIN)] + [(i, "test") for i in range(N_TRAIN, N_TRAIN + 4)]
    rows = [
        {"row": i, "image": f"pic{picture:03d}.png", "split": split, "subject": "01"}
        for i, (picture, split) in enumerate(shown)
    ]
    write_folder(root / "data", np.random.default_rng(0).normal(size=(len(rows), 6)), rows)
    return root


def _train(place: Path, name: str, processes: int, *how: str) -> tuple[list[float], list[dict[str, object]], Path]:
    """Losses of the epochs, what every process noted, the run folder."""
    out = place / name
    out.mkdir()
    study = ["study.name=folder", f"study.root={place / 'data'}", f"cache_dir={place / 'cache'}", "target.layer=2"]
    recipe = ["target.components=6", "encoder.width=8", "train.epochs=4", f"train.batch_size={N_BATCH}"]
    exact = ["encoder.dropout=0", "train.image_dropout=0", "train.noise=0", "target.spread=0", f"run_dir={out / 'run'}"]
    words = [str(out), *how, *study, *recipe, *exact]
    codes, said = launch(words, out / "logs", main=shared_batch.main, size=processes)
    assert codes == [0] * processes, said
    lines = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    notes = [json.loads(path.read_text()) for path in sorted(out.glob("rank-*.json"))]
    return [line["loss"] for line in lines], notes, out / "run"


@forked
def test_two_processes_end_where_one_does(place: Path) -> None:
    alone, notes, run = _train(place, "one", 1)
    assert len(alone) == 4 and notes == [{"world": 1, "sizes": [15], "code": 0}]
    together, notes, shared_run = _train(place, "two", 2)
    assert [note["world"] for note in notes] == [2, 2] and [note["sizes"] for note in notes] == [[8], [7]], "unequal"
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    ours, theirs = (read_tensors(path / "model.safetensors")[0] for path in (shared_run, run))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=2e-3, err_msg=name)


@forked
@pytest.mark.long
def test_processes_that_do_not_see_each_others_rows_end_elsewhere(place: Path) -> None:
    alone, _, _ = _train(place, "alone", 1)
    blind, _, _ = _train(place, "blind", 2, "blind")
    assert np.abs(np.array(blind) / alone - 1).max() > 0.05, "without the others' negatives the curve is another one"


def test_a_process_alone_has_the_whole_batch() -> None:
    x = torch.randn(3, 2)
    assert world() == (0, 1) and all_rows(x) is x and own_part(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
