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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from align.checkpoint import load_run
from align.config import BackboneConfig, Config, load_config
from align.data.splits import read_split
from align.errors import run_command
from align.vision.backbones import BACKBONES
from align.vision.transformers_models import load_mini
from recon import cli
from recon.audit.collect import from_run
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.plan import Sampling
from recon.decoding.predict import read_predictions, run_id
from recon.drawing.folders import read_pictures, read_seed
from recon.drawing.record import read_asked, read_record
from recon.evaluation import judges
from recon.evaluation.stored import read_report, read_stimuli, require_agreement
from recon.gallery.audit import audit_summary
from recon.generation.bridge import own_bridge
from recon.generation.pipeline import Generator
from recon.metrics import metrics
from recon.tuning.chosen import read_choice
from tests.recon import tiny_run
from tests.recon.damage import changed, sealed_again

FORGED = (
    0.5  # of the changes, those whose file gets a checksum that fits: its score may differ, the reader may not fail
)
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
FILES = {  # of a run, with the commands that read them; a pattern stands for the first file it fits
    "model.safetensors": ("read", "info", "predict", "retrieve", "audit", "generate"),
    "config.yaml": ("read", "info-file"),
    "split.json": ("read", "retrieve", "audit", "predict"),
    "metrics.jsonl": ("read", "audit"),
    "predictions/sub-01_test.safetensors": ("read", "retrieve", "audit", "info"),
    "report_sub-01.json": ("read", "info", "table", "gallery", "audit"),
    "stimuli_sub-01.json": ("read", "table", "gallery"),
    "tuning_sub-01.json": ("read", "generate", "audit"),
    "audit_sub-01.json": ("read", "gallery"),
    "reconstructions/mini/sub-01/index.csv": ("read", "evaluate", "gallery", "audit"),
    "reconstructions/mini/sub-01/settings.json": ("read", "evaluate", "generate"),
    "reconstructions/mini/sub-01/*.png": ("read", "evaluate", "gallery", "audit"),
    "controls/shuffled/mini/sub-01/index.csv": ("read", "evaluate", "gallery"),
}
HEAVY = {"evaluate": 0.15, "generate": 0.1, "audit": 0.25, "retrieve": 0.25, "gallery": 0.5}  # how often in the suite


def _readers(run: Path) -> dict[str, Callable[[], Any]]:
    """What reads a file of a run, without the command around it."""
    own = load_run(run)
    drawn, shuffled = (run / part / "mini" / "sub-01" for part in ("reconstructions", "controls/shuffled"))
    rows, report, stimuli = partial(read_seed, drawn, 0), run / "report_sub-01.json", run / "stimuli_sub-01.json"
    predictions = run / "predictions" / "sub-01_test.safetensors"

    def scores() -> None:
        require_agreement(read_report(report), read_stimuli(stimuli), report)

    def record() -> None:
        read_record(own, drawn, 0)
        read_asked(drawn, run_id(own))

    return {
        "config.yaml": partial(load_config, Config, run / "config.yaml", []),
        "split.json": partial(read_split, run / "split.json"),
        "metrics.jsonl": partial(from_run, own, ()),
        "predictions/sub-01_test.safetensors": partial(read_predictions, predictions),
        "report_sub-01.json": scores,
        "stimuli_sub-01.json": scores,
        "tuning_sub-01.json": partial(read_choice, own, "mini", Conditioning(), Sampling()),
        "audit_sub-01.json": partial(audit_summary, own),
        "reconstructions/mini/sub-01/index.csv": rows,
        "reconstructions/mini/sub-01/settings.json": lambda: (
            read_record(own, drawn, 0),
            read_asked(drawn, run_id(own)),
        ),
        "reconstructions/mini/sub-01/*.png": lambda: read_pictures(drawn, rows(), list(rows())),
        "controls/shuffled/mini/sub-01/index.csv": partial(read_seed, shuffled, 0),
    }


def _read(run: Path, file: str) -> int:
    """Read one file as a command reads it; exit code 2 with a line where it is refused."""

    def work() -> int:
        load_run(run) if file == "model.safetensors" else _readers(run)[file]()
        return 0

    return run_command("read", work)


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


_loaded: dict[str, Any] = {}


def _backbone(name: str, config: BackboneConfig) -> Any:
    key = f"{name} {config}"
    if key not in _loaded:
        _loaded[key] = load_mini(name, config)
    return _loaded[key]


_load = Generator.load


def _generator(name: str, adapter: Any, runtime: Any, bridge: Any, control: Any) -> Any:
    if name != "mini" or type(bridge) is not type(own_bridge(adapter)) or control is not None:
        return _load(name, adapter, runtime, bridge, control)
    key = f"{name} {adapter.path} {runtime}"
    if key not in _loaded:
        _loaded[key] = _load(name, adapter, runtime, bridge)
    return _loaded[key]


@contextmanager
def _quickly() -> Iterator[None]:
    """Small pictures, no judges, and the models of the package, which no case damages, loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)
        patch.setitem(BACKBONES, "mini", _backbone)
        patch.setattr(Generator, "load", _generator)
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        yield


def fuzz(run: Path, folder: Path, count: int, seed: int = 0, heavy: float = 0.0) -> Iterator[Case]:
    """``count`` cases; ``heavy`` 1: every command as often as any; 0: as often as `HEAVY` says."""
    whole = {name: _called(name, _copy(run, folder / "whole"))[1] for name in COMMANDS}
    rng = random.Random(seed)
    for number in range(count):
        yield _case(number, run, folder / "damaged", rng, heavy, whole)


def _case(number: int, run: Path, folder: Path, rng: random.Random, heavy: float, whole: dict[str, Any]) -> Case:
    file = rng.choice(list(FILES))
    commands = FILES[file]
    often = [max(heavy, HEAVY.get(name, 1.0)) for name in commands]
    command = rng.choices(commands, often)[0]
    damaged = _copy(run, folder)
    target = min(damaged.glob(file))
    before = target.read_bytes()
    after, change = changed(before, target, rng)
    forged = rng.random() < FORGED and after != (after := sealed_again(after, target.suffix))
    target.unlink()  # a link to the whole run's file
    target.write_bytes(after)
    code, scores, wrong = _judged(command, damaged, file)
    if code == 0 and not wrong and not forged and after != before and scores != whole.get(command):
        wrong = f"another score without an error: {_difference(whole[command], scores)}"
    return Case(number, file, f"{change}{' and its checksum' if forged else ''}", command, code, wrong)


def _judged(command: str, run: Path, file: str) -> tuple[int | None, Any, str]:
    try:
        code, scores, said = _called(command, run, file)
    except BaseException as error:
        return None, None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if code not in (0, 2):
        return code, scores, f"ended with {code}"
    if code == 2 and (not said.strip() or "Traceback" in said):
        return code, scores, "a 2 without its line"
    return code, scores, "prints what a terminal obeys" if "\x1b" in said else ""


def _called(command: str, run: Path, file: str = "") -> tuple[int, Any, str]:
    """Exit code, scores and standard error of a command, or of the reader of a ``file``, in this process."""

    def late(*_: Any) -> None:
        raise Hangs

    out, said = io.StringIO(), io.StringIO()
    before = {number: signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.alarm(ASLEEP)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        with redirect_stdout(out), redirect_stderr(said), _quickly():
            code = _read(run, file) if command == "read" else cli.main(COMMANDS[command](run))
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
