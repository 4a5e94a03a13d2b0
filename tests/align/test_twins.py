"""`align.data.twins`: a recording in two versions is found by its noise; true repetitions are not, however alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scipy.ndimage import shift
from scipy.signal import butter, lfilter, sosfiltfilt

from align.config import Config, load_config
from align.data.check import check_study
from align.data.overlapping import noise_by_order, with_combination
from align.data.people_alike import Sample, group_means
from align.data.session_answers import agreements, session_answer_remarks
from align.data.signals import Recording, Stimuli, Trials
from align.data.sound import remarks_of
from align.data.studies import open_study
from align.data.studies.simulated import study as simulated
from align.data.studies.simulated.rendering import TEST_CONCEPTS, TRAIN_CONCEPTS
from align.data.twins import doubles, twins
from tests.align.fixture_studies import write_folder

PICTURES, LENGTH, RATE = 24, 200, 250
SHOWN = np.tile(np.arange(PICTURES), 2)  # twice


def recorded(seed: int = 0, repetitions: int = 2) -> np.ndarray:
    """A continuous recording (8, samples): a response to every picture under noise as of EEG."""
    rng = np.random.default_rng(seed)
    noise = lfilter([1], [1, -0.9], rng.normal(size=(8, repetitions * PICTURES * RATE)), axis=1)
    noise += 3 * lfilter([1], [1, -0.9], rng.normal(size=noise.shape[1]))  # what the reference brings in
    answer = rng.normal(size=(PICTURES, 8, 1)) * np.hanning(LENGTH)
    for i in range(repetitions * PICTURES):
        noise[:, i * RATE : i * RATE + LENGTH] += answer[i % PICTURES]
    return noise


def cut(raw: np.ndarray) -> np.ndarray:
    return np.stack([raw[:, at : at + LENGTH] for at in range(0, raw.shape[1], RATE)])


def trials(x: np.ndarray, stimulus: np.ndarray, session: np.ndarray | None = None) -> Trials:
    return Trials(x.astype(np.float32), stimulus, np.zeros(len(x), np.int64), session)


def filtered(raw: np.ndarray) -> np.ndarray:
    return np.asarray(sosfiltfilt(butter(4, (0.5, 40), "band", fs=RATE, output="sos"), raw))


VERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "filtered": lambda raw: cut(filtered(raw)),
    "against the average": lambda raw: cut(raw - raw.mean(axis=0)),
    "both": lambda raw: cut(filtered(raw - raw.mean(axis=0))),
    "in another unit": lambda raw: cut(filtered(raw)) * 1e6,
    "with a baseline": lambda raw: cut(raw) - cut(raw)[:, :, :20].mean(axis=2, keepdims=True),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_two_versions_of_one_recording_are_found(version: str) -> None:
    raw = recorded()
    x = np.concatenate([cut(raw), VERSIONS[version](raw)])
    found = twins(trials(x, np.tile(SHOWN, 2)))
    n = len(SHOWN)
    assert found.n == 2 * n and len(found.pairs) > 0.9 * n
    assert all(row - first == n for row, first in found.pairs)


def test_versions_with_other_rejected_trials_side_by_side_and_of_one_session() -> None:
    raw = recorded()
    x, y = cut(raw), cut(filtered(raw))
    kept = np.delete(np.arange(len(x)), [3, 11, 30])
    found = twins(trials(np.concatenate([x, y[kept]]), np.concatenate([SHOWN, SHOWN[kept]])))
    assert len(found.pairs) == len(kept)
    found = twins(trials(np.stack([x, y], 1).reshape(-1, *x.shape[1:]), np.repeat(SHOWN, 2)))
    assert len(found.pairs) == len(x)
    found = twins(trials(np.concatenate([x, y[:PICTURES]]), np.concatenate([SHOWN, SHOWN[:PICTURES]])))
    assert len(found.pairs) == PICTURES


@pytest.mark.parametrize("version", ["against the average", "in another unit", "with a baseline"])
def test_two_trials_of_a_picture_that_are_one_recording_are_found(version: str) -> None:
    """Two trials without their mean are always one but for the sign, so whole trials are compared."""
    raw = recorded(repetitions=1)
    other = 1e6 * cut(raw) if version == "in another unit" else VERSIONS[version](raw)
    found = doubles(trials(np.concatenate([cut(raw), other]), np.tile(np.arange(PICTURES), 2)))
    assert found.n == 2 * PICTURES and found.pairs == [(i + PICTURES, i) for i in range(PICTURES)]
    two = trials(cut(recorded()), SHOWN)
    assert not doubles(two).pairs and not doubles(trials(np.ones((48, 8, 50)), SHOWN)).pairs
    little = ALIKE["little noise"](np.random.default_rng(0))
    assert not doubles(trials(little[:48], SHOWN)).pairs


def test_averages_that_overlap_and_repetitions_close_in_time_are_told() -> None:
    rng = np.random.default_rng(0)
    one = (signal(rng, (8, 50), 4) + 3 * rng.normal(size=(4 * PICTURES, 8, 50))).reshape(4, PICTURES, 8, 50)
    means = ((one[:-1] + one[1:]) / 2).reshape(-1, 8, 50)
    shown = np.tile(np.arange(PICTURES), 4)
    found = noise_by_order(trials(means, shown[: 3 * PICTURES]))
    assert found is not None and found[0] == (0, 2) and found[1] in ((0, 1), (1, 2))
    slow = one.copy()
    slow[1] += slow[0] - one.mean(axis=0)
    found = noise_by_order(trials(slow.reshape(-1, 8, 50), shown))
    assert found is not None and found[1] == (0, 1)
    assert noise_by_order(trials(one.reshape(-1, 8, 50), shown)) is None
    assert noise_by_order(trials(one[:2].reshape(-1, 8, 50), shown[: 2 * PICTURES])) is None


@pytest.mark.parametrize("kind", ["the mean", "the mean of two", "a difference"])
def test_a_trial_that_is_a_combination_of_others_is_told(kind: str) -> None:
    rng = np.random.default_rng(0)
    one = (signal(rng, (8, 50), 3) + rng.normal(size=(3 * PICTURES, 8, 50))).reshape(3, PICTURES, 8, 50)
    made = {"the mean": one.mean(axis=0), "the mean of two": one[:2].mean(axis=0), "a difference": one[0] - one[2]}
    x = np.concatenate([one, made[kind][None]]).reshape(-1, 8, 50)
    assert with_combination(trials(x, np.tile(np.arange(PICTURES), 4))) == (PICTURES, PICTURES)
    assert with_combination(trials(x[: 3 * PICTURES], np.tile(np.arange(PICTURES), 3))) == (0, PICTURES)


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "voxels in another order": lambda x: x[:, np.random.default_rng(1).permutation(x.shape[1])],
    "events shifted": lambda x: np.roll(x, 1, axis=0),
    "events of another session": lambda x: x[np.random.default_rng(1).permutation(len(x))],
}


def in_sessions(seed: int, count: int, noise: float, each: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses (n, 60), pictures and sessions; every session shows each picture ``each`` times."""
    rng = np.random.default_rng(seed)
    shown = np.tile(np.arange(PICTURES), count * each)
    session = np.repeat([str(s) for s in range(count)], PICTURES * each)
    level = rng.normal(size=60)  # of a voxel
    x = 5 * level + rng.normal(size=(PICTURES, 60))[shown] + noise * rng.normal(size=(len(shown), 60))
    return x, shown, session


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("count", "each"), [(3, 1), (2, 2)])
def test_a_session_that_does_not_answer_to_the_same_pictures_is_told(fault: str, count: int, each: int) -> None:
    for seed in range(5):
        x, shown, session = in_sessions(seed, count, 1.5, each)
        made = trials(x, shown, session)
        recording = Recording("made", "01", made, made.take(np.arange(0)), cast(Any, None), ())
        assert not list(session_answer_remarks(recording))
        x[session == "1"] = FAULTS[fault](x[session == "1"])
        (text,) = session_answer_remarks(replace(recording, train=trials(x, shown, session)))
        assert re.match(r"training: session [01] does not answer to the pictures as", text), text
        assert count == 2 or text.startswith("training: session 1 ")


