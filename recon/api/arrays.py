"""Arrays and `mne.Epochs` as a study folder: which trial shows which picture, which pictures are the test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from align.data.importing.arrays import Picture, as_pictures, as_signals
from align.data.importing.layout import Shown, write_layout
from align.data.importing.people import people_of, refuse_several
from align.data.importing.trials import from_frame
from align.data.reading.safe_load import decode_image
from align.data.splits import grouped_folds, merge_groups, scene_groups, thumbnails
from align.errors import UserError

SPLITS = ("train", "test", "unused")
SHARE = 5  # without a split of the user's, one of so many groups of pictures is the test
_USUAL = {"test": "split", "groups": "concept", "session": "session"}  # columns of metadata that are taken unasked
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The trials of one subject: ``signals`` (n, ...); all else (n,), as the user gave it, or None."""

    subject: str
    signals: np.ndarray
    stimulus: Any = None
    test: Any = None
    groups: Any = None
    session: Any = None
    repetition: Any = None


@dataclass(frozen=True)
class Album:
    """The pictures given: ``names`` of every one in its order, the distinct ones in ``files``."""

    names: list[str]
    files: dict[str, Picture]
    stems: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Any) -> Album:
        names, files = as_pictures(images)
        stems: dict[str, str] = {}
        for name in files:  # "cat" finds cat.jpg, and "cat.jpg" finds animals/cat.jpg, where only one fits
            tails = {name, name.rsplit("/", 1)[-1]}
            for known in tails | {str(Path(tail).with_suffix("")) for tail in tails}:
                stems[known] = name if stems.get(known, name) == name else ""
        return cls(names, files, {**stems, **{name: name for name in files}})

    def find(self, wanted: Any, what: str) -> str:
        """The name of the picture meant by a number (place in the list) or a name."""
        if isinstance(wanted, int | np.integer) and not isinstance(wanted, bool):
            if not 0 <= wanted < len(self.names):
                raise UserError(f"{what} {wanted} is no picture: there are {len(self.names)}, counted from 0")
            return self.names[int(wanted)]
        found = self.stems.get(str(wanted))
        if found:
            return found
        why = "fits several" if found == "" else "is none"
        raise UserError(f"{what} {str(wanted)!r} {why} of the {len(self.files)} pictures, first {self.names[0]!r}")


def write_study(parts: Sequence[Part], album: Album, info: Mapping[str, Any], out: Path, link: bool) -> Path:
    """Write the trials of all subjects as one folder study; see `align.data.importing.layout.write_layout`.

    Raises `UserError` where shapes, pictures, splits or labels do not fit.
    """
    first = parts[0].signals.shape[1:]
    for part in parts:
        if part.signals.shape[1:] != first:
            raise UserError(
                f"subjects {parts[0].subject} and {part.subject} have trials of {first} and {part.signals.shape[1:]}; "
                "one study needs the same channels and samples"
            )
    shown: list[list[str]] = [_shown(part, album) for part in parts]
    concepts = [_concepts(part, names, album) for part, names in zip(parts, shown, strict=True)]
    splits = _splits(parts, shown, concepts, album)
    trials = []
    for part, names, groups, split in zip(parts, shown, concepts, splits, strict=True):
        sessions = _labels(part.session, len(names), "session", part.subject)
        repetitions = _labels(part.repetition, len(names), "repetition", part.subject)
        rows = zip(names, split, groups, sessions, repetitions, strict=True)
        trials += [Shown(name, side, part.subject, group, "", day, again) for name, side, group, day, again in rows]
    used = {trial.image for trial in trials}
    signals = parts[0].signals if len(parts) == 1 else np.concatenate([part.signals for part in parts])
    facts = {name: value for name, value in info.items() if value is not None}
    return write_layout(
        out, signals, trials, {name: album.files[name] for name in album.files if name in used}, facts, link
    )


def _shown(part: Part, album: Album) -> list[str]:
    """The picture of every trial."""
    n = len(part.signals)
    if part.stimulus is None:
        if len(album.names) != n:
            raise UserError(f"{n} trials but {len(album.names)} images; pass stimulus=(n,), the image of each trial")
        return list(album.names)
    wanted = _column(part.stimulus, n, "stimulus", part.subject)
    return [album.find(one, "stimulus") for one in wanted]


