"""The two studies that read files, on tiny copies of their layouts; the real V4 recordings where they lie beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.check import check_study, format_report
from align.data.reading.safe_load import decode_image
from align.data.signals import Recording, pixel_hash
from align.data.studies import STUDIES, open_study
from align.data.studies.base import Study
from align.data.studies.cowley2023 import DECLARED, N_TEST, pretraining_images
from tests.align.fixture_studies import blurred, default_rows, picture, png, write_folder, write_v4_session
from tests.conftest import shared_path
from tests.one_line import fails

N_IMAGES = N_TEST + 12


def study(name: str, root: Path | None, *overrides: str) -> Study:
    pairs = [f"study.name={name}", *overrides]
    return open_study(load_config(Config, None, pairs if root is None else [*pairs, f"study.root={root}"]))


@pytest.fixture(scope="module")
def v4_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose row 3 is a test picture, row 4 a blurred test picture, rows 6, 7 and 9 one training picture."""
    root = tmp_path_factory.mktemp("v4")
    images = [picture(i) for i in range(N_IMAGES)]
    images[3], images[4] = images[20], blurred(images[21])
    images[7] = images[9] = images[6]
    write_v4_session(root, "190927", images)
    return root


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    write_folder(tmp_path)
    return tmp_path


def keeps_the_contract(recording: Recording) -> None:
    stimuli, n = recording.stimuli, len(recording.stimuli)
    assert len(set(stimuli.ids)) == len(stimuli.groups) == len(stimuli.concepts) == len(stimuli.captions) == n
    for trials in (recording.train, recording.test):
        assert trials.x.dtype == np.float32
        assert np.isfinite(trials.x).all()
        assert trials.stimulus.dtype == np.int64
        assert len(trials.x) == len(trials.stimulus) == len(trials.repetition)
        assert 0 <= trials.stimulus.min() <= trials.stimulus.max() < n
    assert set(recording.train.stimulus) | set(recording.test.stimulus) == set(range(n))
    train, test = ({stimuli.hashes[i] for i in trials.stimulus} for trials in (recording.train, recording.test))
    assert not train & test
    image = stimuli.load(0)
    assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


def test_every_study_has_its_tests() -> None:
    here = {"cowley2023_v4", "folder"}
    elsewhere = {"simulated", "things_eeg2", "things_meg", "nsd"}  # test_simulated.py, test_things_eeg2.py, ...
    assert set(STUDIES) == here | elsewhere


def test_v4_protocol_row_by_row(v4_root: Path) -> None:
    recording = study("cowley2023_v4", v4_root).recording("190927")
    keeps_the_contract(recording)
    kept = [0, 1, 2, 5, 6, 8, 10, 11]  # without twins 3 and 4; 6, 7 and 9 are one picture
    ids = [recording.stimuli.ids[i] for i in recording.train.stimulus]
    assert ids == [f"190927_image{i + 1:04d}" for i in kept]
    column = np.array(kept, dtype=np.float64)
    column[4] = (6 + 7 + 9) / 3
    expected = column[:, None] + 1000 * np.arange(3)[None]
    np.testing.assert_allclose(recording.train.x, expected, rtol=1e-6)
    assert [recording.stimuli.ids[i] for i in recording.test.stimulus] == [
        f"190927_image{i + 1:04d}" for i in range(N_IMAGES - N_TEST, N_IMAGES)
    ]
    np.testing.assert_array_equal(recording.test.x[:, 1], 1000 + np.arange(N_IMAGES - N_TEST, N_IMAGES))


def test_v4_pictures_belong_to_their_ids(v4_root: Path) -> None:
    stimuli = study("cowley2023_v4", v4_root).recording("190927").stimuli
    for i in (0, 3, len(stimuli) - 1):
        seed = int(stimuli.ids[i][-4:]) - 1
        np.testing.assert_array_equal(stimuli.load(i), np.asarray(picture(seed)))


def test_v4_log_tells_what_was_removed(v4_root: Path) -> None:
    log = study("cowley2023_v4", v4_root).recording("190927").log
    assert "removed 2 of 12 training rows" in log[0]
    assert "1 with equal pixels, 1 with thumbnail r > .97" in log[0]
    assert log[1:] == ("averaged exact duplicates: 10 training rows became 8",)


