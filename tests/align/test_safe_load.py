"""Reading strangers' files: round trips in every format, and one line for everything broken or dangerous."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from align.data.reading.safe_load import decode_image, load_array, read_image_zip, require_finite, require_rows
from align.errors import UserError
from align.files.checksums import append_checksum
from tests.align.fixture_studies import picture, png
from tests.conftest import shared_path

X = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)


def write(path: Path, x: np.ndarray = X) -> Path:
    """``x`` under the name ``signals`` in the format that the file name asks for."""
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, other=np.arange(3), signals=x)
    elif path.suffix in (".h5", ".hdf5"):
        with h5py.File(path, "w") as file:
            file["signals"], file["group/deep"] = x, 2 * x
    elif path.stem == "v73":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["signals"] = x.T  # MATLAB stores columns first
        head = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM"
        with path.open("r+b") as raw:
            raw.write(head)
    else:
        savemat(path, {"signals": x, "other": np.arange(3)}, do_compression=path.stem == "packed")
    return path


FORMATS = ["a.npy", "a.npz", "a.h5", "a.hdf5", "v5.mat", "packed.mat", "v73.mat"]


def fails(words: str, path: Path, key: str | None = None) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_array(path, key)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    found = load_array(write(tmp_path / name))
    np.testing.assert_array_equal(found, X)
    assert found.dtype == np.float32


def test_key_picks_an_array(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load_array(write(tmp_path / "a.npz"), "other"), np.arange(3))
    np.testing.assert_array_equal(load_array(write(tmp_path / "a.h5"), "group/deep"), 2 * X)
    np.testing.assert_array_equal(load_array(write(tmp_path / "a.mat"), "other").ravel(), np.arange(3))
    for name in ("a.npz", "a.h5", "a.mat"):
        fails("no array 'missing'", tmp_path / name, "missing")


def test_a_single_array_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", betas=X)
    np.testing.assert_array_equal(load_array(tmp_path / "one.npz"), X)
    np.savez(tmp_path / "two.npz", betas=X, more=X)
    fails("no array 'signals'; it holds: betas, more", tmp_path / "two.npz")


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_file_is_one_line(name: str, tmp_path: Path) -> None:
    data = write(tmp_path / name).read_bytes()
    for length in sorted({0, 1, 6, 10, 64, *range(100, len(data) - 2, max(1, len(data) // 12))}):
        (tmp_path / name).write_bytes(data[:length])
        fails("truncated|no array", tmp_path / name)


def test_a_second_array_or_bytes_behind_the_first_are_not_lost_in_silence(tmp_path: Path) -> None:
    with (tmp_path / "two.npy").open("wb") as file:
        np.save(file, X)
        np.save(file, X)
    fails("more than the array of shape.*save one array in one file", tmp_path / "two.npy")
    (tmp_path / "more.npy").write_bytes(write(tmp_path / "a.npy").read_bytes() + b"ab")
    fails("holds 2 bytes more", tmp_path / "more.npy")
    append_checksum(tmp_path / "a.npy", "a.npy")
    np.testing.assert_array_equal(load_array(tmp_path / "a.npy"), X)


@pytest.mark.parametrize("name", FORMATS)
def test_foreign_bytes_are_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"time,voltage\n1,2\n" * 40)
    fails("truncated or not|no array", tmp_path / name)


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.write_text, (self.path, "ran"))


@pytest.mark.parametrize("name", ["objects.npy", "raw.npy", "raw.npz", "objects.npz"])
def test_pickles_are_refused_and_never_run(name: str, tmp_path: Path) -> None:
    bomb = Bomb(tmp_path / "ran")
    if name.startswith("raw"):
        (tmp_path / name).write_bytes(pickle.dumps(bomb))
    elif name == "objects.npy":
        np.save(tmp_path / name, np.array([bomb], dtype=object))
    else:
        np.savez(tmp_path / name, signals=np.array([bomb], dtype=object))
    fails("needs pickle", tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_text_objects_and_records_are_no_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.array(["1.0", "two"]))
    fails("holds text", tmp_path / "text.npy")
    np.save(tmp_path / "complex.npy", np.array([1j]))
    fails("holds complex", tmp_path / "complex.npy")
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file["signals"] = ["a", "b"]
    fails("holds objects", tmp_path / "text.h5")
    savemat(tmp_path / "cell.mat", {"signals": np.array([[1, "a"]], dtype=object)})
    fails("holds objects", tmp_path / "cell.mat")
    savemat(tmp_path / "struct.mat", {"signals": {"x": 1}})
    fails("holds records", tmp_path / "struct.mat")


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    fails("does not exist", tmp_path / "a.npy")
    fails("not an array file", write(tmp_path / "a.npy").rename(tmp_path / "a.txt"))


def test_require_finite_names_the_first_place() -> None:
    require_finite(X, "x")
    require_finite(np.arange(3), "whole numbers")
    bad = X.copy()
    bad[2, 1, 0], bad[3] = np.nan, np.inf
    with pytest.raises(UserError, match=r"my signals: 7 values are NaN or infinite, the first at index \(2, 1, 0\)"):
        require_finite(bad, "my signals")


def test_require_rows() -> None:
    require_rows(3, 3)
    with pytest.raises(UserError, match="session 1: 3 responses but 4 images"):
        require_rows(3, 4, "session 1")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_every_8_bit_picture_becomes_rgb(mode: str, tmp_path: Path) -> None:
    image = picture(0).convert(mode)
    image.save(tmp_path / "a.png")
    found = decode_image(tmp_path / "a.png")
    assert found.shape == (20, 20, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


def test_broken_pictures_are_one_line(tmp_path: Path) -> None:
    data = png(picture(0, size=64))
    for content in (b"", b"hello", data[:20], data[: len(data) // 2]):
        with pytest.raises(UserError, match=r"my\.png.*corrupt or no picture"):
            decode_image(content, "my.png")
    with pytest.raises(UserError, match=r"none\.png.*does not exist"):
        decode_image(tmp_path / "none.png")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(buffer, format="PNG")
    with pytest.raises(UserError, match="more than 8 bits"):
        decode_image(buffer.getvalue())


def write_zip(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_zip_is_read_in_order_of_base_names(tmp_path: Path) -> None:
    seeds = {"z/image2.png": 2, "a/image3.png": 3, "image1.png": 1}
    entries = {name: png(picture(seed)) for name, seed in seeds.items()}
    pairs = read_image_zip(write_zip(tmp_path / "i.zip", {**entries, "z/._image9.png": b"x", "notes.txt": b"x"}))
    assert [name for name, _ in pairs] == ["image1.png", "image2.png", "image3.png"]
    for seed, (_, image) in enumerate(pairs, start=1):
        np.testing.assert_array_equal(image, np.asarray(picture(seed)))


def test_broken_zips_are_one_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "i.zip", {"a.png": png(picture(0, size=64)), "b.png": png(picture(1, size=64))})
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[200] ^= 0xFF
    for content in (b"", data[:100], data[:-30], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"i\.zip.*(truncated or corrupt|is corrupt)") as caught:
            read_image_zip(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"i\.zip/b\.png.*corrupt"):
        read_image_zip(write_zip(path, {"a.png": png(picture(0)), "b.png": b"no picture"}))
    with pytest.raises(UserError, match=r"two pictures called 'a\.png'"):
        read_image_zip(write_zip(path, {"x/a.png": png(picture(0)), "y/a.png": png(picture(1))}))
    with pytest.raises(UserError, match="does not exist"):
        read_image_zip(tmp_path / "none.zip")


def test_real_matlab_file() -> None:
    path = shared_path("data/digits69/digit69_28x28.mat")
    assert load_array(path, "fmriTrn").shape == (90, 3092)
    fails("no array 'signals'; it holds: .*fmriTrn", path)
