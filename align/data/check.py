"""The report on one study that `recon data check` prints: what was declared, what was found, and a verdict in words.

A fault makes the study not usable; one subject's fault does not keep the others from being looked at. A remark is worth
knowing and changes nothing. Signals are looked at as they are stored, before `preprocess`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from align.data.measure import ALIKE, MOST_COMPARED, Looks, measure_channels, measure_pictures, measure_trials, some
from align.data.signals import Recording, Stimuli
from align.data.studies.base import Fact, Study
from align.data.understood import SCALED, implausible, next_command, understood, understood_line
from align.errors import UserError

SMALL = 1e-3  # a median below it is that of volts (1e-5) or tesla (1e-13)
LARGE = 1 << 28  # bytes of signals that had better be mapped
UNEQUAL = 3.0  # ratio of two medians from which training and test are suspected of different units
ORDER = "row order: "  # begins a study's sentence about it in `Recording.log`


@dataclass
class _Findings:
    """What was found on the way; ``subjects`` holds one entry each."""

    facts: dict[str, Fact] = field(default_factory=dict)
    subjects: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    looks: Looks | None = None

    def looks_of(self, stimuli: Stimuli) -> Looks:
        """Those of the subject before where it has the same pictures."""
        if self.looks is None or self.looks.stimuli is not stimuli:
            self.looks = Looks(stimuli)
        return self.looks


def check_study(study: Study) -> dict[str, Any]:
    """Everything the report says, as plain values: facts, one entry per subject, faults, remarks, verdict.

    ``usable`` is False when there is a fault. Raises `UserError` only for what leaves nothing to look at (a broken
    table of subjects).
    """
    found = _Findings()
    wanted = list(study.config.subjects or study.subjects)
    if not wanted:
        found.faults.append("no subject was found")
    for subject in wanted:
        before = len(found.faults)
        try:
            found.subjects[subject] = _look_at(study, subject, found)
            _compare(study, subject, found)
        except (UserError, OSError) as error:
            found.faults.append(f"subject {subject}: {' '.join(str(error).split())}")
        found.subjects.setdefault(subject, {})["faults"] = found.faults[before:]
    for fact in found.facts.values():
        if not fact.holds:
            found.faults.append(f"{fact.what}: {fact.found} instead of {fact.declared}")
    facts = [{**asdict(fact), "as_declared": fact.as_declared} for fact in found.facts.values()]
    return {
        "study": study.info.name,
        "title": study.info.title,
        "source": study.info.source,
        "licence": study.info.licence,
        "facts": facts,
        "subjects": found.subjects,
        "faults": found.faults,
        "remarks": found.remarks,
        "usable": not found.faults,
        "verdict": _verdict(found),
        "next": None if found.faults else next_command(study.config, any(SCALED in text for text in found.remarks)),
    }


def _look_at(study: Study, subject: str, found: _Findings) -> dict[str, Any]:
    """The subject's entry; faults and remarks go to ``found``."""
    recording = study.read(subject)
    order = [line.removeprefix(ORDER) for line in recording.log if line.startswith(ORDER)]
    entry: dict[str, Any] = {
        "row_order": order[0] if order else study.info.row_order,
        "channels": measure_channels(recording),
        "training": measure_trials(recording.train, recording.ch_names),
        "test": measure_trials(recording.test, recording.ch_names),
        "sfreq": recording.sfreq,
        "log": list(recording.log),
    }
    entry["understood"] = understood(recording, entry["training"]["median_abs"])
    found.remarks += [f"subject {subject}: {text}" for text in implausible(recording)]
    found.faults += [f"subject {subject}: {text}" for text in _signal_faults(entry)]
    found.remarks += [f"subject {subject}: {text}" for text in _signal_remarks(entry, study)]
    try:
        pictures = measure_pictures(recording, found.looks_of(recording.stimuli))
    except UserError as error:
        found.faults.append(f"subject {subject}: {error}")
        return entry
    entry["pictures"] = pictures
    if pictures["equal_in_both"]:
        equal = pictures["equal_in_both"]
        found.faults.append(f"subject {subject}: {len(equal)} test pictures stand in training too: {some(equal)}")
    found.remarks += [f"subject {subject}: {text}" for text in _picture_remarks(pictures, recording)]
    return entry


def _compare(study: Study, subject: str, found: _Findings) -> None:
    """The facts of one subject, and those of the whole study once."""
    alone = copy.copy(study)
    alone.config = replace(study.config, subjects=[subject])
    for fact in alone.check():
        found.facts.setdefault(fact.what, fact)


def _signal_faults(entry: dict[str, Any]) -> Iterator[str]:
    channels = entry["channels"]
    for split in ("training", "test"):
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