def test_v4_check_compares_declared_facts(v4_root: Path) -> None:
    facts = study("cowley2023_v4", v4_root, "subjects=[190927]").check()
    assert [(fact.what, fact.found, fact.holds) for fact in facts] == [
        ("sessions", "1", True),
        ("190927 units x images", f"3 x {N_IMAGES}", True),
        ("190927 distinct images", str(N_IMAGES - 3), True),
        ("190927 training images", "8", True),
    ]
    assert [fact.declared for fact in facts] == [None, "31 x 1200", "1200", "1000"]


@pytest.mark.parametrize("name", ["cowley2023_v4", "cowley2023_v4_encoding"])
def test_v4_recipes_name_no_session(name: str) -> None:
    path = Path(__file__).resolve().parents[2] / "configs" / "align" / f"{name}.yaml"
    assert load_config(Config, path).subjects == []


def test_v4_subjects_are_the_sessions_there_whatever_they_are_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [picture(i, size=4) for i in range(N_TEST + 5)]
    for name in ("monkey_b", "240101", "7"):
        write_v4_session(tmp_path, name, images)
    repeated = [*images[5:8], *images[:2], *images[5:]]  # 3 of 5 training rows show a picture of the test
    write_v4_session(tmp_path, "occluded", repeated)
    opened = study("cowley2023_v4", tmp_path)
    assert opened.subjects == ("240101", "7", "monkey_b", "occluded")
    with caplog.at_level("INFO"):
        assert opened.default_subjects == ("240101", "7", "monkey_b")
    assert "occluded: kept out of averages over sessions" in caplog.text
    assert "report it apart" in opened.recording("occluded").log[-1]
    facts = {fact.what: (fact.declared, fact.found, fact.holds) for fact in opened.check()}
    assert facts["monkey_b units x images"] == (None, f"3 x {N_TEST + 5}", True)
    report = check_study(opened)
    assert report["verdict"] == "usable"
    line = next(line for line in format_report(report).splitlines() if "monkey_b units x images" in line)
    assert line.split() == ["monkey_b", "units", "x", "images", "3", "x", str(N_TEST + 5)]  # nothing was declared
    further = opened.further_pictures()
    assert further is not None and len(further) == 5 and len(opened.kept_out()) == 4 * N_TEST
    fails("no subject '190927'.*Known: 240101, 7, monkey_b, occluded", lambda: opened.recording("190927"))


def test_v4_sessions_that_cannot_be_used_are_left_out_with_the_reason(tmp_path: Path) -> None:
    images = [picture(i, size=4) for i in range(N_TEST + 3)]
    for name in ("good", "short", "half", "alone", "silent"):
        write_v4_session(tmp_path, name, images[:N_TEST] if name == "short" else images)
    folder = tmp_path / "data_V4_responses"
    place = folder / "responses_repeat_averaged"
    np.save(place / "responses_half.npy", np.zeros((3, N_TEST)))
    (place / "responses_silent.npy").unlink()
    (folder / "images" / "images_alone.zip").unlink()
    (folder / "images" / "._images_good.zip").write_bytes(b"of a Mac")
    opened = study("cowley2023_v4", tmp_path)
    assert opened.subjects == ("good",)
    report = check_study(opened)
    assert report["usable"] and list(report["subjects"]) == ["good"]
    told = report["verdict"]
    assert told.startswith("usable, but not the whole published dataset: sessions that cannot be used: ")
    for words in (
        "alone (images/images_alone.zip is absent)",
        f"half ({N_TEST} responses but {N_TEST + 3} images",
        f"short (has {N_TEST} images",
        "silent (responses_repeat_averaged/responses_silent.npy is absent)",
    ):
        assert words in told
    fails("session half cannot be used: 200 responses but 203 images", lambda: opened.recording("half"))
    (place / "responses_good.npy").unlink()
    report = check_study(study("cowley2023_v4", tmp_path))
    assert not report["usable"] and "no subject was found" in report["verdict"]


def test_v4_a_declared_session_with_other_numbers_is_used_and_compared(tmp_path: Path) -> None:
    write_v4_session(tmp_path, "210305", [picture(i, size=4) for i in range(N_TEST + 2)])
    opened = study("cowley2023_v4", tmp_path)
    assert opened.default_subjects == ("210305",)  # no name decides that it stays apart
    assert "210305 units x images: 3 x 202 instead of 70 x 400" in check_study(opened)["verdict"]


