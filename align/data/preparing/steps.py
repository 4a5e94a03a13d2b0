"""The steps of ``config.preprocess`` as functions on trials; what a step needs to know is fitted on training rows.

A `Chain` starts as the signals are stored. Every step checks its keys against the chain so far, appends a function
(trials float64, their sessions) -> trials, and updates what is known of the axes. A step that is fitted streams the
training rows through the steps before it, a piece at a time.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator

import numpy as np

from align.config import PreprocessConfig
from align.data.preparing.noise_normalisation import session_covariances, whitener
from align.data.reading.safe_load import require_finite
from align.data.signals import Recording, Trials, release
from align.data.spans import span
from align.errors import UserError

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]

PIECE = 1 << 23  # bytes of float64 signals that are worked on at once
SAMPLED = 1 << 24  # values of which quartiles are taken, per recording with time, per block of voxels without
_CONSTANT = 1e-12  # a spread below this part of the largest value is rounding: the channel is left unscaled


class Chain:
    """Signals of one recording after the steps so far: shape of a trial, names, rate, first time, and a log."""

    def __init__(self, recording: Recording, picks: np.ndarray | None = None) -> None:
        shape = recording.train.x.shape[1:]
        if len(shape) not in (1, 2) or recording.test.x.shape[1:] != shape:
            raise UserError(
                f"signals of {recording.study} subject {recording.subject} are {recording.train.x.shape} in training "
                f"and {recording.test.x.shape} in the test; expected (n, C, T) or (n, V), alike in both"
            )
        self.what = f"{recording.study} subject {recording.subject}"
        if not len(recording.train):
            raise UserError(f"{self.what} has no training trials; no step can be fitted")
        self.train, self.test = recording.train, recording.test
        self.by_session = recording.train.session is not None and recording.test.session is not None
        self.picks = picks  # channels that are read; None = all
        self.shape: tuple[int, ...] = shape
        self.ch_names, self.sfreq, self.tmin = recording.ch_names, recording.sfreq, recording.tmin
        self.steps: list[Step] = []
        self.log: list[str] = []
        self.fitted: dict[str, np.ndarray] = {}  # what the steps learned from training rows, by the step that did

    def pieces(
        self, trials: Trials, every: int = 1, columns: slice = slice(None)
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(row numbers, float64 trials) through the steps so far; ``every`` k-th row, ``columns`` = some channels."""
        sessions = self.sessions(trials)
        picks = columns if self.picks is None else self.picks[columns]
        count = max(1, PIECE // (8 * max(1, math.prod(trials.x.shape[1:]))))
        for start in range(0, len(trials), count * every):
            rows = np.arange(start, min(start + count * every, len(trials)), every)
            read = trials.x[start : start + count * every : every]
            x = np.array(read[:, picks], dtype=np.float64, order="C")
            release(trials.x)
            split = "train" if trials is self.train else "test"
            require_finite(x, f"signals of {self.what}, {split} rows {rows[0]} to {rows[-1]}")
            for step in self.steps:
                x = step(x, sessions[rows])
            yield rows, x

    def sessions(self, trials: Trials) -> np.ndarray:
        """The recording session (n,) of every trial; all 0 where not both splits name theirs."""
        return np.asarray(trials.session) if self.by_session else np.zeros(len(trials), dtype=np.int64)

    def require_time(self, key: str, rate: bool = True) -> float:
        """The sampling rate; raises `UserError` where the signals have no time axis, or no ``rate`` is known."""
        if len(self.shape) != 2:
            raise UserError(f"{key} needs signals over time (n, C, T); those of {self.what} are (n, {self.shape[0]})")
        if rate and self.sfreq is None:
            raise UserError(f"{key} needs the sampling rate, which {self.what} does not give (info.json: sfreq)")
        return self.sfreq or 0.0

    def sample(self, t: float) -> int:
        """Index of the sample nearest to ``t`` s; may lie outside the trial."""
        rate = self.sfreq or 0.0
        return int(np.round(t * rate)) - int(np.round(self.tmin * rate))

    def span(self) -> str:
        """The window in words."""
        rate = self.sfreq or 0.0
        return f"{span(self.tmin, self.shape[1], rate)} at {rate:g} Hz"


def plan_chain(recording: Recording, config: PreprocessConfig, picks: np.ndarray | None = None) -> Chain:
    """The steps that need no fit, all keys checked; no signal is read. Raises `UserError` naming key and value.

    ``picks``: channels or voxels chosen already, in place of ``config.channels``.
    """
    config.check("preprocess.")
    chain = Chain(recording, picks)
    for step in (_channels, _baseline, _crop, _resample):
        step(chain, config)
    if config.mvnn:
        _require_sessions(chain)
    return chain


def fit_chain(chain: Chain, config: PreprocessConfig) -> None:
    """Append the steps that are fitted, and the clamp after them."""
    for step in (_mvnn, _scale, _clamp):
        step(chain, config)


def refit_chain(chain: Chain, config: PreprocessConfig, fitted: dict[str, np.ndarray]) -> None:
    """As `fit_chain`, with what the steps learned earlier (``Chain.fitted``)."""
    if config.mvnn:
        _whiten(chain, {key.partition("/")[2]: root for key, root in fitted.items() if key.startswith("whitener/")})
    if config.scale != "none":
        _standardise(chain, fitted["centre"], fitted["spread"])
    _clamp(chain, config)


def select_channels(wanted: list[str], names: tuple[str, ...], what: str) -> np.ndarray:
    """Indices into ``names`` in the order of ``wanted``: exact names, or regular expressions for whole names.

    Raises `UserError` for an entry that fits no channel, and for a channel that is chosen twice.
    """
    if not names:
        raise UserError(f"preprocess.channels={wanted} needs channel names, which {what} does not give")
    chosen: dict[int, str] = {}
    for entry in wanted:
        try:
            pattern = re.compile(entry)
        except re.error as error:
            raise UserError(f"preprocess.channels: {entry!r} is no regular expression ({error})") from error
        found = [i for i, name in enumerate(names) if name == entry]
        found = found or [i for i, name in enumerate(names) if pattern.fullmatch(name)]
        if not found:
            near = difflib.get_close_matches(entry, names, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise UserError(
                f"preprocess.channels: {entry!r} fits no channel of {what}{hint} A regular expression must fit the "
                f"whole name ('O.*'); there are: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
            )
        for i in found:
            if i in chosen or names.count(names[i]) > 1:
                by = f"{chosen[i]!r} and {entry!r}" if i in chosen else f"{entry!r}: the recording has it twice"
                raise UserError(f"preprocess.channels chooses the channel {names[i]!r} twice ({by}); name it once")
            chosen[i] = entry
    return np.array(list(chosen), dtype=np.int64)


def resampled(x: np.ndarray, old: float, new: float) -> np.ndarray:
    """x (..., T) from ``old`` to ``new`` Hz: (..., round(T new / old)) float64.

    The numbers of `mne.Epochs.resample` with its defaults: edges held, at least min(T // 8, 100) samples on either
    side, up to a length that is a power of two; Fourier coefficients cut (or extended by zeros) there. Where that
    length times new / old is no whole number, sample times are off by up to half a new sample, as they are in MNE.
    """
    from scipy import fft

    n, ratio = x.shape[-1], new / old
    length = 2 ** math.ceil(math.log2(n + 2 * min(n // 8, 100)))
    left, right = (length - n) // 2, (length - n + 1) // 2
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(left, right)], mode="edge")
    new_length = max(round(ratio * length), 1)
    spectrum = fft.rfft(padded)
    shorter = min(length, new_length)
    if shorter % 2 == 0:  # the Nyquist coefficient stands for two; one of them is new or gone
        spectrum[..., shorter // 2] *= 2.0 if new_length < length else 0.5
    start = round(ratio * left)
    out: np.ndarray = fft.irfft(spectrum, new_length)[..., start : start + max(round(ratio * n), 1)]
    return out * (new_length / length)


def _channels(chain: Chain, config: PreprocessConfig) -> None:
    if config.channels:
        chain.picks = select_channels(config.channels, chain.ch_names, chain.what)
    if chain.picks is None:
        return
    chain.log.append(f"kept {len(chain.picks)} of {chain.shape[0]} channels")
    if chain.ch_names:
        chain.ch_names = tuple(chain.ch_names[i] for i in chain.picks)
    chain.shape = (len(chain.picks), *chain.shape[1:])


def _baseline(chain: Chain, config: PreprocessConfig) -> None:
    if not config.baseline:
        return
    chain.require_time("preprocess.baseline")
    start, stop = chain.sample(config.baseline[0]), chain.sample(config.baseline[1]) + 1
    if start < 0 or stop > chain.shape[1]:
        raise UserError(
            f"preprocess.baseline={config.baseline} leaves the window of {chain.what}, {chain.span()}; choose it inside"
        )
    chain.steps.append(lambda x, _: x - x[:, :, start:stop].mean(axis=2, keepdims=True))
    chain.log.append(f"subtracted the mean of {config.baseline[0]:g} to {config.baseline[1]:g} s")


def _crop(chain: Chain, config: PreprocessConfig) -> None:
    if config.tmin is None and config.tmax is None:
        return
    rate = chain.require_time("preprocess.tmin" if config.tmin is not None else "preprocess.tmax")
    start = 0 if config.tmin is None else chain.sample(config.tmin)
    stop = chain.shape[1] if config.tmax is None else chain.sample(config.tmax)
    if start < 0 or start >= chain.shape[1]:
        raise UserError(f"preprocess.tmin={config.tmin:g} lies outside the window of {chain.what}, {chain.span()}")
    if not start < stop <= chain.shape[1]:
        raise UserError(
            f"preprocess.tmax={config.tmax:g} leaves nothing of, or goes beyond, the window of {chain.what}, "
            f"{chain.span()}; tmax itself is not included, so it may be {chain.tmin + chain.shape[1] / rate:g} at most"
        )
    chain.steps.append(lambda x, _: x[:, :, start:stop])
    chain.tmin += start / rate
    chain.shape = (chain.shape[0], stop - start)
    chain.log.append(f"cropped to {chain.span()}, {stop - start} samples")


def _resample(chain: Chain, config: PreprocessConfig) -> None:
    if config.sfreq is None:
        return
    old, new = chain.require_time("preprocess.sfreq"), config.sfreq
    if new == old:
        return
    chain.steps.append(lambda x, _: resampled(x, old, new))
    chain.shape = (chain.shape[0], max(round(chain.shape[1] * (new / old)), 1))
    chain.sfreq = new
    chain.log.append(f"resampled from {old:g} to {new:g} Hz, {chain.shape[1]} samples")


def _mvnn(chain: Chain, config: PreprocessConfig) -> None:
    if not config.mvnn:
        return
    session = chain.sessions(chain.train)
    covariances = session_covariances(chain.pieces(chain.train), chain.train.stimulus, session)
    roots = {name: whitener(c, chain.ch_names, f"{chain.what}, session {name}") for name, c in covariances.items()}
    _whiten(chain, roots)
    where = f"each of {len(roots)} recording sessions" if chain.by_session else "all trials as one session (none named)"
    chain.log.append(f"whitened {where} by the noise covariance of its training trials (MVNN)")


def _whiten(chain: Chain, roots: dict[str, np.ndarray]) -> None:
    chain.fitted |= {f"whitener/{name}": root for name, root in roots.items()}

    def whiten(x: np.ndarray, sessions: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        for name in np.unique(sessions):
            out[sessions == name] = roots[str(name)] @ x[sessions == name]
        return out

    chain.steps.append(whiten)


def _scale(chain: Chain, config: PreprocessConfig) -> None:
    if config.scale == "none":
        return
    centre, spread, size, used = (_moments if config.scale == "zscore" else _quartiles)(chain)
    flat = ~(spread > _CONSTANT * size)
    spread[flat] = 1.0
    form = (-1, 1) if len(chain.shape) == 2 else (-1,)
    centre, spread = centre.reshape(form), spread.reshape(form)
    _standardise(chain, centre, spread)
    how = "mean and standard deviation" if config.scale == "zscore" else "median and interquartile range"
    unit = "channel" if len(chain.shape) == 2 else "voxel"
    left = f"; {int(flat.sum())} without spread only centred" if flat.any() else ""
    chain.log.append(f"scaled every {unit} by {how} of {used} training trials{left}")


def _standardise(chain: Chain, centre: np.ndarray, spread: np.ndarray) -> None:
    chain.fitted |= {"centre": centre, "spread": spread}
    chain.steps.append(lambda x, _: (x - centre) / spread)


def _clamp(chain: Chain, config: PreprocessConfig) -> None:
    if config.clamp is None:
        return
    limit = config.clamp
    chain.steps.append(lambda x, _: np.clip(x, -limit, limit))
    chain.log.append(f"clamped to {limit:g}")


def _moments(chain: Chain) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Mean, standard deviation, largest absolute value per channel over training rows and samples; rows used."""
    count, mean, squares, size = 0, np.zeros(()), np.zeros(()), np.zeros(())
    for _, x in chain.pieces(chain.train):
        flat = _by_channel(x)
        n, middle = flat.shape[1], flat.mean(axis=1)
        squares = squares + ((flat - middle[:, None]) ** 2).sum(axis=1)
        squares = squares + (middle - mean) ** 2 * (count * n / (count + n))  # two groups joined: Chan et al. 1979
        mean = mean + (middle - mean) * (n / (count + n))
        count, size = count + n, np.maximum(size, np.abs(flat).max(axis=1))
    return mean, np.sqrt(squares / count), size, len(chain.train)


def _quartiles(chain: Chain) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Median, interquartile range, largest absolute value per channel or voxel, of float32 values; rows used.

    With time: of every k-th training trial, k so that at most `SAMPLED` values are held (250,000 per channel of 63).
    Without: of all training rows, a block of voxels at a time.
    """
    n, width = len(chain.train), chain.shape[0]
    every, blocks = math.ceil(n * math.prod(chain.shape) / SAMPLED), [slice(None)]
    if len(chain.shape) == 1:
        step = max(1, SAMPLED // n)
        every, blocks = 1, [slice(start, start + step) for start in range(0, width, step)]
    found = []
    for block in blocks:
        kept = [x.astype(np.float32) for _, x in chain.pieces(chain.train, every, block)]
        for channel in range(kept[0].shape[1]):
            values = np.concatenate([x[:, channel].ravel() for x in kept]).astype(np.float64)
            low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
            found.append((middle, high - low, np.abs(values).max()))
    centre, spread, size = np.array(found).T.copy()
    return centre, spread, size, len(range(0, n, every))


def _by_channel(x: np.ndarray) -> np.ndarray:
    """(B, C, T) or (B, V) as (C, values) or (V, values)."""
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


def _require_sessions(chain: Chain) -> None:
    """Every session of the test has training trials to fit on."""
    chain.require_time("preprocess.mvnn", rate=False)
    alone = np.setdiff1d(chain.sessions(chain.test), chain.sessions(chain.train))
    if len(alone):
        raise UserError(
            f"preprocess.mvnn=true: session {str(alone[0])!r} of {chain.what} has test trials but no training trials "
            "to fit on; set preprocess.mvnn=false"
        )
