"""Writers of hostile files. Whoever runs one of them leaves a file called ``ran`` beside it (`canary`)."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Calls:
    """Unpickling it calls ``function(*arguments)``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Stateful:
    """Unpickling it sets its attributes from a dict."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def canary(folder: Path) -> Path:
    """The file that a running attack makes."""
    return folder / "ran"


def touch(folder: Path) -> str:
    """A shell line that makes the canary."""
    return f"touch {canary(folder)}"


def text(value: str | bytes) -> bytes:
    """The pickle instruction BINUNICODE."""
    raw = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def pickles(folder: Path) -> dict[str, bytes]:
    """Hostile pickles by name; the stock unpickler runs most of them."""
    shell = text(touch(folder))
    system = b"cposix\nsystem\n"
    line = touch(folder).encode()
    python = f"open({str(canary(folder))!r}, 'w')"
    dumped = {
        "os_system": Calls(os.system, touch(folder)),
        "popen": Calls(subprocess.Popen, ["touch", str(canary(folder))]),
        "eval": Calls(builtins.eval, python),
        "exec": Calls(builtins.exec, python),
        "import": Calls(builtins.__import__, "this"),
        "getattr": Calls(getattr, "text", "upper"),
        "open": Calls(open, str(canary(folder)), "w"),
        "write_text": Calls(Path.write_text, canary(folder), "ran"),
        "memmap": Calls(np.memmap, str(canary(folder)), "u1", "w+", 0, (3,)),
        "fromfile": Calls(np.fromfile, "/etc/passwd", "u1"),
        "nested": Calls(pickle.loads, pickle.dumps(Calls(os.system, touch(folder)))),
        "setstate": Stateful(eeg=1),
        "deep_in_a_dict": {"eeg": [({"x": Calls(os.system, touch(folder))},)]},
        "in_an_object_array": np.array([Calls(os.system, touch(folder)), 1], dtype=object),
        "datetimes": np.array(["2020-01-01"], dtype="M8[D]"),
        "records": np.zeros(2, dtype=[("a", "f8"), ("b", "f4")]),
        "function": touch,
    }
    return {
        **{name: pickle.dumps(value, protocol=4) for name, value in dumped.items()},
        "system_protocol_0": system + b"(S'" + line + b"'\ntR.",
        "stack_global_computed": b"\x80\x04"
        + text("posix")
        + b"\x94"
        + text("system")
        + b"\x94\x93"
        + shell
        + b"\x85R.",
        "stack_global_dotted": b"\x80\x04" + text("numpy") + text("ndarray.__class__.mro") + b"\x93.",
        "stack_global_through_numpy": b"\x80\x04" + text("numpy") + text("os.system") + b"\x93" + shell + b"\x85R.",
        "escape_signs_in_the_name": b"\x80\x04" + text("a\n\x1b[2Jall is well") + text("b") + b"\x93.",
        "inst": b"(" + shell + b"iposix\nsystem\n.",
        "obj": b"(" + system + shell + b"o.",
        "newobj": b"\x80\x02" + system + shell + b"\x85\x81.",
        "newobj_ex": b"\x80\x04" + system + shell + b"\x85}\x92.",
        "extension": b"\x80\x02\x82\x01.",
        "extension_4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "persistent_text": b"P" + line + b"\n.",
        "persistent": b"\x80\x02" + shell + b"Q.",
        "next_buffer": b"\x80\x05\x97.",
        "call_a_dict": b"\x80\x02}" + shell + b"\x85R.",
        "call_a_class": b"\x80\x02cnumpy\nndarray\nK\x02\x85R.",
        "call_a_storage": b"\x80\x02ctorch\nFloatStorage\nK\x02\x85R.",
        "storage_that_is_none": b"\x80\x02ctorch.storage\n_load_from_bytes\n" + shell + b"\x85R.",
        "build_on_a_name": b"\x80\x02cnumpy\nndarray\n}" + text("__class__") + system + b"sb.",
        "build_on_a_list": b"\x80\x02]}" + text("append") + system + b"sb.",
    }


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"  # still without its state


def dtype(code: str) -> bytes:
    """Instructions that make a dtype."""
    return b"cnumpy\ndtype\n(" + text(code) + b"I00\nI01\ntR"


def state(shape: bytes, kind: bytes, data: bytes) -> bytes:
    """Instructions that give ``ARRAY`` its state."""
    return b"(I1\n" + shape + kind + b"I00\n" + data + b"tb"


def maze(levels: int = 64) -> bytes:
    """A tuple of 2 ** levels tuples in a few bytes: whoever walks or prints it never ends."""
    return b")" + b"2\x86" * levels


def strains(folder: Path) -> dict[str, bytes]:
    """Pickles that call nothing unknown, but lie, never end or take all memory."""
    head = b"\x80\x02" + ARRAY
    million = b"(" + b"\x8a\x05\xff\xff\xff\xff\x7f" * 10**6 + b"t"
    grown = b"\x80\x02]q\x01K\x01a0" + ARRAY + state(b"K\x01\x85", dtype("O8"), b"h\x01")
    number = b"J\xff\xff\xff\x7f"
    chain = [b"]q" + bytes([k]) + (b"h" + bytes([k - 1]) + b"a" if k else b"") for k in range(200)]
    scalar = b"cnumpy._core.multiarray\nscalar\n"
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
    plain = ARRAY + state(b"K\x02\x85", dtype("u1"), b"C\x02ab")
    return {
        "scalar_of_objects": b"\x80\x02" + scalar + dtype("O8") + b"C\x08" + bytes(8) + b"\x86R.",
        "scalar_of_another_size": b"\x80\x02" + scalar + dtype("f8") + b"C\x04" + bytes(4) + b"\x86R.",
        "subclass": ARRAY.replace(b"cnumpy\nndarray", b"ctorch\nFloatStorage")
        + state(b"K\x02\x85", dtype("u1"), b"C\x02ab")
        + b".",
        "dtype_of_records": head + state(b"K\x01\x85", dtype("f8,f8"), b"C\x10" + bytes(16)) + b".",
        "dtype_subarray": head + state(b"K\x01\x85", dtype("(2,)f8"), b"C\x10" + bytes(16)) + b".",
        "dtype_maze": b"\x80\x02cnumpy\ndtype\n" + maze() + b"\x85R.",
        "empty_texts": head + state(number + b"\x85", dtype("U0"), b"C\x00") + b".",
        "shape_without_data": head + state(number + b"\x85", dtype("f8"), b"C\x00") + b".",
        "shape_too_large": head + state(b"(" + number * 9 + b"t", dtype("f8"), b"C\x00") + b".",
        "shape_negative": head + state(b"J\xff\xff\xff\xff" * 2 + b"\x86", dtype("u1"), b"C\x01a") + b".",
        "shape_of_a_million": head + state(million, dtype("u1"), b"C\x00") + b".",
        "shape_maze": head + state(maze(), dtype("u1"), b"C\x00") + b".",
        "numbers_as_a_list": head + state(b"K\x02\x85", dtype("f8"), b"(K\x01K\x02l") + b".",
        "objects_as_bytes": head + state(b"K\x01\x85", dtype("O8"), b"C\x08" + bytes(8)) + b".",
        "objects_that_grow": grown + b"h\x01K\x02a0.",
        "array_without_state": b"\x80\x02" + ARRAY + b".",
        "tensor_of_an_array_without_state": tensor + ARRAY + b"K\x00K\x02\x85K\x01\x85I00\nNtR.",
        "tensor_beyond_its_storage": tensor + plain + b"K\x01K\x02\x85K\x01\x85I00\nNtR.",
        "tensor_with_text_sizes": tensor + plain + b"K\x00" + text("ab") + b"K\x02\x86K\x01K\x01\x86I00\nNtR.",
        "tensor_negated": tensor + plain + b"K\x00K\x02\x85K\x01\x85I00\nN}" + text("neg") + b"\x88stR.",
        "bytearray_of_a_number": b"\x80\x03cbuiltins\nbytearray\n\x8a\x06\x00\x10\xa5\xd4\xe8\x00\x85R.",
        "set_of_lists": b"\x80\x04\x8f(]\x90.",
        "set_of_a_text": b"\x80\x02c__builtin__\nset\n" + text("abc") + b"\x85R.",
        "tuple_as_a_key": b"\x80\x02}K\x01K\x02\x86K\x03s.",
        "maze_as_a_key": b"\x80\x02}" + maze() + b"K\x03s.",
        "keys_that_collide": b"\x80\x02}" + b"\x8a\x09" + (5 * ((1 << 61) - 1)).to_bytes(9, "little") + b"K\x03s.",
        "list_in_itself": b"\x80\x02]q\x01h\x01a.",
        "dict_in_itself": b"\x80\x02}q\x01" + text("a") + b"h\x01s.",
        "tuple_in_itself": b"\x80\x02]q\x01h\x01\x85q\x02a0h\x02.",
        "billion_laughs": b"\x80\x02]" + b"q\x01]h\x01ah\x01ah\x01ah\x01a" * 30 + b".",
        "deep_lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "deep_behind_sharing": b"\x80\x02](" + b"".join(chain) + b"e.",
        "many_sets": b"\x80\x04" + b"\x8f" * 2_100_000 + b".",
        "many_doubles": b"\x80\x04]" + b"2" * 2_100_000 + b".",
        "huge_integer": b"\x80\x02\x8b" + struct.pack("<i", 10_000) + b"\xff" * 10_000 + b".",
        "huge_integer_as_text": b"I" + b"9" * 100_000 + b"\n.",
        "endless_line": b"V" + b"a" * (3 << 20) + b"\n.",
        "memo_without_value": b"\x80\x02j\xff\xff\xff\xff.",
        "mark_as_a_value": b"\x80\x02(.",
        "mark_in_a_list": b"\x80\x02](a.",
        "class_as_a_value": b"\x80\x02}" + text("eeg") + b"cnumpy\nndarray\ns.",
        "large_text_alone": b"\x80\x02}" + text("a") + text("x" * 70_000) + b"s.",
        "text_that_is_none": b"\x80\x02X\x02\x00\x00\x00\xed\xa0.",
        "bad_escape": b"S'\\q'\n.",
        "announces_more": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.",
        "negative_length": b"\x80\x02T" + struct.pack("<i", -5) + b".",
        "encoded_as_rot13": b"\x80\x02c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R.",
        "empty": b"",
        "no_end": b"\x80\x04]",
    }


def npy_with_header(header: bytes, data: bytes = b"", length: int | None = None, version: int = 1) -> bytes:
    """A ``.npy`` file of a header of our own."""
    form = "<H" if version == 1 else "<I"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack(form, len(header) if length is None else length)
        + header
        + data
    )


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar of any entries at all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in entries:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A header of any kind."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_of(*entries: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    """A zip of any entries at all; ``mode`` as Unix has it (0o120777 is a symbolic link)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo would mend it
            info.external_attr, info.create_system, info.compress_type = mode << 16, 3, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return buffer.getvalue()
