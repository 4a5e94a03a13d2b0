"""THINGS-MEG: MNE epochs as published, and the repacks, against what MNE itself reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

from align import train as script
from align.config import Config, load_config
from align.data.studies import open_study
from align.data.studies.things.meg import LAYOUTS, OPENNEURO, ThingsMEG
from recon import cli
from tests.align import fixture_things as things
from tests.one_line import fails

PROJECT = Path(__file__).resolve().parents[2]
REPACKS = tuple(LAYOUTS)


def study(root: Path, *overrides: str) -> ThingsMEG:
    pairs = ["study.name=things_meg", f"study.root={root}", f"cache_dir={root / 'cache'}", *overrides]
    found = open_study(load_config(Config, None, pairs))
    assert isinstance(found, ThingsMEG)
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The published epochs, and the repacks made from them."""
    found = {OPENNEURO: tmp_path_factory.mktemp(OPENNEURO)}
    things.write_meg(found[OPENNEURO])
    for name in REPACKS:
        found[name] = tmp_path_factory.mktemp(name)
        things.write_meg_repack(found[OPENNEURO], found[name], name)
    return found


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A fresh copy to spoil."""
    things.write_meg(tmp_path)
    return tmp_path


def epochs_file(root: Path) -> Path:
    return root / "derivatives" / "preprocessed" / "preprocessed_P1-epo.fif"


def test_epochs_become_trials_of_the_pictures_their_events_name(roots: dict[str, Path]) -> None:
    opened = study(roots[OPENNEURO])
    assert opened.variant == OPENNEURO and opened.subjects == ("01",)
    recording = opened.read("01")
    found = mne.read_epochs(epochs_file(roots[OPENNEURO]), preload=True, verbose="error").pick("mag")
    values, events = found.get_data(), found.events[:, 2]
    paths = (roots[OPENNEURO] / "image_paths.csv").read_text().split()
    seen = 0
    for trials in (recording.train, recording.test):
        assert isinstance(trials.x, np.memmap) and trials.x.dtype == np.float32
        for i in np.unique(trials.stimulus):
            name = recording.stimuli.ids[i].split("/")[-1]
            event = next(line for line, path in enumerate(paths, 1) if path.endswith(f"/{name}"))
            rows = np.flatnonzero(trials.stimulus == i)
            np.testing.assert_array_equal(trials.repetition[rows], np.arange(len(rows)))
            np.testing.assert_array_equal(trials.x[rows], values[events == event].astype(np.float32))
            seen += len(rows)
    assert recording.ch_names == tuple(f"M{c:02d}" for c in range(6))  # the trigger channel is no signal
    assert (recording.sfreq, recording.tmin, recording.train.x.shape[2]) == (200.0, -0.1, 281)
    assert seen == 20 + 36


def test_concepts_of_the_test_are_removed_from_training(roots: dict[str, Path]) -> None:
    recording = study(roots[OPENNEURO]).read("01")
    n = len(recording.train)
    assert recording.stimuli.concepts[:n] == tuple(f"thing{c}" for c in (1, 3, 5, 6, 7) for _ in range(4))
    assert recording.stimuli.concepts[n:] == ("thing0", "thing2", "thing4")
    assert recording.stimuli.ids[0] == "train/00002_thing1/thing1_00s.jpg"
    assert "removed 12 training trials of the 3 test concepts and 5 catch trials" in recording.log
    facts = {fact.what: fact.found for fact in study(roots[OPENNEURO]).check()}
    assert facts["01 concepts shared by training and test"] == "0"
    assert facts["01 training concepts"] == "5"
    assert facts["01 test pictures x repetitions"] == "3 x 12"


@pytest.mark.parametrize("variant", REPACKS)
def test_a_repack_holds_the_same_recording(roots: dict[str, Path], variant: str) -> None:
    steps = ["preprocess.tmin=0", "preprocess.tmax=1.0"]
    first = study(roots[OPENNEURO], *steps).recording("01")
    opened = study(roots[variant], *steps)
    assert opened.variant == variant
    recording = opened.recording("01")
    assert recording.stimuli.ids == first.stimuli.ids and recording.stimuli.hashes == first.stimuli.hashes
    np.testing.assert_array_equal(recording.stimuli.groups, first.stimuli.groups)
    assert (recording.sfreq, recording.tmin) == (200.0, 0.0)
    for trials, other in ((recording.train, first.train), (recording.test, first.test)):
        assert trials.x.shape[1:] == (6, 200)
        np.testing.assert_array_equal(trials.x, other.x)
        np.testing.assert_array_equal(trials.stimulus, other.stimulus)


def test_epochs_are_copied_once_and_again_when_they_change(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study(published).read("01")
    monkeypatch.setattr(mne, "read_epochs", lambda *_, **__: pytest.fail("read again"))
    np.testing.assert_array_equal(study(published).read("01").train.x, first.train.x)
    monkeypatch.undo()
    things.write_meg(published, n_concepts=9)
    assert len(study(published).read("01").train) == 24


def test_copying_takes_pieces(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align.data.studies.things import meg_epochs

    whole = study(published, f"cache_dir={published / 'a'}").read("01")
    monkeypatch.setattr(meg_epochs, "_PIECE", 7)
    pieces = study(published, f"cache_dir={published / 'b'}").read("01")
    np.testing.assert_array_equal(pieces.train.x, whole.train.x)
    np.testing.assert_array_equal(pieces.test.x, whole.test.x)


def _concept_table(published: Path, change: Callable[[list[str]], object]) -> None:
    lines = (published / "image_concept_index.csv").read_text().split()
    change(lines)
    (published / "image_concept_index.csv").write_text("\n".join(lines))


def test_tables_that_do_not_fit_are_refused(published: Path) -> None:
    table = published / "image_concept_index.csv"
    kept = table.read_text()
    _concept_table(published, lambda lines: lines.pop())
    fails("image_paths.csv has 40 lines, image_concept_index.csv 39", lambda: study(published).read("01"))
    table.write_text(kept)
    _concept_table(published, lambda lines: lines.__setitem__(10, "2"))
    fails("line 11 is 'images/thing2/thing2_00s.jpg', .* says concept 2", lambda: study(published).read("01"))
    table.write_text("concept\n" + kept)
    fails("one whole number per line", lambda: study(published).read("01"))
    table.unlink()
    assert len(study(published).read("01").train) == 20  # the numbers are then those of the order in the list


def test_events_and_pictures_that_do_not_fit_are_refused(published: Path) -> None:
    lines = (published / "image_paths.csv").read_text().split()
    picture = published / lines[5]
    picture.rename(picture.with_suffix(".away"))
    fails("'images/thing1/thing1_00s.jpg', line 6 of image_paths.csv, is missing", lambda: study(published).read("01"))
    (published / "image_paths.csv").write_text("\n".join(lines[:30]))
    _concept_table(published, lambda rows: rows.__delitem__(slice(30, None)))
    fails(r"event \d+ is no line of image_paths.csv \(1 to 30\)", lambda: study(published).read("01"))


def test_epochs_without_a_test_or_damaged_are_refused(published: Path) -> None:
    path = epochs_file(published)
    whole = path.read_bytes()
    for n in (len(whole) // 3, len(whole) - 100, 40, 0):
        path.write_bytes(whole[:n])
        fails("truncated or no (FIFF|epochs) file", lambda: study(published).read("01"))
    path.write_bytes(whole)
    epochs = mne.read_epochs(path, preload=True, verbose="error")
    epochs[epochs.events[:, 2] % 5 != 0].save(path, overwrite=True, verbose="error")
    fails("no picture was shown more than once", lambda: study(published).read("01"))


def test_which_recording_is_meant(roots: dict[str, Path], tmp_path: Path) -> None:
    fails("has no subject 'P1'", lambda: study(roots[OPENNEURO]).read("P1"))
    fails("holds no THINGS-MEG recording such as sub-01/preprocessed_meg_training.pkl", lambda: study(tmp_path))
    fails("holds no preprocessed_P1-epo.fif", lambda: study(roots["atm"], "study.variant=openneuro"))
    fails("'tam' of things_meg is not known; did you mean 'atm'", lambda: study(roots["atm"], "study.variant=tam"))


def test_every_variant_has_its_command() -> None:
    text = (PROJECT / "configs" / "align" / "things_meg.yaml").read_text()
    assert all(f"study.variant={name} " in text for name in (OPENNEURO, *LAYOUTS))
    assert load_config(Config, PROJECT / "configs" / "align" / "things_meg.yaml").preprocess.scale == "zscore"


def test_from_files_to_a_retrieval_report(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    config = str(PROJECT / "configs" / "align" / "things_meg.yaml")
    settings = ["subjects=[01]", "train.epochs=2", "encoder.width=16", f"cache_dir={tmp_path / 'cache'}"]
    assert script.main(["--config", config, f"study.root={roots[OPENNEURO]}", *settings]) == 0
    assert "20 training rows" in capsys.readouterr().out
    assert cli.main(["retrieve", "--subject", "01", "--json"]) == 0
    assert '"candidates": 3' in capsys.readouterr().out


def test_epochs_of_today_need_no_list_of_things(published: Path) -> None:
    first = study(published, f"cache_dir={published / 'a'}").read("01")
    hashes = first.stimuli.hashes  # read before the pictures move
    things.publish_as_openneuro(published)
    opened = study(published, f"cache_dir={published / 'b'}")
    found = opened.read("01")
    for mine, theirs in ((found.train, first.train), (found.test, first.test)):
        np.testing.assert_array_equal(mine.x, theirs.x)
        np.testing.assert_array_equal(mine.stimulus, theirs.stimulus)
    assert found.stimuli.ids == first.stimuli.ids and found.stimuli.hashes == hashes
    assert "row order: the epochs' own table of trials" in found.log
    assert all(fact.holds for fact in opened.check())
    (published / "object_images" / "thing1" / "thing1_00s.jpg").unlink()
    fails("picture 'images_meg/thing1/thing1_00s.jpg', of event 6, is missing", lambda: study(published).read("01"))


def test_the_list_under_its_present_name_is_enough(published: Path) -> None:
    first = study(published).read("01")
    (published / "01_image-level").mkdir()
    (published / "image_paths.csv").rename(published / "01_image-level" / "image-paths.csv")
    (published / "image_concept_index.csv").unlink()
    assert study(published).read("01").stimuli.ids == first.stimuli.ids
    (published / "01_image-level" / "image-paths.csv").unlink()
    fails("carries no table of its trials, and there is no image-paths.csv", lambda: study(published).read("01"))


def test_a_recording_with_fewer_repetitions_is_read(published: Path) -> None:
    path = epochs_file(published)
    epochs = mne.read_epochs(path, preload=True, verbose="error")
    keep, seen = [], {}
    for row, event in enumerate(epochs.events[:, 2].tolist()):
        seen[event] = seen.get(event, 0) + 1
        if seen[event] <= 3 + (event % 3 == 0):  # three or four of the twelve
            keep.append(row)
    epochs[keep].save(path, overwrite=True, verbose="error")
    facts = {fact.what: fact for fact in study(published).check()}
    fact = facts["01 test pictures x repetitions"]
    assert (fact.found, fact.holds) == ("3 x 3 to 4", True)


def test_ubp_as_its_archive_unpacks_with_the_pictures_of_things(roots: dict[str, Path], tmp_path: Path) -> None:
    """data/things-meg/Preprocessed_data/sub-01/*.pt, and object_images/ as images_THINGS.zip holds them."""
    import shutil

    place = tmp_path / "data" / "things-meg" / "Preprocessed_data"
    shutil.copytree(roots["ubp"] / "preprocessed_MEG" / "sub-01", place / "sub-01")
    shutil.copytree(roots[OPENNEURO] / "images", tmp_path / "data" / "object_images")
    opened, first = study(tmp_path), study(roots["ubp"]).read("01")
    assert (opened.variant, opened.folder) == ("ubp", place)
    found = opened.read("01")
    assert found.stimuli.ids == first.stimuli.ids and found.stimuli.hashes == first.stimuli.hashes
    np.testing.assert_array_equal(found.train.x, first.train.x)
