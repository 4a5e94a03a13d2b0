"""One set of checks for a study: faults make a recording unfit for a score, remarks are what its reader should know.

`recon data check` prints them all. Every other command reads its study through `Study.recording`, which stops at a
fault and keeps the remarks in `Recording.log`, from where reports take them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from align.config import PreprocessConfig
from align.data.measure import ALIKE, FAR_ROW, Looks, measure_channels, measure_pictures, measure_trials, some
from align.data.odd_channels import channel_remarks
from align.data.overlapping import overlapping_remarks
from align.data.session_answers import session_answer_remarks
from align.data.sessions import measure_sessions, session_remarks
from align.data.signals import Recording, Trials, fits
from align.data.twins import twin_remarks
from align.data.understood import SCALED, implausible
from align.data.windows import Repeated, equal_across, repeated, shared_samples
from align.errors import UserError

logger = logging.getLogger(__name__)

SMALL = 1e-3  # a median below it is that of volts (1e-5) or tesla (1e-13)
FAR_PEOPLE = 100.0  # ratio of two people's medians; skulls and caps make a factor of a few, units one of 1000 or more
UNEQUAL = 3.0  # ratio of two medians from which training and test are suspected of different units
_DROP_EMPTY = "recon data import --drop-empty"
_LOOK_ALIKE = "look like a test"  # in a sentence of a study about pictures on both sides
_MARK = "remark: "  # begins a sentence of `Recording.log` that belongs into every report
_SIDES = ("training", "test")
_SAMPLED = 256  # trials that stand for signals too large to be held


def require_sound(recording: Recording, preprocess: PreprocessConfig) -> Recording:
    """The recording, trials as stored, with its remarks in the log; each is said once in the log of the program too.

    Reads signals that can be held, of larger ones some trials, and decodes no picture whose hash is known. Values that
    are not finite are left to what reads them: the channel may not be used. Raises `UserError` for the first fault.
    """
    who = f"{recording.study} subject {recording.subject}"
    for trials in (recording.train, recording.test):
        if not len(trials):
            return recording
    entry = {
        "channels": measure_channels(recording),
        **{
            name: measure_trials(_held(trials), recording.ch_names)
            for name, trials in zip(_SIDES, (recording.train, recording.test), strict=True)
        },
    }
    for split in _SIDES:
        entry[split]["not_finite"] = 0
    pictures = measure_pictures(recording, Looks.known(recording.stimuli))
    if any(_LOOK_ALIKE in line for line in recording.log):  # the study has said so
        pictures["alike_in_both"] = None
    repeats = repeats_of(recording, fits)
    found = [*picture_faults(pictures), *signal_faults(entry), *repeat_faults(repeats)]
    if found:
        raise UserError(f"{who}: {found[0]}")
    signals = (*signal_remarks(entry, preprocess), *unit_remarks(recording, entry, preprocess))
    told = (implausible(recording), signals, picture_remarks(pictures))
    repeated_ = (
        repeat_remarks(repeats),
        shared_remarks(recording, fits),
        twin_remarks(recording),
        overlapping_remarks(recording),
        session_answer_remarks(recording),
    )
    return remarked(recording, [text for part in (*told, *repeated_, channel_remarks(recording)) for text in part])


def remarked(recording: Recording, remarks: Iterable[str]) -> Recording:
    """The recording with ``remarks`` in its log; each is said once in the log of the program too."""
    found = list(remarks)
    for text in found:
        _tell(f"{recording.study} subject {recording.subject}", text)
    return replace(recording, log=(*recording.log, *(f"{_MARK}{text}" for text in found)))


def kept_remarks(remarks: Iterable[str]) -> list[str]:
    """``remarks`` on all people of one training as ``split.json`` keeps them; `joint_remarks` reads them."""
    return [f"{_MARK}{text}" for text in remarks]


def joint_remarks(split: dict[str, Any]) -> list[str]:
    """What `kept_remarks` left in the manifest of a training of several people."""
    lines = split["log"] if "trained_on" in split else []
    return [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]


def remarks_of(recording: Recording) -> list[str]:
    """Sentences of a recording's log that belong into every report made of it."""
    return [line.removeprefix(_MARK) for line in recording.log if line.startswith(_MARK) or _LOOK_ALIKE in line]


