"""NIfTI betas and a mask, written by nibabel, to the `folder` layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from align.data.importing import betas as module
from tests.align.fixture_import import imported, read_folder, shown, survives, write_pictures, write_table
from tests.one_line import fails

NAMES = ["a.png", "b.png", "c.png", "d.png"]
ORDER = ["d.png", "a.png", "n/a", "b.png", "d.png", "c.png", "a.png"]
SHAPE = (3, 4, 5)
AFFINE = np.diag([1.8, 1.8, 1.8, 1.0])


def volumes() -> np.ndarray:
    """Float32 (3, 4, 5, 7); NaN outside the mask, as GLMsingle leaves them."""
    x = np.random.default_rng(1).normal(size=(*SHAPE, len(ORDER))).astype(np.float32)
    x[~inside()] = np.nan
    return x


def inside() -> np.ndarray:
    return np.random.default_rng(2).random(SHAPE) < 0.4


def save(path: Path, x: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(x, affine), path)
    return path


def expected(x: np.ndarray, split: str) -> np.ndarray:
    """Voxel by voxel: x slowest, z fastest."""
    rows = [i for i, name in enumerate(ORDER) if name != "n/a" and (name == "d.png") == (split == "test")]
    voxels = [(i, j, k) for i in range(3) for j in range(4) for k in range(5) if inside()[i, j, k]]
    return np.array([[x[(*voxel, row)] for voxel in voxels] for row in rows])


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A complete command without --out."""
    split = ["test" if name == "d.png" else "train" for name in ORDER]
    events = write_table(tmp_path / "events.tsv", {"onset": range(7), "stim_file": ORDER, "split": split})
    images = write_pictures(tmp_path / "pictures", NAMES)
    betas = save(tmp_path / "betas.nii.gz", volumes())
    mask = save(tmp_path / "mask.nii.gz", inside().astype(np.uint8))
    return ["--betas", betas, "--mask", mask, "--events", events, "--images", images]


@pytest.mark.parametrize("at_once", [1, 3, 100])
@pytest.mark.parametrize("name", ["betas.nii.gz", "betas.nii"])
def test_rows_are_the_voxels_of_the_mask(
    words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int, name: str
) -> None:
    monkeypatch.setattr(module, "PIECE", at_once * 8 * 60)
    words[1] = save(tmp_path / name, volumes())
    said = imported(*words, "--out", tmp_path / "out", "--subject", "05")
    assert said["shape"] == [6, int(inside().sum())] and (said["train"], said["test"]) == (4, 2)
    recording = read_folder(tmp_path / "out", "05")
    np.testing.assert_array_equal(recording.train.x, expected(volumes(), "train"))
    np.testing.assert_array_equal(recording.test.x, expected(volumes(), "test"))
    assert shown(recording, "train") == ["a.png", "b.png", "c.png", "a.png"]
    assert recording.sfreq is None and recording.test.repetition.tolist() == [0, 1]


def test_scaled_integers(words: list[object], tmp_path: Path) -> None:
    """NSD's own betas are int16 times a slope in the header."""
    x = np.random.default_rng(3).integers(-9000, 9000, (*SHAPE, len(ORDER))).astype(np.int16)
    image = nibabel.Nifti1Image(x, AFFINE)
    image.header.set_slope_inter(1 / 300, 0)
    image.header.set_data_dtype(np.int16)
    raw = image.to_bytes()
    Path(str(words[1])).with_suffix("").write_bytes(raw)
    stored = np.asarray(nibabel.Nifti1Image.from_bytes(raw).dataobj)
    assert np.abs(stored).max() < 31 and (stored != np.rint(stored)).any()
    words[1] = Path(str(words[1])).with_suffix("")
    imported(*words, "--out", tmp_path / "out")
    np.testing.assert_allclose(read_folder(tmp_path / "out").train.x, expected(stored, "train"), rtol=1e-6)


