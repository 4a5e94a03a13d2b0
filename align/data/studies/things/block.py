"""One split of one subject of THINGS-EEG2 or THINGS-MEG, whatever file it came from, and what is asked of two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align.data.signals import Trials
from align.data.studies.base import Fact
from align.errors import UserError

Published = tuple[tuple[int, int], tuple[int, int]]  # training, test: pictures, repetitions of each
_PIECE = 1 << 22  # values looked at once


@dataclass(frozen=True)
class Block:
    """One split of one subject as its file holds it.

    ``x`` (m, C, T), mapped where possible; row k belongs to picture ``row[k]`` (0 to n-1, n = ``n_images``) and is its
    ``repetition[k]``-th showing in ``session[k]``. ``times`` (T,) in s after picture onset. ``images`` and ``labels``:
    what the file itself says about each picture (last folder and name; number of its concept), where it says anything.
    """

    path: Path
    x: np.ndarray
    row: np.ndarray
    repetition: np.ndarray
    n_images: int
    ch_names: tuple[str, ...]
    times: np.ndarray
    session: np.ndarray | None = None
    images: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def sfreq(self) -> float:
        """Samples per second."""
        return round((len(self.times) - 1) / float(self.times[-1] - self.times[0]), 6)

    @property
    def repetitions(self) -> str:
        """Showings per picture: "4", or "2 to 4" where they differ."""
        counts = np.bincount(self.row, minlength=self.n_images)
        return str(counts[0]) if (counts == counts[0]).all() else f"{counts.min()} to {counts.max()}"

    def not_finite(self) -> int:
        """How many values are NaN or infinite; looks at a piece of the file at a time."""
        step = max(1, _PIECE // max(1, int(np.prod(self.x.shape[1:]))))
        return sum(int((~np.isfinite(self.x[start : start + step])).sum()) for start in range(0, len(self.x), step))


def require_finite(block: Block) -> None:
    """Raise `UserError` when a value is NaN or infinite; training rows are checked where they are fitted."""
    bad = block.not_finite()
    if bad:
        raise UserError(f"{str(block.path)!r}: {bad} values are NaN or infinite; fetch it again or mend it")


def trials_of(block: Block, first: int) -> Trials:
    """The rows of a block as trials of the pictures ``first``, ``first`` + 1, ..."""
    return Trials(block.x, (block.row + first).astype(np.int64), block.repetition.astype(np.int64), block.session)


def require_alike(train: Block, test: Block) -> None:
    """Raise `UserError` unless both splits have the same channels and times."""
    if train.x.shape[1] != test.x.shape[1] or train.ch_names != test.ch_names:
        pairs = zip(train.ch_names, test.ch_names, strict=False)
        first = next((f" ({a} against {b})" for a, b in pairs if a != b), "")
        raise UserError(
            f"{train.path.name} and {test.path.name} of {train.path.parent.name} have different channels{first}"
        )
    if len(train.times) != len(test.times) or np.abs(train.times - test.times).max() > 1e-6:
        raise UserError(
            f"{train.path.name} and {test.path.name} of {train.path.parent.name} have different times: "
            f"{_span(train)} against {_span(test)}"
        )


def partial_copy(train: Block, test: Block, published: Published) -> list[str]:
    """A sentence for every split that has other pictures than were published."""
    return [
        f"{'partial copy' if block.n_images < pictures else 'other pictures'}: {block.n_images} of {pictures} {split} "
        "pictures; usable, but its scores are not comparable"
        for split, block, (pictures, _) in zip(("training", "test"), (train, test), published, strict=True)
        if block.n_images != pictures
    ]


def block_facts(subject: str, train: Block, test: Block, published: Published, sampling: str) -> list[Fact]:
    """What was published beside what the two files of a subject hold."""
    facts = []
    for split, block, (pictures, repetitions) in zip(("training", "test"), (train, test), published, strict=True):
        found = f"{block.n_images} x {block.repetitions}"
        what = f"{subject} {split} pictures x repetitions"
        facts.append(Fact(what, f"{pictures} x {repetitions}", found, usable=block.n_images > 0))
    _, n_chans, n_times = train.x.shape
    return [
        *facts,
        Fact(f"{subject} channels x samples", sampling, f"{n_chans} x {n_times} at {train.sfreq} Hz", usable=True),
        Fact(f"{subject} values not finite", "0", str(train.not_finite() + test.not_finite())),
    ]


def copied(what: str, published: int, found: int) -> Fact:
    """A count; fewer than published is a partial copy, more a longer one; both can be used."""
    return Fact(what, str(published), str(found), usable=found > 0)


def _span(block: Block) -> str:
    """From when to when, in s."""
    return f"{block.times[0]:.3f} to {block.times[-1]:.3f} s"
