"""A sweep as jobs: by submitit's local executor the table of one process; without submitit, one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from align.config import Config, load_config
from align.errors import UserError
from align.sweep import run as sweep
from align.sweep import submit as module
from align.sweep.submit import submit
from recon import cli
from tests.align.fixture_studies import write_folder

N_TRAIN, N_TEST = 18, 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """12 cells of milliseconds: 2 layers, 2 subjects, 3 folds."""
    place = tmp_path_factory.mktemp("study")
    rows = [
        {"row": row, "image": f"pic{picture:03d}.png", "split": "train" if picture < N_TRAIN else "test"}
        | {"subject": subject, "concept": ""}
        for row, (subject, picture) in enumerate((s, p) for s in ("01", "02") for p in range(N_TRAIN + N_TEST))
    ]
    write_folder(place, np.random.default_rng(0).normal(size=(len(rows), 6)).astype(np.float32), rows)
    pairs = ["study.name=folder", f"study.root={place}", f"cache_dir={place / 'cache'}", "sweep.layers=[1,8]"]
    pairs += ["encoder.name=ridge", "target.pooling=mean", "target.components=4", "sweep.folds=3"]
    return load_config(Config, None, pairs)


def test_the_local_executor_gives_the_table_of_one_process(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit", reason="needs submitit: pip install 'shallow-recon[slurm]'")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = sweep.run(config, out=tmp_path / "one", progress=False)
    finally:
        torch.set_num_threads(threads)
    assert len(list((tmp_path / "one" / "cells").glob("*.json"))) == len(sweep.list_cells(config)) == 12
    jobs = submit(config, "local", out=tmp_path / "jobs", jobs=2)
    assert jobs.table() == one.table()
    read = [(tmp_path / name / "sweep.csv").read_bytes() for name in ("one", "jobs")]
    assert read[0] == read[1]
    for path in (tmp_path / "one" / "cells").iterdir():
        assert (tmp_path / "jobs" / "cells" / path.name).read_bytes() == path.read_bytes()


def test_a_fault_in_a_job_is_told_in_its_own_words(config: Config, tmp_path: Path) -> None:
    """Jobs that run in this process, in place of submitit's."""
    for what, told in (("a fault", "no subject 09"), ("a kill", "ended early; its log is '/logs/job'")):

        class Job:
            job_id, paths = "7", type("Paths", (), {"stderr": "/logs/job"})

            def done(self) -> bool:
                return True

        class Executor:
            cluster = "local"

            def submit(self, work: module.Work) -> Job:
                if what == "a fault":  # noqa: B023 - used at once
                    module.write_sealed(work.note, {"fault": "no subject 09"})
                return Job()

        work = module.Work(config, tmp_path, "rest", None, None, True)
        module.write_sealed(work.note, {"fault": None})  # of an earlier call
        with pytest.raises(UserError, match=told):
            module._done(Executor(), [work])
    with pytest.raises(UserError, match="give 1 or more"):
        submit(config, "local", out=tmp_path, jobs=0)


def test_a_job_notes_how_it_ended(config: Config, tmp_path: Path) -> None:
    module.Work(config, tmp_path, "cells-0", (0,), None, True)()
    assert module.read_json(tmp_path / "jobs" / "cells-0.json") == {"fault": None}
    assert len(list((tmp_path / "cells").glob("*.json"))) == 1
    module.Work(config, tmp_path, "cells-1", (99,), None, True)()
    assert "no cell 99" in module.read_json(tmp_path / "jobs" / "cells-1.json")["fault"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--submit", "local"], "pip install 'shallow-recon[slurm]'"),
        (["--jobs", "2"], "belong to --submit"),
        (["--slurm", "timeout_min=5"], "belong to --submit"),
        (["--submit", "local", "--processes", "2"], "leave out --processes"),
        (["--submit", "local", "--slurm", "gpu"], "should be KEY=VALUE"),
    ],
)
def test_mistakes_end_in_one_line(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert cli.main(["sweep", *words]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_unknown_settings_of_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs submitit: pip install 'shallow-recon[slurm]'")
    with pytest.raises(UserError, match="partitoin"):
        module._executor("local", tmp_path, {"partitoin": "gpu"})
    with pytest.raises(UserError, match="--submit local runs on this machine"):
        module._executor("slurm", tmp_path, {})
