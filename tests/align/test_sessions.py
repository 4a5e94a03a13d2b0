"""Sessions of one person in other units or treated in another way are said, and files are sessions where none is named.

A difference of units between trials of one split is said without sessions, too.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from align.config import Config, PreprocessConfig, load_config
from align.data.check import check_study
from align.data.measure import two_sizes
from align.data.odd_channels import flat_channels
from align.data.sessions import measure_sessions, session_remarks
from align.data.signals import Trials
from align.data.sound import remarks_of
from align.data.studies import open_study
from align.data.windows import equal_across, flat_rows
from tests.align.fixture_import import imported, read_folder, write_pictures, write_table

NAMES = [f"p{i:02d}.png" for i in range(20)]
TESTED = NAMES[14:]
Change = Callable[[np.ndarray], np.ndarray]


def trials(change: Change, shape: tuple[int, ...] = (30,), sessions: int = 2) -> Trials:
    """20 trials a session, raised by 2 deviations of 1 and more; ``change``d is the last session."""
    rng = np.random.default_rng(0)
    gain = rng.uniform(1, 4, size=(shape[0], *[1] * (len(shape) - 1)))
    x = gain * (rng.normal(size=(20 * sessions, *shape)) + 2)
    x[-20:] = change(x[-20:])
    n = np.zeros(len(x), np.int64)
    return Trials(x.astype(np.float32), n, n, np.repeat([f"s{i}" for i in range(1, sessions + 1)], 20))


def said(one: Trials, mvnn: bool = False) -> list[str]:
    return list(session_remarks("training", measure_sessions(one), PreprocessConfig(mvnn=mvnn)))


CHANGES: dict[str, tuple[Change, str]] = {
    "another unit": (lambda x: 300 * x, "times the spread of session"),
    "a smaller unit": (lambda x: x / 100, "has 1/"),
    "z-scored": (lambda x: (x - x.mean(0)) / x.std(0), "is centred on 0 and of spread 1, session"),
    "demeaned": (lambda x: x - x.mean(0), "is centred on 0, session"),
    "divided by its deviation": (lambda x: x / x.std(0), "of spread 1 in every channel, as after z-scoring"),
}


@pytest.mark.parametrize("sessions", [2, 5])
@pytest.mark.parametrize("shape", [(30,), (30, 12)])
@pytest.mark.parametrize("change", CHANGES)
def test_a_session_unlike_the_others_is_said(change: str, shape: tuple[int, ...], sessions: int) -> None:
    make, words = CHANGES[change]
    (text,) = said(trials(make, shape, sessions))
    assert words in text and f"s{sessions}" in text


def test_sessions_as_days_make_them_are_not_said() -> None:
    assert said(trials(lambda x: x)) == []
    assert said(trials(lambda x: 1.8 * x - 0.4)) == []
    everywhere = trials(lambda x: x)
    z = everywhere.x - everywhere.x.reshape(2, 20, -1).mean(1).repeat(20, 0)
    assert said(Trials(z, everywhere.stimulus, everywhere.repetition, everywhere.session)) == []
    artefact = trials(lambda x: np.concatenate([1000 * x[:1], x[1:]]))
    assert said(artefact) == []
    assert said(trials(lambda x: 300 * x, (30, 12)), mvnn=True) == []  # whitened session by session
    none = trials(lambda x: 300 * x)
    assert said(Trials(none.x, none.stimulus, none.repetition)) == []


def test_sparse_counts_are_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.data.sessions._HELD", 100)  # few of the trials are looked at
    one = trials(lambda x: x, (30, 12))
    one.x[:, 4] = 0
    one.x[[1, 21], 4, 3] = 1
    assert said(one) == [] and list(flat_channels(one)) == []
    one.x[21, 4, 3] = 0
    assert said(one) == [] and list(flat_channels(one)) == [(4, "session s2")]


@pytest.mark.parametrize("every", [2, 3, 10])
def test_two_units_within_a_split_are_seen_without_sessions(every: int) -> None:
    x = np.random.default_rng(1).normal(size=(60, 40)) + 2
    assert two_sizes(x) is None
    x[1::every] *= 300
    count, first, factor = two_sizes(x) or (0, 0, 0.0)
    assert (count, first) in ((60 // every, 1), (60 // every, 0)) and 250 < max(factor, 1 / factor) < 350
    assert two_sizes(np.random.default_rng(0).standard_t(1, size=(400, 1))) is None  # of one value nothing is said


def test_blinks_are_no_unit() -> None:
    x = np.random.default_rng(2).normal(size=(100, 8, 20))
    x[:12] *= np.geomspace(1.5, 40, 12)[:, None, None]
    assert two_sizes(x) is None


def test_empty_volumes_and_equal_rows() -> None:
    x = np.random.default_rng(3).normal(size=(6, 5))
    x[[1, 4]] = 0
    assert flat_rows(x).tolist() == [1, 4] and flat_rows(x[:, :1]).tolist() == []
    other = np.random.default_rng(4).normal(size=(3, 5))
    other[2], other[1] = x[3], 0
    assert equal_across(x, other) == [(2, 3)]


def write_sessions(folder: Path, arrays: list[np.ndarray], **columns: list[object]) -> list[object]:
    """The words of an import of a file for each array (40, V): every picture twice."""
    images, told = NAMES * 2, {"split": ["test" if name in TESTED else "train" for name in NAMES * 2]}
    files, events = [], []
    for i, x in enumerate(arrays, 1):
        files.append(folder / f"day{i}.npy")
        np.save(files[-1], x.astype(np.float32))
        events.append(write_table(folder / f"day{i}.csv", {"image": images, **told, **columns}))
    pictures = write_pictures(folder / "pictures", NAMES)
    return ["--arrays", *files, "--events", *events, "--images", pictures, "--subject", "01", "--out", folder / "out"]


def days(n: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(size=(40, 12)) + 2 for i in range(n)]


def told_sessions(out: Path) -> list[str]:
    with (out / "stimuli.csv").open(encoding="utf-8") as file:
        return list(dict.fromkeys(row.get("session", "") for row in csv.DictReader(file)))


def test_a_file_is_a_session_where_none_is_named(tmp_path: Path) -> None:
    one, two = days(2)
    imported(*write_sessions(tmp_path, [one, two - two.mean(0)]))
    assert told_sessions(tmp_path / "out") == ["day1", "day2"]
    words = "session day2 is centred on 0, session day1 is not"
    assert any(words in text for text in remarks_of(read_folder(tmp_path / "out")))
    config = load_config(Config, None, ["study.name=folder", f"study.root={tmp_path / 'out'}"])
    assert any(words in text for text in check_study(open_study(config))["remarks"])


def test_sessions_of_the_tables_and_single_files_stay_as_they_are(tmp_path: Path) -> None:
    imported(*write_sessions(tmp_path, days(1)))
    assert told_sessions(tmp_path / "out") == [""]
    words = write_sessions(tmp_path, [days(2)[1]])
    imported(*words, "--append")  # which of the old trials came from which file is not known
    assert told_sessions(tmp_path / "out") == [""]
    (tmp_path / "named").mkdir()
    imported(*write_sessions(tmp_path / "named", days(2), session=["a", "b"] * 20))
    assert told_sessions(tmp_path / "named" / "out") == ["a", "b"]


def test_a_file_that_is_added_becomes_a_session_too(tmp_path: Path) -> None:
    imported(*write_sessions(tmp_path, days(2)))
    words = write_sessions(tmp_path, [days(3)[2]])  # a third file, called as the first one
    imported(*words, "--append")
    assert told_sessions(tmp_path / "out") == ["day1", "day2", f"{tmp_path.name}-day1"]


def test_a_file_of_test_trials_alone_is_no_session(tmp_path: Path) -> None:
    words = write_sessions(tmp_path, days(2))
    for i, split in enumerate(("train", "test"), 1):
        names = NAMES[:10] if split == "train" else NAMES[10:]
        write_table(tmp_path / f"day{i}.csv", {"image": names * 4, "split": [split] * 40})
    imported(*words)
    assert told_sessions(tmp_path / "out") == [""]


@pytest.mark.parametrize("every", [2, 3])
def test_a_half_or_a_third_of_the_trials_in_another_unit_is_said(every: int, tmp_path: Path) -> None:
    x = days(1)[0]
    x[::every] *= 300
    imported(*write_sessions(tmp_path, [x]))
    found = remarks_of(read_folder(tmp_path / "out"))
    for split in ("training", "test"):
        assert any(text.startswith(f"{split}: ") and "times as large as the others" in text for text in found), found


def test_empty_volumes_are_said_at_import_and_after(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = days(1)[0]
    x[[3, 17, 18]] = 0  # two training trials, then two of the test
    imported(*write_sessions(tmp_path, [x]))
    assert "3 of 40 trials hold one value throughout, as empty volumes do (first: row 3 of the signals)" in caplog.text
    found = remarks_of(read_folder(tmp_path / "out"))
    assert any("training: 1 of 28 trials (first: 3) hold one value throughout" in text for text in found)
    assert any("test: 2 of 12 trials (first: 3) hold one value throughout" in text for text in found)


def test_one_volume_in_training_and_test_is_said(tmp_path: Path) -> None:
    x = days(1)[0]
    x[15] = x[4]
    imported(*write_sessions(tmp_path, [x]))
    words = "test: 1 of 12 trials hold the very numbers of a training trial (first: row 1 = training row 4)"
    assert any(words in text for text in remarks_of(read_folder(tmp_path / "out")))
