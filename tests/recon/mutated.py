"""Damaged and hostile copies of a run, and what every command makes of them: for the test and benchmarks/fuzz_runs.py.

Each case changes one file of a whole run, by bytes or by meaning, and gives the folder to one command in this process.
Wrong is an exception other than those that end in one line, a command that takes longer than `LONGEST` s, an ending
other than 0 or 2, more than one line on standard error for a 2, and a score other than the whole run's with a 0.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recon import cli
from recon.evaluation import judges
from recon.metrics import metrics
from tests.recon import tiny_run

LONGEST = 60  # s of computing, of one command; the slowest takes about three
ASLEEP = 900  # s of any kind: a command that waits for something computes nothing
QUICK = ["evaluate.n_boot=9", "evaluate.n_perm=9"]
COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "info": lambda run: ["info", str(run), "--json"],
    "info-file": lambda run: ["info", str(run / "config.yaml"), "--json"],
    "predict": lambda run: ["predict", "--subject", "01", "--run", str(run)],
    "retrieve": lambda run: ["retrieve", "--subject", "01", "--run", str(run), "--json", *QUICK],
    "table": lambda run: ["table", str(run), "--json"],
    "audit": lambda run: ["audit", str(run), "--json"],
    "gallery": lambda run: ["gallery", "--subject", "01", "--run", str(run), "--out", str(run / "page.html")],
    "evaluate": lambda run: [
        *("evaluate", "--subject", "01", "--run", str(run), "--json", "evaluate.networks=false"),
        *QUICK,
    ],
    "generate": lambda run: ["generate", "--subject", "01", "--run", str(run), "--limit", "2", "--steps", "1"],
}
FILES = {  # of a run, with the commands that read them
    "model.safetensors": ("info", "predict", "retrieve", "audit", "generate"),
    "config.yaml": ("info-file",),
    "split.json": ("retrieve", "audit", "predict"),
    "metrics.jsonl": ("audit",),
    "predictions/sub-01_test.safetensors": ("retrieve", "audit", "info"),
    "report_sub-01.json": ("info", "table", "gallery", "audit"),
    "stimuli_sub-01.json": ("table", "gallery"),
    "tuning_sub-01.json": ("generate", "audit"),
    "audit_sub-01.json": ("gallery",),
    "reconstructions/mini/sub-01/index.csv": ("evaluate", "gallery", "audit"),
    "reconstructions/mini/sub-01/settings.json": ("evaluate",),
    "controls/shuffled/mini/sub-01/index.csv": ("evaluate", "gallery"),
}
HEAVY = {"evaluate": 0.05, "generate": 0.05, "audit": 0.25, "retrieve": 0.25, "predict": 0.25}  # how often in the suite
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**12, 10**400, 1e308, float("nan"), float("-inf"), "", "x", "\x1b[2J", "../../x", "é" * 300),
    *([], {}, [1], ["x"], {"x": 1}, [[]], "9" * 5000),
)


class Hangs(BaseException):
    """A command that takes too long; nothing catches it on its way."""


@dataclass(frozen=True)
class Case:
    """One damaged file, and what the command made of it; ``wrong`` is empty where it did right."""

    number: int
    file: str
    change: str
    command: str
    code: int | None
    wrong: str


def build(folder: Path) -> Path:
    """A whole run of 12 training and 6 test pictures, trained, drawn, scored, tuned and audited; its folder."""
    from align.train import main as train

    rng, study = np.random.default_rng(0), folder / "study"
    (study / "images").mkdir(parents=True)
    pictures = [(np.kron(rng.random((4, 4, 3)), np.ones((8, 8, 1))) * 255).astype(np.uint8) for _ in range(18)]
    mixing = rng.normal(size=(48, 20))
    with (study / "stimuli.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "image", "split", "subject", "concept"])
        for k, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(study / "images" / f"p{k:02d}.png")
            writer.writerow([k, f"p{k:02d}.png", "train" if k < 12 else "test", "01", f"c{k}"])
    small = np.stack([p.reshape(4, 8, 4, 8, 3).mean((1, 3)).ravel() / 255 for p in pictures])
    np.save(study / "signals.npy", (small @ mixing + 0.05 * rng.normal(size=(18, 20))).astype(np.float32))
    run = folder / "run"
    pairs = ["study.name=folder", f"study.root={study}", f"cache_dir={folder / 'cache'}", f"run_dir={run}"]
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said), _quickly():
        assert train([*pairs, "subjects=[01]", "encoder.name=ridge", "target.components=6"]) == 0, said.getvalue()
        whole = [word for word in COMMANDS["generate"](run) if word not in ("--limit", "2")]
        audit = ["audit", str(run), "--out", str(run / "audit_sub-01.json")]
        for words in (COMMANDS["predict"](run), whole, COMMANDS["evaluate"](run), audit):
            assert cli.main(words) == 0, said.getvalue()
    facts = json.loads((run / "report_sub-01.json").read_text())
    choice = {"run": facts["run"], "drawn_by": {}, "choice": "usual", "settings": {"steps": "1"}, "chosen_on": "x"}
    (run / "tuning_sub-01.json").write_text(json.dumps(choice))
    return run


@contextmanager
def _quickly() -> Iterator[None]:
    """Small pictures and no judges: the true ones are tested with the metrics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        yield


