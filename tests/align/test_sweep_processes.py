"""Cells shared by processes: the same results as one process, errors in one line, kills that lose nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from align.config import Config, load_config
from align.errors import UserError
from align.files import read_json
from align.sweep import run as sweep
from align.sweep import workers
from align.sweep.grid import Cell, Variant
from tests.align.fixture_studies import write_folder

N_TRAIN, N_TEST = 30, 5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A study on disk for two subjects, a backbone with random weights on disk, cells of few milliseconds."""
    from torchvision.models import squeezenet1_1

    place = tmp_path_factory.mktemp("study")
    rows = [
        {"row": row, "image": f"pic{picture:03d}.png", "split": "train" if picture < N_TRAIN else "test"}
        | {"subject": subject, "concept": ""}
        for row, (subject, picture) in enumerate((s, p) for s in ("01", "02") for p in range(N_TRAIN + N_TEST))
    ]
    signals = np.random.default_rng(0).normal(size=(len(rows), 6)).astype(np.float32)
    write_folder(place, signals, rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(squeezenet1_1(weights=None).state_dict(), place / "random.pth")
    pairs = [
        f"study.root={place}",
        "study.name=folder",
        f"cache_dir={place / 'cache'}",
        "sweep.layers=[features.3,0.5]",
    ]
    pairs += [f"sweep.backbones=[torchvision/squeezenet1_1@{place / 'random.pth'}]", "backbone.image_size=64"]
    pairs += ["target.pooling=mean", "target.components=8", "sweep.encoders=[mlp]", "encoder.width=16", "sweep.seeds=2"]
    return load_config(Config, None, [*pairs, "train.epochs=2", "train.batch_size=10", "sweep.folds=2"])


@pytest.mark.long
def test_processes_compute_what_one_process_computes(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "draw", lambda summary, folder: [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = sweep.run(config, out=tmp_path / "one", progress=False, test=False)
        two = sweep.run(config, out=tmp_path / "two", progress=False, processes=2, test=False)
    finally:
        torch.set_num_threads(threads)
    for result in (one, two):
        assert result.summary.pop("seconds") == result.summary.pop("measured")["seconds"]
    assert two.summary == one.summary
    assert (tmp_path / "two" / "sweep.csv").read_bytes() == (tmp_path / "one" / "sweep.csv").read_bytes()
    cells = {path.name: path.read_bytes() for path in (tmp_path / "one" / "cells").iterdir()}
    assert len(cells) == 2 * 2 * 2 * 2  # layers x subjects x folds x seeds
    assert {path.name: path.read_bytes() for path in (tmp_path / "two" / "cells").iterdir()} == cells
    assert not multiprocessing.active_children()


def test_cells_are_divided_the_same_way_every_time() -> None:
    cells = [Cell(Variant("b", "mlp", str(i)), "01", 0, 0) for i in range(7)]
    shares = workers.divide(cells, 3)
    assert [len(share) for share in shares] == [3, 2, 2]
    assert sorted(cell for share in shares for cell in [int(c.variant.layer) for c in share]) == list(range(7))
    assert workers.divide(cells, 3) == shares
    assert len(workers.divide(cells[:2], 5)) == 2


class _Worker:
    """A process that ended with a code, after the messages in its pipe."""

    name, exitcode = "sweep-1", -9

    def join(self) -> None:
        """Nothing to wait for."""


def _report(messages: list[Any]) -> Any:
    here, there = multiprocessing.Pipe(duplex=False)
    for message in messages:
        there.send(message)
    there.close()
    return here


def test_a_killed_worker_is_told_in_one_line() -> None:
    seen: list[int] = []
    with pytest.raises(UserError, match=r"sweep-1 ended with code -9; what is done is kept, call again"):
        workers._watch([(_Worker(), _report([None, None]))], seen.append)  # type: ignore[list-item]
    with pytest.raises(UserError, match="the loss is not finite"):
        workers._watch([(_Worker(), _report([None, "the loss is not finite"]))], seen.append)  # type: ignore[list-item]


def test_a_worker_sends_its_error_and_skips_what_is_done(config: Config, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    listed = sweep.list_cells(config)
    done = sweep.compute_cells(config, [3], tmp_path, progress=False)
    (stored,) = (tmp_path / "cells").iterdir()
    stored.write_text(json.dumps({**read_json(stored), "mark": 1}))
    there = SimpleNamespace(send=(told := []).append)
    share = workers.Share(config, tmp_path, (listed[3], listed[2]), 0, threads)
    workers._work(share, there)
    assert told == [None, None]
    assert json.loads(stored.read_text())["mark"] == 1, "a finished cell is left alone"
    assert len(list((tmp_path / "cells").iterdir())) == 2 and list(done["validation_top1"])
    refit = replace(listed[0], fold=None)
    workers._work(replace(share, cells=(refit,)), there)
    assert [path.name for path in (tmp_path / "test").iterdir()] == [
        "torchvision%2Fsqueezenet1_1_mlp_features.3_sub-01_seed-0.safetensors"
    ]
    broken = replace(config, train=replace(config.train, lr=1e30))
    workers._work(replace(share, config=broken, cells=(listed[0],)), there)
    assert len(told) == 4 and "the loss is not finite" in told[3]


def test_workers_get_their_share_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with workers._threads(3):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
