"""Cells as jobs of a cluster (SLURM) or of this machine, by submitit: submitted, waited for, then one job for the rest.

    recon sweep --config FILE --submit slurm --slurm slurm_partition=gpu --slurm timeout_min=240
    recon sweep --config FILE --submit local --jobs 4

Every job writes its cells into the sweep's folder, as any process does, and a note of how it ended into ``jobs/``;
nothing that submitit pickles is read back here. The last job is an ordinary sweep, which finds the cells and refits.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from align.config import Config
from align.errors import UserError
from align.files import read_json, write_sealed
from align.sweep.report import SweepResult
from align.sweep.run import compute_cells, folder_of, list_cells, run
from align.sweep.workers import divide

log = logging.getLogger(__name__)
KINDS = ("slurm", "local")
_LOOK = 2.0  # s between two looks at whether jobs have ended; SLURM is asked rarer, by submitit itself


@dataclass(frozen=True)
class Work:
    """What one job does: compute the cells of ``numbers``, or all that is left (None)."""

    config: Config
    folder: Path
    name: str
    numbers: tuple[int, ...] | None
    threads: int | None
    test: bool
    overwrite: bool = False

    @property
    def note(self) -> Path:
        """How it ended: {"fault": None, or the sentence of an error}."""
        return self.folder / "jobs" / f"{self.name}.json"

    def __call__(self) -> None:
        """In the job."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)
        fault = None
        try:
            if self.numbers is None:
                run(self.config, out=self.folder, progress=False, test=self.test, overwrite=self.overwrite)
            else:
                compute_cells(self.config, self.numbers, out=self.folder, progress=False)
        except (UserError, OSError) as error:
            fault = str(error)
        write_sealed(self.note, {"fault": fault})


def submit(
    config: Config,
    kind: str,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    options: Mapping[str, Any] | None = None,
    test: bool = True,
    overwrite: bool = False,
) -> SweepResult:
    """`align.sweep.run.run` by jobs of ``kind`` ("slurm", "local"); returns when the last one has ended.

    ``jobs``: how many share the cells (default: one for each cell on SLURM, one for each core here). ``options``: as
    submitit's ``AutoExecutor.update_parameters`` takes them. Raises `UserError` where submitit or SLURM is absent, for
    an unknown option, and with the sentence of the first job that failed.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: give 1 or more")
    folder = folder_of(config, out).absolute()
    executor = _executor(kind, folder / "jobs", options or {})
    count = len(list_cells(config))
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone tells
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    shares = divide(range(count), jobs or (count if kind == "slurm" else cores))
    threads = max(1, cores // len(shares)) if kind == "local" else None
    works = [
        Work(config, folder, f"cells-{number}", tuple(share), threads, test) for number, share in enumerate(shares)
    ]
    log.info("%d cells in %d jobs (%s), logs in %s", count, len(works), kind, folder / "jobs")
    _done(executor, works)
    _done(executor, [Work(config, folder, "rest", None, cores if kind == "local" else None, test, overwrite)])
    return SweepResult(folder, read_json(folder / "sweep.json"))


def _done(executor: Any, works: Sequence[Work]) -> None:
    """Submit, wait, and raise `UserError` for the first that failed."""
    for work in works:
        work.note.unlink(missing_ok=True)
    jobs = executor.map_array(Work.__call__, works) if len(works) > 1 else [executor.submit(works[0])]
    try:
        while not all(job.done() for job in jobs):
            time.sleep(_LOOK if executor.cluster == "slurm" else _LOOK / 10)
    except BaseException:
        if executor.cluster == "local":  # those of a cluster go on, and the next sweep finds what they leave
            for job in jobs:
                job.cancel(check=False)
        raise
    for work, job in zip(works, jobs, strict=True):
        if not work.note.is_file():
            raise UserError(
                f"job {job.job_id} ended early; its log is {str(job.paths.stderr)!r}; what is done is kept, the same "
                "command continues from here"
            )
        if fault := read_json(work.note, {"fault": (str, None)})["fault"]:
            raise UserError(fault)


def _executor(kind: str, folder: Path, options: Mapping[str, Any]) -> Any:
    submitit = _package()
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=kind)
    except RuntimeError as error:
        raise UserError(f"--submit {kind}: {error}; --submit local runs on this machine") from error
    try:
        executor.update_parameters(name="recon-sweep", **options)
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"--slurm {' '.join(options)}: {error}") from error
    return executor


def _package() -> ModuleType:
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise UserError(
            "--submit needs submitit: pip install 'shallow-recon[slurm]'; --list prints the commands of a job array "
            "without it"
        ) from error
