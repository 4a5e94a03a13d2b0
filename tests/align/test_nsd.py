"""NSD in MindEye2's layout: tiny copies with the real shapes, through the real loader, training and retrieval."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from align import train as script
from align.config import Config, load_config
from align.data.splits import manifest
from align.data.studies import nsd_files, open_study
from align.data.studies.nsd import SUBJECTS, Nsd
from align.files import read_json
from recon import cli
from tests.align.fixture_nsd import (
    CLUSTERS,
    SUBJECT,
    TEST_PICTURES,
    TRAIN_PICTURES,
    Trial,
    add,
    beta,
    picture,
    row_of,
    training_trials,
    trials_of_test,
    write_nsd,
    write_tar,
)
from tests.one_line import fails

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "align" / "nsd.yaml"
VOXELS = SUBJECTS[SUBJECT].voxels
SECOND = training_trials(1, range(200, 210))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recording sessions of subject 07."""
    return write_nsd(tmp_path_factory.mktemp("nsd"), {0: training_trials(), 1: SECOND})


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(root, tmp_path / "nsd"))


def opened(root: Path, *more: str) -> Nsd:
    study = open_study(load_config(Config, None, ["study.name=nsd", f"study.root={root}", *more]))
    assert isinstance(study, Nsd)
    return study


def test_every_row_belongs_to_its_picture(root: Path) -> None:
    recording = opened(root).recording(SUBJECT)
    stimuli = recording.stimuli
    assert stimuli.ids == tuple(f"{i:05d}" for i in sorted({*TRAIN_PICTURES, *range(200, 210), *TEST_PICTURES}))
    for trials, listed in ((recording.train, training_trials() + SECOND), (recording.test, trials_of_test())):
        listed = sorted(listed, key=lambda trial: trial.row)
        assert [int(stimuli.ids[i]) for i in trials.stimulus] == [trial.picture for trial in listed]
        assert trials.session is not None and trials.session.tolist() == [trial.session for trial in listed]
        assert trials.x.dtype == np.float32 and trials.stimulus.dtype == np.int64
        np.testing.assert_array_equal(trials.x, np.stack([beta(trial, VOXELS) for trial in listed]))
    assert recording.test.repetition.tolist() == [k for k in range(3) for _ in TEST_PICTURES]
    for i in (0, len(stimuli) - 1):
        image = stimuli.load(i)
        assert image.dtype == np.uint8 and image.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(image, picture(int(stimuli.ids[i])))


def test_one_hour_is_the_first_session_and_the_whole_test(root: Path) -> None:
    full, hour = opened(root).recording(SUBJECT), opened(root, "study.variant=1-hour").recording(SUBJECT)
    assert hour.train.session is not None and set(hour.train.session) == {1}
    assert len(hour.train) == 45 and len(full.train) == 45 + len(SECOND)
    np.testing.assert_array_equal(hour.test.x, full.test.x)
    assert hour.log[0].startswith("1-hour: 45 training trials of 40 pictures, 1 of 40 recording sessions")
    fails("2-hour' of nsd is not known; .* Known: 40-hour, 1-hour", lambda: opened(root, "study.variant=2-hour"))


def test_repetitions_of_the_test_are_averaged_at_prediction(root: Path) -> None:
    averaged = opened(root).recording(SUBJECT).test.averaged()
    rows = [trial for trial in trials_of_test() if trial.picture == min(TEST_PICTURES)]
    assert len(rows) == 3 and len(averaged) == len(TEST_PICTURES)
    expected = np.mean([beta(trial, VOXELS).astype(np.float64) for trial in rows], axis=0)
    np.testing.assert_allclose(averaged.x[0], expected, rtol=1e-5, atol=1e-6)


def test_groups_are_semantic_clusters(root: Path, own: Path) -> None:
    recording = opened(root).recording(SUBJECT)
    stimuli = recording.stimuli
    assert stimuli.concepts == tuple(CLUSTERS[int(name) % len(CLUSTERS)] for name in stimuli.ids)
    for i in range(len(stimuli)):
        same = [concept == stimuli.concepts[i] for concept in stimuli.concepts]
        assert (stimuli.groups == stimuli.groups[i]).tolist() == same
    assert "8 of 8 test pictures have a training picture of their semantic cluster" in recording.log[1]
    numbers = np.arange(73000) % len(CLUSTERS)  # the other form: numbers into the names
    np.save(own / "COCO_73k_semantic_cluster.npy", numbers)
    assert opened(own).recording(SUBJECT).stimuli.concepts == stimuli.concepts
    (own / "COCO_73k_semantic_cluster.npy").unlink()
    (own / "shared1000.npy").unlink()
    bare = opened(own).recording(SUBJECT)
    assert bare.stimuli.groups.tolist() == list(range(len(stimuli))) and set(bare.stimuli.concepts) == {""}
    assert "clusters are not known" in bare.log[1]


