"""Cells shared by several processes, each with its share of the processor's threads."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from align.config import Config
from align.errors import UserError
from align.sweep.grid import Cell

T = TypeVar("T")
Running = tuple[BaseProcess, Connection]  # a worker and the end of a pipe on which it reports

_LOOK = 0.3  # s between two looks at how far the workers are
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Share:
    """What one worker is told. It reads recordings and targets itself: they may be too large to be handed over."""

    config: Config
    folder: Path
    cells: tuple[Cell, ...]
    number: int
    threads: int


def divide(cells: Sequence[T], processes: int) -> list[tuple[T, ...]]:
    """Cell i goes to process i modulo ``processes``; no empty shares."""
    return [tuple(cells[k::processes]) for k in range(min(processes, len(cells)))]


def compute(config: Config, folder: Path, cells: Sequence[Cell], processes: int, seen: Callable[[int], None]) -> None:
    """Compute and store ``cells`` in ``processes`` processes; ``seen`` is told how many are done, now and then.

    A result does not depend on which process computes it: a fit is a function of its recipe and rows. It does depend,
    by rounding, on the number of threads. Raises `UserError` when a worker ends early, after the others are stopped.
    """
    threads = threads_each(processes)
    shares = [Share(config, folder, share, number, threads) for number, share in enumerate(divide(cells, processes))]
    run_tasks(_work, shares, threads, "sweep", seen)


def threads_each(processes: int) -> int:
    """The threads of one of so many processes, that they do not fight for the processor."""
    return max(1, torch.get_num_threads() // processes)


def run_tasks(
    work: Callable[[Any, Connection], None], tasks: Sequence[Any], threads: int, name: str, seen: Callable[[int], None]
) -> None:
    """One process for every task: ``work(task, report)``, which reports None for each part done, or a sentence.

    Raises `UserError` with that sentence, or when a worker ends early; the others are stopped first.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's thread pools in an unknown state
    running = []
    with _threads(threads):
        for number, task in enumerate(tasks):
            here, there = spawn.Pipe(duplex=False)
            worker = spawn.Process(target=work, args=(task, there), name=f"{name}-{number}", daemon=True)
            worker.start()
            there.close()
            running.append((worker, here))
    try:
        _watch(running, seen)
    finally:
        for worker, _ in running:
            worker.terminate()
            worker.join()


def _watch(running: Sequence[Running], seen: Callable[[int], None]) -> None:
    """Count what workers report until all have ended; their errors are raised here."""
    open_ends, done = dict(running), 0
    while open_ends:
        for worker, end in list(open_ends.items()):
            try:
                while end.poll():
                    message = end.recv()
                    if isinstance(message, str):
                        raise UserError(message)
                    done += 1
            except EOFError:
                open_ends.pop(worker)
                worker.join()
                if worker.exitcode:
                    raise UserError(
                        f"{worker.name} ended with code {worker.exitcode}; what is done is kept, call again to continue"
                    ) from None
        seen(done)
        time.sleep(_LOOK)


def _work(share: Share, report: Connection) -> None:
    """A worker's life: one message per finished cell, or the sentence of an error."""
    from align.data.studies import open_study
    from align.sweep.cells import Cells
    from align.sweep.grid import build_grid, plan

    torch.set_num_threads(share.threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(share.number % torch.cuda.device_count())
    parent = multiprocessing.parent_process()
    try:
        study = open_study(share.config)
        subjects = list(dict.fromkeys(cell.subject for cell in share.cells))
        cells = Cells(build_grid(plan(share.config, study), study, subjects, progress=False), study, share.folder)
        for cell in share.cells:
            if parent is not None and not parent.is_alive():
                return
            if cells.find(cell) is None:
                cells.compute(cell)
            report.send(None)
    except (UserError, OSError) as error:
        report.send(str(error))
    except KeyboardInterrupt:
        pass  # the parent was interrupted too, and says so


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes started inside give their libraries ``count`` threads."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
