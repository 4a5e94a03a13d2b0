"""Trials of several files or people in one folder, written at once or behind those that a folder holds already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from align.data.channel_order import channels_apart
from align.data.importing.layout import (
    Pieces,
    Shown,
    place_images,
    refuse_repeats,
    require_trials,
    rows_at_once,
    table_text,
    tell_flat,
    write_layout,
    write_signals,
)
from align.data.importing.people import few
from align.data.importing.trials import read_table
from align.data.importing.voxels import checked_info, merged, require_same
from align.data.reading.containers import stored_npy
from align.data.reading.safe_load import decode_image
from align.data.signals import pixel_hash
from align.data.spans import span
from align.data.windows import equal_rows
from align.errors import UserError
from align.files import atomic_path, beside, locked, read_json, write_atomic, write_json
from align.files.labels import alike

_KNOWN = ("row", *(item.name for item in fields(Shown)))  # columns of stimuli.csv that an import writes
_ALIKE = ("sfreq", "ch_names", "tmin")  # of info.json: one for all trials of a folder


def _nothing() -> None:
    """Nothing is open."""


@dataclass(frozen=True)
class Part:
    """Trials of one source: signals (n, ...), a `Shown` and a picture for each. ``close``: called in the end.

    ``person``: whom a column of the source names, whatever label the trials have; "" = nobody. ``file``: where the
    trials come from, their session where nothing names one and a person has several files.
    """

    source: str
    signals: Pieces
    trials: Sequence[Shown]
    images: Mapping[str, np.ndarray | Path]
    info: Mapping[str, Any]
    close: Callable[[], None] = _nothing
    person: str = ""
    file: Path | None = None


def write_parts(out: Path, parts: Sequence[Part], link: bool = False, append: bool = False) -> Path:
    """Write folder ``out`` with the trials of all parts; with ``append`` behind those of a folder that is there.

    Raises `UserError` as `write_layout` does, and where parts have other channels, voxels, rates or windows, or one
    name for two pictures, and where trials are in the folder already. A killed append leaves the old trials; the same
    command writes them again.
    """
    try:
        there = _existing(out).trials if append and out.exists() else ()
        whole = _joined(_with_sessions(parts, there))
        if not (append and out.exists()):
            return write_layout(out, whole.signals, whole.trials, whole.images, whole.info or None, link)
        with locked(beside(out, "lock"), f"importing into {str(out)!r}", keep=False):
            return _append(out, whole, link)
    finally:
        for part in parts:
            part.close()


def _with_sessions(parts: Sequence[Part], there: Sequence[Shown]) -> list[Part]:
    """Parts whose files are sessions: those of one person in several files, where no trial names its session.

    ``there``: the trials that a folder holds already. A file of test trials alone is no session: nothing that is fitted
    by session could be fitted there.
    """
    files: dict[str, list[Part]] = {}
    for part in parts:
        for subject in {trial.subject for trial in part.trials}:
            files.setdefault(subject, []).append(part)
    named: dict[str, dict[Path | None, str]] = {}
    for subject, own in files.items():
        known = {trial.session for trial in there if trial.subject == subject}
        named[subject] = {} if known == {""} else _names(subject, own, known)
    return [
        replace(
            part,
            trials=[replace(one, session=one.session or named[one.subject].get(part.file, "")) for one in part.trials],
        )
        for part in parts
    ]


def _names(subject: str, parts: Sequence[Part], known: set[str]) -> dict[Path | None, str]:
    """What each file of a subject is called as a session, unlike the ``known`` ones; nothing where tables say it, or
    files do not tell."""
    used = [[one for one in part.trials if one.subject == subject and one.split != "unused"] for part in parts]
    untaught = any(trials and all(one.split == "test" for one in trials) for trials in used)
    files = [part.file for part in parts if part.file is not None]
    if (len(parts) < 2 and not known) or untaught or len(files) < len(parts):
        return {}
    if any(one.session for trials in used for one in trials):
        return {}
    for depth in range(1, 4):  # folders before the name, where two files have one name
        names = ["-".join([*path.parts[-depth:-1], path.name.split(".")[0]]) for path in files]
        if len({name.lower() for name in [*names, *known]}) == len(files) + len(known):
            return dict(zip(files, names, strict=True))
    return {}


def _joined(parts: Sequence[Part]) -> Part:
    _require_one_person(parts)
    first, images, trials, info = parts[0], dict(parts[0].images), list(parts[0].trials), parts[0].info
    for part in parts[1:]:
        _require_alike(replace(first, info=info), part)
        info = _info_of_both(first.source, info, trials, part)
        trials += _merged(images, part)
    n = sum(part.signals.shape[0] for part in parts)

    def blocks() -> Iterator[np.ndarray]:
        for part in parts:
            yield from part.signals.blocks

    source = first.source if len(parts) == 1 else f"{len(parts)} files"
    return Part(source, Pieces((n, *first.signals.shape[1:]), blocks()), trials, images, info)


def _info_of_both(source: str, info: Mapping[str, Any], trials: Sequence[Shown], new: Part) -> dict[str, Any]:
    """What info.json says of ``trials`` with those of ``new``."""
    people = {trial.subject for trial in trials}
    voxels = merged(source, info.get("voxels", ()), people, new.source, new.info.get("voxels", ()))
    notes = list(dict.fromkeys([*info.get("notes", ()), *new.info.get("notes", ())]))
    return {**info, **({"voxels": voxels} if voxels else {}), **({"notes": notes} if notes else {})}


def _require_one_person(parts: Sequence[Part]) -> None:
    """Raise `UserError` where files under one label name different people."""
    first: dict[str, Part] = {}
    for part in parts:
        for label in {trial.subject for trial in part.trials} if part.person else ():
            other = first.setdefault(label, part)
            if alike(other.person) != alike(part.person):
                raise UserError(
                    f"{other.source} and {part.source} are given one label, {label!r}, but their tables name "
                    f"{other.person!r} and {part.person!r}; give --subject a label for each file, or --subject-column"
                )


def _append(out: Path, new: Part, link: bool) -> Path:
    old = _existing(out)
    _require_alike(old, new)
    info = _info_of_both(old.source, old.info, old.trials, new)
    images = dict(old.images)
    shown = _merged(images, new)
    trials = [*old.trials, *shown]
    shape = (len(trials), *new.signals.shape[1:])
    require_trials(shape, trials)

    def blocks() -> Iterator[np.ndarray]:
        yield from old.signals.blocks
        yield from new.signals.blocks

    with atomic_path(out / "signals.npy") as temporary:
        write_signals(temporary, Pieces(shape, blocks()), trials)
        _refuse_known(temporary, len(old.trials), new.source, out)
        refuse_repeats(temporary, trials)
        tell_flat(temporary, trials)
    added = {name: image for name, image in images.items() if name not in old.images}
    names = {name: name for name in old.images} | place_images(out, out, added, link)
    if info != old.info:
        write_json(out / "info.json", info)
    write_atomic(out / "stimuli.csv", table_text([replace(trial, image=names[trial.image]) for trial in trials]))
    return out


def _refuse_known(path: Path, n_old: int, source: str, out: Path) -> None:
    """Raise `UserError` where a trial from row ``n_old`` on has the numbers of an earlier one."""
    x = np.load(path, mmap_mode="r")
    known = equal_rows(x, np.arange(len(x)) >= n_old)[1]
    if known:
        raise UserError(
            f"{len(known)} of {len(x) - n_old} trials of {source} are in {str(out)!r} already (first: row "
            f"{known[0][1]}); nothing is added: give another file"
        )


def _existing(out: Path) -> Part:
    """What a folder of an import holds."""
    stored = stored_npy(out / "signals.npy") if (out / "signals.npy").is_file() else None
    if stored is None or not (out / "stimuli.csv").is_file():
        raise UserError(
            f"{str(out)!r} is no folder of recon data import (signals.npy, stimuli.csv); give another --out"
        )
    table = read_table(out / "stimuli.csv")
    strange = [name for name in table.columns if name not in _KNOWN]
    if strange:
        raise UserError(f"{table.source} has a column {strange[0]!r}, which an import does not write; append by hand")
    x, rows = stored.open(), table.column("row")
    if len(x) < len(table) or sorted(rows, key=lambda text: (len(text), text)) != [str(i) for i in range(len(table))]:
        raise UserError(f"{str(out)!r}: {len(x)} rows of signals do not fit {table.source}; import it again")
    lines = np.argsort([int(row) for row in rows])
    names = [name for name in table.columns if name != "row"]
    trials = [Shown(**{name: table.columns[name][line] for name in names}) for line in lines]
    x = x[: len(table)]  # a killed append may have left more
    step = rows_at_once(x.shape)
    pieces = Pieces(x.shape, (np.array(x[start : start + step]) for start in range(0, len(x), step)))
    info = read_json(out / "info.json", {}) if (out / "info.json").is_file() else {}
    info = checked_info(repr(str(out / "info.json")), info, {trial.subject for trial in trials})
    return Part(repr(str(out)), pieces, trials, {trial.image: _file(out, trial.image) for trial in trials}, info)


def _file(out: Path, image: str) -> Path:
    found = [path for path in (out / image, out / "images" / image) if path.is_file()]
    if not found:
        raise UserError(f"{str(out)!r} lacks its picture {image!r}; put it back before more is imported")
    return found[0]


def _require_alike(first: Part, other: Part) -> None:
    require_same(first.source, first.info.get("voxels", ()), other.source, other.info.get("voxels", ()))
    _refuse_other_times(first, other)
    one, two = first.signals.shape[1:], other.signals.shape[1:]
    if one != two:
        kind = "voxels" if len(one) == 1 and len(two) == 1 else "channels or samples"
        shapes = " and ".join(" x ".join(map(str, shape)) for shape in (one, two))
        raise UserError(
            f"{first.source} and {other.source} have other {kind} ({shapes}), and a folder holds one shape; import "
            "each into a folder of its own and train them one by one: recon table takes their mean where the folders "
            "have one name (--out A/data, --out B/data)"
        )
    names = channels_apart(first.info.get("ch_names") or (), other.info.get("ch_names") or ())
    if names:
        raise UserError(f"{first.source} (first) and {other.source} (second) differ in ch_names: {names}")
    for key in _ALIKE:
        if (first.info.get(key) or None) != (other.info.get(key) or None):  # no tmin is 0 s
            raise UserError(
                f"{first.source} and {other.source} differ in {key}: {_short(first.info.get(key))} and "
                f"{_short(other.info.get(key))}; bring them to one, or import each into a folder of its own"
            )
    _require_one_roi(first, other)


def _refuse_other_times(first: Part, other: Part) -> None:
    """Raise `UserError` where two files of one person have other rates or windows; both are named."""
    people = {trial.subject for trial in first.trials} & {trial.subject for trial in other.trials}
    rates = [float(part.info.get("sfreq") or 0) for part in (first, other)]
    if not people or 0 in rates or len(first.signals.shape) != 3 or len(other.signals.shape) != 3:
        return
    whose = f"{first.source} and {other.source} are of one person ({few(sorted(people))}) and have"
    if rates[0] != rates[1]:
        raise UserError(
            f"{whose} {rates[0]:g} and {rates[1]:g} Hz; bring them to one rate (MNE: epochs.resample({rates[0]:g}))"
        )
    windows = [
        (part.signals.shape[2], span(part.info.get("tmin") or 0.0, part.signals.shape[2], rates[0]))
        for part in (first, other)
    ]
    if windows[0] != windows[1]:
        raise UserError(
            f"{whose} other windows: {windows[0][0]} samples, {windows[0][1]}, and {windows[1][0]} samples, "
            f"{windows[1][1]}; cut both with the same tmin and tmax (MNE: epochs.crop)"
        )


def _require_one_roi(first: Part, other: Part) -> None:
    one, two = first.info.get("roi") or {}, other.info.get("roi") or {}
    if one and not two:
        raise UserError(
            f"{first.source} holds regions ({few(list(one))}), and none are given for {other.source}; give --roi again"
        )
    if two and not one:
        raise UserError(
            f"{first.source} holds no regions; leave --roi out, or import all files at once with --roi into a new "
            "folder"
        )
    differ = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]
    if differ:
        raise UserError(
            f"{first.source} and {other.source} differ in the regions {few(differ)}; give the --roi and --roi-names of "
            "before again, or import each into a folder of its own"
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _merged(images: dict[str, np.ndarray | Path], part: Part) -> list[Shown]:
    """The trials of ``part``, its pictures added to ``images``: one picture has one name, one name one picture."""
    known, names = {_hash(image): name for name, image in images.items()}, {}
    for name, image in part.images.items():
        names[name] = known.setdefault(_hash(image), name)
        if names[name] == name and images.setdefault(name, image) is not image and _hash(images[name]) != _hash(image):
            raise UserError(f"picture {name!r} of {part.source} is another one than before; give it another name")
    return [replace(trial, image=names[trial.image]) for trial in part.trials]


def _hash(image: np.ndarray | Path) -> str:
    return pixel_hash(decode_image(image) if isinstance(image, Path) else image)
