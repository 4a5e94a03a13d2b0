"""Commands as a launcher starts them: copies of this process with a rank each, which meet over gloo."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.distributed import TCPStore

from recon import cli

SIZE = 2


def launch(
    words: Sequence[str],
    logs: Path,
    slain: Mapping[int, Callable[[], None]] | None = None,
    limit: float = 120,
    main: Callable[[list[str]], int] = cli.main,
    size: int = SIZE,
) -> tuple[list[int], list[str]]:
    """Exit codes of the ``size`` processes of ``recon WORDS`` (or of another ``main``), and what each of them said.

    ``slain``: by rank what is done in that process first, such as `die_at`. When one ends with another code than 0, the
    launcher ends the others (SIGTERM), as torchrun does.
    """
    logs.mkdir(parents=True, exist_ok=True)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    started = []
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, **meet}
        what = (main, list(words), logs / f"{rank}.log", place, (slain or {}).get(rank))
        started.append(multiprocessing.get_context("fork").Process(target=_call, args=what))
    for process in started:
        process.start()
    end, asked = time.monotonic() + limit, False
    while any(process.is_alive() for process in started):
        if not asked and any(process.exitcode for process in started):
            asked = True
            for process in started:
                process.terminate()
        if time.monotonic() > end:
            for process in started:
                process.kill()
        time.sleep(0.05)
    codes = [process.exitcode if process.exitcode is not None else 124 for process in started]
    return codes, [(logs / f"{rank}.log").read_text(encoding="utf-8") for rank in range(size)]


def _call(
    main: Callable[[list[str]], int],
    words: list[str],
    log: Path,
    place: Mapping[str, object],
    first: Callable[[], None] | None,
) -> None:
    os.environ.update({name: str(value) for name, value in place.items()})
    with log.open("w", encoding="utf-8", buffering=1) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        sys.stdout = sys.stderr = file
        if first is not None:
            first()
        torch.set_num_threads(1)  # a copy makes torch's thread pool anew; two threads at once would find none
        os._exit(main(words))


def die_at(module: str, name: str, call: int) -> Callable[[], None]:
    """End the process (SIGKILL) when ``module.name`` is called for the ``call``-th time, before anything is done."""

    def prepare() -> None:
        import importlib

        place, count = importlib.import_module(module), [0]
        original = getattr(place, name)

        def counted(*args: object, **options: object) -> object:
            count[0] += 1
            if count[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        setattr(place, name, counted)

    return prepare