def test_cluster_leak_is_counted(tmp_path: Path) -> None:
    write_nsd(tmp_path, {0: training_trials(0, [7 * k for k in range(10, 20)])}, trials_of_test([1, 7, 14, 700]))
    facts = {fact.what: fact for fact in opened(tmp_path).check()}
    assert facts["07 test pictures with a training picture of their semantic cluster"].found == "3 of 4"


def test_check_takes_a_partial_copy_and_says_so(root: Path) -> None:
    facts = opened(root).check()
    assert all(fact.holds for fact in facts)
    found = {fact.what: fact.found for fact in facts}
    assert found["07 voxels"] == "12682" and found["07 rows of betas"] == "30000"
    assert found["07 recording sessions"] == "2"
    assert found["07 test trials"] == "24"
    assert found["pictures"] == "73000" and found["07 pictures in training and test"] == "0"
    assert "a partial copy, 2 recording sessions are there" in opened(root).recording(SUBJECT).log[0]
    assert opened(root).subjects == (SUBJECT,)


def test_declared_facts_are_those_of_the_distribution() -> None:
    assert [person.voxels for person in SUBJECTS.values()] == [15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386]
    assert [person.sessions for person in SUBJECTS.values()] == [40, 40, 32, 30, 40, 32, 40, 30]