def test_v4_faults_are_one_line(tmp_path: Path) -> None:
    fails("needs study.root", lambda: study("cowley2023_v4", None))
    fails("nowhere.*not a folder", lambda: study("cowley2023_v4", tmp_path / "nowhere"))
    fails("holds no data_V4_responses", lambda: study("cowley2023_v4", tmp_path))
    responses = write_v4_session(tmp_path, "190927", [picture(i, size=4) for i in range(N_TEST + 2)])
    folder = tmp_path / "data_V4_responses"
    array, archive = folder / "responses_repeat_averaged/responses_190927.npy", folder / "images/images_190927.zip"
    opened = study("cowley2023_v4", tmp_path)
    assert len(opened.recording("190927").train) == 2
    fails("no subject '1909277'.*did you mean '190927'", lambda: opened.recording("1909277"))
    np.save(array, responses[:, :-1])
    fails(f"{N_TEST + 1} responses but {N_TEST + 2} images", lambda: opened.recording("190927"))
    np.save(array, np.where(responses == 1003, np.nan, responses))
    fails(r"1 values are NaN.*\(1, 3\)", lambda: opened.recording("190927"))
    np.save(array, responses[0])
    fails(r"shape .*expected \(units, images\)", lambda: opened.recording("190927"))
    np.save(array, responses.astype(object))
    fails("needs pickle", lambda: opened.recording("190927"))
    np.save(array, responses)
    array.write_bytes(array.read_bytes()[:-100])
    fails("truncated", lambda: opened.recording("190927"))
    np.save(array, responses)
    archive.write_bytes(archive.read_bytes()[:-100])
    fails("truncated or corrupt", lambda: opened.recording("190927"))
    write_v4_session(tmp_path, "190927", [picture(i, size=4) for i in range(N_TEST)])
    fails(f"has {N_TEST} images", lambda: opened.recording("190927"))


def test_v4_pretraining_excludes_twins_of_every_session(tmp_path: Path) -> None:
    tests = {name: [picture(10_000 * (k + 1) + i, size=6) for i in range(N_TEST)] for k, name in enumerate(DECLARED)}
    for k, name in enumerate(DECLARED):
        train = [picture(k, size=6), picture(99, size=6)]  # one of its own, one shared by all sessions
        train += [tests["210325"][5], blurred(tests["190925"][7])] if name == "190928" else []
        write_v4_session(tmp_path, name, train + tests[name])
    found = pretraining_images(tmp_path)
    ids = [f"{name}_image0001" for name in DECLARED]
    assert [name for name, _ in found] == [ids[0], "190925_image0002", *ids[1:]]
    np.testing.assert_array_equal(found[1][1], np.asarray(picture(99, size=6)))
    kept_out = study("cowley2023_v4", tmp_path).kept_out()
    assert len(kept_out) == N_TEST * len(DECLARED)
    np.testing.assert_array_equal(kept_out[5], np.asarray(tests[next(iter(DECLARED))][5]))
    (tmp_path / "data_V4_responses/images/images_210305.zip").unlink()
    assert [name for name, _ in pretraining_images(tmp_path)] == [n for n, _ in found if not n.startswith("210305")]


def test_folder_row_by_row(folder_root: Path) -> None:
    opened = study("folder", folder_root)
    assert opened.subjects == ("01", "08")
    for subject in opened.subjects:
        recording = opened.recording(subject)
        keeps_the_contract(recording)
        lines = [row for row in default_rows() if row["subject"] == subject]
        for split, trials in (("train", recording.train), ("test", recording.test)):
            listed = [row for row in lines if row["split"] == split]
            assert trials.x[:, 2, 3].tolist() == [row["row"] for row in listed]
            assert [recording.stimuli.ids[i] for i in trials.stimulus] == [row["image"] for row in listed]
            np.testing.assert_array_equal(
                recording.stimuli.load(int(trials.stimulus[0])),
                decode_image(folder_root / "images" / str(listed[0]["image"])),
            )
        assert recording.train.repetition.tolist() == [0, 1] * 6
        assert recording.stimuli.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]  # concepts c0, c0, c1, c1, ...
    assert all(fact.holds for fact in opened.check())


def test_folder_groups_are_scenes_where_no_concept_is_given(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "pic001.png").write_bytes(png(blurred(picture(0))))
    write_folder(tmp_path, rows=[{k: v for k, v in row.items() if k != "concept"} for row in default_rows()])
    recording = study("folder", tmp_path).recording("01")
    assert recording.stimuli.groups.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7]


