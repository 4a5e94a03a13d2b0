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
from align.data.odd_channels import channel_remarks
from align.data.overlapping import overlapping_remarks
from align.data.people_alike import Sample, group_means, one_recording
from align.data.session_answers import session_answer_remarks
from align.data.signals import Stimuli
from align.data.sound import (
    people_remarks,
    picture_faults,
    picture_remarks,
    repeat_faults,
    repeat_remarks,
    repeats_of,
    shared_remarks,
    signal_faults,
    signal_remarks,
    unit_remarks,
)
from align.data.studies.base import Fact, Study
from align.data.twins import twin_remarks
from align.data.understood import SCALED, implausible, next_command, no_rate, understood, understood_line
from align.errors import UserError

LARGE = 1 << 28  # bytes of signals that had better be mapped
REGIONS = 20  # whose sizes the terminal shows
ORDER = "row order: "  # begins a study's sentence about it in `Recording.log`


@dataclass
class _Findings:
    """What was found on the way; ``subjects`` holds one entry each."""

    facts: dict[str, Fact] = field(default_factory=dict)
    subjects: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    looks: Looks | None = None
    samples: dict[str, Sample] = field(default_factory=dict)

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
            found.remarks += [text for text in study.notes() if text not in found.remarks]
            if len(found.faults) == before:  # what reads the recording stops at the same fault
                _compare(study, subject, found)
        except (UserError, OSError) as error:
            found.faults.append(f"subject {subject}: {' '.join(str(error).split())}")
        found.subjects.setdefault(subject, {})["faults"] = found.faults[before:]
    alike = list(one_recording(found.samples))
    found.faults += alike or group_means(found.samples)
    sizes = {name: entry["training"]["median_abs"] for name, entry in found.subjects.items() if "training" in entry}
    found.remarks += people_remarks(sizes, study.config.preprocess)
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
    repeats = repeats_of(recording)
    faults = [*signal_faults(entry), *repeat_faults(repeats)]
    signals = (*signal_remarks(entry, steps := study.config.preprocess), *unit_remarks(recording, entry, steps))
    told = (no_rate(recording), implausible(recording), signals)
    remarks = [text for part in (*told, repeat_remarks(repeats), shared_remarks(recording)) for text in part]
    remarks += [*twin_remarks(recording, [name for name, found in repeats.items() if found])]
    remarks += [
        *overlapping_remarks(recording),
        *session_answer_remarks(recording),
        *channel_remarks(recording),
        *_handling_remarks(entry, study),
    ]
    try:
        entry["regions"] = {name: len(members) for name, members in study.rois(subject).items()}
    except UserError as error:  # whoever names no region can do without
        entry["regions"] = {}
        remarks.append(str(error))
    try:
        pictures = entry["pictures"] = measure_pictures(recording, found.looks_of(recording.stimuli))
    except UserError as error:
        faults.append(str(error))
    else:
        faults += picture_faults(pictures)
        remarks += picture_remarks(pictures)
        if pictures["alike_in_both"] is None:
            n = len(recording.stimuli)
            remarks.append(f"look-alikes were not searched among {n} pictures (the limit is {MOST_COMPARED})")
    found.samples[subject] = Sample.of(recording)
    found.faults += [f"subject {subject}: {text}" for text in faults]
    found.remarks += [f"subject {subject}: {text}" for text in remarks]
    return entry


def _compare(study: Study, subject: str, found: _Findings) -> None:
    """The facts of one subject, and those of the whole study once."""
    alone = copy.copy(study)
    alone.config = replace(study.config, subjects=[subject])
    for fact in alone.check():
        found.facts.setdefault(fact.what, fact)


def _handling_remarks(entry: dict[str, Any], study: Study) -> Iterator[str]:
    """What matters to whoever chooses channels or waits for a file, and to no score."""
    channels = entry["channels"]
    strange = channels["not_10_20"]
    if study.info.signal == "EEG" and not channels["names"]:
        yield "channels have no names, so preprocess.channels cannot choose among them"
    elif study.info.signal == "EEG" and strange:
        yield f"{len(strange)} of {channels['names']} channel names are none of the 10-20 system: {some(strange)}"
    for split in ("training", "test"):
        part = entry[split]
        if part["bytes"] > LARGE and not part["mapped"]:
            size = f"{part['bytes'] / 1e9:.1f} GB"
            yield f"{split}: {size} are held in memory; recon data convert makes pickled files mappable"


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
    if entry["regions"]:
        sizes = [f"{name} {size}" for name, size in entry["regions"].items()]
        more = f", and {len(sizes) - REGIONS} more" if len(sizes) > REGIONS else ""
        yield f"{'regions':9}  {', '.join(sizes[:REGIONS])}{more}"
    if "pictures" in entry:
        pictures = entry["pictures"]
        alike = "not searched" if pictures["alike_in_both"] is None else len(pictures["alike_in_both"])
        yield (
            f"{'pictures':9}  in both splits: {len(pictures['equal_in_both'])} equal, {alike} alike ({ALIKE}), "
            f"{len(pictures['concepts_in_both'])} concepts"
        )
    yield f"{'row order':9}  {entry['row_order']}"
