"""One change of one file of a run, by bytes or by meaning; see `tests.recon.mutated`."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load

from align.files.checksums import KEY, of_tensors, sealed

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**12, 10**400, 1e308, float("nan"), float("-inf"), "", "x", "\x1b[2J", "../../x", "é" * 300),
    *([], {}, [1], ["x"], {"x": 1}, [[]], "9" * 5000),
)


def changed(content: bytes, path: Path, rng: random.Random) -> tuple[bytes, str]:
    """The new content of a file, and in words what was changed."""
    ways: list[Callable[[bytes, random.Random], tuple[bytes, str]]] = [_bytes]
    ways += {
        ".json": [_json, _json],
        ".jsonl": [_lines],
        ".csv": [_cells, _cells],
        ".yaml": [_yaml, _yaml],
        ".safetensors": [_metadata, _tensors],
        ".png": [_picture],
    }[path.suffix]
    return rng.choice(ways)(content, rng)


def sealed_again(content: bytes, suffix: str) -> bytes:
    """The content with a checksum that fits it, as somebody writes who means harm; as it is where it cannot have one.

    Without, a reader sees of most changes only that the checksum differs.
    """
    try:
        if suffix == ".json":
            value = json.loads(content)
            return json.dumps(sealed(value)).encode() if isinstance(value, dict) and KEY in value else content
        if suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            texts = {name: text for name, text in header["__metadata__"].items() if name != KEY}
            header["__metadata__"] = {**texts, KEY: of_tensors(load(content), texts)}
            return _with_header(header, content[8 + length :])
    except Exception:  # no JSON, no tensors: no reader comes as far as the checksum
        return content
    return content


def _picture(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Another picture, as whole as the one before."""
    width, height = rng.choice([(32, 32), (64, 64), (1, 1), (64, 63), (2000, 2000)])
    mode = rng.choice(["RGB", "RGB", "L", "RGBA"])
    out = io.BytesIO()
    Image.new(mode, (width, height), rng.randrange(256)).save(out, "PNG")
    return out.getvalue(), f"another picture, {mode} {width} x {height}"


def _bytes(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    place, length = rng.randrange(len(content)), rng.choice((1, 1, 8, 200))
    noise = rng.randbytes(length)
    ways = {
        "flip": content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :],
        "cut": content[:place],
        "hole": content[:place] + content[place + length :],
        "noise": content[:place] + noise + content[place + length :],
        "more": content[:place] + noise + content[place:],
        "zeros": content[:place] + bytes(length) + content[place + length :],
        "empty": b"",
    }
    name = rng.choice(list(ways))
    return ways[name], f"{name} at {place}"


def _json(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    tree = json.loads(content)
    change = _changed_tree(tree, rng)
    if rng.random() < 0.05:
        return b"[" * 5000 + b"]" * 5000, "deep"
    return json.dumps(tree).encode(), change


def _changed_tree(tree: Any, rng: random.Random) -> str:
    """Change one place of nested lists and objects, and say which."""
    at: list[str] = []
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return f"nothing at {'.'.join(at)}"
        key = rng.choice(keys)
        at.append(str(key))
        inner = tree[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.75:
            tree = inner
            continue
        if rng.random() < 0.3:
            del tree[key]
            return f"without {'.'.join(at)}"
        if isinstance(tree, dict) and rng.random() < 0.2:
            name = rng.choice(["x", "", "-1", "1.5", "\u00b2", "9" * 5000, "../../x", "\x1b[2J"])
            tree[name] = tree.pop(key)
            return f"{'.'.join(at)} is called {name[:12]!r}"
        value = rng.choice(VALUES)
        if isinstance(inner, float) and rng.random() < 0.5:
            value = rng.choice((inner + 0.1, -inner - 1, 1.0))
        tree[key] = value
        return f"{'.'.join(at)} = {str(value)[:40]!r}"


def _lines(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    line = rng.choice([b"{]}\n", b"{" * 5000 + b"}" * 5000 + b"\n", b"[1]\n", b'{"a": NaN}\n', b"{\xff}\n", b"{1}\n"])
    return content + line, f"line {line[:12]!r}"


def _cells(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    rows = list(csv.reader(io.StringIO(content.decode())))
    row = rng.randrange(len(rows))
    column = rng.randrange(len(rows[row]))
    value = rng.choice(["", "x", "-1", "1e9", "\0", "../../x", "/etc/passwd", "x" * 200_000, "\x1b[2J", "²", "0 ", "."])
    way = rng.choice(["cell", "short", "long", "twice", "gone"])
    if way == "cell":
        rows[row][column] = value
    elif way == "short":
        rows[row] = rows[row][:column]
    elif way == "long":
        rows[row] = [*rows[row], value]
    elif way == "twice":
        rows.append(rows[row])
    else:
        del rows[row]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode(), f"{way} {row},{column} {value[:12]!r}"


def _yaml(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    lines = content.decode().splitlines()
    bomb = "seed: [&a [x,x,x,x,x,x,x,x,x,x]" + "".join(
        f", &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True)
    )
    extra = rng.choice([bomb + "]", "seed: " + "[" * 3000 + "]" * 3000, "seed: &a [*a]", "study: 5", "seed: 1e400"])
    at = rng.randrange(len(lines))
    kept = [line for k, line in enumerate(lines) if k != at and not line.startswith("seed")]
    return "\n".join([*kept, extra]).encode(), f"without line {at}, {extra[:20]!r}"


def _metadata(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change the texts of a safetensors file, inside the JSON they hold or as a whole."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    texts = header["__metadata__"]
    key = rng.choice([name for name in ("meta", "config", "ids", *texts) if name in texts])
    if key in ("meta", "config", "ids") and rng.random() < 0.8:
        tree = json.loads(texts[key])
        change = f"{key}: {_changed_tree(tree, rng)}"
        texts[key] = json.dumps(tree)
    else:
        texts[key] = rng.choice(["", "{", "[]", "x", "[" * 5000, "null", "1e999", "\x1b[2J"])
        change = f"{key} = {texts[key][:12]!r}"
    return _with_header(header, content[8 + length :]), change


def _tensors(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change a name, type, shape or place in the header of a safetensors file, or write NaN into a tensor."""
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    name = rng.choice([key for key in header if key != "__metadata__"])
    way = rng.choice(["nan", "name", "type", "shape", "gone"])
    entry = header[name]
    if way == "nan":
        start = entry["data_offsets"][0]
        body[start : start + 4] = np.float32(rng.choice([np.nan, np.inf])).tobytes()
    elif way == "name":
        header[rng.choice(["x", f"module.{name}", "../x", "\x1b"])] = header.pop(name)
    elif way == "type":
        entry["dtype"] = rng.choice(["I32", "U32", "F16", "BOOL", "F64", "X"])
    elif way == "shape":
        entry["shape"] = rng.choice([[], [1], [*entry["shape"], 1], entry["shape"][::-1], [10**12], [-1]])
    else:
        del header[name]
    return _with_header(header, bytes(body)), f"{way} {name}"


def _with_header(header: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body
