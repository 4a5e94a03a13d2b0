"""Six hundred damaged files: each ends in one `UserError` line, or in a value as its own header declares it."""

from __future__ import annotations

import csv
import io
import json
import pickle
import signal
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from align.config import Config
from align.data.reading.archives import members
from align.data.reading.containers import read_container
from align.data.reading.safe_load import decode_image, load_array, read_image_zip
from align.data.reading.stored_array import StoredArray
from align.data.studies.folder.study import Folder
from align.errors import UserError
from align.files import read_json, read_tensors
from tests.align.fixture_studies import default_rows, picture, png

X = np.random.default_rng(0).normal(size=(40, 7, 10))
DICT = {"preprocessed_eeg_data": X, "ch_names": ["Oz", "O1"], "times": np.arange(10) / 100}
PER_KIND = 40
SECONDS = 4  # for one file


def _npy(path: Path) -> None:
    np.save(path, X)


def _npy_dict(path: Path) -> None:
    np.save(path, np.array(DICT, dtype=object))


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(DICT, protocol=4))


def _pickle_2(path: Path) -> None:
    path.write_bytes(pickle.dumps({"eeg": X.astype("f2"), "img": np.array(["a", "b"])}, protocol=2))


def _npz(path: Path) -> None:
    np.savez_compressed(path, signals=X, other=np.arange(3))


def _torch(path: Path) -> None:
    import torch

    torch.save({"eeg": X.astype("f2"), "features": torch.arange(20.0).reshape(4, 5), "names": ["a"]}, path)


def _mat(path: Path) -> None:
    savemat(path, {"signals": X, "other": np.arange(3)}, do_compression=path.stem == "packed")


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("signals", data=X, chunks=(10, 7, 10), compression="gzip")


def _mat_73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["signals"] = X
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for seed in range(3):
            archive.writestr(f"images/image{seed}.png", png(picture(seed)))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for seed in range(4):
            buffer = io.BytesIO()
            np.save(buffer, np.arange(17.0) + seed)
            info = tarfile.TarInfo(f"sample{seed:09d}.behav.npy")
            info.size = buffer.tell()
            archive.addfile(info, io.BytesIO(buffer.getvalue()))


def _safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"signals": X.astype("f4"), "ids": np.arange(5)}, path, {"note": "x"})


def _csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(default_rows()[0]))
        writer.writeheader()
        writer.writerows(default_rows())


def _json(path: Path) -> None:
    path.write_text(json.dumps({"ch_names": ["Oz", "O1"], "sfreq": 250.0, "shape": [1654, 10]}))


def _image(path: Path) -> None:
    picture(0, size=48).save(path)


def _plain(value: Any) -> Any:
    """A value with its arrays opened, whose shape and type must be those that it declares."""
    if isinstance(value, StoredArray):
        array = value.open()
        assert (array.shape, array.dtype) == (value.shape, value.dtype)
        assert array.tobytes() or not array.size  # every number can be read
        return array
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _numbers(path: Path) -> np.ndarray:
    """An array, of the shape that its own header gives where another reader can tell."""
    array = load_array(path, "signals")
    if path.suffix == ".npy":
        declared: Any = np.load(path, mmap_mode="r")
        assert (array.shape, array.dtype) == (declared.shape, declared.dtype)
    elif path.suffix in (".h5", ".mat") and h5py.is_hdf5(path):
        with h5py.File(path) as file:
            shape = file["signals"].shape
            assert array.shape == (shape[::-1] if path.suffix == ".mat" else shape)
            assert array.dtype == file["signals"].dtype
    elif path.suffix in (".mat", ".npz"):
        assert array.size * array.dtype.itemsize <= 64 * X.nbytes
    return array


def _pictures(path: Path) -> None:
    for name, image in read_image_zip(path):
        assert name.endswith(".png")
        assert image.ndim == 3
        assert image.dtype == np.uint8


def _tar_arrays(path: Path) -> None:
    for name, data in members(path):
        inner = path.with_name("inner.npy")
        inner.write_bytes(data)
        if name.endswith(".npy"):
            _plain(read_container(inner))


def _image_shape(path: Path) -> None:
    image = decode_image(path)
    with Image.open(path) as declared:
        assert image.shape == (declared.height, declared.width, 3)


def _table(path: Path) -> None:
    config = Config()
    config.study.root = str(path.parent)
    for one in Folder(config).parts.values():
        for row in one.table:
            assert row.split in ("train", "test", "unused")


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "plain.npy": (_npy, _numbers),
    "stored.npy": (_npy, lambda path: _plain(read_container(path))),
    "dict.npy": (_npy_dict, lambda path: _plain(read_container(path))),
    "nice.npy": (_pickle, lambda path: _plain(read_container(path))),
    "text.pkl": (_pickle_2, lambda path: _plain(read_container(path))),
    "ubp.pt": (_torch, lambda path: _plain(read_container(path))),
    "a.npz": (_npz, _numbers),
    "v5.mat": (_mat, _numbers),
    "packed.mat": (_mat, _numbers),
    "v73.mat": (_mat_73, _numbers),
    "a.h5": (_hdf5, _numbers),
    "i.zip": (_zip, _pictures),
    "behav.tar": (_tar, _tar_arrays),
    "a.safetensors": (_safetensors, read_tensors),
    "stimuli.csv": (_csv, _table),
    "info.json": (_json, read_json),
    "p.png": (_image, _image_shape),
    "p.jpg": (_image, _image_shape),
}


def mutated(data: bytes, seed: int) -> bytes:
    """One to three seeded faults: flipped bits, a cut, bytes put in or doubled, chunks swapped, a stretch of zeros.

    Half of them fall into the first or last 300 bytes, where the headers are.
    """
    rng = np.random.default_rng(seed)
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        size = len(out)
        at = int(rng.integers(0, max(1, size)))
        if rng.random() < 0.5:
            at = (
                int(rng.integers(0, min(300, size) or 1))
                if rng.random() < 0.6
                else max(0, size - int(rng.integers(1, 300)))
            )
        length = int(rng.integers(1, 60))
        kind = rng.integers(0, 6)
        if kind == 0 and out:
            for k in rng.integers(max(0, at - 20), min(size, at + 20), 3):
                out[k] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = rng.bytes(length)
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            other = int(rng.integers(0, max(1, size)))
            out[at : at + length], out[other : other + length] = out[other : other + length], out[at : at + length]
        else:
            out[at : at + length] = bytes(len(out[at : at + length]))
    return bytes(out)


@contextmanager
def time_limit(what: str) -> Iterator[None]:
    """Fails instead of hanging (in Python code); without alarms, on Windows, it may hang."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail(f"{what} took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    read(path)  # whole, it is read
    whole, refusals = path.read_bytes(), 0
    for seed in range(PER_KIND):
        path.write_bytes(mutated(whole, seed))
        with time_limit(f"{name} seed {seed}"):
            try:
                read(path)
            except UserError as error:
                refusals += 1
                assert "\n" not in str(error), f"{name} seed {seed}"
                assert len(str(error)) < 1000, f"{name} seed {seed}"
            except Exception as error:
                pytest.fail(f"{name} seed {seed}: {type(error).__name__}: {error}")
    assert refusals > PER_KIND // 10


def test_there_are_enough() -> None:
    assert len(KINDS) * PER_KIND >= 600
