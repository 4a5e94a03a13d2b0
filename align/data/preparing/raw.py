"""Signals that come later, prepared as the training rows of a recording were: the same steps with the same numbers."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from align.config import Config, PreprocessConfig, load_config, set_key
from align.data.channel_profile import Profile
from align.data.measure import FAR_ROW, far_rows
from align.data.preparing.steps import Chain, fit_chain, plan_chain, refit_chain
from align.data.reading.safe_load import require_finite
from align.data.signals import Recording, Stimuli, Trials, release, trial_size
from align.errors import UserError
from align.files import read_tensors, save_tensors
from align.files.checksums import MADE_FOR
from align.files.json_text import parse_json, reading

PREPARATION = "preparation.safetensors"  # beside cached signals, and in the folder of a run
FAR = 20.0  # ratio of two median sizes from which other units are suspected; people differ by less
_PROFILE = "profile/"  # begins the names of its arrays in a file
_LARGEST = 1 << 31  # values of a trial
_FACTS = {
    "study": str,
    "subject": str,
    "in_shape": [int],
    "ch_names": [str],
    "sfreq": (float, None),
    "tmin": float,
    "size": float,
    "preprocess": {},
}
_LOOKED_AT = 1 << 20  # values of which the median size is taken


@dataclass(frozen=True)
class Preparation:
    """What was done to the stored trials of one recording before an encoder was trained on them.

    ``recording``: facts alone, no trials and no pictures. ``fitted``: what the steps learned from training rows.
    ``size``: median absolute value of the stored training trials; 0 = not known. ``profile``: of their channels; None =
    not known, as in older files.
    """

    recording: Recording
    steps: PreprocessConfig
    picks: np.ndarray | None
    fitted: dict[str, np.ndarray]
    size: float
    profile: Profile | None = None

    @classmethod
    def fit(cls, recording: Recording, steps: PreprocessConfig, picks: np.ndarray | None = None) -> Preparation:
        """The steps fitted on the training rows of ``recording``, as stored. Raises `UserError` as `prepare` does."""
        chain = plan_chain(recording, steps, picks)
        fit_chain(chain, steps)
        return cls.of_chain(recording, steps, picks, chain)

    @classmethod
    def of_chain(
        cls, recording: Recording, steps: PreprocessConfig, picks: np.ndarray | None, chain: Chain
    ) -> Preparation:
        """Of steps that were fitted on ``recording``."""
        x = recording.train.x
        return cls(_bare(recording), steps, picks, chain.fitted, median_size(x), Profile.of(x))

    @classmethod
    def none(cls, study: str, subject: str, shape: tuple[int, ...], size: float = 0.0) -> Preparation:
        """That of trials (n, *shape) that are used as they are stored."""
        none, zero = np.zeros(1, np.int64), np.zeros((1, *shape), np.float32)
        return cls(train_only(zero, none, _no_pictures(), study, subject), PreprocessConfig(), None, {}, size)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one trial as it is stored, (C, T) or (V,)."""
        return tuple(self.recording.train.x.shape[1:])

    def chain(self) -> Chain:
        """The steps; ``shape``, ``ch_names``, ``sfreq`` and ``tmin`` are those of prepared trials."""
        chain = plan_chain(self.recording, self.steps, self.picks)
        refit_chain(chain, self.steps, self.fitted)
        return chain

    def __call__(self, x: np.ndarray, session: np.ndarray | None = None) -> np.ndarray:
        """Trials (n, ...) as stored to float32 trials as the encoder was trained on.

        ``session`` (n,): asked for where the steps whiten by session. Warns where the median size is `FAR` from that of
        the training trials, and where channels differ from them (`Profile`). Raises `UserError` for another shape, an
        unknown session, NaN and infinity.
        """
        if x.shape[1:] != self.in_shape:
            rows = ", ".join(map(str, self.in_shape))
            raise UserError(f"signals have shape {x.shape}, training trials were (n, {rows}); pass (n, {rows})")
        require_finite(x, "signals")
        self._compare(x)
        chain = self.chain()
        trials = Trials(x, np.zeros(len(x), np.int64), np.zeros(len(x), np.int64), self._sessions(chain, x, session))
        chain.by_session = trials.session is not None
        out = np.empty((len(x), *chain.shape), dtype=np.float32)
        for numbers, part in chain.pieces(trials):
            out[numbers] = part
        return out

    def _compare(self, x: np.ndarray) -> None:
        told = self._unlike_training(x) if self.size and len(x) else ""
        if told:
            warnings.warn(told, stacklevel=4)

    def _unlike_training(self, x: np.ndarray) -> str:
        """What differs most from training in the unit of trials or channels, their order or sign; "" = nothing."""
        found = median_size(x)
        if found and not 1 / FAR < found / self.size < FAR:
            return (
                f"the signals are {found / self.size:.3g} times as large as those of training (median absolute value "
                f"{found:.3g} and {self.size:.3g}); pass them in the same unit"
            )
        if not found and not x.any():
            return "every value of the signals is 0; what is predicted from them means nothing"
        channels = self.profile.faults(x, self.recording.ch_names) if self.profile else ""
        if channels:
            return channels
        far = far_rows(x, self.size)
        if not far:
            return ""
        return (
            f"{len(far)} of {len(x)} trials are more than {FAR_ROW:g} times as large or as small as those of training "
            f"(first: row {far[0]}); pass all in the same unit, leave out broken ones"
        )

    def _sessions(self, chain: Chain, x: np.ndarray, session: np.ndarray | None) -> np.ndarray | None:
        known = [key.partition("/")[2] for key in self.fitted if key.startswith("whitener/")]
        if len(known) < 2:
            return np.full(len(x), known[0]) if known else None
        if session is None or len(session) != len(x):
            raise UserError(f"trials are whitened by session (preprocess.mvnn); name one per trial: {', '.join(known)}")
        strange = sorted({str(name) for name in session} - set(known))
        if strange:
            raise UserError(f"session {strange[0]!r} has no training trials; known: {', '.join(known)}")
        return np.asarray(session)

    def differs(self, recording: Recording) -> str:
        """Which fact about the channels or voxels of ``recording``, prepared by its study, is another one than here;
        "" = none."""
        now = recording.preparation or Preparation(_bare(recording), PreprocessConfig(), None, {}, 0.0)
        facts: dict[str, list[Any]] = {
            f"trials of another shape ({trial_size(now.in_shape)}, not {trial_size(self.in_shape)})": [
                one.in_shape for one in (self, now)
            ],
            "other channel names (ch_names)": [one.recording.ch_names for one in (self, now)],
            "another sampling rate (sfreq)": [one.recording.sfreq for one in (self, now)],
            "another first sample (tmin)": [one.recording.tmin for one in (self, now)],
            "other channels or voxels in its regions (roi)": [_listed(one.picks) for one in (self, now)],
        }
        return next((told for told, (before, after) in facts.items() if before != after), "")

    def save(self, path: str | Path, *, weights: str = "", key: str = "") -> None:
        """Write it to one safetensors file.

        ``weights``: hash of those that were trained on signals prepared so; ``key``: of the cache that it is for.
        """
        import torch

        arrays = dict(self.fitted) if self.picks is None else {**self.fitted, "picks": self.picks}
        if self.profile is not None:
            arrays |= {f"{_PROFILE}{name}": value for name, value in vars(self.profile).items()}
        facts = {
            "study": self.recording.study,
            "subject": self.recording.subject,
            "in_shape": list(self.in_shape),
            "ch_names": list(self.recording.ch_names),
            "sfreq": self.recording.sfreq,
            "tmin": self.recording.tmin,
            "size": self.size,
            "preprocess": asdict(self.steps),
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        marks = {"weights": weights, MADE_FOR: key}
        told = {"preparation": json.dumps(facts), **{name: mark for name, mark in marks.items() if mark}}
        save_tensors(path, tensors or {"none": torch.zeros(1)}, told)

    @classmethod
    def load(cls, path: str | Path) -> Preparation:
        """Read what `save` wrote; raises `UserError` for another file."""
        tensors, metadata = read_tensors(path)
        if "preparation" not in metadata:
            raise UserError(f"{str(path)!r} says nothing of how signals were prepared; save the decoder again")
        source = f"{str(path)!r}, its preparation"
        facts = parse_json(metadata["preparation"], source, _FACTS)
        _require_numbers(tensors, source)
        config = load_config(Config)
        with reading(source):
            for name, value in facts["preprocess"].items():
                set_key(config, f"preprocess.{name}", value)
            config.preprocess.check("preprocess.")
        arrays = {name: value.numpy() for name, value in tensors.items() if name != "none"}
        picks = arrays.pop("picks", None)
        if not facts["in_shape"] or min(facts["in_shape"]) < 1 or math.prod(facts["in_shape"]) > _LARGEST:
            raise UserError(f"{source}: no trial has the shape {facts['in_shape']}; the file is damaged")
        if picks is not None and not (picks.ndim == 1 and _inside(picks, facts["in_shape"][0])):
            raise UserError(f"{source}: the channels it picks are not those of the trials; the file is damaged")
        known = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_PROFILE)}
        profile = _profile(known, facts["in_shape"], source)
        recording = train_only(
            np.zeros((1, *facts["in_shape"]), np.float32),
            np.zeros(1, np.int64),
            _no_pictures(),
            study=facts["study"],
            subject=facts["subject"],
            ch_names=tuple(facts["ch_names"]),
            sfreq=facts["sfreq"],
            tmin=facts["tmin"],
        )
        return cls(recording, config.preprocess, picks, arrays, facts["size"], profile)