def test_sessions_without_a_signal_say_nothing() -> None:
    for seed in range(20):
        x, shown, session = in_sessions(seed, 3, 1.0)
        noise = np.random.default_rng(seed).normal(size=x.shape)
        made = Recording("made", "01", trials(noise, shown, session), trials(x[:0], shown[:0]), cast(Any, None), ())
        assert not list(session_answer_remarks(made))
    assert agreements(trials(x, shown)) == {} and agreements(trials(x[:5], shown[:5], session[:5])) == {}


def two_people(root: Path, of: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Faults of a folder of people: 01, and 02 who is ``of`` 01's recording."""
    raw, people = recorded(repetitions=1), {"01": cut(recorded(repetitions=1))}
    people["02"] = of(raw)
    for name, x in people.items():
        rows = [
            {"row": i, "image": f"pic{i:03d}.png", "split": "train" if i < 20 else "test", "subject": name}
            for i in range(PICTURES)
        ]
        write_folder(root / name, x.astype(np.float32), rows)
    faults: list[str] = check_study(open_study(load_config(Config, None, ["study.name=folder", f"study.root={root}"])))[
        "faults"
    ]
    return faults


@pytest.mark.parametrize("version", ["a copy", *VERSIONS])
def test_one_recording_as_that_of_two_people_is_a_fault(version: str, tmp_path: Path) -> None:
    (fault,) = two_people(tmp_path, cut if version == "a copy" else VERSIONS[version])
    assert re.fullmatch(r"subjects 01 and 02: the same recording, in \d\d of 20 pictures .*keep one of the two", fault)


def test_two_people_are_two(tmp_path: Path) -> None:
    assert not two_people(tmp_path, lambda raw: cut(recorded(seed=1, repetitions=1)))


@pytest.mark.parametrize("size", [(8, 50), (300,)])
def test_a_group_mean_is_no_person(size: tuple[int, ...]) -> None:
    rng, shown = np.random.default_rng(0), np.tile(np.arange(PICTURES), 3)
    stimuli = Stimuli(tuple(f"p{i}" for i in range(PICTURES)), cast(Any, None), shown, ("",) * 24, ("",) * 24)

    def sample(x: np.ndarray) -> Sample:
        made = trials(x, shown)
        return Sample.of(Recording("made", "01", made, made.take(np.arange(0)), stimuli, ()))

    answer = 3 * signal(rng, size, 3)
    one, two, three = (answer + rng.normal(size=(3 * PICTURES, *size)) for _ in range(3))
    each = ((one + two) / 2).reshape(3, PICTURES, *size).mean(axis=0)
    for mean in ((one + two) / 2, np.tile(each, (3, *[1] * len(size)))):
        people = {"ann": sample(one), "bob": sample(two), "mean": sample(mean)}
        (text,) = group_means(people)
        assert text.startswith("subjects ann, bob, mean: trials of one") and "in 24 of 24 pictures" in text
    assert not list(group_means({"ann": sample(one), "bob": sample(two), "cat": sample(three)}))


def test_standardised_betas_beside_raw_ones() -> None:
    rng = np.random.default_rng(0)
    x = 5 * rng.normal(size=300) + 0.5 * rng.normal(size=(PICTURES, 300))[SHOWN] + rng.normal(size=(len(SHOWN), 300))
    both = np.concatenate([x, (x - x.mean(axis=0)) / x.std(axis=0)])
    found = twins(trials(both, np.tile(SHOWN, 2), np.repeat(["1", "2"], len(x))))
    assert len(found.pairs) == len(x)


def test_versions_are_found_under_a_response_far_above_the_noise() -> None:
    rng = np.random.default_rng(0)
    x = 50 * rng.normal(size=(PICTURES, 8, 50))[np.tile(np.arange(PICTURES), 4)] + rng.normal(
        size=(4 * PICTURES, 8, 50)
    )
    both = np.concatenate([x, x + 0.1 * rng.normal(size=x.shape)])
    assert len(twins(trials(both, np.tile(np.arange(PICTURES), 8))).pairs) == len(x)


def signal(rng: np.random.Generator, size: tuple[int, ...], n: int) -> np.ndarray:
    return rng.normal(size=(PICTURES, *size))[np.tile(np.arange(PICTURES), n)]


def other_latencies(rng: np.random.Generator) -> np.ndarray:
    x = np.cumsum(signal(rng, (4, 200), 6), axis=2)
    late = 3 * rng.normal(size=len(x))
    return np.stack([shift(one, (0, by), order=1, mode="nearest") for one, by in zip(x, late, strict=True)])


ALIKE: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "little noise": lambda rng: signal(rng, (8, 50), 4) + 0.02 * rng.normal(size=(4 * PICTURES, 8, 50)),
    "betas": lambda rng: 5 * rng.normal(size=300) + signal(rng, (300,), 3) + rng.normal(size=(3 * PICTURES, 300)),
    "betas, little noise": lambda rng: signal(rng, (300,), 3) + 0.02 * rng.normal(size=(3 * PICTURES, 300)),
    "patterns of sessions": lambda rng: (
        signal(rng, (300,), 4)
        + 5 * np.repeat(rng.normal(size=(2, 300)), 2 * PICTURES, axis=0)
        + rng.normal(size=(4 * PICTURES, 300))
    ),
    "a common gain": lambda rng: (
        signal(rng, (300,), 4) * np.exp(rng.normal(size=(4 * PICTURES, 1)))
        + 0.02 * rng.normal(size=(4 * PICTURES, 300))
    ),
    "noise along one direction": lambda rng: (
        signal(rng, (300,), 4) + 5 * rng.normal(size=(4 * PICTURES, 1)) * rng.normal(size=300)
    ),
    "latencies": other_latencies,
    "spikes": lambda rng: rng.poisson(np.exp(signal(rng, (40,), 8))).astype(float),
    "noise of the stimulator, the same in every other block": lambda rng: (
        signal(rng, (8, 50), 8)
        + np.repeat(np.tile(3 * rng.normal(size=(4, 8, 50)), (2, 1, 1)), PICTURES, axis=0)
        + 0.1 * rng.normal(size=(8 * PICTURES, 8, 50))
    ),
    "the same number throughout": lambda rng: np.ones((4 * PICTURES, 8, 50)),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_true_repetitions_are_no_twins(kind: str) -> None:
    for seed in range(3):
        x = ALIKE[kind](np.random.default_rng(seed))
        made = trials(x, np.tile(np.arange(PICTURES), len(x) // PICTURES))
        assert not twins(made).pairs and noise_by_order(made) is None and not with_combination(made)[0]


def test_one_recording_by_itself() -> None:
    assert not twins(trials(cut(recorded(repetitions=4)), np.tile(SHOWN, 2))).pairs


@pytest.mark.parametrize("noise", ["low", "eeg"])
def test_the_simulated_study_has_none(noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated, "TRAIN_CONCEPTS", TRAIN_CONCEPTS[:30])  # fewer to render
    monkeypatch.setattr(simulated, "TEST_CONCEPTS", TEST_CONCEPTS[:8])
    words = [f"study.root={tmp_path}", f"simulated.noise={noise}"]
    recording = open_study(load_config(Config, None, words)).read("01")
    assert not twins(recording.train).pairs and not twins(recording.test).pairs


def test_check_and_every_reader_say_so(tmp_path: Path) -> None:
    raw = recorded()
    x = np.concatenate([cut(raw), cut(filtered(raw))]).astype(np.float32)
    rows = [
        {
            "row": i,
            "image": f"pic{picture:03d}.png",
            "split": "train" if picture < 20 else "test",
            "subject": "01",
            "session": "one" if i < len(SHOWN) else "two",
        }
        for i, picture in enumerate(np.tile(SHOWN, 2).tolist())
    ]
    write_folder(tmp_path, x, rows)
    study = open_study(load_config(Config, None, ["study.name=folder", f"study.root={tmp_path}"]))
    words = "training: 80 of 80 trials share their noise .*picture pic000.png, sessions two and one.*two versions"
    for told in (check_study(study)["remarks"], remarks_of(study.recording("01"))):
        (text,) = [text for text in told if "training" in text and "noise" in text]
        assert re.search(words, text), text