def signal_faults(entry: dict[str, Any]) -> Iterator[str]:
    """``entry``: what `align.data.measure` says of ``training``, ``test`` and ``channels``."""
    channels = entry["channels"]
    for split in _SIDES:
        part = entry[split]
        if part["not_finite"]:
            row = part["first_not_finite_row"]
            yield f"{split}: {part['not_finite']} values are NaN or infinite, the first in row {row}; mend them"
        if not part["median_abs"] and len(part["constant"]) == part["shape"][0]:
            yield f"{split}: every value is 0"
    if channels["twice"]:
        yield f"channel names stand twice: {some(channels['twice'])}"
    if channels["names"] not in (0, channels["found"]):
        yield f"{channels['names']} channel names for {channels['found']} channels"
    if entry["training"]["shape"] != entry["test"]["shape"]:
        yield f"training trials have shape {entry['training']['shape']}, test trials {entry['test']['shape']}"


def signal_remarks(entry: dict[str, Any], preprocess: PreprocessConfig) -> Iterator[str]:
    """Units that differ between or within splits, or that are too small unscaled; channels of another size than the
    others, that never change, or that are another one times a number."""
    medians = [entry[split]["median_abs"] for split in _SIDES]
    if all(medians):
        if max(medians) / min(medians) > UNEQUAL:
            yield f"median value {medians[0]:.3g} in training, {medians[1]:.3g} in test: are they of one unit?"
        yield from unscaled(max(medians), preprocess)
    for split in _SIDES:
        far = entry[split]["far"]
        if far:
            n = entry[split]["trials"]
            yield (
                f"{split}: {len(far)} of {n} trials (first: {far[0]}) are more than {FAR_ROW:g} times as large or as "
                "small as the others: are all of one unit?"
            )
        constant = entry[split]["constant"]
        if constant:
            found = entry["channels"]["found"]
            yield f"{split}: {len(constant)} of {found} channels never change: {some(constant)}{_padding(entry[split])}"
    copies = entry["training"]["multiples"]
    copied = [name for name, _, _ in copies]  # the other remark says it
    apart = [[name, factor] for name, factor in entry["training"]["apart"] if name not in copied]
    if apart and not _scaled(preprocess):
        listed = some([f"{name} (about {factor:.2g} times)" for name, factor in apart])
        yield (
            f"training: {len(apart)} of {entry['channels']['found']} channels are of another size than the others: "
            f"{listed}; are all of one unit? Mend them, or add {SCALED}"
        )
    if copies:
        listed = some([f"{name} = {factor:.6g} x {first}" for name, first, factor in copies])
        yield (
            f"training: {len(copies)} of {entry['channels']['found']} channels are another one times a number: {listed}"
            "; leave them out, or mend what wrote them"
        )


def unit_remarks(recording: Recording, entry: dict[str, Any], preprocess: PreprocessConfig) -> Iterator[str]:
    """Sessions that differ from each other, else trials of a split that fall into two sizes; trials without signal."""
    sessions: list[str] = []
    for split, trials in zip(_SIDES, (recording.train, recording.test), strict=True):
        part = entry[split]
        if not sessions:  # what training has said of a session holds for the test
            sessions = list(session_remarks(split, measure_sessions(trials), preprocess))
            yield from sessions
        if part["two_sizes"] and not part["far"] and not sessions:
            count, first, factor = part["two_sizes"]
            size = f"{factor:.3g} times as large" if factor > 1 else f"{1 / factor:.3g} times as small"
            yield (
                f"{split}: {count} of {part['trials']} trials (first: {first}) are about {size} as the others: are all "
                "of one unit?"
            )
        if part["flat"] and part["median_abs"]:
            yield (
                f"{split}: {len(part['flat'])} of {part['trials']} trials (first: {part['flat'][0]}) hold one value "
                "throughout, as empty volumes do: mend them, or mark them as unused"
            )


def _padding(part: dict[str, Any]) -> str:
    """The way out for voxels that are 0 throughout, as padding to the voxels of another person leaves them."""
    if not part["empty"] or len(part["shape"]) != 1:
        return ""
    return f"; {part['empty']} are 0 in every trial: {_DROP_EMPTY}, a folder for each person, leaves them out"


def unscaled(median: float, preprocess: PreprocessConfig) -> Iterator[str]:
    """A remark on values (median absolute one) that are too small to be used as they are, and that no step scales."""
    if 0 < median < SMALL and not _scaled(preprocess):
        yield (
            f"median value {median:.3g}, as of volts or tesla, and no step scales it: add {SCALED} to the command (in "
            "Python preprocess__scale='zscore')"
        )


def _scaled(preprocess: PreprocessConfig) -> bool:
    """Whether a step brings channels to one scale."""
    return preprocess.scale != "none" or preprocess.mvnn