def fuzz(run: Path, folder: Path, count: int, seed: int = 0, heavy: float = 0.0) -> list[Case]:
    """``count`` cases; ``heavy`` 1: every command as often as any; 0: as often as `HEAVY` says."""
    whole = {name: _called(name, _copy(run, folder / "whole"))[1] for name in COMMANDS}
    rng = random.Random(seed)
    return [_case(number, run, folder / "damaged", rng, heavy, whole) for number in range(count)]


def _case(number: int, run: Path, folder: Path, rng: random.Random, heavy: float, whole: dict[str, Any]) -> Case:
    file = rng.choice(list(FILES))
    commands = FILES[file]
    command = rng.choice(commands)
    if rng.random() > max(heavy, HEAVY.get(command, 1.0)):
        command = next((name for name in commands if name not in HEAVY), commands[0])
    damaged = _copy(run, folder)
    target = damaged / file
    before = target.read_bytes()
    after, change = _changed(before, target, rng)
    target.unlink()  # a link to the whole run's file
    target.write_bytes(after)
    code, scores, wrong = _judged(command, damaged)
    if code == 0 and not wrong and after != before and scores != whole[command]:
        wrong = f"another score without an error: {_difference(whole[command], scores)}"
    return Case(number, file, change, command, code, wrong)


def _judged(command: str, run: Path) -> tuple[int | None, Any, str]:
    try:
        code, scores, said = _called(command, run)
    except BaseException as error:
        return None, None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if code not in (0, 2):
        return code, scores, f"ended with {code}"
    if code == 2 and (not said.strip() or "Traceback" in said):
        return code, scores, "a 2 without its line"
    return code, scores, "prints what a terminal obeys" if "\x1b" in said else ""


def _called(command: str, run: Path) -> tuple[int, Any, str]:
    """Exit code, scores and standard error of a command in this process."""

    def late(*_: Any) -> None:
        raise Hangs

    out, said = io.StringIO(), io.StringIO()
    before = {number: signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.alarm(ASLEEP)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        with redirect_stdout(out), redirect_stderr(said), _quickly():
            code = cli.main(COMMANDS[command](run))
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    return code, _scores(command, out.getvalue()) if code == 0 else None, said.getvalue()


def _scores(command: str, text: str) -> Any:
    """The numbers that a command tells, and nothing that names a file or a time."""
    if command not in ("retrieve", "table", "evaluate"):
        return None
    told = json.loads(text)
    if command == "table":
        return [{name: entry["value"] for name, entry in row["metrics"].items()} for row in told["rows"]]
    found = {f"{name}.top1": told["retrieval"][name]["top1"] for name in ("brain_to_image", "image_to_brain")}
    pictures = told.get("reconstruction", {}) if command == "evaluate" else {}
    return found | {name: entry["value"] for name, entry in pictures.items()}


def _difference(whole: Any, found: Any) -> str:
    return f"{str(whole)[:150]} became {str(found)[:150]}"


def _copy(run: Path, folder: Path) -> Path:
    """Hard links: every command replaces files, none writes into one (metrics.jsonl of training aside)."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder, copy_function=os.link)
    return folder


def _changed(content: bytes, path: Path, rng: random.Random) -> tuple[bytes, str]:
    ways: list[Callable[[bytes, random.Random], tuple[bytes, str]]] = [_bytes]
    ways += {
        ".json": [_json, _json],
        ".jsonl": [_lines],
        ".csv": [_cells, _cells],
        ".yaml": [_yaml, _yaml],
        ".safetensors": [_metadata, _tensors],
    }[path.suffix]
    return rng.choice(ways)(content, rng)


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
