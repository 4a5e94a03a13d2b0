"""THINGS-EEG2 in every variant, from files written as their publishers write them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from align import train as script
from align.config import Config, load_config
from align.data.signals import Recording
from align.data.studies import open_study
from align.data.studies.things.eeg2 import CHANNELS, LAYOUTS, ThingsEEG2
from recon import cli
from tests.align import fixture_things as things
from tests.one_line import fails

PROJECT = Path(__file__).resolve().parents[2]
RECORDED = things.epochs()


def study(root: Path, *overrides: str) -> ThingsEEG2:
    pairs = ["study.name=things_eeg2", f"study.root={root}", f"cache_dir={root / 'cache'}", *overrides]
    found = open_study(load_config(Config, None, pairs))
    assert isinstance(found, ThingsEEG2)
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One recording in four variants, each with its pictures; UBP's folder of training pictures has its own name."""
    found = {}
    for name, write in things.WRITERS.items():
        found[name] = tmp_path_factory.mktemp(name)
        write(found[name], RECORDED)  # type: ignore[operator]
        things.write_pictures(found[name], "train_images" if name == "ubp" else "training_images")
    return found


def copy_of(root: Path, to: Path) -> Path:
    """A folder whose files are links to those of ``root``, so that one can be replaced."""
    for path in root.rglob("*"):
        target = to / path.relative_to(root)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif "cache" not in path.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    return to


@pytest.mark.parametrize("variant", things.WRITERS)
def test_variant_is_recognised_and_read(roots: dict[str, Path], variant: str) -> None:
    opened = study(roots[variant])
    assert opened.variant == variant and opened.subjects == ("01",)
    recording = opened.read("01")
    before = 0 if variant == "official" else things.BEFORE
    rows = [things.CH_NAMES.index(name) for name in recording.ch_names]
    assert recording.ch_names == (things.OCCIPITAL if variant == "official" else things.CH_NAMES)
    for trials, stored, first in ((recording.train, RECORDED.train, 0), (recording.test, RECORDED.test, 120)):
        n, repetitions = stored.shape[:2]
        expected = stored[:, :, rows, before:].reshape(n * repetitions, len(rows), -1)
        np.testing.assert_array_equal(np.asarray(trials.x, np.float64), expected)
        np.testing.assert_array_equal(trials.stimulus, first + np.repeat(np.arange(n), repetitions))
        np.testing.assert_array_equal(trials.repetition, np.tile(np.arange(repetitions), n))
    assert isinstance(recording.train.x, np.memmap)  # mapped, not read
    assert recording.sfreq == things.RATE
    assert recording.tmin == (-0.2 if variant == "official" else 0.0)


def test_sessions_are_told_where_the_file_tells_them(roots: dict[str, Path]) -> None:
    recording = study(roots["ubp"]).read("01")
    assert recording.train.session is not None and recording.test.session is not None
    np.testing.assert_array_equal(recording.train.session[:8], [0, 1, 2, 3] * 2)
    np.testing.assert_array_equal(recording.test.session[:8], [0, 0, 1, 1, 2, 2, 3, 3])
    assert study(roots["nice"]).read("01").train.session is None


def test_one_recording_gives_identical_tensors_in_every_variant(roots: dict[str, Path]) -> None:
    steps = ['preprocess.channels=["P.*","O.*"]', "preprocess.tmin=0", "preprocess.scale=zscore"]
    found: dict[str, Recording] = {name: study(root, *steps).recording("01") for name, root in roots.items()}
    first = found.pop("official")
    assert first.ch_names == things.OCCIPITAL and first.train.x.shape == (480, 6, things.AFTER)
    for name, recording in found.items():
        assert recording.stimuli.ids == first.stimuli.ids and recording.stimuli.hashes == first.stimuli.hashes, name
        assert (recording.ch_names, recording.sfreq, recording.tmin) == (first.ch_names, first.sfreq, first.tmin)
        for trials, other in ((recording.train, first.train), (recording.test, first.test)):
            np.testing.assert_array_equal(trials.x, other.x)
            np.testing.assert_array_equal(trials.stimulus, other.stimulus)
            np.testing.assert_array_equal(trials.averaged().x, other.averaged().x)
    x = RECORDED.train[:, :, [things.CH_NAMES.index(name) for name in first.ch_names], things.BEFORE :]
    x = x - x.mean(axis=(0, 1, 3), keepdims=True)
    expected = x / x.std(axis=(0, 1, 3), keepdims=True)
    np.testing.assert_allclose(first.train.x, expected.reshape(first.train.x.shape), atol=1e-5)


