"""The simulated study: facts of the pictures, of the two codes, and of the files."""

import numpy as np
import pytest

from align.config import Config, SimulatedConfig
from align.data.studies import open_study
from align.data.studies.simulated import brain, rendering
from align.data.studies.simulated import study as simulated
from align.data.studies.simulated.rendering import CONCEPTS, TEST_CONCEPTS, TRAIN_CONCEPTS, picture, render, scene_of
from align.errors import UserError


@pytest.fixture
def small_study(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "TRAIN_CONCEPTS", TRAIN_CONCEPTS[:30])
    monkeypatch.setattr(simulated, "TEST_CONCEPTS", TEST_CONCEPTS[:8])
    monkeypatch.setattr(simulated, "TEST_REPETITIONS", 3)
    return lambda code="mixed", noise="eeg": simulated.Simulated(_config(tmp_path, code, noise))


def _config(root, code, noise):
    config = Config(simulated=SimulatedConfig(code=code, noise=noise))
    config.study.root = str(root)
    return config


def test_test_concepts_are_new_but_their_attributes_are_not():
    assert len(CONCEPTS) == 660
    assert (len(TRAIN_CONCEPTS), len(TEST_CONCEPTS)) == (460, 200)
    assert not set(TRAIN_CONCEPTS) & set(TEST_CONCEPTS)
    for place in range(3):
        parts = [{concept.split("-")[place] for concept in concepts} for concepts in (TRAIN_CONCEPTS, TEST_CONCEPTS)]
        assert parts[0] == parts[1]


def test_a_picture_shows_what_its_scene_says():
    for name in ("disk-plain-moon-3", "square-plain-grass-5", "diamond-plain-print-2"):
        scene = scene_of(name)
        hidden = render(scene).astype(float)
        elsewhere = render(rendering.Scene(**{**vars(scene), "x": 5.0, "y": 5.0})).astype(float)
        rows, columns = np.nonzero(np.abs(hidden - elsewhere).sum(-1) > 30)
        assert columns.mean() / 64 == pytest.approx(scene.x, abs=0.03)
        assert rows.mean() / 64 == pytest.approx(scene.y, abs=0.03)
    assert np.array_equal(picture("disk-plain-moon-3"), picture("disk-plain-moon-3"))
    assert not np.array_equal(picture("disk-plain-moon-3"), picture("disk-plain-moon-4"))


def test_captions_name_every_attribute_and_bad_ids_are_refused():
    scene = scene_of("star-dotted-fur-1")
    for word in ("star", "dotted", "fur", scene.colour, scene.size_name, scene.position):
        assert word in scene.caption
    with pytest.raises(UserError, match="disk-plain-brick-0"):
        scene_of("elephant-plain-brick-0")


def test_early_code_is_retinotopic():
    scene = scene_of("disk-checkered-moon-0")
    maps = []
    for x in (0.3, 0.7):
        moved = render(rendering.Scene(**{**vars(scene), "x": x, "y": 0.5}))
        maps.append(brain.early_features(moved[None])[0].reshape(11, 8, 8)[:8].mean(0))
    difference = maps[0] - maps[1]
    assert difference[3:5, 1:4].mean() > 0.2
    assert difference[3:5, 4:7].mean() < -0.2


def test_codes_live_where_and_when_they_should():
    rng = np.random.default_rng(0)
    early, late, fit = rng.normal(size=(80, 704)), rng.normal(size=(80, 27)), np.arange(80)
    power = {
        code: np.square(brain.evoked(early, late, fit, "01", code)).mean(0)
        for code in ("mixed", "late_only", "no_signal")
    }
    occipital, temporal = (np.isin(brain.CHANNELS, region) for region in (brain.OCCIPITAL, brain.TEMPORAL))
    early_only = power["mixed"] - power["late_only"]
    assert len(brain.CHANNELS) == 63
    assert np.argmax(early_only[occipital].mean(0)) == pytest.approx(10, abs=2)
    assert np.argmax(power["late_only"][temporal].mean(0)) == pytest.approx(20, abs=3)
    assert power["late_only"][temporal].mean() > 5 * power["late_only"][occipital & ~temporal].mean()
    assert not power["no_signal"].any()


