"""Hostile pickles are refused in one line and never run; honest ones come back as numpy and torch wrote them."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.data.reading.containers import read_container
from align.data.reading.safe_pickle import read_pickle
from align.data.reading.stored_array import StoredArray
from align.errors import UserError
from tests.align.fixture_attacks import canary, pickles, strains

PLACE = Path("unused")
NAMES = ("a.npy", "a.pkl", "a.pt")


def refused(path: Path, read: Any = read_container) -> str:
    """Reading fails with one short line, and nothing ran."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))
    assert str(path) in message
    assert not canary(path.parent).exists()
    return message


def torch_zip(path: Path, content: bytes, **others: bytes) -> Path:
    """A torch file around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for name, data in others.items():
            archive.writestr("archive/" + name.replace("__", "/"), data)
    return path


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("attack", pickles(PLACE))
def test_attacks_are_refused_by_name_and_never_run(attack: str, kind: str, tmp_path: Path) -> None:
    content = pickles(tmp_path)[attack]
    path = tmp_path / kind
    if kind == "a.pt":
        torch_zip(path, content)
    else:
        path.write_bytes(content)
    message = refused(path, read_container if kind != "a.npy" else read_pickle)
    assert any(
        word in message
        for word in ("refused", "not read", "plain numbers", "sets the state", "unknown kind", "damaged")
    )


@pytest.mark.parametrize("attack", ["os_system", "eval", "system_protocol_0", "inst", "obj"])
def test_the_attacks_are_real(attack: str, tmp_path: Path) -> None:
    """The stock unpickler runs them: what refuses them is our reader, not a fault in the fixture."""
    code = "import pickle, sys\ntry: pickle.loads(sys.stdin.buffer.read())\nexcept Exception: pass"
    subprocess.run([sys.executable, "-c", code], input=pickles(tmp_path)[attack], check=True)
    assert canary(tmp_path).exists()


@pytest.mark.parametrize(("attack", "word"), [
    ("os_system", "posix.system"), ("popen", "subprocess.Popen"), ("eval", "builtins.eval"), ("memmap", "numpy.memmap"),
    ("stack_global_computed", "posix.system"), ("getattr", "builtins.getattr"), ("nested", "_pickle.loads"),
    ("storage_that_is_none", "asks for torch.storage._load_from_bytes"),
    ("setstate", "fixture_attacks.Stateful"), ("function", "fixture_attacks.touch"),
])  # fmt: skip
def test_the_refused_name_is_told(attack: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickles(tmp_path)[attack])
    assert word in refused(tmp_path / "a.pkl")


@pytest.mark.parametrize("strain", strains(PLACE))
def test_lies_mazes_and_bombs_end_in_one_line(strain: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(strains(tmp_path)[strain])
    refused(tmp_path / "a.pkl", read_pickle)


@pytest.mark.parametrize("attack", ["os_system", "in_an_object_array"])
def test_an_attack_inside_an_object_array(attack: str, tmp_path: Path) -> None:
    value = np.empty(2, dtype=object)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": value.shape})
    (tmp_path / "a.npy").write_bytes(buffer.getvalue() + pickles(tmp_path)[attack])
    refused(tmp_path / "a.npy")


def test_torch_files_that_are_programs_or_lie(tmp_path: Path) -> None:
    plain = pickle.dumps({"a": 1}, protocol=2)
    assert "TorchScript" in refused(torch_zip(tmp_path / "a.pt", plain, code__m_py=b"import os"))
    assert "compressed" in refused(_packed(tmp_path / "b.pt", plain))
    storage = b"\x80\x02" + b"(" + b"X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    for key, n in ((b"X\x01\x00\x00\x000", b"J\xff\xff\xff\x7f"), (b"X\x0b\x00\x00\x00../../../x0", b"K\x01")):
        refused(torch_zip(tmp_path / "c.pt", storage + key + b"X\x03\x00\x00\x00cpu" + n + b"tQ.", data__0=b"1234"))
    whole = b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage[2:] + whole + b"K%cK\x02\x85K\x01\x85I00\nNtR."
    more = {"data__0": b"1234" * 4}  # the file goes on behind the storage
    assert read_container(torch_zip(tmp_path / "e.pt", tensor % 0, **more)).shape == (2,)
    assert "beyond its storage" in refused(torch_zip(tmp_path / "e.pt", tensor % 1, **more))
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(torch_zip(tmp_path / "d.pt", plain), "a") as archive,
    ):
        archive.writestr("archive/data.pkl", plain)
    assert "two members" in refused(tmp_path / "d.pt")


def _packed(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
    return path


def test_a_whole_torch_module_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    assert "torch.nn.modules.linear.Linear" in refused(tmp_path / "a.pt")
    torch.save({"x": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "b.pt")
    assert "BFloat16" in refused(tmp_path / "b.pt")


def opened(value: Any) -> Any:
    """Stored arrays as arrays, through every container."""
    if isinstance(value, StoredArray):
        return value.open()
    if isinstance(value, dict):
        return {key: opened(item) for key, item in value.items()}
    return type(value)(opened(item) for item in value) if isinstance(value, list | tuple) else value


HONEST: dict[str, Any] = {
    "f8": np.arange(24.0).reshape(2, 3, 4),
    "large": np.random.default_rng(0).normal(size=(70, 300)),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "big": np.arange(5, dtype=">f4"),
    "half": np.arange(40_000, dtype=np.float16),
    "names": np.array(["Fp1", "Oz"]),
    "objects": np.array(["Fp1", 3, None], dtype=object),
    "raw": np.array([b"ab", b"c"]),
    "bools": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
    "zero_d": np.array(3.5),
    "scalar": np.float32(2.5),
    "list": ["a", 1, 2.5, None, True, b"x", -(2**40)],
    "tuple": (1, [2, {"k": 3}]),
    "set": {1, 2},
    "ordered": OrderedDict(a=1, b=2),
    "empty": b"",
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", HONEST)
def test_honest_values_come_back_in_every_protocol(name: str, protocol: int, tmp_path: Path) -> None:
    value = {"v": HONEST[name], "again": HONEST[name]}
    (tmp_path / "a.npy").write_bytes(pickle.dumps(value, protocol=protocol))
    found = opened(read_container(tmp_path / "a.npy"))["again"]
    np.testing.assert_equal(found, HONEST[name])
    if isinstance(HONEST[name], np.ndarray):
        assert found.dtype == HONEST[name].dtype
        assert found.shape == HONEST[name].shape


def test_texts_of_python_2_are_texts(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}U\x03eegT\x02\x00\x00\x00\xe9as.")
    assert read_container(tmp_path / "a.pkl") == {"eeg": "\xe9a"}


def test_shared_containers_stay_shared(tmp_path: Path) -> None:
    names = ["Oz", "O1"]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([names, names, {"again": names}]))
    found = read_container(tmp_path / "a.pkl")
    assert found[0] is found[1] is found[2]["again"]


def test_tensors_on_one_storage_and_empty_ones(tmp_path: Path) -> None:
    import torch

    x = torch.arange(24.0).reshape(4, 6)
    torch.save({"a": x, "b": x[1:3], "none": torch.zeros(3, 0), "p": torch.nn.Parameter(x)}, tmp_path / "a.pt")
    found = opened(read_container(tmp_path / "a.pt"))
    np.testing.assert_array_equal(found["a"], x.numpy())
    np.testing.assert_array_equal(found["b"], x[1:3].numpy())
    np.testing.assert_array_equal(found["p"], x.numpy())
    assert found["none"].shape == (3, 0)
    torch.save(x.T, tmp_path / "b.pt")
    assert "contiguous" in refused(tmp_path / "b.pt")


def test_save_is_whole_or_absent(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(HONEST["large"], protocol=2))
    stored = read_container(tmp_path / "a.pkl")
    stored.save(tmp_path / "x.npy", "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), HONEST["large"])
    raw = (tmp_path / "a.pkl").read_bytes()
    (tmp_path / "a.pkl").write_bytes(raw[: stored.payload.offset] + b"\xff" * stored.payload.length)  # no UTF-8
    with pytest.raises(UserError, match="damaged"):
        stored.save(tmp_path / "y.npy", "y.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pkl", "x.npy"]


@pytest.mark.parametrize("code", [0x110000, 0xD800])
def test_numbers_that_are_no_characters(code: int, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(["ab"]))
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw[:-4] + code.to_bytes(4, "little"))
    with pytest.raises(UserError, match="no text"):
        read_container(tmp_path / "a.npy").open()
