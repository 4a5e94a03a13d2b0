"""`align.data.odd_channels`: flat in one session, or the same at every repetition of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.check import check_study
from align.data.odd_channels import counting_channels, exact_channels, flat_channels
from align.data.signals import Trials
from align.data.sound import remarks_of
from align.data.studies import open_study
from tests.align.fixture_studies import write_folder

PICTURES, N = 6, 24
SHOWN = np.tile(np.arange(PICTURES), N // PICTURES)
SESSION = np.repeat(["one", "two"], N // 2)


def trials(x: np.ndarray, session: np.ndarray | None = None) -> Trials:
    return Trials(x, SHOWN, np.zeros(N, np.int64), session)


def noise(*size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, *size))


def test_a_channel_that_is_flat_in_one_session_is_named_with_it() -> None:
    for size in ((4, 10), (5,)):
        x = noise(*size)
        x[SESSION == "two", 3] = 0
        assert list(flat_channels(trials(x, SESSION))) == [(3, "session two")]
    x = noise(4, 10)
    x[12:, 3] = 0.5
    assert list(flat_channels(trials(x))) == [(3, "rows 12 to 23")]


def test_dead_channels_and_silent_units_are_not() -> None:
    x = noise(4, 10)
    x[:, 3] = 0
    assert not list(flat_channels(trials(x, SESSION))) and not list(flat_channels(trials(x)))
    silent = np.random.default_rng(0).poisson(0.03, (N, 4, 10)).astype(float)
    assert (np.ptp(silent, axis=2) == 0).any() and not list(flat_channels(trials(silent)))


@pytest.mark.parametrize("volts", [1.0, 1e-6])
def test_a_trigger_channel_is_found_in_any_unit_and_rounded(volts: float) -> None:
    x = noise(4, 10)
    x[:, 2] = (SHOWN[:, None] + 1) * (np.arange(10) < 3) - 0.3 * (SHOWN[:, None] + 1)
    assert exact_channels(trials((x * volts).astype(np.float32))) == [2]
    assert exact_channels(trials((x + 100).astype(np.float32))) == [2]


def test_strong_and_silent_and_noise_free_channels_are_no_triggers() -> None:
    x = noise(4, 10)
    x[:, 2] = 20 * SHOWN[:, None] + x[:, 2]  # a strong answer
    x[:, 1] = 7
    assert not exact_channels(trials(x))
    assert not exact_channels(trials(np.random.default_rng(0).normal(size=(PICTURES, 4, 10))[SHOWN]))  # no noise
    sparse = noise(5)
    sparse[:, 1] = np.where(SHOWN == 2, 1, 0)  # a unit that fires for one picture
    assert not exact_channels(trials(sparse))


@pytest.mark.parametrize(
    "values", [np.arange(N), -np.arange(N) / 7 - 3e5, np.cumsum(np.random.default_rng(1).random(N))]
)
def test_an_index_a_number_of_trials_and_a_time_count(values: np.ndarray) -> None:
    for size in ((4, 10), (5,)):
        x = noise(*size)
        x[:, 2] = values.reshape(-1, *[1] * (len(size) - 1))
        assert counting_channels(trials(x.astype(np.float32) if values[0] == 0 else x)) == [2]


def test_drifts_and_short_recordings_do_not_count() -> None:
    x = noise(5)
    x[:, 2] += np.arange(N)  # a drift with noise
    assert not counting_channels(trials(x))
    within = noise(4, 10)
    within[:, 2, 0] = np.arange(N)  # the first sample alone
    assert not counting_channels(trials(within))
    few = Trials(np.arange(15.0)[:, None], SHOWN[:15], np.zeros(15, np.int64), None)
    assert not counting_channels(few)
    assert not counting_channels(trials(np.arange(N)[:, None] + np.arange(5.0)))  # a made-up recording, all alike
    gone = noise(5)
    gone[:, 1] = np.nan
    assert not counting_channels(trials(gone))


def test_check_and_every_reader_say_both(tmp_path: Path) -> None:
    x = noise(4, 10).astype(np.float32)
    x[SESSION == "two", 3] = 0
    x[:, 0] = SHOWN[:, None] * np.hanning(10)
    x[:, 1] = np.arange(N)[:, None]
    rows = [
        {
            "row": i,
            "image": f"pic{picture:03d}.png",
            "split": "train" if picture < 5 else "test",
            "subject": "01",
            "session": session,
        }
        for i, (picture, session) in enumerate(zip(SHOWN.tolist(), SESSION.tolist(), strict=True))
    ]
    write_folder(tmp_path, x, rows)
    (tmp_path / "info.json").write_text('{"sfreq": 100, "ch_names": ["Status", "Cz", "Pz", "Oz"]}')
    study = open_study(load_config(Config, None, ["study.name=folder", f"study.root={tmp_path}"]))
    for told in (check_study(study)["remarks"], remarks_of(study.recording("01"))):
        text = "\n".join(told)
        assert "training: 1 channel never changes in session two, but elsewhere: Oz" in text
        assert "1 channel or voxel rises (or always falls) from each trial to the next: Cz; an index" in text
        assert "1 channel is exactly the same whenever a picture is shown again" in text and "pictures: Status;" in text