def _column(values: Any, n: int, what: str, subject: str) -> list[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise UserError(f"{what}={values!r} is no list of {n}, one per trial")
    found = np.asarray(values).tolist() if not isinstance(values, list | tuple) else list(values)
    if len(found) != n:
        raise UserError(f"subject {subject}: {n} trials but {len(found)} entries of {what}; give one per trial")
    return found


def _labels(values: Any, n: int, what: str, subject: str) -> list[str]:
    return [""] * n if values is None else [str(value) for value in _column(values, n, what, subject)]


def _concepts(part: Part, names: list[str], album: Album) -> list[str]:
    """The group of every trial's picture; ``groups`` come one per trial or one per picture."""
    groups, n = part.groups, len(names)
    if groups is None:
        return [""] * n
    if isinstance(groups, Mapping):
        known = {album.find(name, "groups"): str(group) for name, group in groups.items()}
    elif len(groups) == len(album.names) != n or (len(groups) == len(album.names) and part.stimulus is not None):
        known = dict(zip(album.names, map(str, np.asarray(groups).tolist()), strict=True))
    else:
        known = dict(zip(names, _labels(groups, n, "groups", part.subject), strict=True))
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(f"groups: picture {missing[0]!r} has none; give one per trial or one per picture")
    return [known[name] for name in names]


def _splits(parts: Sequence[Part], shown: list[list[str]], concepts: list[list[str]], album: Album) -> list[list[str]]:
    drawn: set[str] | None = None
    if any(part.test is None for part in parts):
        drawn = _draw_test(shown, concepts, album)
        _log.warning(
            "no test was named: %d of %d pictures, whole groups of them, are the test", len(drawn),
            len({name for names in shown for name in names}),
        )  # fmt: skip
    return [
        ["test" if name in drawn else "train" for name in names]
        if part.test is None and drawn is not None
        else _given(part, names, album)
        for part, names in zip(parts, shown, strict=True)
    ]


def _draw_test(shown: list[list[str]], concepts: list[list[str]], album: Album) -> set[str]:
    """Pictures of every `SHARE`-th group, drawn with seed 0; look-alikes and pictures of one group stay together."""
    known = {
        name: group
        for names, groups in zip(shown, concepts, strict=True)
        for name, group in zip(names, groups, strict=True)
    }
    names = sorted(known)
    pictures = (album.files[name] for name in names)
    thumbs = thumbnails(decode_image(one) if isinstance(one, Path) else one for one in pictures)
    groups = merge_groups(scene_groups(thumbs, names), [known[name] for name in names])
    _, test = grouped_folds(groups, SHARE, 0)[0]
    return {names[i] for i in test}


def _given(part: Part, names: list[str], album: Album) -> list[str]:
    """Split of every trial from true and false, from train/test/unused, or from a list of the test pictures."""
    n, test = len(names), part.test
    listed = list(test) if isinstance(test, set | frozenset) else _listed(test)
    if len(listed) == n and all(isinstance(one, bool | np.bool_) for one in listed):
        return ["test" if one else "train" for one in listed]
    if len(listed) == n and {str(one).lower() for one in listed} <= set(SPLITS):
        return [str(one).lower() for one in listed]
    if listed and all(isinstance(one, bool | np.bool_) for one in listed):
        raise UserError(f"subject {part.subject}: {n} trials but {len(listed)} entries of test; give one per trial")
    tests = {album.find(one, "test") for one in listed}
    return ["test" if name in tests else "train" for name in names]


def _listed(test: Any) -> list[Any]:
    if isinstance(test, str) or not hasattr(test, "__len__"):
        raise UserError(
            f"test={test!r}: pass true or false per trial, train/test/unused per trial, or the test pictures"
        )
    return list(test) if isinstance(test, list | tuple) else np.asarray(test).tolist()


def part_of_arrays(subject: object, x: np.ndarray, *columns: Any) -> Part:
    """Trials x (n, ...) of one person; ``columns``: the further fields of `Part`, in order. Raises `UserError`."""
    if isinstance(subject, bool) or not isinstance(subject, (str, int, np.integer)):
        raise UserError(
            f"subject is {str(subject)[:40]!r}, but it names one person; make a study of each, or one from a folder "
            "whose stimuli.csv has the column subject"
        )
    if not str(subject).strip():
        raise UserError("subject is empty; write for example subject='01'")
    return Part(str(subject), x, *columns)


def of_person(value: Any, subject: Any, people: Mapping[Any, Any]) -> Any:
    """The value of one person, where it is a mapping from person to value."""
    if isinstance(value, Mapping) and set(value) == set(people):
        return value[subject]
    return value


def require_info(info: Mapping[str, Any], x: np.ndarray) -> None:
    """Raise `UserError` for ``ch_names`` and ``sfreq`` (Hz) that cannot be those of trials x (n, C, T) or (n, V)."""
    names, sfreq = info["ch_names"], info["sfreq"]
    if names is not None and len(names) != x.shape[1]:
        raise UserError(f"{len(names)} ch_names for signals {x.shape}; give one per channel")
    if sfreq is not None and not (isinstance(sfreq, int | float | np.number) and 0 < float(sfreq) < float("inf")):
        raise UserError(f"sfreq={sfreq!r} should be a rate in Hz above 0")


def part_of_epochs(epochs: Any, subject: str, columns: Mapping[str, Any]) -> tuple[Part, dict[str, Any]]:
    """Good signal channels of `mne.Epochs` in their own unit (V, T), and ``sfreq``, ``ch_names``, ``tmin``.

    ``columns``: what `Part` takes beside the signals; text is the name of a column of ``epochs.metadata``. Without
    ``stimulus``: the column image or stimulus where there is one, else the names of the events. Without ``test``,
    ``groups`` and ``session``: the columns split, concept and session where there are such.
    """
    from align.data.importing.mne_files import say_left_out, signal_channels

    if not hasattr(epochs, "get_data") or not hasattr(epochs, "event_id"):
        raise UserError(f"{type(epochs).__name__} is no mne.Epochs; pass epochs, or arrays to Study.from_arrays")
    source = Path(f"epochs of subject {subject}")
    names, left_out = signal_channels(epochs, source)
    say_left_out(left_out, source)
    x = as_signals(epochs.get_data(picks=names, verbose="error"), "epochs")
    _refuse_several_people(epochs, columns)
    wanted = {name: _of_metadata(epochs, name, _else_usual(epochs, name, value)) for name, value in columns.items()}
    if wanted["stimulus"] is None:
        wanted["stimulus"] = _named(epochs)
    info = {"sfreq": float(epochs.info["sfreq"]), "ch_names": names, "tmin": float(epochs.times[0])}
    return Part(subject, x, **wanted), info


def _refuse_several_people(epochs: Any, columns: Mapping[str, Any]) -> None:
    """Raise `UserError` where a column of the metadata names more than one person."""
    if epochs.metadata is None:
        return
    table = from_frame(epochs.metadata, "the metadata of the epochs")
    shown = columns["stimulus"] if isinstance(columns["stimulus"], str) else ""
    of_pictures = table.columns.get(shown) or [str(code) for code in epochs.events[:, 2]]
    for name, found in people_of(table.columns, of_pictures, (shown, columns["groups"])).items():
        each = f'epochs["{name} == ..."]'
        refuse_several(table.source, name, found, f"pass a mapping: {{{found[0]!r}: {each}, ...}}")


def _else_usual(epochs: Any, what: str, value: Any) -> Any:
    """The column that `recon data import` takes unasked, where nothing is given and the metadata has it."""
    usual = _USUAL.get(what)
    known = () if epochs.metadata is None else epochs.metadata.columns
    return usual if value is None and usual in known else value


def _of_metadata(epochs: Any, what: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    frame = epochs.metadata
    if frame is None or value not in frame.columns:
        known = "no metadata" if frame is None else f"metadata of {', '.join(map(str, frame.columns))}"
        raise UserError(f"{what}={value!r} is no column: the epochs have {known}")
    return frame[value].tolist()


def _named(epochs: Any) -> list[Any] | None:
    columns = [] if epochs.metadata is None else list(epochs.metadata.columns)
    for name in ("image", "stimulus"):
        if name in columns:
            return list(epochs.metadata[name].tolist())
    if len(epochs.event_id) < 2:
        return None  # one kind of event names no picture: the images come one per trial
    names = {code: name for name, code in epochs.event_id.items()}
    return [names[code] for code in epochs.events[:, 2]]
