"""What a generator is given for a picture: tokens, and beside them pixels to start from and words.

The same four sets for every run: what the brain says about a picture, what it says about another one (shuffled), what
the decoder says without a brain (zero_brain), and what the picture itself would say (oracle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from align.errors import UserError
from align.seeding import derive

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.library import Library

CONTROLS = ("shuffled", "zero_brain", "oracle")
LIKELIEST = "likeliest_library_image"  # a control without a generator, of runs that predict responses
TOKENS = ("predicted", "library", "posterior")
_RANKED = 1 << 21  # cosines ranked at once


@dataclass(frozen=True)
class Condition:
    """``tokens`` (n, N, D) in the units of the backbone; ``owners`` (n): whose they are, "" = nobody's.

    ``embeds`` (n, E): what the brain says, to compare pictures with; None where no brain speaks. ``pixels``
    (n, 3, S, S) in [0, 1] and ``detail`` (n,), the log of the fine power: decoded from the signals. ``prompts`` (n):
    words.
    """

    tokens: np.ndarray
    owners: tuple[str, ...]
    embeds: np.ndarray | None = None
    pixels: np.ndarray | None = None
    detail: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None

    def take(self, rows: Sequence[int] | np.ndarray) -> Condition:
        """The given rows, in the given order."""
        kept = np.asarray(rows)
        return Condition(
            self.tokens[kept],
            tuple(self.owners[i] for i in kept),
            None if self.embeds is None else self.embeds[kept],
            None if self.pixels is None else self.pixels[kept],
            None if self.detail is None else self.detail[kept],
            None if self.prompts is None else tuple(self.prompts[i] for i in kept),
        )


class TokenSource(Protocol):
    """Where tokens come from. ``name``: one of `TOKENS`. ``varies``: whether another seed means other tokens."""

    name: str
    varies: bool

    def tokens(self, seed: int) -> np.ndarray:
        """(n, N, D) of all test pictures, in the order of the predictions."""

    def silent(self, seed: int) -> np.ndarray:
        """(N, D) without a brain."""

    def true(self, ids: Sequence[str]) -> np.ndarray:
        """(n, N, D) of the pictures themselves."""


class PredictedTokens:
    """Tokens of a run with a trained token head, matched to true ones (`recon.decoding.bridges.matching`)."""

    name = "predicted"
    varies = False

    def __init__(self, run: Run, match: str) -> None:
        self._run, self._match = run, match

    @cached_property
    def _matched(self) -> tuple[np.ndarray, np.ndarray]:
        from recon.decoding.bridges.matching import matched_tokens

        return matched_tokens(self._run, self._match)

    def tokens(self, seed: int) -> np.ndarray:
        return self._matched[0]

    def silent(self, seed: int) -> np.ndarray:
        return self._matched[1]

    def true(self, ids: Sequence[str]) -> np.ndarray:
        from recon.decoding.predict import open_recording, picture_tokens

        recording = open_recording(self._run)
        row = {stimulus_id: i for i, stimulus_id in enumerate(recording.stimuli.ids)}
        rows = [row[stimulus_id] for stimulus_id in ids]
        return np.asarray(picture_tokens(self._run, recording)[rows], dtype=np.float32)


class LibraryTokens:
    """Tokens of library pictures, by what the response makes likely: for runs that predict none, or other ones.

    Seed 0 takes the likeliest picture, seed k the k-th after it. Memory: 4 bytes for each of n x L ranks, three times
    as many while they are made: 150 MB for 200 responses and 60,000 pictures.
    """

    name = "library"
    varies = True

    def __init__(self, run: Run, library: Library, embeds: np.ndarray, silent: np.ndarray, target: tuple[str, str]):
        from recon.decoding.library import cosines

        self._run, self._library, (self._layer, self._pooling) = run, library, target
        agreed = -cosines(np.concatenate([embeds, silent[None]]), library.responses)
        self._order: np.ndarray = np.empty(agreed.shape, dtype=np.int32)
        rows = max(1, _RANKED // max(1, len(library)))
        for start in range(0, len(agreed), rows):
            self._order[start : start + rows] = np.argsort(agreed[start : start + rows], axis=1)

    def tokens(self, seed: int) -> np.ndarray:
        return self._of(self.rows(seed)[:-1])

    def silent(self, seed: int) -> np.ndarray:
        silent: np.ndarray = self._of(self.rows(seed)[-1:])[0]
        return silent

    def rows(self, seed: int) -> np.ndarray:
        """Library rows (n + 1,) of the seed, the last one for silence; raises `UserError` beyond the last picture."""
        if seed >= self._order.shape[1]:
            raise UserError(f"seed {seed}: the library has {self._order.shape[1]} pictures; give a lower one")
        rows: np.ndarray = self._order[:, seed].astype(np.int64)
        return rows

    def true(self, ids: Sequence[str]) -> np.ndarray:
        from recon.decoding.library import tokens_at
        from recon.decoding.predict import open_recording

        stimuli = open_recording(self._run).stimuli
        row = {stimulus_id: i for i, stimulus_id in enumerate(stimuli.ids)}
        found = tokens_at(self._run, stimuli, self._layer, self._pooling)
        return np.asarray(found[[row[stimulus_id] for stimulus_id in ids]], dtype=np.float32)

    def _of(self, rows: np.ndarray) -> np.ndarray:
        return self._library.tokens(rows, self._layer, self._pooling)


def derangement(n: int, seed: int) -> np.ndarray:
    """A permutation (n,) without fixed point, a pure function of ``seed``: one random cycle (Sattolo 1986)."""
    if n < 2:
        raise UserError(f"the shuffled control needs at least 2 stimuli, not {n}")
    rng = np.random.default_rng(derive(seed, "shuffled"))
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(rng.integers(0, i))
        order[[i, j]] = order[[j, i]]
    return order


def control(name: str, own: Condition, silent: Condition, true: Condition) -> Condition:
    """The condition of one control; ``silent`` has one row. Who gets whose is the same for every seed of the noise."""
    if name == "shuffled":
        return own.take(derangement(len(own.owners), 0))
    if name == "zero_brain":
        return silent.take(np.zeros(len(own.owners), dtype=np.int64))
    if name == "oracle":
        return true
    raise UserError(f"control {name!r} is not known; known: {', '.join(CONTROLS)}")
