"""`recon.Study`: arrays and epochs of any form as the study that every command reads; refusals in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
import torch
from PIL import Image

from recon import Study, cli
from tests.one_line import fails
from tests.recon.api_study import CHANNELS, N_PICTURES, N_TEST, SFREQ, pictures, signals, stimulus, study

TEST = list(range(N_PICTURES - N_TEST, N_PICTURES))


def epochs(x: np.ndarray, **more: Any) -> mne.EpochsArray:
    return mne.EpochsArray(x, mne.create_info(list(CHANNELS), SFREQ, "eeg"), tmin=-0.05, verbose="error", **more)


def test_arrays_become_the_study_that_was_told(tmp_path: Path) -> None:
    made = study(tmp_path / "study", session=["a", "b"] * N_PICTURES)
    recording = made.recording()
    assert made.subjects == ("01",) and made.root == tmp_path / "study"
    assert len(recording.train) == 2 * (N_PICTURES - N_TEST) and len(recording.test) == 2 * N_TEST
    for trials in (recording.train, recording.test):
        for x, i, repetition in zip(trials.x, trials.stimulus, trials.repetition, strict=True):
            number = int(recording.stimuli.ids[i].removesuffix(".png"))
            np.testing.assert_array_equal(x, signals()[repetition * N_PICTURES + number])
            np.testing.assert_array_equal(recording.stimuli.load(int(i)), pictures()[number])
    assert recording.sfreq == SFREQ and recording.ch_names == CHANNELS
    assert set(recording.train.session) == {"a", "b"}


def test_check_is_that_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = study(tmp_path / "study")
    report = made.check()
    assert cli.main(["data", "check", "folder", "--root", str(tmp_path / "study"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads(json.dumps(report)) == {key: told[key] for key in report}
    assert repr(report) == "<StudyReport folder: usable>" and "verdict: usable" in report.text
    assert "usable" in report._repr_html_() and "folder" in made._repr_html_()
    assert repr(made) == f"<Study folder: 1 subject, root={str(tmp_path / 'study')!r}>"


@pytest.mark.parametrize(
    ("form", "exact"),
    [
        (lambda x: x.tolist(), True),
        (lambda x: np.asfortranarray(x), True),
        (lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1], True),
        (lambda x: x.astype(">f8"), True),
        (lambda x: torch.from_numpy(x).requires_grad_(), True),
        (lambda x: x.astype(np.float16), False),
        (lambda x: torch.from_numpy(x).bfloat16(), False),
        (lambda x: np.ma.array(x), True),
    ],
    ids=[
        "lists",
        "fortran",
        "negative strides",
        "big-endian",
        "requires grad",
        "float16",
        "bfloat16",
        "nothing masked",
    ],
)
def test_any_form_of_array_is_taken(form: Callable[[np.ndarray], Any], exact: bool, tmp_path: Path) -> None:
    made = Study.from_arrays(form(signals()), pictures(), stimulus(), test=TEST, folder=tmp_path / "study")
    stored = np.load(tmp_path / "study" / "signals.npy")
    np.testing.assert_allclose(stored, signals(), rtol=0 if exact else 1e-2, atol=0 if exact else 2e-2)
    assert made.recording().train.x.dtype == np.float32


def test_pictures_in_every_form_are_the_same_study(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    files = [folder / f"{i:02d}.png" for i in range(N_PICTURES)]
    for file, pixels in zip(files, pictures(), strict=True):
        Image.fromarray(pixels).save(file)
    names = [f"{i:02d}" for i in stimulus()]
    forms: list[tuple[Any, Any, Any]] = [
        (folder, names, [f"{i:02d}" for i in TEST]),
        (files, stimulus(), TEST),
        ({file.name: file for file in files}, names, TEST),
        ([files[i] for i in stimulus()], None, [i in TEST for i in stimulus()]),
        (pictures()[stimulus()], None, [("test" if i in TEST else "train") for i in stimulus()]),
        ([Image.fromarray(one) for one in pictures()], stimulus(), np.isin(stimulus(), TEST)),
    ]
    hashes = []
    for images, shown, test in forms:
        recording = Study.from_arrays(signals(), images, shown, test=test).recording()
        hashes.append([recording.stimuli.hashes[i] for i in (*recording.train.stimulus, *recording.test.stimulus)])
    assert len(hashes[0]) == 2 * N_PICTURES
    assert all(one == hashes[0] for one in hashes[1:])


def test_a_test_that_is_not_told_is_drawn_by_groups() -> None:
    groups = [i // 4 for i in range(N_PICTURES)]
    told = []
    for _ in range(2):
        recording = Study.from_arrays(signals(), pictures(), stimulus(), groups=groups).recording()
        stimuli = recording.stimuli
        sides = [{stimuli.concepts[i] for i in trials.stimulus} for trials in (recording.train, recording.test)]
        assert not sides[0] & sides[1] and sides[1]
        assert len(recording.train) + len(recording.test) == 2 * N_PICTURES
        told.append(sides)
    assert told[0] == told[1]


def test_epochs_name_their_pictures_by_metadata_or_by_events() -> None:
    import pandas as pd

    names = [f"pic{i:02d}" for i in stimulus()]
    frame = pd.DataFrame({"image": names, "is_test": np.isin(stimulus(), TEST)})
    events = np.column_stack([np.arange(len(names)), np.zeros(len(names), int), stimulus() + 1])
    code = {f"pic{i:02d}": i + 1 for i in range(N_PICTURES)}
    images = {f"pic{i:02d}.png": one for i, one in enumerate(pictures())}
    by_column = Study.from_epochs(epochs(signals(), metadata=frame), images, test="is_test").recording()
    by_event = Study.from_epochs(epochs(signals(), events=events, event_id=code), images, test=TEST).recording()
    for recording in (by_column, by_event):
        assert recording.tmin == -0.05 and recording.ch_names == CHANNELS
        first = recording.stimuli.ids[recording.train.stimulus[0]]
        assert first == "pic00.png"
        np.testing.assert_array_equal(recording.train.x[0], signals()[0])
    np.testing.assert_array_equal(by_column.test.x, by_event.test.x)


def test_epochs_bring_their_split_and_sessions() -> None:
    """The columns that `recon data import` takes unasked."""
    import pandas as pd

    names = [f"pic{i:02d}" for i in stimulus()]
    frame = pd.DataFrame({"image": names, "split": np.where(np.isin(stimulus(), TEST), "test", "train")})
    frame["session"] = np.arange(len(names)) % 2
    images = {f"pic{i:02d}.png": one for i, one in enumerate(pictures())}
    found = Study.from_epochs(epochs(signals(), metadata=frame), images).recording()
    assert {found.stimuli.ids[i] for i in found.test.stimulus} == {f"pic{i:02d}.png" for i in TEST}
    assert found.train.session is not None and set(found.train.session) == {"0", "1"}
    other = Study.from_epochs(epochs(signals(), metadata=frame), images, test=[0, 1]).recording()
    assert {other.stimuli.ids[i] for i in other.test.stimulus} == {"pic00.png", "pic01.png"}


def test_epochs_of_several_people_are_one_study() -> None:
    two = {"ann": epochs(signals(seed=1)), "ben": epochs(signals(seed=2))}
    made = Study.from_epochs(two, pictures(), stimulus(), test=TEST)
    assert made.subjects == ("ann", "ben")
    np.testing.assert_array_equal(made.recording("ben").train.x[0], signals(seed=2)[0])
    fails("has several subjects; pass subject= one of ann, ben", made.recording)
    two["ben"] = epochs(signals()[:, :, :9])
    fails("ann and ben have trials of", lambda: Study.from_epochs(two, pictures(), stimulus(), test=TEST))


def test_epochs_whose_metadata_name_several_people_are_refused() -> None:
    import pandas as pd

    frame = pd.DataFrame({"pid": [1, 2] * N_PICTURES, "picture": stimulus()})
    one = epochs(signals(), metadata=frame)
    fails(
        r"metadata of the epochs: column 'pid' names 2 people \(1, 2\).*pass a mapping",
        lambda: Study.from_epochs(one, pictures(), "picture", test=TEST),
    )
    people = {who: one[f"pid == {who}"] for who in (1, 2)}
    assert Study.from_epochs(people, pictures(), "picture", test=TEST).subjects == ("1", "2")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"signals": "x.npy"}, "signals hold <U5, no real numbers"),
        ({"signals": signals().astype(complex)}, "signals hold complex"),
        ({"signals": [[1.0], [2.0, 3.0]]}, "signals are no array of numbers"),
        ({"signals": signals()[0, 0]}, "signals have shape (16,)"),
        ({"signals": np.ma.masked_greater(signals(), 1)}, "masked values"),
        ({"signals": np.where(signals() > 2, np.nan, signals())}, "NaN or infinite"),
        ({"signals": signals()[:5]}, "5 trials but 72 entries of stimulus"),
        ({"images": pictures() / 255.0}, "images 0: float64 (32, 32, 3); a picture is uint8 (H, W, 3)"),
        (
            {"images": (pictures() > 127).astype(np.uint8)},
            "images hold no value but 0 and 1; a picture is uint8, 0 to 255",
        ),
        ({"images": "nowhere"}, "'nowhere' is no folder"),
        ({"images": ["nowhere.png"]}, "'nowhere.png' does not exist"),
        ({"images": 3}, "pass an array (n, H, W, 3) uint8, a list of files, or a folder"),
        ({"stimulus": None}, "72 trials but 36 images; pass stimulus"),
        ({"stimulus": stimulus() + 1}, "stimulus 36 is no picture: there are 36"),
        ({"stimulus": ["no"] * 72}, "stimulus 'no' is none of the 36 pictures"),
        ({"test": [True]}, "72 trials but 1 entries of test"),
        ({"test": "last"}, "test='last'"),
        ({"test": [99]}, "test 99 is no picture"),
        ({"test": np.arange(72) < 40}, "training and test share"),
        ({"test": []}, "no trial belongs to the test split"),
        ({"sfreq": -1}, "sfreq=-1 should be a rate in Hz above 0"),
        ({"ch_names": ["Oz"]}, "1 ch_names for signals"),
        ({"groups": [1, 2]}, "entries of groups"),
        ({"subject": " "}, "subject is empty"),
        ({"study__window": "0.3:0.1"}, "study.window='0.3:0.1'"),
        ({"target__layer": "2"}, "'target.layer' is none of study.*"),
        ({"preprocess__scale": "zscore"}, "set it in the Decoder"),
    ],
)
def test_what_does_not_fit_is_one_line(change: dict[str, Any], told: str) -> None:
    usual = {"signals": signals(), "images": pictures(), "stimulus": stimulus(), "test": TEST}
    fails(re.escape(told), lambda: Study.from_arrays(**{**usual, **change}))


@pytest.mark.parametrize("subject", [["01", "02"], np.array(["01", "02"]), ("01",), {"01": 1}, None, 1.5, True])
def test_several_people_are_no_single_subject(subject: Any) -> None:
    """A column of subjects became the label of one person with the trials of all."""
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3)).astype(np.uint8)
    x = np.random.default_rng(1).normal(size=(6, 4))
    fails("names one person", lambda: Study.from_arrays(x, images, subject=subject))


def test_opening_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    fails("did you mean 'things_eeg2'", lambda: Study.open("things_eeg"))
    fails("is not a folder", lambda: Study.open("folder", tmp_path / "no").subjects)
    fails("no mne.Epochs", lambda: Study.from_epochs(signals(), pictures()))
    fails("has no subject '02'", lambda: study().recording("02"))
    fails("is no column", lambda: Study.from_epochs(epochs(signals()), pictures(), stimulus="image"))


def test_a_black_picture_among_others_is_a_picture() -> None:
    from align.data.importing.arrays import as_pictures

    images = pictures()
    images[0] = 0
    images[1] = images[1] > 127
    assert len(as_pictures(images)[1]) == N_PICTURES
    assert len(as_pictures(images[:1])[1]) == 1