def noise() -> np.ndarray:
    """Signals of `default_rows` in which no channel is another one's copy."""
    return np.random.default_rng(0).normal(size=(len(default_rows()), 4, 5)).astype(np.float32)


def test_folder_tells_of_near_duplicates_over_the_split(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "pic001.png").write_bytes(png(blurred(picture(7))))
    write_folder(tmp_path, noise())
    assert study("folder", tmp_path).recording("01").log == (
        "kept 1 training pictures that look like a test picture (thumbnail r > .97): pic001.png",
    )


def test_folder_reads_info_and_other_formats(folder_root: Path) -> None:
    info = {"sfreq": 100, "ch_names": ["Oz", "O1", "O2", "Pz"], "tmin": -0.1}
    (folder_root / "info.json").write_text(json.dumps(info))
    signals = np.load(folder_root / "signals.npy")
    (folder_root / "signals.npy").unlink()
    np.savez(folder_root / "signals.npz", signals=signals)
    recording = study("folder", folder_root).recording("08")
    assert (recording.sfreq, recording.tmin, recording.ch_names) == (100.0, -0.1, ("Oz", "O1", "O2", "Pz"))
    assert recording.train.x.shape == (12, 4, 5)


def test_folder_unused_rows_and_own_repetitions(tmp_path: Path) -> None:
    rows = [{**row, "repetition": 7} for row in default_rows()]
    rows[0]["split"] = "unused"
    write_folder(tmp_path, rows=rows)
    recording = study("folder", tmp_path).recording("01")
    assert len(recording.train) == 11
    assert set(recording.train.repetition) == {7}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": "three"}, "line 2: row 'three' is not a whole number"),
        ({"row": "-1"}, "line 2: row '-1' is not a whole number"),
        ({"row": 30}, "line 2: row 30 is beyond"),
        ({"row": 0}, "row 0 stands in line 2 already"),
        ({"split": "tset"}, "line 2: split 'tset' is not one of train, test, unused"),
        ({"subject": ""}, "line 2: subject is empty"),
        ({"image": "pic999.jpg"}, r"line 2: image 'pic999\.jpg' is neither"),
        ({"image": "pic006.png"}, r"share 1 picture: pic006\.png"),
    ],
)
def test_folder_table_faults_are_one_line(folder_root: Path, change: dict[str, object], words: str) -> None:
    rows = default_rows()
    rows[0] |= change
    lines = [",".join(map(str, row.values())) for row in rows]
    (folder_root / "stimuli.csv").write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    fails(words, lambda: study("folder", folder_root).recording("01"))


def test_folder_overlap_is_seen_by_pixels(folder_root: Path) -> None:
    same = folder_root / "images" / "pic007.png"
    same.write_bytes((folder_root / "images" / "pic002.png").read_bytes())
    fails(r"share 1 picture: pic007\.png", lambda: study("folder", folder_root).recording("01"))


def test_folder_refuses_shared_concepts_where_asked(tmp_path: Path) -> None:
    write_folder(tmp_path, rows=[{**row, "concept": "cat"} for row in default_rows()])
    study("folder", tmp_path).recording("01")
    (tmp_path / "info.json").write_text('{"concept_disjoint": true}')
    fails("share 1 concept: cat", lambda: study("folder", tmp_path).recording("01"))


def test_folder_signal_faults_are_one_line(folder_root: Path) -> None:
    path = folder_root / "signals.npy"
    signals = np.load(path)

    def with_signals(array: np.ndarray, words: str) -> None:
        np.save(path, array)
        fails(words, lambda: study("folder", folder_root).recording("01"))

    with_signals(signals[:-1], "29 responses but 30 images")
    with_signals(np.where(signals == 29, np.nan, signals), "signals of subject 01, train rows: 20 values are NaN")
    with_signals(np.where(signals == 29, 1e300, signals.astype(np.float64)), "infinite")
    with_signals(signals.astype(str), "holds text")
    with_signals(signals.astype(object), "needs pickle")
    with_signals(signals[:, 0, 0], "signals have shape")
    np.save(path, signals)
    path.write_bytes(path.read_bytes()[:-8])
    fails("truncated", lambda: study("folder", folder_root).check())
    path.unlink()
    fails("holds no signals file", lambda: study("folder", folder_root).check())