def _profile(arrays: dict[str, np.ndarray], in_shape: list[int], source: str) -> Profile | None:
    if not arrays:
        return None
    shapes = {f"{_PROFILE}sizes": (in_shape[0],), f"{_PROFILE}middle": tuple(in_shape)}
    if {name: value.shape for name, value in arrays.items()} != shapes:
        raise UserError(f"{source}: the sizes of its channels are not those of the trials; the file is damaged")
    return Profile(*(arrays[name] for name in shapes))


def _listed(picks: np.ndarray | None) -> list[int] | None:
    return None if picks is None else picks.tolist()


def _inside(picks: np.ndarray, count: int) -> bool:
    return picks.dtype.kind == "i" and len(picks) > 0 and int(picks.min()) >= 0 and int(picks.max()) < count


def _require_numbers(tensors: dict[str, Any], source: str) -> None:
    for name, value in tensors.items():
        if value.is_complex() or not np.isfinite(value.double().numpy()).all():
            raise UserError(f"{source}: {name!r} holds values that are not finite numbers; the file is damaged")


def train_only(
    x: np.ndarray,
    stimulus: np.ndarray,
    stimuli: Stimuli,
    study: str,
    subject: str,
    ch_names: tuple[str, ...] = (),
    sfreq: float | None = None,
    tmin: float = 0.0,
) -> Recording:
    """A recording whose trials (n, ...) are all for training: its test has no row."""
    none = np.zeros(0, np.int64)
    train = Trials(x, stimulus, np.zeros(len(x), np.int64))
    return Recording(study, subject, train, Trials(x[:0], none, none), stimuli, ch_names, sfreq, tmin)


def median_size(x: np.ndarray) -> float:
    """Median absolute value of trials spread over ``x`` (n, ...), of about a million values; 0 for none."""
    if not x.size:
        return 0.0
    count = min(len(x), max(1, _LOOKED_AT // max(1, x[0].size)))
    rows = np.linspace(0, len(x) - 1, count).astype(np.int64)
    size = float(np.median(np.abs(np.asarray(x[np.unique(rows)], dtype=np.float64))))
    release(x)
    return size


def _bare(recording: Recording) -> Recording:
    """Facts of a recording with one empty trial, for `plan_chain`."""
    shape, one = recording.train.x.shape[1:], np.zeros(1, np.int64)
    empty = Trials(np.zeros((1, *shape), np.float32), one, one)
    return replace(recording, train=empty, test=empty, stimuli=_no_pictures(), log=())


def _no_pictures() -> Stimuli:
    def load(i: int) -> np.ndarray:
        raise UserError(f"picture {i}: none is kept with the preparation of signals")

    return Stimuli((), load, np.zeros(0, np.int64), (), ())