def _signal_remarks(entry: dict[str, Any], study: Study) -> Iterator[str]:
    channels, preprocess = entry["channels"], study.config.preprocess
    strange = channels["not_10_20"]
    if study.info.signal == "EEG" and not channels["names"]:
        yield "channels have no names, so preprocess.channels cannot choose among them"
    elif study.info.signal == "EEG" and strange:
        yield f"{len(strange)} of {channels['names']} channel names are none of the 10-20 system: {some(strange)}"
    medians = [entry[split]["median_abs"] for split in ("training", "test")]
    if all(medians):
        if max(medians) / min(medians) > UNEQUAL:
            yield f"median value {medians[0]:.3g} in training, {medians[1]:.3g} in test: are they of one unit?"
        if max(medians) < SMALL and preprocess.scale == "none" and not preprocess.mvnn:
            yield f"median value {max(medians):.3g}, as of volts or tesla: train with preprocess.scale=zscore"
    for split in ("training", "test"):
        part, constant = entry[split], entry[split]["constant"]
        if part["bytes"] > LARGE and not part["mapped"]:
            size = f"{part['bytes'] / 1e9:.1f} GB"
            yield f"{split}: {size} are held in memory; recon data convert makes pickled files mappable"
        if constant:
            yield f"{split}: {len(constant)} of {channels['found']} channels never change: {some(constant)}"


def _picture_remarks(pictures: dict[str, Any], recording: Recording) -> Iterator[str]:
    alike, concepts = pictures["alike_in_both"], pictures["concepts_in_both"]
    if alike is None:
        n = len(recording.stimuli)
        yield f"look-alikes were not searched among {n} pictures (the limit is {MOST_COMPARED})"
    elif alike:
        yield f"{len(alike)} training pictures look like a test picture ({ALIKE}): {some(alike)}"
    if concepts:
        yield f"{len(concepts)} of {pictures['concepts'][1]} test concepts have training pictures: {some(concepts)}"
    for split in ("training", "test"):
        if pictures[f"equal_in_{split}"]:
            yield f"{split}: {pictures[f'equal_in_{split}']} pictures stand there under two names"


def _verdict(found: _Findings) -> str:
    """ "usable", "usable, but not the whole published dataset: ..." or "not usable: ...", in one line."""
    if found.faults:
        rest = f"; and {len(found.faults) - 3} more" if len(found.faults) > 3 else ""
        sound = [name for name, entry in found.subjects.items() if not entry["faults"]]
        hint = f"; without fault: subjects=[{','.join(sound)}]" if sound and len(sound) < len(found.subjects) else ""
        return f"not usable: {'; '.join(found.faults[:3])}{rest}{hint}"
    parts = [f"{f.what}: {f.found} instead of {f.declared}" for f in found.facts.values() if not f.as_declared]
    return f"usable, but not the whole published dataset: {'; '.join(parts)}" if parts else "usable"


def format_report(report: dict[str, Any]) -> str:
    """The report for the terminal; the verdict is its last line."""
    lines = [f"{report['title']} ({report['study']})", f"source {report['source']}", f"licence {report['licence']}"]
    width = max((len(fact["what"]) for fact in report["facts"]), default=0)
    lines += ["", "declared and found"] if report["facts"] else []
    for fact in report["facts"]:
        mark = "" if fact["as_declared"] else f"  (declared: {fact['declared']})"
        lines.append(f"  {fact['what']:{width}}  {fact['found']}{mark}")
    for subject, entry in report["subjects"].items():
        lines += ["", f"subject {subject}", *(f"  {line}" for line in _entry_lines(entry))]
    for name in ("faults", "remarks"):
        lines += ["", name, *(f"  {text}" for text in report[name])] if report[name] else []
    lines += ["", f"next: {report['next']}"] if report["next"] else []
    return "\n".join([*lines, "", f"verdict: {report['verdict']}"])


def _entry_lines(entry: dict[str, Any]) -> Iterator[str]:
    if "training" not in entry:
        yield "could not be read"
        return
    yield f"{'taken as':9}  {understood_line(entry['understood'])}"
    for split in ("training", "test"):
        part = entry[split]
        low, high = part["repetitions"]
        sessions = "sessions not told" if part["sessions"] is None else f"{part['sessions']} sessions"
        median = "none" if part["median_abs"] is None else f"{part['median_abs']:.3g}"
        yield (
            f"{split:9}  {part['trials']} trials of {part['pictures']} pictures, "
            f"repetitions {low if low == high else f'{low} to {high}'}, {sessions}"
        )
        yield (
            f"{'':9}  {' x '.join(map(str, part['shape']))} {part['type']}{', mapped' if part['mapped'] else ''}, "
            f"median value {median}, {part['not_finite']} not finite, {len(part['constant'])} constant channels"
        )
    channels = entry["channels"]
    known = channels["names"] - len(channels["not_10_20"])
    sites = f", {known} of the 10-20 system" if known else ""
    yield f"{'channels':9}  {channels['found']}, {channels['names']} with names{sites}"
    if "pictures" in entry:
        pictures = entry["pictures"]
        alike = "not searched" if pictures["alike_in_both"] is None else len(pictures["alike_in_both"])
        yield (
            f"{'pictures':9}  in both splits: {len(pictures['equal_in_both'])} equal, {alike} alike ({ALIKE}), "
            f"{len(pictures['concepts_in_both'])} concepts"
        )
    yield f"{'row order':9}  {entry['row_order']}"