def test_pictures_belong_to_their_ids(roots: dict[str, Path]) -> None:
    stimuli = study(roots["nice"]).stimuli
    assert (
        stimuli.ids[11] == "train/00002_kind01/kind01_01s.jpg" and stimuli.ids[-1] == "test/00006_other5/other5_03n.jpg"
    )
    assert stimuli.concepts[11] == "kind01" and stimuli.concepts[-1] == "other5"
    assert stimuli.load(11).shape == (24, 24, 3) and len(set(stimuli.hashes)) == 126
    same = stimuli.groups[:, None] == stimuli.groups[None]
    concepts = np.array(stimuli.concepts)
    np.testing.assert_array_equal(same, concepts[:, None] == concepts[None])


def test_pictures_are_decoded_only_when_asked_for(roots: dict[str, Path], tmp_path: Path) -> None:
    root = copy_of(roots["nice"], tmp_path)
    broken = root / "training_images" / "00003_kind02" / "kind02_04s.jpg"
    broken.unlink()
    broken.write_bytes(b"no JPEG")
    stimuli = study(root).read("01").stimuli
    stimuli.load(23)
    fails("kind02_04s", lambda: stimuli.load(24))


def test_check_shows_what_was_published_beside_what_was_found(roots: dict[str, Path]) -> None:
    facts = {fact.what: (fact.declared, fact.found) for fact in study(roots["nice"]).check()}
    assert facts == {
        "subjects": ("10", "1"),
        "row order": ("sorted folders, equal to image_metadata.npy in every row",) * 2,
        "01 training pictures x repetitions": ("16540 x 4", "120 x 4"),
        "01 test pictures x repetitions": ("200 x 80", "6 x 8"),
        "01 channels x samples": ("63 x 250 at 250.0 Hz", "8 x 25 at 50.0 Hz"),
        "01 values not finite": ("0", "0"),
    }
    log = study(roots["nice"]).read("01").log
    assert "partial copy: 120 of 16540 training pictures; usable, but its scores are not comparable" in log


def test_the_17_channels_are_the_last_of_the_63() -> None:
    from align.data.preparing.steps import select_channels

    config = load_config(Config, PROJECT / "configs" / "align" / "things_eeg2.yaml")
    assert len(CHANNELS) == len(set(CHANNELS)) == 63
    picks = select_channels(config.preprocess.channels, CHANNELS, "things_eeg2")
    np.testing.assert_array_equal(np.sort(picks), np.arange(46, 63))


def test_neurobridge_without_or_with_a_pickled_description(roots: dict[str, Path], tmp_path: Path) -> None:
    things.write_neurobridge(tmp_path, RECORDED, pickled=True)
    pictures = f"study.images={roots['nice']}"
    pickled = study(tmp_path, pictures).read("01")
    np.testing.assert_array_equal(pickled.train.x, study(roots["neurobridge"]).read("01").train.x)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        shape = (12 if split == "train" else 6, 10 if split == "train" else 1, 2, 63, 250)
        x = rng.normal(size=shape).astype(np.float32)
        np.save(tmp_path / "preprocessed_eeg" / "sub-01" / f"{split}.npy", x)
    bare = study(tmp_path, pictures).read("01")
    assert bare.ch_names == CHANNELS and bare.sfreq == 250.0 and bare.tmin == 0.0
    assert any("does not tell its ch_names" in line for line in bare.log)
    np.save(tmp_path / "preprocessed_eeg" / "sub-01" / "train.npy", np.zeros((12, 10, 2, 17, 250), np.float32))
    fails("different channels", lambda: study(tmp_path, pictures).read("01"))


def test_raw_sessions_become_trials_of_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        things, "TRAIN", [(f"{c + 1:05d}_kind{c}", f"kind{c}_{k}.jpg") for c in range(2) for k in (1, 2)]
    )
    monkeypatch.setattr(things, "TEST", things.TEST[:2])
    things.write_raw(tmp_path, n_train=4, n_test=2)
    things.write_pictures(tmp_path)
    opened = study(tmp_path)
    assert opened.variant == "raw"
    recording = opened.read("01")
    assert recording.train.x.shape == (16, 8, 300) and recording.test.x.shape == (16, 8, 300)
    assert recording.sfreq == 250.0 and recording.tmin == -0.2
    for trials, first, sessions in ((recording.train, 0, 2), (recording.test, 4, 4)):
        late = trials.x[:, :, 60:290].mean(axis=2)  # from 40 ms: the level of the event in every channel
        level = (trials.stimulus - first + 1)[:, None] * (np.arange(8) + 1) * 1e-6
        np.testing.assert_allclose(late, level, rtol=0.01)
        assert trials.session is not None
        assert all(len(set(trials.session[trials.stimulus == i])) == sessions for i in set(trials.stimulus))
    with (tmp_path / "image_metadata.npy").open("wb") as file:
        np.save(file, things.metadata_of(things.TRAIN[:3], things.TEST))
    (tmp_path / "training_images" / "00002_kind1" / "kind1_2.jpg").unlink()
    fails("event 4, the folder 3 train pictures", lambda: study(tmp_path).read("01"))


