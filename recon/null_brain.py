"""Signals of a null brain: the noise of an averaged test row around rest, and no picture.

From repetitions: half of those of a test picture minus the other half, divided by their number (plus-minus averaging,
Schimmel 1967, J Acoust Soc Am 41: 401-404). What a picture evokes cancels, the noise of the average stays. Of an odd
number of repetitions one, drawn at random, is left out, so that such noise is a little larger than that of the average.
Every test picture gives one null brain at most: their noise is independent.

Where no test picture was repeated: Gaussian noise with the covariance of what ridge regression from the run's target
components leaves of averaged training rows (out of fold, shrunken towards the diagonal). That holds whatever part of
the response is not linear in the components, so it is rather too much noise than too little.
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
    from recon.conditions import Condition
    from recon.decoder import Decoder
    from recon.generation.adapters import Adapter
    from recon.generation.bridges.choose import Conditioning
    from recon.library import Library

PLUS_MINUS, GAUSSIAN = "plus-minus", "gaussian"
NOISE = {
    PLUS_MINUS: "half the repetitions of a test picture minus the other half",
    GAUSSIAN: "noise like what the training pictures leave unexplained of the training signals",
}
LEAST = 4  # null brains: two to set a threshold, two to check it
FOLDS = 5
PENALTIES = tuple(10.0**k for k in range(-2, 6))  # components have variance 1 on average


@dataclass(frozen=True)
class NullSignals:
    """``x`` (n, ...) raw signals, one row for each of the test pictures ``ids``, all different, whose noise seeds they
    are drawn with. ``kind``: `PLUS_MINUS` or `GAUSSIAN`. ``left_out``: how many rows had to leave a repetition out."""

    x: np.ndarray
    ids: tuple[str, ...]
    kind: str
    left_out: int = 0


def null_signals(run: Run, recording: Recording, n: int, seed: int) -> NullSignals:
    """At most ``n`` null brains, of test pictures drawn by ``seed``.

    Raises `UserError` for less than `LEAST`, and when the recording has fewer test pictures than that.
    """
    from recon.predict import signals_at_rest

    if n < LEAST:
        raise UserError(f"--nulls {n} should be {LEAST} or more: half of them set the threshold, half check it")
    shown, counts = np.unique(recording.test.stimulus, return_counts=True)
    repeated = shown[counts > 1]
    kind = PLUS_MINUS if len(repeated) >= LEAST else GAUSSIAN
    chosen = np.random.default_rng(derive(seed, "null brain")).permutation(repeated if kind == PLUS_MINUS else shown)[
        :n
    ]
    if len(chosen) < LEAST:
        raise UserError(f"null brains need {LEAST} test pictures, {recording.study} has {len(shown)}")
    ids = tuple(recording.stimuli.ids[i] for i in chosen)
    rngs = [np.random.default_rng(derive(seed, "null brain", name)) for name in ids]
    if kind == PLUS_MINUS:
        rows = [np.flatnonzero(recording.test.stimulus == i) for i in chosen]
        noise = np.stack([plus_minus(recording.test.x[r], rng) for r, rng in zip(rows, rngs, strict=True)])
        left_out = sum(len(r) % 2 for r in rows)
    else:
        left, scale = unexplained(run, recording), _scale(recording)
        noise = scale * np.stack([gaussian(left, rng) for rng in rngs]).reshape(len(ids), *recording.test.x.shape[1:])
        left_out = 0
    return NullSignals((signals_at_rest(run) + noise).astype(np.float32), ids, kind, left_out)


def plus_minus(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Repetitions (k, ...), k > 1, to one row: a random half minus the other half, divided by how many are used."""
    order = rng.permutation(len(x))[: len(x) - len(x) % 2]
    half = len(order) // 2
    plus, minus = (x[rows].sum(axis=0, dtype=np.float64) for rows in (order[:half], order[half:]))
    noise: np.ndarray = (plus - minus) / len(order)
    return noise


def unexplained(run: Run, recording: Recording) -> np.ndarray:
    """(K, V): flat training rows, averaged per picture, less what ridge regression predicts for them out of fold.

    Of `PENALTIES` the one that leaves least.
    """
    import torch

    from align.data.splits import grouped_folds
    from align.encoders.ridge import RidgePath
    from recon.generation.bridges.pairs import components_of
    from recon.predict import picture_tokens

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


def gaussian(left: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,): noise with the covariance of rows (K, V), shrunken as encoding models shrink it, without forming it."""
    from align.encoding import SHRINKAGE

    deviation = np.sqrt((left**2).mean(axis=0))
    together = rng.normal(size=len(left)) @ left / np.sqrt(len(left))
    noise: np.ndarray = np.sqrt(1 - SHRINKAGE) * together + np.sqrt(SHRINKAGE) * deviation * rng.normal(
        size=left.shape[1]
    )
    return noise


def _scale(recording: Recording) -> float:
    """Noise of a test row over that of a training average: the root of how often a training picture was shown.

    A test row that was averaged before it was stored has less; nothing in a recording tells that.
    """
    return float(np.sqrt(len(recording.train) / len(np.unique(recording.train.stimulus))))


def null_condition(decoder: Decoder, adapter: Adapter, wanted: Conditioning, null: NullSignals, seed: int) -> Condition:
    """What the decoder makes of null brains, on every path that it takes for the signals of a brain."""
    from recon.conditions import Condition
    from recon.low_level import decoded_pixels
    from recon.predict import open_recording
    from recon.words import retrieved_captions

    run, told = decoder.run, decoder.run.aligner.predict(null.x)
    pixels = prompts = library = None
    if run.config.encoder.name == "encoding":
        from recon.library import read_library

        library = read_library(run)
    tokens = told["tokens"] if library is None else _from_library(run, adapter, library, told["embeds"], seed)
    if decoder.low_level in ("pixels", "both"):
        pixels = decoded_pixels(run, open_recording(run), null.x, library)
    if wanted.words != "none":
        prompts = retrieved_captions(run, open_recording(run), told["embeds"])
    return Condition(tokens, ("",) * len(null.ids), told["embeds"], pixels, prompts)


def _from_library(run: Run, adapter: Adapter, library: Library, embeds: np.ndarray, seed: int) -> np.ndarray:
    from recon.conditions import LibraryTokens
    from recon.predict import signals_at_rest

    assert adapter.info is not None  # the decoder refuses any other for an encoding model
    silence = run.aligner.predict(signals_at_rest(run))["embeds"][0]
    target = adapter.info.layer, adapter.info.pooling
    return LibraryTokens(run, library, embeds, silence, target).tokens(seed)
