"""Two signals of one picture whose noise is independent, and the same of a brain that saw none.

From repetitions: the means of two disjoint random halves of those of a test picture. The null brain is rest plus a half
minus the other half (plus-minus averaging, Schimmel 1967, J Acoust Soc Am 41: 401-404), enlarged to the noise of the
mean of one half: what a picture evokes cancels, the noise stays. Of an odd number of repetitions one, drawn at random,
is left out. Two null brains are independent because they come from two test pictures; none enters twice.

Where a test picture was shown once: the row plus and minus drawn noise. If the drawn noise has the covariance of the
noise of the row, the two are independent (data fission: Leiner et al. 2023, J Am Stat Assoc, doi 10.1080/01621459.2023.
2270748). That covariance is not known. Taken is that of what ridge regression from the run's target components leaves
of averaged training rows, out of fold, and a part of its diagonal on top: rather too much than too little, for with too
little the two would share noise, which would pass for a picture, and with too much they contradict each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.seeding import derive

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Recording

LEAST = 4  # pairs of null brains: two to set a threshold, two to check it
BASE = 4  # null brains whose pictures say what noise alone gives, two for each half
FOLDS = 5
PENALTIES = tuple(10.0**k for k in range(-2, 6))  # components have variance 1 on average
MARGIN = 0.5  # of the diagonal, on top of the covariance


class Repetitions:
    """Halves of what was recorded. Every picture was shown twice or more. Pictures: indices of the recording."""

    kind = "repetitions"
    halves = "two disjoint halves of its repetitions"
    noise = "half the repetitions of a test picture minus the other half"

    def __init__(self, recording: Recording, seed: int) -> None:
        self._test, self._seed = recording.test, seed
        self._names = recording.stimuli.ids

    def two(self, picture: int) -> np.ndarray:
        """(2, ...): raw signals of the halves."""
        first, second = self._split(picture, "halves")
        return np.stack([first.mean(axis=0, dtype=np.float64), second.mean(axis=0, dtype=np.float64)])

    def null(self, picture: int) -> np.ndarray:
        """(...): noise of one half, without what the picture evokes."""
        first, second = self._split(picture, "null brain")
        noise: np.ndarray = (first.sum(axis=0, dtype=np.float64) - second.sum(axis=0, dtype=np.float64)) / np.sqrt(2)
        return noise / len(first)

    def left_out(self, pictures: np.ndarray) -> int:
        """Repetitions of the pictures that are in no half."""
        return int(sum((self._test.stimulus == i).sum() % 2 for i in pictures))

    def _split(self, picture: int, use: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(derive(self._seed, use, self._names[picture]))
        rows = rng.permutation(np.flatnonzero(self._test.stimulus == picture))
        half = len(rows) // 2
        return self._test.x[rows[:half]], self._test.x[rows[half : 2 * half]]


class AddedNoise:
    """The averaged row plus and minus drawn noise. ``left`` (K, V): rows with the covariance of one test row."""

    kind = "added noise"
    halves = "its signals plus and minus drawn noise"
    noise = "noise like what the training pictures leave unexplained of the training signals"

    def __init__(self, recording: Recording, seed: int, left: np.ndarray) -> None:
        test = recording.test.averaged()
        self._rows = {int(i): row for i, row in zip(test.stimulus, test.x, strict=True)}
        shown, counts = np.unique(recording.test.stimulus, return_counts=True)
        self._counts = dict(zip(shown.tolist(), counts.tolist(), strict=True))
        self._left, self._seed, self._names = left, seed, recording.stimuli.ids

    def two(self, picture: int) -> np.ndarray:
        """(2, ...): raw signals, the noise of each twice that of the row (variance), as that of half of it would be."""
        added = self._drawn(picture, "halves")
        return np.stack([self._rows[picture] + added, self._rows[picture] - added])

    def null(self, picture: int) -> np.ndarray:
        """(...): noise of one half."""
        return np.sqrt(2) * self._drawn(picture, "null brain")

    def left_out(self, pictures: np.ndarray) -> int:
        return 0

    def _drawn(self, picture: int, use: str) -> np.ndarray:
        rng = np.random.default_rng(derive(self._seed, use, self._names[picture]))
        drawn = noise_like(self._left, rng) / np.sqrt(self._counts[picture])
        return drawn.reshape(self._rows[picture].shape)


Halves = Repetitions | AddedNoise


@dataclass(frozen=True)
class NullSignals:
    """Raw signals: ``a``, ``b`` (n, ...) of pairs of independent null brains, drawn with the noise seeds of the n test
    pictures ``ids``, all different; ``base`` (`BASE`, ...) of further ones. ``left_out``: repetitions left out."""

    a: np.ndarray
    b: np.ndarray
    base: np.ndarray
    ids: tuple[str, ...]
    left_out: int


def halves_of(run: Run, recording: Recording, seed: int) -> Halves:
    """`Repetitions` where every test picture has two or more, else `AddedNoise`."""
    if np.unique(recording.test.stimulus, return_counts=True)[1].min() > 1:
        return Repetitions(recording, seed)
    return AddedNoise(recording, seed, _scale(recording) * unexplained(run, recording))


def null_signals(run: Run, recording: Recording, source: Halves, n: int, seed: int) -> NullSignals:
    """At most ``n`` pairs of null brains: every one from another test picture, drawn by ``seed``.

    Raises `UserError` for less than `LEAST`, and when the recording has too few test pictures for that.
    """
    from recon.decoding.predict import signals_at_rest

    if n < LEAST:
        raise UserError(f"--nulls {n} should be {LEAST} or more: half of them set the threshold, half check it")
    shown = np.unique(recording.test.stimulus)
    n = min(n, (len(shown) - BASE) // 2)
    if n < LEAST:
        raise UserError(f"null brains need {2 * LEAST + BASE} test pictures, {recording.study} has {len(shown)}")
    chosen = np.random.default_rng(derive(seed, "null brain")).permutation(shown)[: 2 * n + BASE]
    x = signals_at_rest(run) + np.stack([source.null(int(i)) for i in chosen])
    a, b, base = (part.astype(np.float32) for part in np.split(x, [n, 2 * n]))
    return NullSignals(a, b, base, tuple(recording.stimuli.ids[i] for i in chosen[:n]), source.left_out(chosen))


def unexplained(run: Run, recording: Recording) -> np.ndarray:
    """(K, V): flat training rows, averaged per picture, less what ridge regression predicts for them out of fold.

    Of `PENALTIES` the one that leaves least. Holds whatever part of the response is not linear in the components.
    """
    import torch

    from align.data.splits import grouped_folds
    from align.encoders.ridge import RidgePath
    from recon.decoding.bridges.pairs import components_of
    from recon.decoding.predict import picture_tokens

    train = recording.train.averaged()
    x = torch.from_numpy(train.x.reshape(len(train), -1).astype(np.float64))
    seen = components_of(run, picture_tokens(run, recording), train.stimulus).cpu().double()
    folds = grouped_folds(np.asarray(recording.stimuli.groups)[train.stimulus], FOLDS, run.config.seed)
    paths = [RidgePath(seen[rows], x[rows]) for rows, _ in folds]

    def left_by(alpha: float) -> torch.Tensor:
        left = torch.zeros_like(x)
        for path, (_, out) in zip(paths, folds, strict=True):
            left[out] = x[out] - path.predict(seen[out], [alpha])[0]
        return left

    best = min(PENALTIES, key=lambda alpha: float(left_by(alpha).square().sum()))
    least: np.ndarray = left_by(best).numpy()
    return least


def noise_like(left: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,): noise with the covariance of rows (K, V) and `MARGIN` of its diagonal on top, without forming it."""
    deviation = np.sqrt((left**2).mean(axis=0))
    together = rng.normal(size=len(left)) @ left / np.sqrt(len(left))
    noise: np.ndarray = together + np.sqrt(MARGIN) * deviation * rng.normal(size=left.shape[1])
    return noise


def _scale(recording: Recording) -> float:
    """Noise of a test row over that of a training average: the root of how often a training picture was shown.

    A test row that was averaged before it was stored has less; nothing in a recording tells that.
    """
    return float(np.sqrt(len(recording.train) / len(np.unique(recording.train.stimulus))))
