"""Labels as people and programs write them: missing values, blanks, accents in two forms, one person twice."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.importing.pictures import find_pictures
from align.data.studies import open_study
from align.files import write_json
from align.files.labels import alike, found_file, is_missing, present, tidy, whole
from recon.audit.checks import Material
from recon.audit.tables import add_labels
from recon.scoring.aggregate import load_results
from recon.scoring.embeddings import read_listing
from recon.scoring.images import _labels
from recon.scoring.opening import open_pair
from recon.scoring.retrieval import score, score_matrix
from tests.align.fixture_import import imported, write_pictures, write_table
from tests.align.fixture_studies import default_rows, picture, write_folder
from tests.one_line import fails

COMPOSED, APART = (unicodedata.normalize(form, "é0") for form in ("NFC", "NFD"))
EMPTY = ["", "n/a", "N/A", "NaN", "nan", " <NA> ", "None", "null", "NaT", "#N/A"]


@pytest.mark.parametrize("text", EMPTY)
def test_nothing_is_nothing_however_it_is_written(text: str) -> None:
    assert is_missing(text) and present(text) == ""


@pytest.mark.parametrize("text", ["0", "cat", "nano", "n", "False", "-"])
def test_something_is_something(text: str) -> None:
    assert not is_missing(text) and present(f" {text}\t") == text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("01", "1", True),
        ("1", "1.0", True),
        ("sub-01", "01", True),
        ("Sub-1", "sub-001", True),
        ("S01", "s1", True),
        ("subject 3", "3", True),
        ("p1_s02", "p1_s2", True),
        (APART, COMPOSED, True),
        ("1", "2", False),
        ("10", "1", False),
        ("100", "10", False),
        ("1.5", "1.05", False),
        ("210224", "210225", False),
        ("a", "b", False),
        ("0", "1", False),
    ],
)
def test_who_may_be_one_person(one: str, other: str, same: bool) -> None:
    assert (alike(one) == alike(other)) is same


def test_counts_of_pandas() -> None:
    assert [whole(text) for text in ("3.0", "3", "3.5", "10.00", "x.0")] == ["3", "3", "3.5", "10", "x.0"]


def study_of(root: Path, *pairs: str) -> Any:
    return open_study(load_config(Config, None, ["study.name=folder", f"study.root={root}", *pairs]))


def changed(**cells: object) -> list[dict[str, object]]:
    rows = default_rows()
    rows[3] |= cells
    return rows


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"subject": "nan"}, "line 5: subject is 'nan'"),
        ({"image": "n/a"}, "line 5: image is 'n/a'"),
        ({"split": "NaN"}, "line 5: split is 'NaN'"),
        ({"row": "None"}, "line 5: row is 'None'"),
        ({"subject": "1"}, "subjects '01' and '1' are set apart"),
        ({"subject": "sub-01"}, "subjects '01' and 'sub-01' are set apart"),
        ({"row": "3.5"}, "row '3.5' is not a whole number"),
    ],
)
def test_a_study_names_the_line(cells: dict[str, object], words: str, tmp_path: Path) -> None:
    write_folder(tmp_path, rows=[row | {"x": ""} for row in changed()])
    write_table(tmp_path / "stimuli.csv", {k: [row[k] for row in changed(**cells)] for k in default_rows()[0]})
    fails(words, lambda: study_of(tmp_path).recording("01"))


@pytest.mark.parametrize("missing", EMPTY)
def test_missing_concepts_are_no_concept_and_sessions_none(missing: str, tmp_path: Path) -> None:
    rows = [row | {"concept": missing, "session": missing, "repetition": missing} for row in default_rows()]
    write_folder(tmp_path, rows=rows)
    recording = study_of(tmp_path).recording("01")
    assert set(recording.stimuli.concepts) == {""} and recording.train.session is None
    assert len(np.unique(recording.stimuli.groups)) == len(recording.stimuli)


def test_columns_with_blanks_and_floats_of_pandas(tmp_path: Path) -> None:
    rows = [
        {f" {name.title()} ": f" {value}.0 " if name == "row" else f"{value} " for name, value in row.items()}
        | {"Session ": "1.0"}
        for row in default_rows()
    ]
    write_folder(tmp_path)
    write_table(tmp_path / "stimuli.csv", {k: [row[k] for row in rows] for k in rows[0]})
    recording = study_of(tmp_path).recording("01")
    assert set(recording.train.session) == {"1"} and len(recording.train) == 12


def test_sessions_and_columns_that_stand_twice(tmp_path: Path) -> None:
    rows = [row | {"session": "01" if i % 2 else "1"} for i, row in enumerate(default_rows())]
    write_folder(tmp_path, rows=rows)
    fails("sessions '1' and '01' are set apart", lambda: study_of(tmp_path).recording("01"))
    text = (tmp_path / "stimuli.csv").read_text().replace("session", "Split ", 1)
    (tmp_path / "stimuli.csv").write_text(text)
    fails("two columns called 'split'", lambda: study_of(tmp_path).recording("01"))


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_accents_in_either_form_find_their_picture(stored: str, tmp_path: Path) -> None:
    folder = tmp_path / "images" / unicodedata.normalize(stored, "Füße")
    folder.mkdir(parents=True)
    picture(1).save(folder / unicodedata.normalize(stored, "é0.png"))
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "Füße/é0.png")
        assert found_file([tmp_path / "none", tmp_path / "images" / name]) is not None
        assert list(find_pictures(tmp_path / "images", [name])) == [name]
    mixed = unicodedata.normalize("NFC", "Füße") + "/" + unicodedata.normalize("NFD", "é0.png")
    assert found_file([tmp_path / "images" / mixed]) is not None
    assert found_file([tmp_path / "images" / "Füße" / "è0.png"]) is None


@pytest.mark.parametrize("split", ["train", "test"])
def test_two_pictures_whose_names_differ_in_unicode_form_alone(split: str, tmp_path: Path) -> None:
    """A table cannot tell them apart, so the trials of one would be those of the other."""
    rows = default_rows()
    write_folder(tmp_path, rows=rows)
    names = list(dict.fromkeys(str(row["image"]) for row in rows if row["split"] == split))
    renamed = dict(zip(names, (f"{COMPOSED}.png", f"{APART}.png"), strict=False))
    for old, new in renamed.items():
        next(tmp_path.rglob(old)).rename(tmp_path / new)
    rows = [{**row, "image": renamed.get(str(row["image"]), row["image"])} for row in rows]
    with (tmp_path / "stimuli.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    fails("composed and decomposed", lambda: study_of(tmp_path).recording("01"))


def test_accents_in_either_form_pair_pictures_ids_and_labels(tmp_path: Path) -> None:
    for name, stem in (("a", COMPOSED), ("b", APART)):
        (tmp_path / name).mkdir()
        for i, each in enumerate((stem, "plain")):
            picture(i).save(tmp_path / name / f"{each}.png")
    told, truth = open_pair(tmp_path / "a", tmp_path / "b")
    assert told.ids == truth.ids and COMPOSED in (truth.ids or ())
    labels = _labels({APART: " x ", "plain": "y"}, truth.ids or (), truth)
    assert sorted(labels.tolist()) == ["x", "y"]
    x = np.eye(2)
    settings: dict[str, Any] = {"n_boot": 5, "n_perm": 5, "transductive": False}
    found = score(x, x[::-1], ids=[APART, "b"], image_ids=["b", COMPOSED], **settings)
    assert found["brain_to_image"]["top1"] == 1
    picture(2).save(tmp_path / "a" / f"{APART}.png")
    fails("one id, two pictures", lambda: open_pair(tmp_path / "a", tmp_path / "b"))


@pytest.mark.parametrize("missing", EMPTY)
def test_missing_ids_and_labels_are_named(missing: str, tmp_path: Path) -> None:
    table = write_table(tmp_path / "ids.csv", {" id ": ["a ", missing, "c"], "label": ["x", "y", "z"]})
    fails("row 1 has no id", lambda: read_listing(table))
    table = write_table(tmp_path / "ids.csv", {" id ": ["a ", "b", "c"], "label\t": ["x", " y", missing]})
    fails("row 2 has no label", lambda: read_listing(table))
    fails("the id of row 1", lambda: score_matrix(np.eye(2), ids=["a", missing]))
    material = Material(brain=np.zeros((3, 2)))
    fails("1 test rows have no label", lambda: add_labels(material, table))


def test_listing_without_blanks(tmp_path: Path) -> None:
    table = write_table(tmp_path / "ids.csv", {"": [0, 1], " id": [" a ", f"{APART} "], "row ": ["1.0", "0.0"]})
    assert read_listing(table).ids == [COMPOSED, "a"]


@pytest.mark.parametrize("labels", [("01", "1"), ("1", "1.0"), ("sub-02", "02"), ("S1", "s1"), ("subject-3", "3")])
def test_a_table_does_not_count_one_person_twice(labels: tuple[str, str], tmp_path: Path) -> None:
    paths = []
    for seed, subject in enumerate(labels):
        result = score_matrix(np.eye(4), n_boot=5, n_perm=5, transductive=False)
        paths.append(tmp_path / f"{seed}.json")
        write_json(paths[-1], {"schema": 1, "kind": "score", "name": "A", "subject": subject, "seed": seed, **result})
    fails("may be one", lambda: load_results(paths))
    content = json.loads(paths[0].read_text()) | {"subject": labels[1]}
    write_json(paths[0], content)
    assert len(load_results(paths)) == 2


def embeddings(tmp_path: Path, **columns: list[object]) -> list[object]:
    np.save(tmp_path / "E.npy", np.random.default_rng(0).normal(size=(4, 5)))
    images = write_pictures(tmp_path / "pictures", ["a.png", "b.png", "c.png"])
    table = {"id": ["a", "b", "a", "c"], "split": ["train", "test", "train", "unused"], **columns}
    ids = write_table(tmp_path / "ids.csv", table)
    return ["--embeddings", tmp_path / "E.npy", "--ids", ids, "--images", images, "--out", tmp_path / "out"]


@pytest.mark.parametrize("missing", EMPTY)
def test_an_import_leaves_out_what_shows_nothing(missing: str, tmp_path: Path) -> None:
    words = embeddings(tmp_path, id=[" a", "b ", "a", missing], concept=[missing, "x", missing, "y"])
    said = imported(*words)
    assert (said["trials"], said["train"], said["test"]) == (3, 2, 1)
    assert study_of(tmp_path / "out").recording("01").stimuli.concepts == ("", "x")


def test_an_import_asks_nothing_of_unused_rows(tmp_path: Path) -> None:
    words = embeddings(tmp_path, id=["a", "b", "a", "not there"])
    assert imported(*words)["trials"] == 3
    words = embeddings(tmp_path)
    x = np.load(tmp_path / "E.npy")
    x[3] = np.nan
    np.save(tmp_path / "E.npy", x)
    (tmp_path / "pictures" / "c.png").write_bytes((tmp_path / "pictures" / "a.png").read_bytes())
    words[-1] = tmp_path / "out2"
    assert imported(*words)["unused"] == 1
    assert len(study_of(tmp_path / "out2").recording("01").train) == 2


def test_unused_lines_of_a_study_need_no_picture_and_no_person(tmp_path: Path) -> None:
    write_folder(tmp_path)
    rows = changed(split="unused", image="n/a", subject="")
    write_table(tmp_path / "stimuli.csv", {k: [row[k] for row in rows] for k in rows[0]})
    study = study_of(tmp_path)
    assert study.subjects == ("01", "08") and len(study.recording("01").train) == 11


def test_tidy() -> None:
    assert tidy(f" {APART}\n") == COMPOSED and tidy(None) == ""