def test_subjects_have_different_brains():
    rng = np.random.default_rng(0)
    early, late, fit = rng.normal(size=(40, 704)), rng.normal(size=(40, 27)), np.arange(40)
    first, again, other = (brain.evoked(early, late, fit, subject, "mixed").ravel() for subject in ("01", "01", "02"))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2


def test_noise_falls_with_frequency():
    x = brain.noise(np.random.default_rng(0), 200)
    power = np.square(np.abs(np.fft.rfft(x, axis=-1))).mean((0, 1))
    assert power[2] / power[8] == pytest.approx(4, rel=0.2)
    assert x.std() == pytest.approx(brain.NOISE["eeg"], rel=0.05)


def test_low_noise_is_the_same_brain_recorded_better(small_study):
    noisy, clear = small_study(), small_study(noise="low")
    assert noisy.root != clear.root
    first, second = noisy.recording("01"), clear.recording("01")
    assert "simulated.noise=low" in second.log[0] and "noise" not in first.log[0]
    share = brain.NOISE["low"] / brain.NOISE["eeg"]
    repeats = [np.diff(r.train.x[r.train.stimulus == 3], axis=0) for r in (first, second)]
    assert repeats[1] == pytest.approx(repeats[0] * share, abs=0.02)
    mean = [r.test.averaged().x.ravel() for r in (first, second)]
    assert np.corrcoef(*mean)[0, 1] < 0.9  # three trials of the noisy one are mostly noise
    with pytest.raises(UserError, match=r"simulated\.noise='lo' is not known; did you mean 'low'\? Known: eeg, low"):
        open_study(Config(simulated=SimulatedConfig(noise="lo")))


def test_study_is_stored_plainly_and_read_back(small_study):
    study = small_study()
    recording = study.recording("01")
    assert recording.train.x.shape == (30 * 2 * 4, 63, 50)
    assert recording.test.x.shape == (8 * 3, 63, 50)
    averaged = recording.test.averaged()
    assert [recording.stimuli.ids[i] for i in averaged.stimulus] == list(study.test_ids)
    assert averaged.x[2] == pytest.approx(recording.test.x[[2, 10, 18]].mean(0), abs=1e-5)
    assert sorted(p.name for p in (study.root / "sub-01").iterdir()) == ["info.json", "test.npy", "train.npy"]
    again = small_study().recording("01")
    assert np.array_equal(again.train.x, recording.train.x)
    assert np.array_equal(recording.stimuli.load(3), picture(recording.stimuli.ids[3]))


def test_bad_code_subject_and_file(small_study):
    with pytest.raises(UserError, match=r"simulated\.code='late' is not known; did you mean 'late_only'"):
        open_study(Config(simulated=SimulatedConfig(code="late")))
    study = small_study("no_signal")
    with pytest.raises(UserError, match="no subject '1'; did you mean '01'"):
        study.recording("1")
    study.recording("01")
    simulated._save(study.root / "sub-01" / "train.npy", np.zeros((3, 63, 50), dtype=np.float16))
    with pytest.raises(UserError, match="has shape"):
        study.recording("01")


def test_signals_of_another_subject_or_noise_are_simulated_again(small_study, caplog):
    def signals(study, subject="01"):
        found = study.read(subject)
        return found.train.x.tobytes(), found.test.x.tobytes()

    right, other, low = signals(small_study()), signals(small_study(), "02"), signals(small_study(noise="low"))
    assert len({right, other, low}) == 3
    own = small_study().root / "sub-01"
    for source in (small_study().root / "sub-02", small_study(noise="low").root / "sub-01"):
        for names in (["train.npy"], ["train.npy", "test.npy", "info.json"]):
            for name in names:
                (own / name).write_bytes((source / name).read_bytes())
            caplog.clear()
            assert signals(small_study()) == right
            assert "it is made again" in caplog.text
