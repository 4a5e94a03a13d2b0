"""What a run says while it runs: log lines, metrics as JSON lines, progress bars."""

from __future__ import annotations

import importlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

logger = logging.getLogger("align")
EVERY = 60.0  # s between two lines about progress in a log


def setup_logging(verbose: bool = True) -> None:
    """Send the log lines of this project to stderr, once; called by commands, never on import."""
    if not logger.handlers:
        handler = _ToStderr()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if verbose else logging.WARNING)


class _ToStderr(logging.Handler):
    """Writes to what standard error is at that moment: a caller in Python may have put another in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except OSError:  # nobody listens any more
            self.handleError(record)


class JsonLines:
    """Appends one JSON object per line, flushed at once.

    A resumed run repeats the steps after its last checkpoint; `resume` drops what was written about them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, record: dict[str, Any]) -> None:
        """Append one record; NaN and infinity are refused."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole records; a line cut by a kill is left out."""
        records = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
        return records

    def resume(self, steps: dict[str, int]) -> None:
        """Keep the records of each stage up to its step in ``steps``, and none of other stages."""
        from align.files import write_atomic

        kept = [record for record in self.read() if record.get("step", 0) <= steps.get(record.get("stage", ""), -1)]
        write_atomic(self.path, "".join(json.dumps(record) + "\n" for record in kept))


def require_tracker(tracker: str) -> None:
    """Raise `UserError` unless ``tracker`` is ``none`` or its package is installed; nothing is started."""
    if tracker == "none":
        return
    from accelerate.tracking import get_available_trackers

    if tracker not in [getattr(one, "value", one) for one in get_available_trackers()]:
        raise UserError(f"tracker={tracker}: its package is not installed; pip install {tracker}, or leave it out")


class Tracked(JsonLines):
    """`JsonLines` that also tells a tracker of accelerate (tensorboard, wandb, ...) what it writes.

    Raises `UserError` for an unknown tracker, or one whose package is not installed. The tracker's files lie in the
    folder of ``path``; what a resumed run repeats is told to it again.
    """

    def __init__(self, path: str | Path, tracker: str, config: dict[str, Any]) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        super().__init__(path)
        if tracker not in LOGGER_TYPE_TO_CLASS:
            raise UserError(f"tracker={tracker!r} is not known here. Known: none, {', '.join(LOGGER_TYPE_TO_CLASS)}")
        kind = LOGGER_TYPE_TO_CLASS[tracker]
        place = {"logging_dir": self.path.parent} if kind.requires_logging_directory else {}
        try:
            self.tracker = kind(run_name=self.path.parent.name, **place)
            self.tracker.start()
        except ImportError as error:
            raise UserError(f"tracker={tracker}: {error}; pip install {tracker}") from error
        self.tracker.store_init_configuration(config)

    def __call__(self, record: dict[str, Any]) -> None:
        """Append one record and log its numbers as ``<stage>/<name>`` at its step."""
        super().__call__(record)
        stage, step = record.get("stage", ""), record.get("step", 0)
        numbers = {f"{stage}/{name}": value for name, value in record.items() if isinstance(value, float)}
        self.tracker.log(numbers, step=step)


class Lines:
    """Progress where no bar can be drawn, as in a log file: one line a minute (`EVERY` s) with the time left."""

    def __init__(self, total: int, stage: str, start: int = 0, unit: str = "step") -> None:
        self.total, self.stage, self.n, self.unit = total, stage, start, unit
        self._first, self._began = start, time.monotonic()
        self._said = self._began

    def update(self, done: int = 1) -> None:
        """Count; say so where the last line is a minute old."""
        self.n += done
        now = time.monotonic()
        if now - self._said < EVERY or self.n >= self.total:
            return
        self._said = now
        left = (now - self._began) / max(1, self.n - self._first) * (self.total - self.n)
        share = 100 * self.n / max(1, self.total)
        logger.info(
            "%s: %d of %d %ss (%.0f %%), %s left", self.stage, self.n, self.total, self.unit, share, duration(left)
        )

    def close(self) -> None:
        """Nothing is to be removed."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stopwatch:
    """What a command took, for its record."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def read(self) -> dict[str, Any]:
        """``seconds`` since it was made; ``device``; ``memory``: bytes at the peak of this process so far;
        ``gpu_memory``: the same of torch on its GPU. What this system does not say is left out."""
        found: dict[str, Any] = {"seconds": round(time.monotonic() - self.started, 1), "device": "cpu"}
        if (bytes_ := peak_memory()) is not None:
            found["memory"] = bytes_
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            found |= {"device": torch.cuda.get_device_name(), "gpu_memory": int(torch.cuda.max_memory_allocated())}
        return found


def peak_memory() -> int | None:
    """Bytes that this process has held at most; None where the system does not say (Windows)."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else 1024 * peak


class Forecast:
    """Says how long the work will take: at most, when its first piece is done, which warms up; then about how long.

    Nothing is said of what takes less than ``LEAST`` seconds, and nothing before a piece is timed.
    """

    LEAST = 60

    def __init__(self, stage: str, total: int, unit: str, show: bool = True) -> None:
        self.stage, self.left, self.unit, self.show = stage, total, unit, show
        self.since, self.first = time.monotonic(), True

    def done(self, count: int = 1) -> None:
        """``count`` units are done."""
        now, self.left = time.monotonic(), self.left - count
        if not self.show or count < 1:
            return
        each = (now - self.since) / count
        if self.left * each >= self.LEAST:
            told = (self.stage, self.left, self.unit, "at most " if self.first else "", duration(self.left * each))
            logger.info("%s: %d more %ss take %sabout %s (%.2g s each)%s", *told, each, _memory_text())
        self.since, self.first, self.show = now, False, self.first


def _memory_text() -> str:
    facts = Stopwatch().read()
    names = {"memory": "memory", "gpu_memory": "GPU memory"}
    return "".join(f", {text} {facts[key] / 1e9:.1f} GB so far" for key, text in names.items() if key in facts)


def duration(seconds: float) -> str:
    """In words of one unit: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def progress_bar(total: int, stage: str, show: bool, start: int = 0, unit: str = "step") -> tqdm[Any] | Lines:
    """A bar with the stage's name and the time left on a terminal, elsewhere `Lines`; where ``show`` (main process)."""
    if show and not sys.stderr.isatty():
        return Lines(total, stage, start, unit)
    from tqdm import tqdm

    return tqdm(total=total, desc=stage, initial=start, unit=unit, disable=None if show else True, leave=False)
