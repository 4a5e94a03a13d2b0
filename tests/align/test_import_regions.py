"""Betas as laboratories have them: regions of interest, empty voxels, prefixes of BIDS, files of GLMsingle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.importing.pictures import find_pictures
from align.data.reading.containers import read_container
from align.data.studies import open_study
from align.files import read_json
from align.train import _require_alike
from tests.align.fixture_import import imported, read_folder, write_pictures
from tests.align.test_import_betas import SHAPE, expected, inside, save, volumes, words
from tests.one_line import fails

__all__ = ["words"]

CODES = np.random.default_rng(5).integers(0, 4, SHAPE).astype(np.int16)


def _codes(x: np.ndarray) -> np.ndarray:
    """In the order of the stored voxels."""
    return np.array([x[i, j, k] for i in range(3) for j in range(4) for k in range(5) if inside()[i, j, k]])


def test_regions_name_the_voxels_in_their_order(words: list[object], tmp_path: Path) -> None:
    labels, v4 = save(tmp_path / "atlas.nii.gz", CODES), save(tmp_path / "v4.nii", (CODES == 2).astype(np.uint8))
    out = tmp_path / "out"
    imported(*words, "--out", out, "--roi", labels, f"V4={v4}", "--roi-names", "1=V1", "3=PPA")
    found = read_json(out / "info.json")["roi"]
    codes = _codes(CODES)
    assert found == {
        name: np.flatnonzero(codes == code).tolist()
        for name, code in (("V1", 1), ("label-2", 2), ("PPA", 3), ("V4", 2))
    }
    config = load_config(
        Config, None, ["study.name=folder", f"study.root={out}", "study.roi=[V1]", f"cache_dir={tmp_path}"]
    )
    x = open_study(config).recording("01").train.x
    np.testing.assert_array_equal(x, expected(volumes(), "train")[:, codes == 1])


@pytest.mark.parametrize(
    ("make", "more", "told"),
    [
        (lambda: CODES[:, :, :4], [], r"has shape \(3, 4, 4\)"),
        (lambda: CODES + 0.5, [], "holds fractions"),
        (lambda: CODES, ["--roi-names", "9=V9"], "no label image has the code 9"),
        (lambda: CODES, ["--roi-names", "V1"], "is not CODE=NAME"),
        (lambda: CODES, ["--roi-names", "1=A", "2=A"], "'A' stands twice"),
        (lambda: np.where(inside(), 0, 7).astype(np.int16), ["--name"], "no voxel inside"),
    ],
)
def test_regions_that_do_not_fit_are_one_line(
    make: Any, more: list[str], told: str, words: list[object], tmp_path: Path
) -> None:
    path = save(tmp_path / "atlas.nii.gz", make())
    named, more = ([f"X={path}"], []) if more == ["--name"] else ([path], more)
    fails(told, lambda: imported(*words, "--out", tmp_path / "out", "--roi", *named, *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at_once", [1, 100])
def test_empty_voxels_are_named_and_left_out(
    at_once: int, words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.data.importing import betas

    monkeypatch.setattr(betas, "PIECE", at_once * 8 * 60)
    x, voxels = volumes(), np.argwhere(inside())
    x[(*voxels[2],)] = np.nan
    x[(*voxels[5],)] = np.nan
    x[(*voxels[4],)] = 0
    words[1] = save(tmp_path / "holes.nii.gz", x)
    first = tuple(int(i) for i in voxels[2])
    told = f"2 of {len(voxels)} voxels of the mask are NaN in every trial, first voxel {first}"
    fails(f"{re.escape(told)}.*--drop-empty", lambda: imported(*words, "--out", tmp_path / "out"))
    roi = save(tmp_path / "roi.nii.gz", inside().astype(np.uint8))
    said = imported(*words, "--out", tmp_path / "out", "--drop-empty", "--roi", f"all={roi}")
    assert said["shape"] == [6, len(voxels) - 3]
    kept = np.delete(np.arange(len(voxels)), [2, 4, 5])
    np.testing.assert_array_equal(read_folder(tmp_path / "out").train.x, expected(x, "train")[:, kept])
    assert read_json(tmp_path / "out" / "info.json")["roi"] == {"all": list(range(len(kept)))}
    x[(*voxels[0], 3)] = np.nan  # in one trial alone: that is no empty voxel
    words[1] = save(tmp_path / "hole.nii.gz", x)
    fails("row 2 of the signals", lambda: imported(*words, "--out", tmp_path / "again", "--drop-empty"))


def test_voxels_of_zeros_are_said(words: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x, voxels = volumes(), np.argwhere(inside())
    words[1] = save(tmp_path / "whole.nii.gz", x)
    imported(*words, "--out", tmp_path / "whole")
    assert "--drop-empty" not in caplog.text
    x[(*voxels[4],)] = x[(*voxels[6],)] = 0
    words[1] = save(tmp_path / "padded.nii.gz", x)
    imported(*words, "--out", tmp_path / "padded")
    assert (
        f"2 of {len(voxels)} voxels of the mask are 0 in every trial; leave them out with --drop-empty" in caplog.text
    )


def test_a_file_with_voxels_of_zeros_alone_may_be_a_wrong_one(
    words: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, voxels = volumes(), np.argwhere(inside())
    other = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
    other[tuple(voxels[:2].T)] = 0
    two = [words[0], words[1], save(tmp_path / "other.nii.gz", other), *words[2:4], words[4], words[5], words[5]]
    two += [*words[6:], "--subject", "01"]
    doubt = "(not in the other file): this file may be of another person, mask or orientation"
    imported(*two, "--out", tmp_path / "two")
    assert f"2 of {len(voxels)} voxels of the mask are 0 in every trial {doubt}; if it is right" in caplog.text
    caplog.clear()
    imported(*two, "--out", tmp_path / "dropped", "--drop-empty")
    assert doubt in caplog.text and doubt in read_json(tmp_path / "dropped" / "info.json")["notes"][0]
    x[tuple(voxels[: len(voxels) // 2].T)] = 0
    words[1] = save(tmp_path / "half.nii.gz", x)
    caplog.clear()
    imported(*words, "--out", tmp_path / "half")
    assert "are 0 in every trial: this file may be of another person" in caplog.text
    x[inside()] = 0
    words[1] = save(tmp_path / "none.nii.gz", x)
    for more in ([], ["--drop-empty"]):
        told = "are empty in every trial: betas and mask do not belong"
        fails(told, lambda m=more: imported(*words, "--out", tmp_path / "none", *m))


def test_nothing_that_is_left_out_is_not_said(
    words: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        imported(*words, "--out", tmp_path / "out", "--drop-empty")
    assert "voxels" not in caplog.text


def test_regions_that_lie_outside_the_mask_are_said_with_both_counts(
    words: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = save(tmp_path / "atlas.nii.gz", CODES)
    kept, every = int((CODES[inside()] == 1).sum()), int((CODES == 1).sum())
    imported(*words, "--out", tmp_path / "out", "--roi", labels, "--roi-names", "1=V1")
    told = f"--roi: only {kept} of {every} voxels of V1, "
    assert kept < every and caplog.text.count(told) == 1
    assert read_json(tmp_path / "out" / "info.json")["notes"][0].startswith(told)
    study = open_study(load_config(Config, None, ["study.name=folder", f"study.root={tmp_path / 'out'}"]))
    assert any(note.startswith(told) for note in study.notes())
    caplog.clear()
    whole = save(tmp_path / "whole.nii.gz", inside().astype(np.uint8))
    imported(*words, "--out", tmp_path / "whole", "--roi", f"all={whole}")
    assert "--roi" not in caplog.text


def test_files_of_glmsingle_are_refused_with_a_way_out(words: list[object], tmp_path: Path) -> None:
    path, betas = tmp_path / "TYPED_FITHRF_GLMDENOISE_RR.npy", np.arange(24.0).reshape(2, 2, 2, 3)
    np.save(path, {"betasmd": betas}, allow_pickle=True)  # type: ignore[arg-type]
    words[1] = path
    said = fails("GLMsingle's own file", lambda: imported(*words, "--out", tmp_path / "out"))
    assert "read_container(FILE)['betasmd'].open()" in said and "Nifti1Image" in said and "allow_pickle" not in said
    np.testing.assert_array_equal(read_container(path)["betasmd"].open(), betas)  # what the message says works


@pytest.mark.parametrize("name", ["stimuli/a.png", "pictures/a.png", "a.png", "./stimuli/a.png", "stimuli/a"])
def test_a_prefix_of_bids_finds_the_picture(name: str, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", ["a.png", "other/b.png"])
    assert find_pictures(folder, [name]) == {name: folder / "a.png"}
    fails("lacks 1 of 1", lambda: find_pictures(folder, ["elsewhere/a.png"]))  # another folder is not guessed
    fails("lacks 1 of 1", lambda: find_pictures(folder, ["stimuli/x/b.png"]))


@pytest.mark.parametrize("protocol", ["pooled", "loso"])
def test_people_with_other_voxels_are_told_apart_early(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    from types import SimpleNamespace

    def person(name: str, *shape: int) -> Any:
        return SimpleNamespace(subject=name, train=SimpleNamespace(x=np.zeros((3, *shape))))

    config = load_config(Config, None, [f"protocol={protocol}"])
    told = f"protocol={protocol} needs equal trials: subject 01 has 480 voxels, subject 02 500"
    fails(
        f"{told}.*protocol=intra.*recon table", lambda: _require_alike(config, [person("01", 480), person("02", 500)])
    )
    fails("60 x 100 channels x samples", lambda: _require_alike(config, [person("01", 60, 100), person("02", 61, 100)]))
    _require_alike(config, [person("01", 60, 100), person("02", 60, 100)])
    import logging

    with caplog.at_level(logging.WARNING, logger="align"):
        _require_alike(config, [person("01", 480), person("02", 480)])
    assert "holds in a common space only" in caplog.text