def test_folder_other_faults_are_one_line(folder_root: Path) -> None:
    fails("nowhere.*not a folder", lambda: study("folder", folder_root / "nowhere"))
    fails("no subject '1'.*Known: 01, 08", lambda: study("folder", folder_root).recording("1"))
    for text, words in [
        ("{", "not valid JSON"),
        ('{"sfreq": "fast"}', "sfreq 'fast' is not a number"),
        ('{"sfreq": NaN}', "NaN is no finite number"),
        ('{"sfreq": 0}', "above 0"),
        ('{"ch_names": ["Oz"]}', "names 1 channels, the signals have 4"),
        ('{"rate": 3}', "'rate' is not known"),
        ("[1]", "not known"),
    ]:
        (folder_root / "info.json").write_text(text)
        fails(words, lambda: study("folder", folder_root).recording("01"))
    (folder_root / "info.json").unlink()
    (folder_root / "images" / "pic003.png").write_bytes(b"no picture")
    fails(r"pic003\.png.*corrupt", lambda: study("folder", folder_root).recording("01"))
    table = folder_root / "stimuli.csv"
    for content, words in [
        (b"", "lacks the column 'row'"),
        (b"row,image,split,subject\n", "lists no trials"),
        (b"row,image,split\n0,a,train\n", "lacks the column 'subject'"),
        (b"row,image,split,subject\n0,a.png,train,01,a cat, sitting\n", "more cells than columns"),
        (b"\xff\xfe\x00", "not a UTF-8 table"),
    ]:
        table.write_bytes(content)
        fails(words, lambda: study("folder", folder_root).recording("01"))
    table.unlink()
    fails(r"stimuli\.csv.*does not exist", lambda: study("folder", folder_root).recording("01"))


def _through_link(root: Path, folder: bool = False) -> str:
    """A name in the folder that is a link to a picture, or to a folder of one, outside."""
    try:
        (root / "away").symlink_to(root.parent / "private" if folder else root.parent / "private" / "p.png")
    except OSError:
        pytest.skip("this system makes no links")
    return "away/p.png" if folder else "away"


OUTSIDE = {
    "dots": lambda root: "../private/p.png",
    "more dots": lambda root: "images/../../private/p.png",
    "absolute": lambda root: str(root.parent / "private" / "p.png"),
    "link": _through_link,
    "link to a folder": lambda root: _through_link(root, folder=True),
    "from images": lambda root: "./../private/./p.png",
}