def test_mask_of_other_codes_needs_the_value(words: list[object], tmp_path: Path) -> None:
    coded = np.where(inside(), 1, np.where(np.indices(SHAPE)[0] == 0, -1, 0)).astype(np.int16)
    words[3] = save(tmp_path / "nsdgeneral.nii.gz", coded)
    fails(
        "is coded -1, 0, 1, not 0 and 1; say which with --mask-value", lambda: imported(*words, "--out", tmp_path / "x")
    )
    fails("no voxel of value 2", lambda: imported(*words, "--out", tmp_path / "x", "--mask-value", 2))
    imported(*words, "--out", tmp_path / "out", "--mask-value", 1)
    np.testing.assert_array_equal(read_folder(tmp_path / "out").train.x, expected(volumes(), "train"))


def test_one_mask_is_for_all_files(words: list[object], tmp_path: Path) -> None:
    several = ["--betas", words[1], words[1], "--events", words[5], words[5], *words[6:], "--out", tmp_path / "out"]
    fails(
        "--mask names 2 files, and a folder holds the same voxels for all: give one mask",
        lambda: imported(*several, "--subject", "01", "02", "--mask", words[3], words[3]),
    )
    other = save(tmp_path / "other.nii.gz", volumes(), np.diag([2, 1.8, 1.8, 1]))
    several[2] = other
    fails(
        "other.nii.gz' and .*mask.nii.gz' have different affines.* into a folder of its own",
        lambda: imported(*several, "--subject", "01", "02", "--mask", words[3]),
    )


def test_faults_are_one_line_and_leave_nothing(words: list[object], tmp_path: Path) -> None:
    def run(**changes: object) -> Any:
        given = dict(zip(words[::2], words[1::2], strict=True)) | {f"--{key}": value for key, value in changes.items()}
        return lambda: imported(*(word for pair in given.items() for word in pair), "--out", tmp_path / "out")

    other = tmp_path / "other.nii.gz"
    fails("does not exist", run(mask=tmp_path / "none.nii.gz"))
    fails("no NIfTI file; known endings", run(mask=words[5]))
    fails(r"has shape \(3, 4, 5\), the betas \(3, 4, 4\)", run(betas=save(other, volumes()[:, :, :4])))
    fails("have different affines", run(betas=save(other, volumes(), np.diag([2, 1.8, 1.8, 1]))))
    fails(r"has shape \(3, 4, 5\); expected \(X, Y, Z, trials\)", run(betas=words[3]))
    fails("holds 6 volumes, .* 7 trials", run(betas=save(other, volumes()[..., :6])))
    fails(r"row 5 of the signals \(picture 'a.png'\) holds NaN", run(betas=save(other, _with_nan(6))))
    fails("no voxel of value 1", run(mask=save(other, np.zeros(SHAPE, np.uint8))))
    fails("is coded 0, nan", run(mask=save(other, np.where(inside(), np.nan, 0))))
    Path(other).write_bytes(Path(str(words[1])).read_bytes()[:-200])
    fails("is truncated or no NIfTI file", run(betas=other))
    header = bytearray(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE).to_bytes())
    header[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (tmp_path / "huge.nii").write_bytes(header)
    fails("far more than the file holds", run(mask=tmp_path / "huge.nii"))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_damaged_files_are_read_or_refused(
    words: list[object], tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", logger="align")  # our own remarks are not nibabel's
    for place, name in ((1, "betas.nii"), (3, "mask.nii"), (5, "events.tsv"), (1, "betas.nii.gz")):
        if name.startswith("betas"):
            words[1] = save(tmp_path / name, volumes())
        elif name == "mask.nii":
            words[3] = save(tmp_path / name, inside().astype(np.uint8))
        survives(Path(str(words[place])), 40, tmp_path / "out", *words)
    assert capfd.readouterr() == ("", "")  # nibabel comments on odd headers if it may


def _with_nan(volume: int) -> np.ndarray:
    x = volumes()
    x[(*np.argwhere(inside())[3], volume)] = np.nan
    return x