def _metadata(change: Callable[[list[tuple[str, str]]], object]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        train = list(things.TRAIN)
        change(train)
        (root / "image_metadata.npy").unlink()
        np.save(root / "image_metadata.npy", things.metadata_of(train, things.TEST))

    return edit


def _swap(train: list[tuple[str, str]]) -> None:
    train[3], train[4] = train[4], train[3]


def _unlink(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def _extra(root: Path) -> None:
    (root / "test_images" / "00002_other1" / "zebra.jpg").write_bytes(b"x")


def _shared_concept(root: Path) -> None:
    (root / "test_images" / "00004_other3").rename(root / "test_images" / "00004_kind03")


def _same_things_concept(root: Path) -> None:
    content = things.metadata_of(things.TRAIN, things.TEST)
    content["test_img_concepts_THINGS"][2] = content["train_img_concepts_THINGS"][17]
    (root / "image_metadata.npy").unlink()
    np.save(root / "image_metadata.npy", content)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_metadata(_swap), "row 3 .*kind00_04s.*kind00_03s.*mixed up"),
        (_metadata(lambda train: train.pop(7)), "kind00_07s.* in the folder, but not in image_metadata"),
        (_unlink("training_images/00005_kind04/kind04_06s.jpg"), "00005_kind04/kind04_06s.jpg', row 46 .*missing"),
        (_unlink("test_images/00006_other5/other5_03n.jpg"), "other5_03n.jpg', row 5 .*missing"),
        (_extra, "zebra.jpg' is in the folder, but not in"),
        (_shared_concept, "concept 'kind03' has training and test"),
        (_same_things_concept, "THINGS concept '00002_kind01' is in training and test"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    roots: dict[str, Path], tmp_path: Path, edit: Callable[[Path], None], words: str
) -> None:
    root = copy_of(roots["nice"], tmp_path)
    edit(root)
    fails(words, lambda: study(root).read("01"))


def test_without_metadata_the_count_still_decides(roots: dict[str, Path], tmp_path: Path) -> None:
    root = copy_of(roots["nice"], tmp_path)
    (root / "image_metadata.npy").unlink()
    assert any("there is no image_metadata.npy" in line for line in study(root).read("01").log)
    (root / "training_images" / "00005_kind04" / "kind04_06s.jpg").unlink()
    fails("holds 120 pictures, the folder of train pictures 119", lambda: study(root).read("01"))


def test_pictures_may_lie_elsewhere(roots: dict[str, Path], tmp_path: Path) -> None:
    things.write_nice(tmp_path, RECORDED)
    fails("study.root=.* holds no pictures; give study.images=FOLDER", lambda: study(tmp_path).read("01"))
    here, there = study(tmp_path, f"study.images={roots['official']}"), study(roots["nice"])
    assert here.stimuli.ids == there.stimuli.ids
    fails("study.images='/nowhere' does not exist", lambda: study(tmp_path, "study.images=/nowhere"))
    (tmp_path / "empty").mkdir()
    fails("study.images=.* holds no pictures", lambda: study(tmp_path, f"study.images={tmp_path / 'empty'}").read("01"))


def _rolled(names: list[tuple[str, str]]) -> np.ndarray:
    images = [f"train_images/{concept}/{file}" for concept, file in names]
    return np.tile(np.array([*images[1:], images[0]])[:, None], (1, 4))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"img": _rolled(things.TRAIN)},
            "row 0 of .*train.pt is '.*_01s.jpg', of the sorted folder '.*_00s",
        ),
        ({"label": np.tile(np.repeat(np.arange(12)[::-1], 10)[:, None], (1, 4))}, "row 0 .*label is '11'.*'0'"),
        ({"label": np.arange(480).reshape(120, 4)}, "'label' differs between repetitions of row 0"),
        ({"session": np.zeros((120, 3))}, r"'session' has shape \(120, 3\)"),
        ({"ch_names": [*things.CH_NAMES[:-1], "Oz"]}, "channel 'Oz' is listed twice"),
        ({"ch_names": list(reversed(things.CH_NAMES))}, r"different channels \(O2 against Fp1\)"),
        ({"ch_names": list(things.CH_NAMES[1:])}, "names 7 channels, its signals have 8"),
        ({"ch_names": 63}, "ch_names is no list of texts"),
        ({"times": things.TIMES[:20]}, r"times of shape \(20,\) do not fit signals of 25 samples"),
        ({"times": np.arange(40) / 50}, "40 times for 25 samples, and the last 25 begin at 0.300 s"),
        ({"times": np.arange(25) / 100}, "different times: 0.000 to 0.240 s against 0.000 to 0.480 s"),
        ({"times": np.r_[0.0, np.arange(1, 25) ** 2]}, "times do not rise evenly"),
        ({"times": None}, "has no 'times'"),
        ({"eeg": np.zeros((120, 4, 25), np.float16)}, r"'eeg' is float16 \(120, 4, 25\); expected"),
        ({"eeg": np.zeros((4, 120, 8, 25), np.float16)}, r"shape \(120, 4\), its signals 4 pictures x 120"),
        ({"eeg": "lost"}, "has no array 'eeg'; it holds: eeg, label"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    roots: dict[str, Path], tmp_path: Path, changed: dict[str, object], words: str
) -> None:
    things.write_ubp(tmp_path, RECORDED, **changed)
    fails(words, lambda: study(tmp_path, f"study.images={roots['ubp']}").read("01"))


