"""What `recon data check` knows, whatever reads the study knows: it stops, or the remark goes into the report."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.config import Config, load_config
from align.data import sound
from align.data.check import check_study
from align.data.measure import Looks
from align.data.signals import Stimuli
from align.data.sound import _tell, remarks_of
from align.data.studies import open_study
from recon.api.fitting import prepared
from recon.evaluation.table import format_report
from tests.align.fixture_studies import blurred, default_rows, picture, png, write_folder
from tests.one_line import fails

Rows = list[dict[str, object]]


def study_of(root: Path, change: Callable[[Rows, np.ndarray, Path], None], *pairs: str) -> Any:
    """The `folder` study of two people; trial r is row r."""
    rows = [{**row, "row": i} for i, row in enumerate(default_rows())]
    x = np.random.default_rng(0).normal(size=(len(rows), 4, 12)).astype(np.float32)
    (root / "images").mkdir()
    change(rows, x, root / "images")
    write_folder(root, x, rows)
    words = ["study.name=folder", f"study.root={root}", f"cache_dir={root / 'cache'}", *pairs]
    return open_study(load_config(Config, None, words))


def picture_twice(rows: Rows, x: np.ndarray, images: Path) -> None:
    (images / "pic008.png").write_bytes(png(picture(7)))


def silent(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[[i for i, row in enumerate(rows) if row["split"] == "test"]] = 0


def copied(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[1] = x[0]


def in_both(rows: Rows, x: np.ndarray, images: Path) -> None:
    (images / "pic006.png").write_bytes(png(picture(0)))


def overlapping(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[1, :, :-2] = x[0, :, 2:]


FAULTS: dict[str, tuple[Callable[[Rows, np.ndarray, Path], None], str]] = {
    "picture under two names": (picture_twice, "1 test pictures stand there under two names: pic008.png = pic007"),
    "no signal": (silent, "test: every value is 0"),
    "events listed twice": (copied, "one recording counted as several"),
    "windows that overlap": (overlapping, "one recording counted as several"),
    "picture in both splits": (in_both, "training"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_stops_check_and_every_reader(fault: str, tmp_path: Path) -> None:
    change, words = FAULTS[fault]
    study = study_of(tmp_path, change)
    report = check_study(study)
    assert not report["usable"] and words in report["verdict"]
    fails(f"folder subject 01: .*{words}", lambda: study.recording("01"))


def train_picture_twice(rows: Rows, x: np.ndarray, images: Path) -> None:
    (images / "pic001.png").write_bytes(png(picture(0)))


def dead_channel(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[:, 2] = 1


def two_units(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[[i for i, row in enumerate(rows) if row["split"] == "test"]] *= 1e6


def some_in_another_unit(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[[i for i, row in enumerate(rows) if row["split"] == "train"][::2]] *= 1e6


def one_broken_trial(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[next(i for i, row in enumerate(rows) if row["split"] == "test")] *= 1e-5


def volts(rows: Rows, x: np.ndarray, images: Path) -> None:
    x *= 1e-6


def shared_concept(rows: Rows, x: np.ndarray, images: Path) -> None:
    for row in rows:
        row["concept"] = "cat"


def strangers(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[2] = x[0]


def look_alike(rows: Rows, x: np.ndarray, images: Path) -> None:
    (images / "pic006.png").write_bytes(png(blurred(picture(0))))


def alike_in_test(rows: Rows, x: np.ndarray, images: Path) -> None:
    one = np.array(picture(7))
    one[0, 0] = 255 - one[0, 0]
    (images / "pic008.png").write_bytes(png(Image.fromarray(one)))


def neighbours(rows: Rows, x: np.ndarray, images: Path) -> None:
    test = next(i for i, row in enumerate(rows) if row["split"] == "test")
    x[test, :, :9] = x[3, :, 3:] - 0.5  # another baseline


def inverted(rows: Rows, x: np.ndarray, images: Path) -> None:
    x[:, 3] = -2 * x[:, 1]


def kilohertz(rows: Rows, x: np.ndarray, images: Path) -> None:
    (images.parent / "info.json").write_text('{"sfreq": 0.25}')


def swapped(rows: Rows, x: np.ndarray, images: Path) -> None:
    slow = np.cumsum(np.random.default_rng(3).normal(size=(len(x), x.shape[2], x.shape[1])), axis=1)
    x.resize(slow.shape, refcheck=False)
    x[:] = slow


def one_test_picture(rows: Rows, x: np.ndarray, images: Path) -> None:
    first = next(row["image"] for row in rows if row["split"] == "test")
    for row in rows:
        if row["split"] == "test" and row["image"] != first:
            row["split"] = "unused"


REMARKS: dict[str, tuple[Callable[[Rows, np.ndarray, Path], None], str]] = {
    "training picture under two names": (train_picture_twice, "training: 1 pictures stand there under two names"),
    "a dead channel": (dead_channel, "1 of 4 channels never change"),
    "two units": (two_units, "are they of one unit"),
    "every second trial in another unit": (some_in_another_unit, "times as large or as small as the others"),
    "one trial in another unit": (one_broken_trial, "1 of 3 trials"),
    "volts without scaling": (volts, "add preprocess.scale=zscore to the command"),
    "a rate in kHz": (kilohertz, "sampling rate 0.25 Hz is implausible"),
    "swapped axes": (swapped, "are channels and samples swapped?"),
    "one test picture": (one_test_picture, "one test picture: it is always found among itself"),
    "concepts on both sides": (shared_concept, "test concepts have training pictures: cat"),
    "one response, two pictures": (strangers, "very numbers of a trial of another picture"),
    "one pixel changed": (
        alike_in_test,
        "1 test pictures look like another one of the test (thumbnail r > 0.97): pic008",
    ),
    "windows that share samples": (
        neighbours,
        "share samples with a training trial (first: row 0 with training row 3, 9",
    ),
    "an inverted channel": (inverted, "1 of 4 channels are another one times a number: 3 = -2 x 1"),
    "look-alikes": (look_alike, "look like a test picture"),
}


@pytest.mark.parametrize("remark", REMARKS)
def test_a_remark_goes_from_check_into_the_report(
    remark: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change, words = REMARKS[remark]
    study = study_of(tmp_path, change)
    report = check_study(study)
    assert any(words in text for text in report["remarks"]), report["remarks"]
    assert report["usable"] or remark == "training picture under two names"  # a folder declares how many there are
    sound._tell.cache_clear()  # each sentence is said once in a process
    with caplog.at_level(logging.WARNING):
        recording = study.recording("01")
    notes = remarks_of(recording)
    assert any(words in note for note in notes) and not any(note.startswith("remark") for note in notes)
    assert remark == "look-alikes" or words in caplog.text
    head = {"study": "folder", "subject": "01", "layer": "1", "backbone": "b", "layer_chosen_on": "x", "seed": 0}
    assert f"note: {notes[0]}" in format_report({**head, "notes": notes})


def test_a_sound_study_has_no_remarks_and_is_read_as_before(tmp_path: Path) -> None:
    recording = study_of(tmp_path, lambda rows, x, images: None).recording("01")
    assert remarks_of(recording) == [] and len(recording.train) == 12


def test_check_names_pictures_of_one_colour(tmp_path: Path) -> None:
    def black(rows: Rows, x: np.ndarray, images: Path) -> None:
        (images / "pic002.png").write_bytes(png(picture(2).point(lambda value: 0)))

    study = study_of(tmp_path, black)
    assert any("1 picture is of one colour: pic002.png" in text for text in check_study(study)["remarks"])


def test_signals_too_large_to_be_held_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of(tmp_path, two_units)
    monkeypatch.setattr("align.data.sound.fits", lambda nbytes: False)
    assert any("are they of one unit" in note for note in remarks_of(study.recording("01")))


def test_known_hashes_are_not_decoded_again(tmp_path: Path) -> None:
    recording = study_of(tmp_path, lambda rows, x, images: None).recording("01")
    looks = Looks.known(recording.stimuli)
    assert tuple(looks.hashes) == recording.stimuli.hashes and looks.thumbs is None


@pytest.mark.parametrize(
    ("size", "pairs", "said"),
    [
        (1e-13, [], True),
        (1e-5, [], True),
        (1e-13, ["preprocess.scale=zscore"], False),
        (1e-13, ["preprocess.scale=robust"], False),
        (1.0, [], False),
    ],
)
def test_arrays_that_no_step_scales_are_remarked_too(
    size: float, pairs: list[str], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    x = size * np.random.default_rng(0).normal(size=(6, 4, 12))
    stimuli = Stimuli(tuple("abcdef"), lambda i: np.zeros((8, 8, 3), np.uint8), np.arange(6), ("",) * 6, ("",) * 6)
    _tell.cache_clear()
    with caplog.at_level(logging.WARNING):
        recording = prepared(load_config(Config, None, pairs), x, np.arange(6), stimuli, {"sfreq": 100.0})
    assert any("preprocess__scale='zscore'" in note for note in remarks_of(recording)) == said
    assert ("as of volts or tesla" in caplog.text) == said
