"""Hostile .npy, .npz, .mat and HDF5 files, and commands that meet them: one line, exit code 2, no other file read."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from align.data.reading.containers import read_container
from align.data.reading.safe_load import decode_image, load_array
from align.data.reading.stored_array import StoredArray
from align.errors import UserError
from recon.cli import main
from tests.align.fixture_attacks import Calls, canary, npy_with_header, touch, zip_of
from tests.align.fixture_studies import write_folder
from tests.conftest import PROJECT

HEADER = "{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def header(shape: str, descr: str = "'<f8'") -> bytes:
    text = HEADER.format(descr=descr, shape=shape)
    return text.ljust(117).encode() + b"\n"


NPY = {
    "code_in_the_dict": npy_with_header(b"{'descr': __import__('os').system('touch ran')}\n"),
    "code_in_the_shape": npy_with_header(header("(__import__('os').system('touch ran'),)"), bytes(800)),
    "header_of_a_gigabyte": npy_with_header(b"{" * 100, length=10**9, version=2),
    "header_that_nests": npy_with_header(b"(" * 9000 + b"\n"),
    "negative_shape": npy_with_header(header("(-1, -2)"), bytes(16)),
    "shape_of_booleans": npy_with_header(header("(True, True)"), bytes(8)),
    "shape_overflow": npy_with_header(header("(4294967296, 4294967296)"), bytes(16)),
    "shape_overflow_around_zero": npy_with_header(header("(0, 4294967296, 4294967296)"), b""),
    "shape_without_data": npy_with_header(header("(1000000000000,)"), bytes(16)),
    "texts_of_no_length": npy_with_header(header("(1000000000000,)", "'<U0'"), b""),
    "records": npy_with_header(header("(1,)", "[('a', '<f8')]"), bytes(8)),
    "objects": npy_with_header(header("(1,)", "'|O'"), b"cposix\nsystem\n(S'touch ran'\ntR."),
    "objects_in_records": npy_with_header(header("(1,)", "[('a', '|O')]"), b"cposix\nsystem\n(S'touch ran'\ntR."),
    "header_says_objects_content_numbers": npy_with_header(header("(2,)", "'|O'"), pickle.dumps(np.ones(2))),
    "header_says_another_shape": npy_with_header(
        header("(3,)", "'|O'"), pickle.dumps(np.array([1, None], dtype=object))
    ),
    "subarray": npy_with_header(header("(1,)", "('<f8', (2,))"), bytes(16)),
    "unknown_version": b"\x93NUMPY\x09\x00" + bytes(200),
}


def refused(path: Path, read: Callable[[Path], object] = load_array) -> str:
    """One printable line, and nothing ran."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500 + len(str(path))
    assert not canary(path.parent).exists()
    return message


@pytest.mark.parametrize("read", [load_array, read_container])
@pytest.mark.parametrize("attack", NPY)
def test_npy_headers(
    attack: str, read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(NPY[attack])
    refused(tmp_path / "a.npy", read)


def npz(path: Path, content: bytes) -> Path:
    path.write_bytes(zip_of(("signals.npy", content)))
    return path


@pytest.mark.parametrize("attack", NPY)
def test_npy_headers_inside_npz(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(npz(tmp_path / "a.npz", NPY[attack]))


def test_npz_bomb_and_tricks(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(12 << 20))
    assert "far more" in refused(npz(tmp_path / "bomb.npz", buffer.getvalue()))
    np.savez(tmp_path / "o.npz", signals=np.array([Calls(os.system, touch(tmp_path))], dtype=object))
    assert "needs pickle" in refused(tmp_path / "o.npz")
    locked = bytearray(zip_of(("signals.npy", buffer.getvalue()[:200])))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "l.npz").write_bytes(locked)
    assert "password" in refused(tmp_path / "l.npz")
    (tmp_path / "s.npz").write_bytes(zip_of(("signals.npy", b"/etc/passwd"), mode=0o120777))
    assert "link" in refused(tmp_path / "s.npz")


def _external_link(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret, "w") as other:
        other["secret"] = np.arange(4.0)
    file["signals"] = h5py.ExternalLink(str(secret), "secret")


def _external_group(file: h5py.File, secret: Path) -> None:
    _external_link(file, secret)
    del file["signals"]
    file["group"] = h5py.ExternalLink(str(secret), "/")
    file["signals"] = h5py.SoftLink("/group/secret")


def _soft_link_cycle(file: h5py.File, _secret: Path) -> None:
    file["signals"] = h5py.SoftLink("/signals")


def _external_storage(file: h5py.File, secret: Path) -> None:
    secret.write_bytes(b"root:x:0:0:root:")
    file.create_dataset("signals", shape=(16,), dtype="u1", external=[(str(secret), 0, 16)])


def _virtual(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret, "w") as other:
        other["secret"] = np.arange(4.0)
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "secret", shape=(4,))
    file.create_virtual_dataset("signals", layout)


def _references(file: h5py.File, _secret: Path) -> None:
    file["x"] = np.arange(3.0)
    file.create_dataset("signals", data=np.array([file["x"].ref], dtype=h5py.ref_dtype))


def _region_references(file: h5py.File, _secret: Path) -> None:
    file["x"] = np.arange(3.0)
    file.create_dataset("signals", data=np.array([file["x"].regionref[:2]], dtype=h5py.regionref_dtype))


def _opaque(file: h5py.File, _secret: Path) -> None:
    file["signals"] = np.void(b"\x80\x04cposix\nsystem\n.")


