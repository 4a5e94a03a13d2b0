"""`recon data check` says what it took the files for, what is implausible, and which command goes on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.check import check_study, format_report
from align.data.studies import open_study
from recon.cli import parse
from tests.align.fixture_studies import write_folder


def smooth(n: int, channels: int, samples: int, seed: int = 0) -> np.ndarray:
    """Trials that run smoothly along time, their channels apart from each other."""
    x = np.random.default_rng(seed).normal(size=(n, channels, samples + 9))
    return np.stack([np.convolve(row, np.ones(10) / 10**0.5, "valid") for row in x.reshape(-1, samples + 9)]).reshape(
        n, channels, samples
    )


def report(
    root: Path, x: np.ndarray, tests: int = 3, info: dict[str, Any] | None = None, *pairs: str
) -> dict[str, Any]:
    rows = [
        {"row": i, "image": f"pic{i:03d}.png", "split": "test" if i < tests else "train", "subject": "01"}
        for i in range(len(x))
    ]
    write_folder(root, x.astype(np.float32), rows)
    if info is not None:
        (root / "info.json").write_text(json.dumps(info), encoding="utf-8")
    found = check_study(open_study(load_config(Config, None, ["study.name=folder", f"study.root={root}", *pairs])))
    return found


TIMED = {"sfreq": 100.0, "tmin": -0.2}


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (1e-13, "like tesla"),
        (1e-5, "like volts"),
        (1.0, "like standardised ones"),
        (20.0, "like microvolts"),
        (1e5, "unit not guessed"),
    ],
)
def test_what_it_was_taken_for(scale: float, told: str, tmp_path: Path) -> None:
    found = report(tmp_path, smooth(12, 5, 40) * scale, 3, TIMED)
    line = format_report(found)
    assert (
        "5 channels x 40 samples, 100 Hz, -0.2 to 0.19 s after the picture (first and last sample), values" in line
        and told in line
    )
    assert "repetitions 1" in line


def test_voxels_have_no_time(tmp_path: Path) -> None:
    text = format_report(report(tmp_path, np.random.default_rng(0).normal(3, 1, (12, 50))))
    assert "50 voxels or units, no time, values of median size" in text and "Hz" not in text


@pytest.mark.parametrize(
    ("shape", "info", "tests", "told"),
    [
        ((12, 5, 40), TIMED, 1, "one test picture"),
        ((12, 5, 40), None, 3, "no sampling rate"),
        ((12, 5, 40), {"sfreq": 0.25}, 3, "0.25 Hz is implausible"),
        ((12, 5, 40), {"sfreq": 1e6}, 3, "1e+06 Hz is implausible"),
        ((12, 5, 400), {"sfreq": 10.0}, 3, "lasts 40 s at 10 Hz"),
        ((12, 5, 40), {"sfreq": 40000.0}, 3, "lasts 0.001 s at 40000 Hz"),
        (
            (12, 5, 101),
            {"sfreq": 100.0, "tmin": -200},
            3,
            "begin 200 s before the picture, more than 10 s away: is tmin",
        ),
        ((12, 5, 101), {"sfreq": 100.0, "tmin": 50}, 3, "begin 50 s after the picture"),
        ((12, 5, 101), {"tmin": -200}, 3, "begin 200 s before the picture"),
        ((12, 5, 101), {"sfreq": 1000.0, "tmin": -0.2}, 3, "lies before the picture, -0.2 to -0.1 s (first and last"),
    ],
)
def test_implausible_things_are_remarks(
    shape: tuple[int, int, int], info: dict[str, Any] | None, tests: int, told: str, tmp_path: Path
) -> None:
    found = report(tmp_path, smooth(*shape), tests, info)
    assert any(told in text for text in found["remarks"]) and found["usable"]
    sound = report(tmp_path / "sound", smooth(12, 5, 40), 3, {**TIMED, "ch_names": list("abcde")})
    assert sound["remarks"] == []


def test_a_channel_of_another_size_is_named(tmp_path: Path) -> None:
    x = smooth(12, 5, 40)
    x[:, 3] *= 1000
    info = {**TIMED, "ch_names": list("abcde")}
    (told,) = report(tmp_path / "one", x, 3, info)["remarks"]
    assert "1 of 5 channels are of another size than the others: d (about " in told and "add preprocess.scale" in told
    assert report(tmp_path / "scaled", x, 3, info, "preprocess.scale=zscore")["remarks"] == []
    x[:, 3] /= 1e6
    assert "d (about 0.00" in report(tmp_path / "small", x, 3, info)["remarks"][0]


@pytest.mark.parametrize(("factor", "known"), [(1e6, True), (150, True), (50, False), (1, False)])
def test_people_of_other_units_are_named(factor: float, known: bool, tmp_path: Path) -> None:
    x = smooth(24, 5, 40)
    x[12:] *= factor
    rows = [
        {"row": i, "image": f"pic{i:03d}.png", "split": "test" if i % 12 < 3 else "train", "subject": f"0{1 + i // 12}"}
        for i in range(24)
    ]
    write_folder(tmp_path, x.astype(np.float32), rows)
    (tmp_path / "info.json").write_text(json.dumps({**TIMED, "ch_names": list("abcde")}), encoding="utf-8")
    pairs = ["study.name=folder", f"study.root={tmp_path}"]
    told = check_study(open_study(load_config(Config, None, pairs)))["remarks"]
    assert any("signals of subject 02 are about " in text and "those of subject 01" in text for text in told) is known
    scaled = check_study(open_study(load_config(Config, None, [*pairs, "preprocess.scale=zscore"])))["remarks"]
    assert not any("times as large as those of" in text for text in scaled)


@pytest.mark.parametrize("names", [False, True])
def test_swapped_axes_are_seen_where_no_names_say_it(names: bool, tmp_path: Path) -> None:
    x = smooth(12, 5, 40).transpose(0, 2, 1)
    info = {**TIMED, **({"ch_names": [f"c{i}" for i in range(40)]} if names else {})}
    found = report(tmp_path, x, 3, info)
    assert any("swapped" in text for text in found["remarks"]) is not names
    many = report(tmp_path / "many", smooth(12, 60, 40), 3, TIMED)  # more channels than samples, not swapped
    assert not any("swapped" in text for text in many["remarks"])


@pytest.mark.parametrize(("scale", "step"), [(1e-13, True), (1e-6, True), (1.0, False)])
def test_the_next_command_has_the_recommended_step(scale: float, step: bool, tmp_path: Path) -> None:
    root = tmp_path / "my study"
    found = report(root, smooth(12, 5, 40) * scale, 3, TIMED, "study.window=0:0.1", "subjects=[01]")
    words = shlex.split(found["next"])
    args = parse(words[1:])
    config = load_config(Config, args.config, args.overrides)
    assert (config.study.root, config.study.window, config.subjects) == (str(root), "0:0.1", ["01"])
    assert (config.preprocess.scale == "zscore") is step and f"next: {found['next']}" in format_report(found)


def test_there_is_no_next_command_for_what_is_not_usable(tmp_path: Path) -> None:
    x = smooth(12, 5, 40)
    x[3, 2, 1] = np.inf
    found = report(tmp_path, x, 3, TIMED)
    assert found["next"] is None and "next:" not in format_report(found)