def people_remarks(sizes: Mapping[str, float | None], preprocess: PreprocessConfig) -> Iterator[str]:
    """A remark where people are of different scales that no step makes equal; ``sizes``: median absolute values."""
    known = {subject: size for subject, size in sizes.items() if size}
    if len(known) < 2 or _scaled(preprocess):
        return
    small, large = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
    if known[large] / known[small] > FAR_PEOPLE:
        yield (
            f"signals of subject {large} are about {known[large] / known[small]:.2g} times as large as those of "
            f"subject {small} (median value {known[large]:.3g} and {known[small]:.3g}): are they of one unit? "
            f"Where people are trained together (protocol=pooled or loso) add {SCALED}"
        )


def picture_faults(pictures: dict[str, Any]) -> Iterator[str]:
    """``pictures``: what `measure_pictures` says."""
    equal, twice = pictures["equal_in_both"], pictures["twice_in_test"]
    if equal:
        yield f"{len(equal)} test pictures stand in training too: {some(equal)}; mend the split"
    if twice:
        pairs = some([f"{name} = {first}" for name, first in twice])
        yield f"{len(twice)} test pictures stand there under two names: {pairs}; give each picture one name"


def picture_remarks(pictures: dict[str, Any]) -> Iterator[str]:
    """Look-alikes and concepts across the splits, training pictures under two names, pictures of one colour."""
    alike, concepts = pictures["alike_in_both"], pictures["concepts_in_both"]
    if alike:
        yield f"{len(alike)} training pictures look like a test picture ({ALIKE}): {some(alike)}"
    if pictures["alike_in_test"]:
        pairs = some([f"{name} = {first}" for name, first in pictures["alike_in_test"]])
        yield (
            f"{len(pictures['alike_in_test'])} test pictures look like another one of the test ({ALIKE}): {pairs}; a "
            "picture under two names is a miss whenever its twin is chosen"
        )
    if concepts:
        yield f"{len(concepts)} of {pictures['concepts'][1]} test concepts have training pictures: {some(concepts)}"
    if pictures["equal_in_training"]:
        yield f"training: {pictures['equal_in_training']} pictures stand there under two names"
    if pictures["one_colour"]:
        count = "1 picture is" if len(pictures["one_colour"]) == 1 else f"{len(pictures['one_colour'])} pictures are"
        yield f"{count} of one colour: {some(pictures['one_colour'])}"


def repeats_of(recording: Recording, wanted: Callable[[int], bool] = lambda nbytes: True) -> dict[str, Repeated]:
    """`repeated` of each split whose size in bytes of float32 is ``wanted``."""
    sides = zip(_SIDES, (recording.train, recording.test), strict=True)
    return {name: repeated(one.x, one.stimulus) for name, one in sides if wanted(4 * int(np.prod(one.x.shape)))}


def repeat_faults(repeats: dict[str, Repeated]) -> Iterator[str]:
    """One recording counted as several repetitions."""
    for split, found in repeats.items():
        if found:
            yield f"{split}: {found.said}"


def repeat_remarks(repeats: dict[str, Repeated]) -> Iterator[str]:
    """One recording under several pictures."""
    for split, found in repeats.items():
        if found.strangers:
            row, first = found.strangers[0]
            yield (
                f"{split}: {len(found.strangers)} trials hold the very numbers of a trial of another picture (first: "
                f"row {row} = {first})"
            )


def shared_remarks(recording: Recording, wanted: Callable[[int], bool] = lambda nbytes: True) -> Iterator[str]:
    """Test trials that share samples with training trials, or are some, where the bytes of float32 are ``wanted``."""
    train, test = recording.train.x, recording.test.x
    if not wanted(4 * int(np.prod(train.shape) + np.prod(test.shape))):
        return
    shared = shared_samples(train, test)
    if not shared.length:  # trials without time
        equal = equal_across(train, test)
        if equal:
            row, other = equal[0]
            yield (
                f"test: {len(equal)} of {len(test)} trials hold the very numbers of a training trial (first: row {row} "
                f"= training row {other}): one of the two shows another picture than the table says"
            )
    if shared.found:
        row, other, count = shared.found[0]
        yield (
            f"test: {len(shared.found)} of {shared.n} trials share samples with a training trial (first: row {row} "
            f"with training row {other}, {count} of {shared.length} samples), whose noise is then known; leave out the "
            "neighbours, or cut shorter windows"
        )


def _held(trials: Trials) -> Trials:
    if fits(4 * int(np.prod(trials.x.shape))):
        return trials
    return trials.take(np.unique(np.linspace(0, len(trials) - 1, _SAMPLED).astype(np.int64)))


@cache
def _tell(who: str, text: str) -> None:
    """Once per recording and sentence."""
    logger.warning("%s: %s", who, text)