def test_values_that_are_not_finite_are_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    test = RECORDED.test.copy()
    test[1, 2, 3, 20] = np.nan
    things.write_nice(tmp_path, things.Epochs(RECORDED.train, test))
    opened = study(tmp_path, f"study.images={roots['nice']}")
    fails("1 values are NaN or infinite", lambda: opened.read("01"))
    assert [fact.found for fact in opened.check() if fact.what == "01 values not finite"] == ["1"]


def test_column_order_and_foreign_content_are_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    pictures = f"study.images={roots['nice']}"
    things.write_nice(tmp_path, RECORDED, preprocessed_eeg_data=np.asfortranarray(np.ones((120, 4, 8, 25))))
    fails("column order", lambda: study(tmp_path, pictures).read("01"))
    path = tmp_path / "Preprocessed_data_250Hz" / "sub-01" / "preprocessed_eeg_training.npy"
    path.write_bytes(pickle.dumps([1, 2]))
    fails("holds a list, expected a dict", lambda: study(tmp_path, pictures).read("01"))


def test_which_recording_is_meant(roots: dict[str, Path], tmp_path: Path) -> None:
    fails("has no subject '1'; did you mean '01'", lambda: study(roots["nice"]).read("1"))
    fails("has no subject '02'", lambda: study(roots["nice"]).read("02"))
    fails("holds no THINGS-EEG2 recording such as sub-01/", lambda: study(tmp_path))
    fails("'nic' of things_eeg2 is not known; did you mean 'nice'", lambda: study(roots["nice"], "study.variant=nic"))
    fails("no THINGS-EEG2 recording such as sub-01/train.pt", lambda: study(roots["nice"], "study.variant=ubp"))
    things.write_nice(tmp_path, RECORDED)
    things.write_nice(tmp_path, RECORDED, subject="10")
    things.write_neurobridge(tmp_path, RECORDED)
    fails("holds several: nice in .*neurobridge in .*study.variant=NAME", lambda: study(tmp_path))
    assert study(tmp_path, "study.variant=nice").subjects == ("01", "10")
    assert study(tmp_path / "Preprocessed_data_250Hz").variant == "nice"


def test_every_variant_has_its_command() -> None:
    text = (PROJECT / "configs" / "align" / "things_eeg2.yaml").read_text()
    assert all(f"study.variant={name} " in text for name in LAYOUTS)
    config = load_config(Config, PROJECT / "configs" / "align" / "things_eeg2.yaml")
    assert config.study.name == "things_eeg2" and config.preprocess.scale == "zscore"


def test_from_files_to_a_retrieval_report(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    config = str(PROJECT / "configs" / "align" / "things_eeg2.yaml")
    settings = ["subjects=[01]", "train.epochs=2", "encoder.width=16", f"cache_dir={tmp_path / 'cache'}"]
    assert script.main(["--config", config, f"study.root={roots['nice']}", *settings]) == 0
    assert "120 training rows" in capsys.readouterr().out
    assert cli.main(["retrieve", "--subject", "01", "--json"]) == 0
    report = capsys.readouterr().out
    assert '"candidates": 6' in report and '"study": "things_eeg2"' in report
