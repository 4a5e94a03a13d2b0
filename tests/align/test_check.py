"""The report on a study: every fault that is planted is found, named and decides the verdict; nothing else does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from align.config import Config, load_config
from align.data import check, measure
from align.data.check import check_study, format_report
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies import open_study
from align.data.studies.base import Fact, Study, StudyInfo
from align.errors import UserError
from tests.align import fixture_things as things
from tests.align.fixture_studies import blurred, picture, write_folder

NAMES = ("Fp1", "Cz", "O2", "POz")
CONCEPTS = ("cat", "cat", "dog", "dog", "cow", "cow", "hen", "owl")


def recording() -> Recording:
    """6 training pictures shown twice, 2 test pictures shown 3 times; 4 channels x 5 samples around 1."""
    rng = np.random.default_rng(0)
    images = [np.asarray(picture(i)) for i in range(8)]
    stimuli = Stimuli(
        ids=tuple(f"p{i}" for i in range(8)),
        load=images.__getitem__,
        groups=np.arange(8),
        concepts=CONCEPTS,
        captions=("",) * 8,
    )
    parts = []
    for row, times in ((np.arange(6), 2), (np.array([6, 7]), 3)):
        stimulus, repetition = np.repeat(row, times), np.tile(np.arange(times), len(row))
        parts.append(Trials(rng.normal(1, 0.1, (len(stimulus), 4, 5)), stimulus, repetition, repetition.copy()))
    return Recording("made", "01", parts[0], parts[1], stimuli, NAMES, 100.0, log=("row order: as made",))


class Made(Study):
    """Recordings in memory, by subject; a text is the fault that reading raises."""

    info: ClassVar[StudyInfo] = StudyInfo("made", "Made up", "EEG", "nowhere", "none")

    def __init__(self, config: Config, made: dict[str, Recording | str], facts: list[Fact]) -> None:
        super().__init__(config)
        self.made, self.facts = made, facts

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.made)

    def read(self, subject: str) -> Recording:
        found = self.made[subject]
        if isinstance(found, str):
            raise UserError(found)
        return found

    def check(self) -> list[Fact]:
        (subject,) = self.config.subjects
        return [*self.facts, Fact(f"{subject} read", "yes", "yes")]


def report(*pairs: str, facts: tuple[Fact, ...] = (), **made: Recording | str) -> dict[str, Any]:
    subjects = {name.removeprefix("s"): found for name, found in made.items()}
    found = check_study(Made(load_config(Config, None, pairs), subjects, list(facts)))
    json.dumps(found, allow_nan=False)
    assert "\n" not in found["verdict"] and format_report(found).endswith(f"verdict: {found['verdict']}")
    return found


def changed(split: str, **values: Any) -> Recording:
    found = recording()
    return replace(found, **{split: replace(getattr(found, split), **values)})


def spoilt(split: str, place: Any, value: float) -> Recording:
    found = recording()
    getattr(found, split).x[place] = value
    return found


def looking(images: dict[int, np.ndarray]) -> Recording:
    """Pictures replaced by others."""
    found = recording()
    load = found.stimuli.load
    return replace(found, stimuli=replace(found.stimuli, load=lambda i: images[i] if i in images else load(i)))


def with_columns(of: Callable[[np.ndarray], np.ndarray]) -> Recording:
    """The first channel is made of the last, in both splits."""
    made = recording()
    for trials in (made.train, made.test):
        trials.x[:, 0], trials.x[:, 3] = trials.x[:, 3], of(trials.x.copy())
    return made


def voxels(of: Callable[[np.ndarray], np.ndarray]) -> Recording:
    """Nine voxels, in training changed by ``of``."""
    made, rng = recording(), np.random.default_rng(1)
    train, test = (replace(one, x=rng.normal(1, 0.1, (len(one), 9))) for one in (made.train, made.test))
    return replace(made, train=replace(train, x=of(train.x)), test=test, ch_names=tuple(f"O{i}" for i in range(1, 10)))


def test_a_sound_study_is_usable_and_fully_told() -> None:
    made = recording()
    found = report(s01=made)
    assert found["verdict"] == "usable" and found["usable"] and found["faults"] == found["remarks"] == []
    entry = found["subjects"]["01"]
    assert entry["row_order"] == "as made" and entry["faults"] == []
    for split, trials, pictures, times in (("training", made.train, 6, 2), ("test", made.test, 2, 3)):
        part = entry[split]
        assert (part["trials"], part["pictures"], part["repetitions"]) == (pictures * times, pictures, [times, times])
        assert (part["sessions"], part["shape"], part["type"]) == (times, [4, 5], "float64")
        assert part["median_abs"] == pytest.approx(np.median(np.abs(trials.x))) and part["constant"] == []
    assert entry["channels"] == {"found": 4, "names": 4, "twice": [], "not_10_20": []}
    assert entry["pictures"]["concepts"] == [3, 2] and entry["pictures"]["concepts_in_both"] == []
    text = format_report(found)
    for words in ("12 trials of 6 pictures, repetitions 2, 2 sessions", "row order  as made", "4 x 5 float64"):
        assert words in text


FAULTS: dict[str, tuple[Callable[[], Recording], str]] = {
    "nan": (
        lambda: spoilt("train", (slice(3, 5), 1, 2), np.nan),
        "training: 2 values are NaN or infinite, the first in row 3",
    ),
    "infinite": (lambda: spoilt("test", (5, 0, 0), -np.inf), "test: 1 values are NaN or infinite, the first in row 5"),
    "zero": (lambda: spoilt("test", slice(None), 0.0), "test: every value is 0"),
    "names twice": (
        lambda: replace(recording(), ch_names=("Cz", "O2", "Cz", "O2")),
        "channel names stand twice: Cz, O2",
    ),
    "names too few": (lambda: replace(recording(), ch_names=("Cz", "O2")), "2 channel names for 4 channels"),
    "shapes": (lambda: changed("test", x=np.ones((6, 4, 4))), "training trials have shape .4, 5., test trials .4, 4."),
    "same picture": (
        lambda: changed("train", stimulus=np.repeat([0, 1, 2, 3, 4, 7], 2)),
        "1 test pictures stand in training too: p7",
    ),
    "same pixels": (lambda: looking({6: np.asarray(picture(2))}), "1 test pictures stand in training too: p6"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_not_usable(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_PIECE", 4 * 160)  # four trials at a time
    make, words = FAULTS[fault]
    found = report(s01=make())
    assert not found["usable"] and len(found["faults"]) == 1
    assert re.match(f"not usable: subject 01: {words}", found["verdict"]), found["verdict"]


REMARKS: dict[str, tuple[Callable[[], Recording], str]] = {
    "constant": (lambda: spoilt("train", (slice(None), 2), 1.0), "training: 1 of 4 channels never change: O2"),
    "padded voxels": (
        lambda: voxels(lambda x: np.where(np.arange(9) > 6, 0.0, x)),
        "training: 2 of 9 channels never change: O8, O9; 2 are 0 in every trial: recon data import --drop-empty",
    ),
    "constant voxels": (
        lambda: voxels(lambda x: np.where(np.arange(9) > 6, 1.0, x)),
        "training: 2 of 9 channels never change: O8, O9$",
    ),
    "unequal": (
        lambda: changed("test", x=recording().test.x * 1e6),
        "median value 0.997 in training, 9.92e.05 in test",
    ),
    "no site": (
        lambda: replace(recording(), ch_names=("Fp1", "EXG1", "Status", "AFz")),
        "2 of 4 channel names are none of the 10-20 system: EXG1, Status",
    ),
    "no names": (lambda: replace(recording(), ch_names=()), "channels have no names"),
    "alike": (
        lambda: looking({7: np.asarray(blurred(picture(3)))}),
        "1 training pictures look like a test picture .thumbnail r > 0.97.: p3",
    ),
    "alike in the test": (
        lambda: looking({7: np.asarray(blurred(picture(6)))}),
        "1 test pictures look like another one of the test .thumbnail r > 0.97.: p7 = p6; a picture under two names",
    ),
    "one channel twice": (
        lambda: with_columns(lambda x: x[:, 3]),
        "training: 1 of 4 channels are another one times a number: POz = 1 x Fp1",
    ),
    "a negated channel": (
        lambda: with_columns(lambda x: -1e6 * x[:, 3]),
        "training: 1 of 4 channels are another one times a number: POz = -1e.06 x Fp1",
    ),
    "concept": (
        lambda: replace(recording(), stimuli=replace(recording().stimuli, concepts=(*CONCEPTS[:7], "dog"))),
        "1 of 2 test concepts have training pictures: dog",
    ),
    "twice": (lambda: looking({1: np.asarray(picture(0))}), "training: 1 pictures stand there under two names"),
}


@pytest.mark.parametrize("remark", REMARKS)
def test_a_remark_leaves_it_usable(remark: str) -> None:
    make, words = REMARKS[remark]
    found = report(s01=make())
    assert found["verdict"] == "usable" and len(found["remarks"]) == 1
    assert re.match(f"subject 01: {words}", found["remarks"][0]), found["remarks"]


@pytest.mark.parametrize("factor", [1e-5, 1e-13])
def test_volts_and_tesla_need_scaling(factor: float) -> None:
    made = recording()
    small = replace(
        made, train=replace(made.train, x=made.train.x * factor), test=replace(made.test, x=made.test.x * factor)
    )
    assert (
        "as of volts or tesla, and no step scales it: add preprocess.scale=zscore to the command"
        in report(s01=small)["remarks"][0]
    )
    for pair in ("preprocess.scale=zscore", "preprocess.mvnn=true"):
        assert report(pair, s01=small)["remarks"] == []


def test_pieces_and_median_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 7)).astype(np.float16)
    x[:, 4], x[10, 4], x[150:250, 1] = 2, np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(measure, "_PIECE", 100)
    trials = Trials(mapped, np.arange(300) // 3, np.arange(300) % 3)
    found = measure.measure_trials(trials, ())
    assert (found["not_finite"], found["first_not_finite_row"]) == (101, 10)
    assert found["constant"] == ["4"] and found["mapped"] and found["sessions"] is None and found["shape"] == [7]
    values = np.abs(x[np.unique(np.linspace(0, 299, 256).astype(int))].astype(float))
    assert found["median_abs"] == np.median(values[np.isfinite(values)])


def test_large_signals_in_memory_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LARGE", 12 * 4 * 5 * 8 - 1)
    held = recording()
    assert report(s01=held)["remarks"] == [
        "subject 01: training: 0.0 GB are held in memory; recon data convert makes pickled files mappable"
    ]
    np.save(tmp_path / "x.npy", held.train.x)
    mapped = replace(held, train=replace(held.train, x=np.load(tmp_path / "x.npy", mmap_mode="r")))
    assert report(s01=mapped)["remarks"] == []


def test_pictures_beyond_the_limit_are_only_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MOST_COMPARED", 7)
    monkeypatch.setattr(check, "MOST_COMPARED", 7)
    found = report(s01=looking({7: np.asarray(blurred(picture(3)))}))
    assert found["subjects"]["01"]["pictures"]["alike_in_both"] is None
    assert found["remarks"] == ["subject 01: look-alikes were not searched among 8 pictures (the limit is 7)"]
    assert "0 equal, not searched alike" in format_report(found)


def test_pictures_shared_by_subjects_are_decoded_once() -> None:
    made, loaded = recording(), []
    stimuli = replace(made.stimuli, load=lambda i: (loaded.append(i), made.stimuli.load(i))[1])  # type: ignore[func-returns-value]
    shared = replace(made, stimuli=stimuli)
    assert report(s01=shared, s02=shared)["usable"] and loaded == list(range(8))


def test_facts_decide_as_they_say() -> None:
    part = Fact("subjects", "10", "1", usable=True)
    found = report(facts=(part, Fact("rate", "5", "5")), s01=recording())
    assert found["verdict"] == "usable, but not the whole published dataset: subjects: 1 instead of 10"
    assert "subjects" in format_report(found) and "1  (declared: 10)" in format_report(found)
    found = report(facts=(part, Fact("rate", "5", "6")), s01=recording())
    assert found["verdict"] == "not usable: rate: 6 instead of 5" and not found["usable"]


def test_one_subject_does_not_stop_the_others() -> None:
    found = report(s01=recording(), s02="file 'x' is truncated;\n fetch it again", s03=recording())
    assert found["verdict"] == (
        "not usable: subject 02: file 'x' is truncated; fetch it again; without fault: subjects=[01,03]"
    )
    assert found["subjects"]["03"]["test"]["trials"] == 6 and found["subjects"]["02"] == {
        "faults": ["subject 02: file 'x' is truncated; fetch it again"]
    }
    assert {fact["what"] for fact in found["facts"]} == {"01 read", "03 read"}
    assert "could not be read" in format_report(found)
    assert report("subjects=[03]", s02="broken", s03=recording())["verdict"] == "usable"
    assert report()["verdict"] == "not usable: no subject was found"
    many = report(s00="broken", s01="broken", s02="broken", s03="broken", s04="broken")
    assert many["verdict"].endswith("subject 02: broken; and 2 more")


def test_a_picture_that_cannot_be_decoded_is_a_fault_beside_the_rest(tmp_path: Path) -> None:
    things.write_nice(tmp_path, things.epochs())
    things.write_pictures(tmp_path)
    broken = tmp_path / "training_images" / "00003_kind02" / "kind02_04s.jpg"
    broken.write_bytes(b"no JPEG")
    study = open_study(load_config(Config, None, ["study.name=things_eeg2", f"study.root={tmp_path}"]))
    found = check_study(study)
    assert found["verdict"].startswith("not usable: subject 01: image ") and "kind02_04s.jpg" in found["verdict"]
    assert found["subjects"]["01"]["training"]["trials"] == 480 and "pictures" not in found["subjects"]["01"]


def test_the_studies_tell_what_their_row_order_rests_on(tmp_path: Path) -> None:
    write_folder(tmp_path)
    study = open_study(load_config(Config, None, ["study.name=folder", f"study.root={tmp_path}"]))
    found = check_study(study)
    assert found["verdict"] == "usable" and set(found["subjects"]) == {"01", "08"}
    assert found["subjects"]["08"]["row_order"].startswith("the column row of stimuli.csv")
    assert not any("10-20" in remark for remark in found["remarks"])  # not said to be EEG