def test_many_betas_are_mapped_from_the_cache(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = opened(root).recording(SUBJECT)
    monkeypatch.setattr(nsd_files, "IN_MEMORY", len(plain.test.x) * VOXELS * 4)
    monkeypatch.setattr(nsd_files, "_PIECE", 5 * VOXELS * 4)  # five rows at once
    mapped = opened(root, f"cache_dir={tmp_path}").recording(SUBJECT)
    assert isinstance(mapped.train.x, np.memmap) and not isinstance(mapped.test.x, np.memmap)
    np.testing.assert_array_equal(mapped.train.x, plain.train.x)
    np.testing.assert_array_equal(mapped.test.x, plain.test.x)
    (copy,) = (tmp_path / "nsd").iterdir()
    before = copy.stat().st_mtime_ns
    again = opened(root, f"cache_dir={tmp_path}", "study.variant=1-hour").recording(SUBJECT)
    assert copy.stat().st_mtime_ns == before and len(list((tmp_path / "nsd").iterdir())) == 2
    np.testing.assert_array_equal(again.train.x, plain.train.x[:45])


def test_zscore_knows_the_training_rows_only(root: Path, tmp_path: Path) -> None:
    settings = [f"cache_dir={tmp_path}", "preprocess.scale=zscore", "study.variant=1-hour"]
    raw, scaled = opened(root, "study.variant=1-hour").recording(SUBJECT), opened(root, *settings).recording(SUBJECT)
    train = raw.train.x.astype(np.float64)
    for split in ("train", "test"):
        expected = (getattr(raw, split).x - train.mean(0)) / train.std(0)
        np.testing.assert_allclose(getattr(scaled, split).x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [1, 4, 1000])
def test_rows_of_betas_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    values = np.random.default_rng(0).normal(size=(300, 7)).astype(np.float16)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["betas"] = values
    monkeypatch.setattr(nsd_files, "_PIECE", most * 14)
    rows = np.array([299, 0, 5, 4, 40, 39, 38, 150, 151, 5, 200])
    found = nsd_files.read_betas(tmp_path / "b.hdf5", rows, tmp_path)
    np.testing.assert_array_equal(found, values[rows].astype(np.float32))


def test_pictures_equal_to_a_test_picture_leave_the_training(own: Path) -> None:
    with h5py.File(own / "coco_images_224_float16.hdf5", "r+") as file:
        file["images"][103] = file["images"][TEST_PICTURES[0]]
    recording = opened(own).recording(SUBJECT)
    assert "00103" not in recording.stimuli.ids and len(recording.train) == 45 + len(SECOND) - 2
    assert "removed 2 training trials of 1 pictures equal to a test picture" in recording.log
    ids = [int(recording.stimuli.ids[i]) for i in recording.train.stimulus]
    expected = sorted((trial for trial in training_trials() + SECOND if trial.picture != 103), key=lambda t: t.row)
    assert ids == [trial.picture for trial in expected]
    split = manifest(recording)
    assert not set(split["train"]["hashes"]) & set(split["test"]["hashes"])


def test_tables_of_several_rows_and_padding(own: Path) -> None:
    trials = training_trials()
    expected = opened(own, "study.variant=1-hour").recording(SUBJECT)
    table = np.concatenate([row_of(trial, int(SUBJECT), False) for trial in trials] + [np.full((4, 17), -1.0)])
    path = own / "wds" / "subj07" / "train" / "0.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "./sample000000000.behav.npy", table)
    found = opened(own, "study.variant=1-hour").recording(SUBJECT)
    np.testing.assert_array_equal(found.train.x, expected.train.x)
    np.testing.assert_array_equal(found.train.stimulus, expected.train.stimulus)


def test_faults_of_the_tables_are_one_line(own: Path) -> None:
    study, train = opened(own), own / "wds" / "subj07" / "train" / "0.tar"
    test = own / "wds" / "subj07" / "new_test" / "0.tar"

    def with_train(trials: list[Trial], subject: int = 7, shared: bool = False) -> Callable[[], object]:
        write_tar(train, trials, subject, shared)
        return lambda: study.recording(SUBJECT)

    fails("picture 2950 is one of shared1000", with_train([*training_trials(), Trial(2950, 700)]))
    fails("picture 100 is one of shared1000", with_train(training_trials(), shared=True))
    fails("trial 5000 is not of recording session 1", _session(train, Trial(100, 5000), 1, study))
    fails("trials of subject 02, not 07", with_train(training_trials(), subject=2))
    fails("trial 9 stands there twice", with_train([*training_trials(), Trial(100, 9)]))
    fails("picture 73000 is beyond the 73000", with_train([Trial(73000, 0)]))
    fails("trial 30000 is beyond the 30000 rows of the betas", _session(train, Trial(100, 30000), 1, study))
    fails("no whole picture index", with_train([Trial(-1, 3)]))
    fails("recording session 1 is not in the tar of its number", with_train([]))
    fails("recording session 1 is not in the tar of its number", with_train(training_trials(2)))
    with tarfile.open(train, "w") as archive:
        add(archive, "sample000000000.behav.npy", np.zeros((1, 16)))
    fails(r"expected \(n, 17\)", lambda: study.recording(SUBJECT))
    with tarfile.open(train, "w") as archive:
        add(archive, "sample000000000.behav.npy", np.array([[{}]], dtype=object))
    fails("no plain .npy", lambda: study.recording(SUBJECT))
    with tarfile.open(train, "w") as archive:
        link = tarfile.TarInfo("sample000000000.behav.npy")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    fails("link", lambda: study.recording(SUBJECT))
    with_train(training_trials())
    train.write_bytes(train.read_bytes()[: train.stat().st_size // 2])
    fails("truncated", lambda: study.recording(SUBJECT))
    with_train(training_trials())
    write_tar(test, [*trials_of_test(), Trial(100, 2)], 7, shared=True)
    fails("picture 100 is not one of shared1000", lambda: study.recording(SUBJECT))
    (own / "shared1000.npy").unlink()
    fails("training and test share 1 pictures, first 100", lambda: study.recording(SUBJECT))
    test.rename(test.parent.parent / "old.tar")
    fails(r"new_test/0\.tar' does not exist; fetch it", lambda: study.recording(SUBJECT))
    train.rename(train.with_name("40.tar"))
    fails(r"40\.tar' is beyond the 40 recording sessions", lambda: study.recording(SUBJECT))


def _session(train: Path, trial: Trial, session: int, study: Nsd) -> Callable[[], object]:
    row = row_of(trial, int(SUBJECT), False)
    row[0, 2] = session
    with tarfile.open(train, "w") as archive:
        add(archive, "sample000000000.behav.npy", row)
    return lambda: study.recording(SUBJECT)


def test_faults_of_the_arrays_are_one_line(own: Path, tmp_path: Path) -> None:
    study = opened(own)
    betas, images = own / "betas_all_subj07_fp32_renorm.hdf5", own / "coco_images_224_float16.hdf5"
    with h5py.File(betas, "r+") as file:
        file["betas"][3, 11] = np.nan
    fails("1 values are NaN", lambda: study.recording(SUBJECT))
    with h5py.File(betas, "r+") as file:
        file["betas"][3, 11] = 0
    with h5py.File(images, "r+") as file:
        before = file["images"][101]
        file["images"][101, 0, 0, 0] = 1.5
    fails(r"picture 101 has values outside \[0, 1\]", lambda: study.recording(SUBJECT))
    with h5py.File(images, "r+") as file:
        file["images"][101] = before
    study.recording(SUBJECT)
    for name, words in (
        ("shared1000", "expected a mask of 73000"),
        ("COCO_73k_semantic_cluster", "3 clusters for 73000"),
    ):
        values = np.load(own / f"{name}.npy")
        np.save(own / f"{name}.npy", values[:3])
        fails(words, lambda: opened(own).recording(SUBJECT))
        np.save(own / f"{name}.npy", values)
    images.rename(tmp_path / images.name)
    fails("does not exist", lambda: study.recording(SUBJECT))
    opened(own, f"study.images={tmp_path}").recording(SUBJECT)  # pictures may lie elsewhere


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        (15724, "15724 voxels, not 12682; that is subject 01"),
        (100_000, "select the voxels of value 1"),
    ],
)
def test_a_mistaken_mask_is_refused(tmp_path: Path, voxels: int, words: str) -> None:
    write_nsd(tmp_path, voxels=voxels, test=trials_of_test([5]), sessions={0: [Trial(6, 0)]})
    fails(words, lambda: opened(tmp_path).recording(SUBJECT))


def test_a_mask_of_ones_own_is_used_and_said(tmp_path: Path) -> None:
    write_nsd(tmp_path, voxels=50, test=trials_of_test([5]), sessions={0: [Trial(6, 0)]})
    recording = opened(tmp_path).recording(SUBJECT)
    assert recording.train.x.shape == (1, 50)
    assert "50 voxels, not the 12682 of nsdgeneral: a mask of your own" in recording.log
    facts = {fact.what: fact for fact in opened(tmp_path).check()}
    assert (facts["07 voxels"].declared, facts["07 voxels"].found, facts["07 voxels"].holds) == ("12682", "50", True)


def test_a_subject_that_nothing_is_declared_of_is_read(tmp_path: Path) -> None:
    write_nsd(tmp_path, voxels=50, test=trials_of_test([5]), sessions={0: [Trial(6, 0)]})
    (tmp_path / "betas_all_subj07_fp32_renorm.hdf5").rename(tmp_path / "betas_all_subj007_fp32_renorm.hdf5")
    (tmp_path / "wds" / "subj07").rename(tmp_path / "wds" / "subj007")
    study = opened(tmp_path)
    assert study.subjects == ("007",)
    assert study.recording("007").train.x.shape == (1, 50)
    facts = {fact.what: (fact.declared, fact.holds) for fact in study.check()}
    assert facts["007 voxels"] == facts["007 recording sessions"] == (None, True)


def test_files_that_point_elsewhere_are_refused(own: Path, tmp_path: Path) -> None:
    study, path = opened(own), own / "betas_all_subj07_fp32_renorm.hdf5"
    elsewhere = path.rename(tmp_path / "other.hdf5")

    def again(write: Callable[[h5py.File], object]) -> Callable[[], object]:
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            write(file)
        return lambda: study.recording(SUBJECT)

    external = h5py.ExternalLink(str(elsewhere), "betas")
    fails("is a link", again(lambda file: file.__setitem__("betas", external)))
    raw = [(str(elsewhere), 0, 4 * VOXELS)]
    outside = again(lambda file: file.create_dataset("betas", (1, VOXELS), "f4", external=raw))
    fails("numbers from other files", outside)
    layout = h5py.VirtualLayout((30000, VOXELS), "f4")
    layout[:] = h5py.VirtualSource(str(elsewhere), "betas", (30000, VOXELS))
    fails("numbers from other files", again(lambda file: file.create_virtual_dataset("betas", layout)))
    fails("has no array 'betas'", again(lambda file: file.create_group("betas")))
    fails("no array 'betas'", again(lambda file: file.create_dataset("beta", (1, VOXELS), "f4")))
    fails(r"betas are float32 \(3,\)", again(lambda file: file.create_dataset("betas", (3,), "f4")))
    path.write_bytes(elsewhere.read_bytes()[:5000])
    fails("truncated or not HDF5", lambda: study.recording(SUBJECT))


def test_subjects_that_are_not_there(root: Path, tmp_path: Path) -> None:
    fails("betas_all_subj02.*fetch it or leave subject 02 out", lambda: opened(root).recording("02"))
    fails("no subject '09'", lambda: opened(root).recording("09"))
    fails("needs study.root", lambda: open_study(load_config(Config, None, ["study.name=nsd"])))
    (tmp_path / "wds").mkdir()
    assert opened(tmp_path).subjects == ()


def test_one_hour_from_files_to_a_report(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = [f"study.root={root}", f"cache_dir={tmp_path / 'cache'}", f"run_dir={tmp_path / 'run'}"]
    small = [
        "study.variant=1-hour",
        f"subjects=[{SUBJECT}]",
        "train.epochs=2",
        "encoder.width=16",
        "target.components=8",
    ]
    assert script.main(["--config", str(CONFIG), *place, *small]) == 0
    assert f"nsd sub-{SUBJECT}: 45 training rows" in capsys.readouterr().out
    split = read_json(tmp_path / "run" / "split.json")
    assert split["test"]["n_trials"] == 24 and len(split["test"]["ids"]) == 8 and split["train"]["n_trials"] == 45
    assert not set(split["train"]["ids"]) & set(split["test"]["ids"])
    assert cli.main(["retrieve", "--subject", SUBJECT, "--run", str(tmp_path / "run"), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["retrieval"]["brain_to_image"]
    assert scores["n"] == scores["candidates"] == 8 and scores["chance_top1"] == 1 / 8


def test_check_through_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", "nsd", "--root", str(root)]) == 0
    assert "07 recording sessions: 2 instead of 40" in capsys.readouterr().out


@pytest.mark.parametrize("packed", ["loose", "tars in the folder", "tars of the hub"])
def test_mindeye1_s_layout_is_read(tmp_path: Path, packed: str) -> None:
    """webdataset_avg_split/{train,val,test}/subj0X with .nsdgeneral.npy, .coco73k.npy, .jpg."""
    rng, kept = np.random.default_rng(0), {}
    for part, pictures in (("train", (7, 3)), ("val", (11,)), ("test", (20, 15))):
        folder = tmp_path / "nsd" / "webdataset_avg_split" / part
        loose = folder / "subj07" if packed == "loose" else tmp_path / "made" / part
        loose.mkdir(parents=True)
        folder.mkdir(parents=True, exist_ok=True)
        for number, coco in enumerate(pictures):
            betas = rng.normal(size=(3, 6)).astype(np.float16)
            if coco == 3:
                betas[2] = betas[0]  # shown twice, filled up
            kept[coco] = betas[: 2 if coco == 3 else 3].astype(np.float32)
            stem = loose / f"sample{number:011d}"
            np.save(f"{stem}.nsdgeneral.npy", betas)
            np.save(f"{stem}.coco73k.npy", np.array([coco]))
            np.save(f"{stem}.trial.npy", np.zeros(3))
            Image.fromarray(picture(coco)).save(f"{stem}.jpg", quality=95)
        if packed != "loose":
            place = folder / "subj07" / "0.tar" if "folder" in packed else folder / f"{part}_subj07_0.tar"
            place.parent.mkdir(parents=True, exist_ok=True)
            with tarfile.open(place, "w", format=tarfile.USTAR_FORMAT) as archive:
                for path in sorted(loose.iterdir()):
                    archive.add(path, path.name)
    np.save(tmp_path / "nsd" / "COCO_73k_annots_curated.npy", np.array([["", f"picture {i}"] for i in range(30)]))
    study = opened(tmp_path / "nsd")
    assert (study.variant, study.subjects) == ("averaged", ("07",))
    recording = study.recording("07")
    assert recording.stimuli.ids == ("00003", "00007", "00011", "00015", "00020")
    assert recording.stimuli.captions[0] == "picture 3"
    for part, n in ((recording.train, 8), (recording.test, 6)):
        assert len(part) == n
        for i in np.unique(part.stimulus):
            rows = np.sort(part.x[part.stimulus == i], axis=0)
            np.testing.assert_array_equal(rows, np.sort(kept[int(recording.stimuli.ids[i])], axis=0))
    assert "1 repetitions that repeat another bit by bit were left out" in recording.log[0]
    assert np.abs(recording.stimuli.load(1).astype(int) - picture(7)).mean() < 8
    assert all(fact.holds for fact in study.check())
    fails("no subject '01'.*Known: 07", lambda: study.recording("01"))


def test_captions_come_from_the_curated_table(own: Path) -> None:
    assert set(opened(own).recording(SUBJECT).stimuli.captions) == {""}
    np.save(own / "COCO_73k_annots_curated.npy", np.array([[f"a picture of {i}", ""] for i in range(73000)]))
    stimuli = opened(own).recording(SUBJECT).stimuli
    assert stimuli.captions == tuple(f"a picture of {int(name)}" for name in stimuli.ids)
    np.save(own / "COCO_73k_annots_curated.npy", np.zeros((5, 5)))
    fails("expected texts", lambda: opened(own).recording(SUBJECT))


def coco_files(root: Path, shown: list[str]) -> None:
    """Annotations of COCO for every second picture in train2017, the others in val2017, and NSD's own list."""
    rows, annotations = ["nsdId,cocoId,cocoSplit,loss"], {"train2017": [], "val2017": []}
    for k, name in enumerate(shown):
        split = ("train2017", "val2017")[k % 2]
        rows.append(f"{int(name)},{1000 + k // 2},{split},0.1")  # one number of COCO in both splits
        for number, text in ((70, "later"), (7, "") if k == 2 else (7, f" first\n of {int(name)}"), (30, "third")):
            annotations[split].append({"image_id": 1000 + k // 2, "id": number, "caption": text})
    annotations["val2017"].append({"image_id": 5, "id": 1, "caption": "of no picture here"})
    (root / "nsd_stim_info_merged.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (root / "annotations").mkdir(exist_ok=True)
    for split, listed in annotations.items():
        content = {"info": {}, "images": [], "annotations": listed}
        (root / "annotations" / f"captions_{split}.json").write_text(json.dumps(content), encoding="utf-8")


def test_captions_come_from_the_annotations_of_coco(own: Path) -> None:
    """Those with the lowest number that are not empty; the curated table comes first."""
    shown = list(opened(own).recording(SUBJECT).stimuli.ids)
    coco_files(own, shown)
    found = opened(own).recording(SUBJECT).stimuli.captions
    assert found == tuple("third" if k == 2 else f"first of {int(name)}" for k, name in enumerate(shown))
    (own / "annotations" / "captions_val2017.json").unlink()
    partly = opened(own).recording(SUBJECT).stimuli.captions
    assert partly == tuple("" if k % 2 else text for k, text in enumerate(found))
    np.save(own / "COCO_73k_annots_curated.npy", np.array([["curated"]] * 73000))
    assert set(opened(own).recording(SUBJECT).stimuli.captions) == {"curated"}


def test_annotations_that_do_not_fit_are_one_line(own: Path) -> None:
    shown = list(opened(own).recording(SUBJECT).stimuli.ids)
    coco_files(own, shown)
    path, info = own / "annotations" / "captions_train2017.json", own / "nsd_stim_info_merged.csv"
    path.write_text('{"annotations": [{"image_id": "x"}]}', encoding="utf-8")
    fails("image_id", lambda: opened(own).recording(SUBJECT))
    path.write_text('{"annotations": []}', encoding="utf-8")
    (own / "annotations" / "captions_val2017.json").write_text('{"annotations": []}', encoding="utf-8")
    fails("no picture in common", lambda: opened(own).recording(SUBJECT))
    lines = info.read_text(encoding="utf-8").splitlines()
    info.write_text("\n".join(lines[:-1]), encoding="utf-8")
    fails(f"lacks picture {int(shown[-1])}", lambda: opened(own).recording(SUBJECT))
    info.write_text("\n".join([lines[0], "0,many,train2017,0"]), encoding="utf-8")
    fails("row 1: nsdId or cocoId is no whole number", lambda: opened(own).recording(SUBJECT))
    info.write_text("a,b\n", encoding="utf-8")
    fails("lacks a column", lambda: opened(own).recording(SUBJECT))
