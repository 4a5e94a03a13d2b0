"""kill -9 at random moments for every command that writes: does the same command, given again, leave the same files?

    python -m benchmarks.killed_commands [--moments 20] [--only NAME ...] [--seed 0]

Every command runs whole, then `--moments` times on a fresh copy of the same folder until it is killed, then once more
to its end. Half of the moments are drawn from the seconds of the command, half from the steps in which it opens a file
to write, renames, deletes or makes one. The folder must then hold the same files with the same content as after the
whole run: nothing lost, nothing changed, nothing left over. Fields of `VOLATILE` are not compared. Exit code 1 where
anything differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import http.client
import json
import multiprocessing
import multiprocessing.sharedctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.at_once import PLAIN, Place, call, make_people, make_pickles, warm
from tests.align.fixture_http import Served, serving, through

TRAIN, TEST, REPEATS = 40, 12, 3  # pictures, and trials of each test picture
LIMIT = 600  # s that one command may take
VOLATILE = {
    "shared_seconds",
    "seconds",
    "mtime_ns",
    "commit",
    "memory",
    "gpu_memory",
    "measured",
}  # times, and how the source stands, which may change meanwhile
STAGES = ("clip", "reader", "vae", "decoder", "sketch", "unet")  # of recon pretrain
UNIT = "0"  # a channel of the study
BODY = np.random.default_rng(0).bytes(300_001)  # what is downloaded


@dataclass(frozen=True)
class Writer:
    """A command that writes: its words, and whether it starts from a run that has pictures and scores."""

    name: str
    words: Callable[[Place], list[str]]
    drawn: bool = False
    prepare: Callable[[Place], None] | None = None  # called before it, in the same process


@dataclass
class Found:
    """What happened to one command; ``wrong`` is in words."""

    name: str
    seconds: float = 0.0
    steps: int = 0
    killed: int = 0
    too_late: int = 0  # moments at which the command had ended
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """How one process ended: exit code (minus the signal), seconds, and steps of writing."""

    code: int
    seconds: float
    steps: int


def make_study(folder: Path) -> None:
    """Noise pictures and responses with a time axis, test pictures seen `REPEATS` times, as a `folder` study."""
    (folder / "images").mkdir(parents=True)
    rng, signals = np.random.default_rng(0), []
    rows = [["row", "image", "split", "subject", "concept"]]
    weights = rng.normal(size=(48, 40))
    for k in range(TRAIN + TEST):
        pixels = (np.kron(rng.random((4, 4, 3)), np.ones((8, 8, 1))) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"p{k:02d}.png")
        response = pixels.reshape(4, 8, 4, 8, 3).mean((1, 3)).ravel() / 255 @ weights
        for _ in range(1 if k < TRAIN else REPEATS):
            rows.append([str(len(signals)), f"p{k:02d}.png", "train" if k < TRAIN else "test", "01", f"c{k}"])
            signals.append(response + 0.05 * rng.normal(size=40))
    np.save(folder / "signals.npy", np.array(signals, dtype=np.float32).reshape(-1, 4, 10))
    with (folder / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    (folder / "info.json").write_text(json.dumps({"sfreq": 100}), encoding="utf-8")


# --- the commands ---


def _of_run(command: str, *words: str) -> Callable[[Place], list[str]]:
    return lambda place: place.of_run(command, *words)


def _import(place: Place) -> list[str]:
    study = place.path / "study"
    words = ["recon", "data", "import", "--embeddings", str(study / "flat.npy"), "--ids", str(study / "stimuli.csv")]
    words += ["--images", str(study / "images"), "--stimulus-column", "image"]
    return [*words, "--out", str(place.path / "imported")]


def _flatten(place: Place) -> None:
    signals = np.load(place.path / "study" / "signals.npy")
    np.save(place.path / "study" / "flat.npy", signals.reshape(len(signals), -1))


def publish(place: Place) -> None:
    """A study "toy" that is fetched from the server of `main`."""
    from align.data.download import sources

    files = (sources.File(f"https://data.example/{k}", f"sub-{k:02d}/x.npy", len(BODY)) for k in (1, 2, 3))
    archive = sources.File("https://data.example/zip", "pictures.zip", None, None, "pictures")
    variant = sources.Variant(("01",), "For this benchmark.", shared=(*files, archive), own=lambda subject: [])
    sources.catalogue = lambda: {"toy": {"only": variant}}  # type: ignore[assignment]


def reproduce(place: Place) -> list[str]:
    pairs = ["encoder.width=16", "train.epochs=3", "train.lr=1e-2", "train.batch_size=16", "target.components=8"]
    pairs += ["sweep.seeds=1", "sweep.folds=2", f"run_dir={place.path / 'paper'}", "encoder.name=mlp"]
    own = [pair for pair in place.pairs if pair.split("=")[0] in ("study.name", "study.root", "cache_dir")]
    return ["recon", "reproduce", "shallow_alignment", "--adapt", *own, "sweep.layers=[1,2]", *pairs]


def _images(place: Place, name: str) -> str:
    return str(place.run / name / "mini" / "sub-01")


def _score(place: Place) -> list[str]:
    flat = str(place.path / "study" / "flat.npy")
    return ["recon", "score", "--brain", flat, "--images", flat, "--out", str(place.path / "score.json")]


def _evaluate_images(place: Place) -> list[str]:
    words = ["--reconstructions", _images(place, "reconstructions"), "--targets", _images(place, "controls/oracle")]
    words += ["--metrics", "PixCorr", "SSIM", "--out", str(place.path / "pictures.csv")]
    return ["recon", "evaluate-images", *words]


def _studied(command: str, *words: str) -> Callable[[Place], list[str]]:
    """A command that compares pictures with responses of the study; test pictures are not read."""
    return lambda p: ["recon", command, *p.pairs, *words, "--out", str(p.path / command)]


def _driven(command: str, *words: str) -> Callable[[Place], list[str]]:
    """The same about a unit, with natural pictures beside those of the study."""
    network = ["target.layer=1", "target.pooling=grid:2", "--units", f"{UNIT}@0.02"]
    return lambda p: [*_studied(command, *network, *words)(p), "--pictures", str(p.path / "study" / "images")]


def pretrain(place: Place) -> list[str]:
    words = ["pictures.rendered=8", f"pictures.photographs=[{place.path / 'study' / 'images'}]", "precision=fp32"]
    words += [f"squeezenet_weights={place.path / 'squeeze.safetensors'}", "mini_pooling=grid:8"]
    stages = [f"{name}.{what}" for name in STAGES for what in ("steps=2", "batch_size=4")]
    return ["recon", "pretrain", *words, *stages, "checkpoint_every=1", f"out={place.path / 'mini'}"]


def squeezenet(place: Place) -> None:
    import torch
    from torchvision.models import squeezenet1_1

    from align.files import save_tensors

    torch.manual_seed(0)
    save_tensors(place.path / "squeeze.safetensors", squeezenet1_1(weights=None).state_dict())


def _people(place: Place) -> None:
    """A study of several people, whole or absent."""
    if not (place.path / "people").exists():
        shutil.rmtree(place.path / "new people", ignore_errors=True)
        make_people(place.path / "new people")
        (place.path / "new people").rename(place.path / "people")


def _of_people(command: str, *words: str) -> Callable[[Place], list[str]]:
    def called(place: Place) -> list[str]:
        study = ["study.name=folder", f"study.root={place.path / 'people'}", f"cache_dir={place.path / 'shared'}"]
        return ["recon", command, *study, "target.layer=1", *words, "--out", str(place.path / command)]

    return called


def _rosetta(place: Place) -> list[str]:
    words = ["--images", str(place.path / "study" / "images"), f"cache_dir={place.path / 'cache'}"]
    grid = ["--layers", "1", "2", "--grid", "2", "--shuffles", "2", "--out", str(place.path / "rosetta")]
    return ["recon", "rosetta", *BACKBONES, *grid, *words]


def _captioned(place: Place) -> list[str]:
    return place.of_run("caption", "--captioner", str(place.path / "git"), *PLAIN)


def _git(place: Place) -> None:
    """A captioner of the real class, tiny and untrained."""
    import torch

    from tests.recon.test_words_towers import git

    torch.manual_seed(0)
    (place.path / "git").mkdir(exist_ok=True)
    git(place.path / "git").save_pretrained(place.path / "git")


DRAW = ["--steps", "1", "--limit", "3"]
BACKBONES = ("--backbones", "mini,mini@untrained")
FEW = ("--components", "3", "--folds", "2", "--permutations", "5", "--shuffles", "5")
JUDGE = ("--judge", "torchvision/squeezenet1_1@untrained", "--judge-layer", "features.3")
ADAPT = ("encoder.name=encoding", "--method", "prior,shared_response", "--trials", "12")
EPOCHS = ["encoder.name=mlp", "encoder.width=16", "train.epochs=6", "train.batch_size=8", "train.checkpoint_every=2"]
WRITERS = (
    Writer("import", _import, prepare=_flatten),
    Writer("convert", lambda p: ["recon", "data", "convert", "things_eeg2", "--root", str(p.path / "pickles")]),
    Writer(
        "download",
        lambda p: ["recon", "data", "download", "toy", "--root", str(p.path / "toy"), "--yes"],
        prepare=publish,
    ),
    Writer("targets", lambda p: ["recon", "targets", *p.pairs, f"cache_dir={p.path / 'fresh'}"]),
    Writer("sweep", lambda p: ["recon", "sweep", *p.pairs, f"run_dir={p.path / 'sweep'}"]),
    Writer("train", lambda p: p.train(p.path / "new")),
    Writer("train in epochs", lambda p: p.train(p.path / "new", *EPOCHS)),
    Writer(
        "timecourse",
        lambda p: [
            *("recon", "timecourse", *p.pairs, "--out", str(p.path / "time"), "--permutations", "20"),
            *("--width", "0.05", "--step", "0.05"),
        ],
    ),
    Writer("reproduce", reproduce),
    Writer("predict", _of_run("predict", "--split", "train")),
    Writer("retrieve", _of_run("retrieve", *PLAIN)),
    Writer("tune-pictures", _of_run("tune-pictures", "--try", "strength=0", "--held-out", "4", "--steps", "1", *PLAIN)),
    Writer("generate", _of_run("generate", *DRAW, "--seeds", "2", "--batch-size", "2")),
    Writer("generate best of", _of_run("generate", *DRAW, "--best-of", "2")),
    Writer("evaluate", _of_run("evaluate", "--partial", *PLAIN), drawn=True),
    Writer("gallery", _of_run("gallery"), drawn=True),
    Writer("gallery to vote on", _of_run("gallery", "--vote"), drawn=True),
    Writer("repeats", _of_run("repeats", "--draws", "2")),
    Writer("curves", _of_run("curves", *DRAW, "--ranks", "1", *PLAIN)),
    Writer("evidence", _of_run("evidence", "--steps", "2", "--nulls", "4", "--limit", "2")),
    Writer("audit", lambda p: ["recon", "audit", str(p.run), "--out", str(p.path / "audit.json")], drawn=True),
    Writer("card", lambda p: ["recon", "card", "--run", str(p.run)], drawn=True),
    Writer("score", _score, prepare=_flatten),
    Writer("evaluate-images", _evaluate_images, drawn=True),
    Writer("pretrain", pretrain, prepare=squeezenet),
    Writer("encode", _studied("encode", "--layers", "1", "2", "--folds", "2", "--permutations", "5")),
    Writer("brain-score", _studied("brain-score", "--layers", "1", "--method", "ridge")),
    Writer("universality", _studied("universality", *BACKBONES, *FEW)),
    Writer("rsa", _studied("rsa", *BACKBONES, "--boot", "10")),
    Writer("sheet", _driven("sheet", "--folds", "2")),
    Writer(
        "maximize",
        _driven("maximize", *JUDGE, "--patched", "2", "--rounds", "1", "--drawn", "2", "--steps", "2"),
    ),
    Writer("rosetta", _rosetta),
    Writer(
        "aligned-cut",
        _studied(
            *("aligned-cut", "target.layer=1", "target.pooling=grid:2", "--units", f"{UNIT}@0.02"),
            *("--clusters", "2", "--shuffles", "2"),
        ),
    ),
    Writer("adapt", _of_people("adapt", *ADAPT, "--subject", "01"), prepare=_people),
    Writer("adapt to several", _of_people("adapt", *ADAPT, "--subject", "01", "02"), prepare=_people),
    Writer("caption", _captioned, drawn=True, prepare=_git),
)


# --- one process ---


WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


def _watch(folder: Path, steps: Any, last: int | None) -> None:
    """Count how often this process changes ``folder``, and kill it before step ``last``."""
    below = str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & WRITING):
            return
        if isinstance(args[0], str | os.PathLike) and os.fspath(args[0]).startswith(below):
            if steps.value == last:
                os.kill(os.getpid(), signal.SIGKILL)
            steps.value += 1

    sys.addaudithook(hook)


def _process(writer: Writer, place: Place, log: Path, steps: Any, last: int | None) -> None:
    if writer.prepare is not None:
        writer.prepare(place)
    _watch(place.path, steps, last)
    call(writer.words(place), log)


def start(writer: Writer, place: Place, log: Path, seconds: float = LIMIT, last: int | None = None) -> Ended:
    """Run a command in a copy of this process, which is killed after ``seconds`` or before the step ``last``."""
    context = multiprocessing.get_context("fork")
    steps = context.Value("q", 0, lock=False)
    process = context.Process(target=_process, args=(writer, place, log, steps, last))
    began = time.monotonic()
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    code = -signal.SIGKILL if process.exitcode is None else process.exitcode
    return Ended(code, time.monotonic() - began, steps.value)


# --- what is compared ---


def snapshot(folder: Path) -> dict[str, str]:
    """Every file, link and folder below ``folder`` with the hash of its content, without fields of `VOLATILE`."""
    return {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*"))}


def _digest(path: Path) -> str:
    if path.is_symlink():
        return f"link to {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    return hashlib.sha256(_content(path)).hexdigest()


def _content(path: Path) -> bytes:
    if path.suffix == ".json":
        return _steady(path.read_text(encoding="utf-8"))
    if path.suffix == ".jsonl":
        return b"\n".join(map(_steady, path.read_text(encoding="utf-8").splitlines()))
    if path.suffix == ".safetensors":
        return _tensors(path.read_bytes())
    return _columns(path.read_text(encoding="utf-8")) if path.suffix == ".csv" else path.read_bytes()


def _columns(table: str) -> bytes:
    """A table without the columns of `VOLATILE`; another one as it is."""
    rows = list(csv.reader(table.splitlines()))
    left_out = [i for i, name in enumerate(rows[0] if rows else []) if name in VOLATILE]
    kept = [[cell for i, cell in enumerate(row) if i not in left_out] for row in rows]
    return json.dumps(kept).encode() if left_out else table.encode()


def _tensors(content: bytes) -> bytes:
    """Without the order of the texts in the head, which the library draws anew for every file."""
    start = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:start])
    return json.dumps(head, sort_keys=True).encode() + content[start:]


def _steady(text: str) -> bytes:
    from align.files.checksums import KEY

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without(item) for name, item in value.items() if name not in VOLATILE | {KEY}}
        return [without(item) for item in value] if isinstance(value, list) else value

    return json.dumps(without(json.loads(text)), sort_keys=True).encode()


def differences(whole: dict[str, str], found: dict[str, str]) -> list[str]:
    """What two snapshots do not share, a line each."""
    lines = [f"missing: {name}" for name in whole.keys() - found.keys()]
    lines += [f"left over: {name}" for name in found.keys() - whole.keys()]
    return sorted(lines + [f"differs: {name}" for name in whole.keys() & found.keys() if whole[name] != found[name]])


# --- one command ---


def examine(writer: Writer, base: Path, work: Path, moments: int, seed: int = 0) -> Found:
    """Kill one command at ``moments`` moments and finish it each time; ``base`` is what `prepare` returned."""
    found = Found(writer.name)
    place, log = Place(work / "place"), work / f"{writer.name}.log"
    rng = random.Random(f"{seed} {writer.name}")

    def whole() -> tuple[Ended, dict[str, str]]:
        _fresh(base, place, writer)
        ended = start(writer, place, log)
        return ended, snapshot(place.path)

    (first, wanted), (second, again) = whole(), whole()
    found.seconds, found.steps = min(first.seconds, second.seconds), first.steps
    if {first.code, second.code} != {0}:
        found.wrong.append(f"ended with {first.code}: {log.read_text(encoding='utf-8')[-300:]}")
        return found
    found.wrong += [f"two whole runs: {line}" for line in differences(wanted, again)]
    for number in range(moments):
        _fresh(base, place, writer)
        if number % 2:
            moment = rng.randrange(found.steps) if found.steps else 0
            ended, at = start(writer, place, log, last=moment), f"step {moment} of {found.steps}"
        else:
            seconds = rng.random() * found.seconds
            ended, at = start(writer, place, log, seconds), f"{seconds:.3f} of {found.seconds:.3f} s"
        found.killed += ended.code == -signal.SIGKILL
        found.too_late += ended.code != -signal.SIGKILL
        found.wrong += [f"{at}: {line}" for line in _finished(writer, place, log, wanted)]
    return found


def _finished(writer: Writer, place: Place, log: Path, wanted: dict[str, str]) -> list[str]:
    """What is wrong after the command was given again; a refusal is right where all was there already."""
    before = differences(wanted, snapshot(place.path)) if writer.name == "import" else ["another command"]
    ended = start(writer, place, log)
    if ended.code != 0 and (ended.code != 2 or before):
        return [f"then ended with {ended.code}: {log.read_text(encoding='utf-8')[-300:]}"]
    return differences(wanted, snapshot(place.path))


def _fresh(base: Path, place: Place, writer: Writer) -> None:
    shutil.rmtree(place.path, ignore_errors=True)
    shutil.copytree(base / ("drawn" if writer.drawn else "trained"), place.path, symlinks=True)


def prepare(work: Path, drawn: bool = True) -> Path:
    """A study with a trained run, and the same with pictures and scores; both are made where they are copied to."""
    place, base = Place(work / "place"), work / "base"
    make_study(place.path / "study")
    make_pickles(place.path / "pickles")
    made = {
        "trained": [Writer("train", lambda p: p.train(p.run)), Writer("predict", _of_run("predict"))],
        "drawn": [
            Writer("generate", _of_run("generate", *DRAW)),
            Writer("evaluate", _of_run("evaluate", "--partial", *PLAIN)),
        ],
    }
    for name, writers in made.items():
        for writer in writers if drawn or name == "trained" else []:
            if start(writer, place, work / "log").code != 0:
                raise RuntimeError((work / "log").read_text(encoding="utf-8"))
        shutil.copytree(place.path, base / name, symlinks=True)
    return base


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """The files of the study "toy", for every connection of this process and of its copies."""
    (folder / "in" / "pictures").mkdir(parents=True)
    for k in range(20):
        (folder / "in" / "pictures" / f"{k}.jpg").write_bytes(BODY[: 1000 + k])
    archive = shutil.make_archive(str(folder / "pictures"), "zip", folder / "in", "pictures")
    kept = http.client.HTTPConnection.connect, http.client.HTTPSConnection.connect
    connect = through(folder / "socket")
    with serving(folder / "socket") as running:
        running.files = {f"/{k}": Served(BODY) for k in (1, 2, 3)} | {"/zip": Served(Path(archive).read_bytes())}
        http.client.HTTPConnection.connect = http.client.HTTPSConnection.connect = connect  # type: ignore[method-assign]
        try:
            yield
        finally:
            http.client.HTTPConnection.connect, http.client.HTTPSConnection.connect = kept  # type: ignore[method-assign]


def run(work: Path, writers: Sequence[Writer], moments: int, seed: int = 0) -> Iterator[Found]:
    """Every command one after the other."""
    with server(work / "server"):
        base = prepare(work, any(writer.drawn for writer in writers))
        for writer in writers:
            yield examine(writer, base, work, moments, seed)


def main() -> int:
    """Command line: how many moments, and of which commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    names = [writer.name for writer in WRITERS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of: {', '.join(names)}")
    options = parser.parse_args()
    warm()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="killed-") as work:
        chosen = [writer for writer in WRITERS if not options.only or writer.name in options.only]
        for found in run(Path(work), chosen, options.moments, options.seed):
            told = f"{found.seconds:.2f} s, {found.steps} steps, {found.killed} killed, {found.too_late} had ended"
            print(f"{found.name}: {told}, {len(found.wrong)} wrong", *found.wrong, sep="\n  ", flush=True)
            wrong += bool(found.wrong)
    print(f"{wrong} commands leave something else after a kill")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