@pytest.mark.parametrize("way", OUTSIDE)
def test_folder_tells_of_pictures_outside(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, private = tmp_path / "study", tmp_path / "private"
    write_folder(root, noise())
    private.mkdir()
    (private / "p.png").write_bytes(png(picture(40)))
    name = OUTSIDE[way](root)
    write_folder(root, noise(), [*default_rows()[:-1], {**default_rows()[-1], "image": "pic099.png"}])
    text = (root / "stimuli.csv").read_text(encoding="utf-8").replace("pic099.png", name)
    (root / "stimuli.csv").write_text(text, encoding="utf-8")
    opened = study("folder", root)
    assert not opened.recording("01").log and not caplog.records
    told, *_ = opened.recording("08").log
    assert told.startswith("1 of 9 pictures lie outside the study's folder, the first is ") and repr(name) in told
    study("folder", root).recording("08")
    assert [record.message for record in caplog.records] == [f"{root}: {told}"]  # once


def test_folder_needs_both_splits(tmp_path: Path) -> None:
    write_folder(tmp_path, rows=[{**row, "split": "train"} for row in default_rows()])
    fails("subject 01 has no test rows", lambda: study("folder", tmp_path).recording("01"))


def test_unknown_study_names_the_nearest() -> None:
    fails("did you mean 'folder'", lambda: study("foldre", None))


@pytest.mark.parametrize("session", ["190925", "210305", "210325"])
def test_real_v4_session(session: str) -> None:
    root = shared_path("data/V4_compact_models")
    opened = study("cowley2023_v4", root, f"subjects=[{session}]")
    facts = opened.check()
    assert [fact for fact in facts if not fact.holds] == []
    recording = opened.recording(session)
    keeps_the_contract(recording)
    assert recording.test.x.shape == (N_TEST, DECLARED[session].units)
    removed = {"190925": 200, "210305": 100, "210325": 1}[session]
    assert f"removed {removed} of " in recording.log[0]
    test_hashes = [pixel_hash(recording.stimuli.load(int(i))) for i in recording.test.stimulus]
    assert len(set(test_hashes)) == N_TEST


def test_real_v4_facts_of_the_readme() -> None:
    """Units x images of every session as published; responses alone, so that it stays quick."""
    root = shared_path("data/V4_compact_models/data_V4_responses/responses_repeat_averaged")
    for name, session in DECLARED.items():
        assert np.load(root / f"responses_{name}.npy", mmap_mode="r").shape == (session.units, session.images)


def _person(root: Path, label: str, voxels: int, split: str = "test") -> np.ndarray:
    """A folder of one person; each value is its row plus a hundredth of its voxel."""
    lines = [(f"pic{i:03d}.png", "train" if i < 6 else split) for i in range(9)]
    rows = [{"row": i, "image": name, "split": s, "subject": label} for i, (name, s) in enumerate(lines)]
    x = np.arange(9.0)[:, None] + np.arange(voxels)[None] / 100
    write_folder(root, x.astype(np.float32), rows)
    (root / "info.json").write_text(json.dumps({"roi": {"V1": [0, voxels - 1]}, "notes": [f"{voxels} voxels"]}))
    return x


def test_people_of_different_voxels_are_one_study(tmp_path: Path) -> None:
    signals = {"bob": _person(tmp_path / "a", "bob", 5), "ann": _person(tmp_path / "b", "ann", 7)}
    (tmp_path / "empty").mkdir()
    both = study("folder", tmp_path)
    assert both.subjects == ("bob", "ann")
    for label, x in signals.items():
        found = both.recording(label)
        assert found.subject == label and found.study == "folder"
        np.testing.assert_allclose(found.train.x, x[:6], rtol=1e-6)
        np.testing.assert_allclose(found.test.x, x[6:], rtol=1e-6)
        assert both.rois(label) == {"V1": (0, x.shape[1] - 1)}
        own = study("folder", tmp_path, "study.roi=[V1]").recording(label)
        np.testing.assert_allclose(own.train.x, x[:6][:, [0, -1]], rtol=1e-6)
    assert [fact.what for fact in both.check()] == [
        *("trials", "bob train", "bob test", "trials", "ann train", "ann test")
    ]
    assert all(fact.as_declared for fact in both.check())
    assert [fact.what for fact in study("folder", tmp_path, "subjects=[ann]").check()][1:] == ["ann train", "ann test"]
    assert both.notes() == ("a: 5 voxels", "b: 7 voxels")
    fails("folder has no subject 'eve'", lambda: both.recording("eve"))


def test_a_person_stands_in_one_folder(tmp_path: Path) -> None:
    _person(tmp_path / "a", "ann", 5)
    _person(tmp_path / "b", "ann", 7)
    fails("subject ann stands in two folders of .*, 'a' and 'b'", lambda: study("folder", tmp_path).subjects)
    _person(tmp_path / "b", "Ann", 7)
    fails("'Ann'", lambda: study("folder", tmp_path).subjects)


def test_faults_of_one_of_several_folders_say_which(tmp_path: Path) -> None:
    _person(tmp_path / "a", "ann", 5)
    _person(tmp_path / "b", "bob", 7, split="unused")
    assert len(study("folder", tmp_path).recording("ann").test) == 3
    fails("^b: subject bob has no test rows", lambda: study("folder", tmp_path).recording("bob"))
    (tmp_path / "b" / "info.json").write_text('{"rois": {}}')
    fails("^b: info.json: 'rois' is not known", lambda: study("folder", tmp_path).notes())
    (tmp_path / "b" / "stimuli.csv").write_text("row,image\n0,pic000.png\n")
    fails("^b: stimuli.csv lacks the column 'split'", lambda: study("folder", tmp_path).subjects)
    (tmp_path / "b" / "signals.npy").unlink()
    _person(tmp_path / "b", "bob", 7)
    np.save(tmp_path / "b" / "signals.npy", np.zeros((4, 7), np.float32))
    fails("^b: .* 4 responses but 9 images|^b: .*4 ", lambda: study("folder", tmp_path).check())


def test_a_table_in_the_root_is_the_study(tmp_path: Path) -> None:
    _person(tmp_path, "ann", 5)
    _person(tmp_path / "old", "bob", 7)
    assert study("folder", tmp_path).subjects == ("ann",)