def _compound(file: h5py.File, _secret: Path) -> None:
    file["signals"] = np.zeros(2, dtype=[("a", "f8")])


def _ragged(file: h5py.File, _secret: Path) -> None:
    file.create_dataset("signals", shape=(2,), dtype=h5py.vlen_dtype(np.dtype("f8")))


def _never_written(file: h5py.File, _secret: Path) -> None:
    file.create_dataset("signals", shape=(10**6, 10**6), dtype="f8", chunks=(100, 100))


def _named_type(file: h5py.File, _secret: Path) -> None:
    file["signals"] = np.dtype("f8")


HDF5 = {function.__name__.strip("_"): function for function in (
    _external_link, _external_group, _soft_link_cycle, _external_storage, _virtual, _references, _region_references,
    _opaque, _compound, _ragged, _never_written, _named_type,
)}  # fmt: skip


@pytest.mark.parametrize("suffix", [".h5", ".mat"])
@pytest.mark.parametrize("attack", HDF5)
def test_hdf5_files_that_point_elsewhere(attack: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with h5py.File(path, "w") as file:
        HDF5[attack](file, tmp_path / "secret.h5")
    message = refused(path)
    assert attack != "never_written" or "far more than it holds" in message
    refused(path, lambda path: load_array(path, "signals"))
    refused(path, lambda path: load_array(path, "group/secret"))


def test_the_secret_would_be_read(tmp_path: Path) -> None:
    """What the checks prevent: h5py itself follows all three without a word."""
    for attack in (_external_link, _external_storage, _virtual):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            attack(file, tmp_path / "secret.h5")
        with h5py.File(tmp_path / "a.h5") as file:
            assert np.asarray(file["signals"]).any()


def test_matlab_5_objects_and_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    savemat(path, {"signals": np.zeros(12 << 20)}, do_compression=True)
    assert "far more" in refused(path)
    for value in ({"x": 1}, np.array([[1, "a"]], dtype=object), "text", np.array([1j])):
        savemat(path, {"signals": value})
        assert "holds" in refused(path)
    for kind in (3, 16, 17):  # an object, a function handle, something opaque
        path.write_bytes(_matlab_of_class(kind))
        refused(path)
    savemat(path, {"a": np.zeros(3)})
    twice = path.read_bytes()
    path.write_bytes(twice + twice[128:])
    assert "two arrays of one name" in refused(path)


def _matlab_of_class(kind: int) -> bytes:
    """A MATLAB 5 file whose one variable is of class ``kind``."""
    element = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<IIii", 5, 8, 1, 1)
    element += struct.pack("<HH4s", 1, 4, b"sign") + struct.pack("<II8s", 1, 8, b"evilcode")
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, len(element)) + element


def test_pictures_that_are_programs_or_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to an outside program, whatever the file is called."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(ran) (w) file closefile\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(eps)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "EPS"
    monkeypatch.setattr(
        "PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("the outside program was called")
    )
    assert "no picture" in refused(tmp_path / "a.png", decode_image)
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, format="PNG")
    (tmp_path / "b.png").write_bytes(buffer.getvalue())
    assert "make it smaller" in refused(tmp_path / "b.png", decode_image)


@pytest.mark.parametrize("kind", ["folder", "fifo", "missing", "unreadable"])
def test_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "unreadable":
        path.symlink_to(path)
    told = {"folder": "is no file but a folder", "fifo": "is no file"}.get(kind, "does not exist")
    assert told in refused(path, read_container)
    assert told in refused(path)


def test_an_empty_array_and_an_npz_under_another_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 63, 250), np.float32))
    stored = read_container(tmp_path / "a.npy")
    assert isinstance(stored, StoredArray)
    assert stored.open().shape == (0, 63, 250)
    np.savez(tmp_path / "b.npy.npz", x=np.ones(2))
    assert "no torch file" in refused(tmp_path / "b.npy.npz", read_container)


def _study(root: Path, attack: str) -> None:
    """A `folder` study whose signals are hostile."""
    write_folder(root)
    signals = root / "signals.npy"
    if attack == "pickle.npy":
        signals.write_bytes(pickle.dumps(Calls(os.system, touch(root.parent))))
        return
    signals.unlink()
    if attack == "objects.npz":
        evil = np.array([Calls(os.system, touch(root.parent))], dtype=object)
        np.savez(root / "signals.npz", signals=evil)
    elif attack == "symlink.npz":
        (root / "signals.npz").write_bytes(zip_of(("signals.npy", b"/etc/passwd"), mode=0o120777))
    else:
        with h5py.File(root / "signals.h5", "w") as file:
            HDF5[attack](file, root.parent / "secret.h5")


@pytest.mark.parametrize("attack", ["pickle.npy", "objects.npz", "symlink.npz", "external_link", "virtual"])
def test_a_command_ends_with_one_line_and_exit_code_2(
    attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _study(tmp_path / "study", attack)
    assert main(["data", "check", "folder", "--root", str(tmp_path / "study")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "study" / "signals") in error
    assert any(word in error for word in ("is refused", "not followed"))
    assert not canary(tmp_path).exists()


def test_training_ends_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    _study(tmp_path / "study", "pickle.npy")
    words = ["-m", "align.train", "study.name=folder", f"study.root={tmp_path / 'study'}", "subjects=[01]"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert "needs pickle" in lines[0]
    assert not canary(tmp_path).exists()
