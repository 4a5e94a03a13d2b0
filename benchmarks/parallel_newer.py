"""Newer commands at once on one place, for `benchmarks.parallel_commands`: each twice, and once with other words.

What they leave has to be, file by file, what one of those that succeeded leaves when it runs alone: nothing of the
other, nothing absent, no part and no lock.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from benchmarks.at_once import PLAIN, Found, Kind, Place, together
from benchmarks.killed_commands import differences, pretrain, publish, reproduce, server, snapshot, squeezenet

UNITS = ",".join(f"{channel}@0.02" for channel in range(4))
NETWORKS = ("--backbones", "mini,mini@untrained")
GRID = ("target.layer=1", "target.pooling=grid:2", "--units", UNITS)
JUDGE = ("--judge", "torchvision/squeezenet1_1@untrained", "--judge-layer", "features.3")
SEARCH = ("--patched", "2", "--rounds", "1", "--drawn", "2")
FEW = ("--components", "3", "--folds", "2", "--permutations", "5")
CLAIMS, LAST, ANY = "claims", "last", "any"


@dataclass(frozen=True)
class Writer:
    """A command, given twice with the words ``one`` and once with ``other`` in their place.

    ``{}`` in these stands for the place. ``where``: patterns below it for what is written. ``rule``: `CLAIMS`, the
    first keeps the folder and other words are refused; `LAST`, all succeed and the last one stays; `ANY`, some may be
    refused.
    """

    name: str
    words: Callable[[Place], list[str]]
    one: tuple[str, ...]
    other: tuple[str, ...]
    where: tuple[str, ...]
    rule: str = CLAIMS

    def commands(self, place: Place) -> list[list[str]]:
        """The three that are started at once."""
        several = (self.one, self.one, self.other)
        return [[*self.words(place), *(word.format(place.path) for word in more)] for more in several]

    def state(self, place: Place) -> dict[str, str]:
        """Digests of what is there, hidden files too."""
        below = [pattern for one in self.where for pattern in (one, f"{one}/*")]
        found = snapshot(place.path)
        return {name: found[name] for name in found if any(fnmatchcase(name, pattern) for pattern in below)}


# --- what one command alone leaves ---


_ALONE: dict[tuple[Path, str], list[dict[str, str]]] = {}  # place and name: states after `one` and after `other`


def _alone(place: Place, writer: Writer) -> list[dict[str, str]]:
    """Found once for a place of this name, on copies of what is there; the place is as before then."""
    key = (place.path, writer.name)
    if key not in _ALONE:
        kept, states = place.path.with_name("kept"), []
        shutil.copytree(place.path, kept, symlinks=True)
        for words in writer.commands(place)[1:]:
            logs = kept / "logs" / f"{writer.name} alone"
            if together([words], logs) != [0]:
                raise RuntimeError((logs / "0.log").read_text(encoding="utf-8"))
            states.append(writer.state(place))
            shutil.rmtree(place.path)
            shutil.copytree(kept, place.path, symlinks=True)
        shutil.rmtree(kept)
        _ALONE[key] = states
        if states[0] == states[1] or not states[0]:
            raise RuntimeError(f"{writer.name}: both words leave the same, so nothing could be told apart")
    return _ALONE[key]


@contextmanager
def _learnt(place: Place, writers: Sequence[Writer]) -> Iterator[None]:
    for writer in writers:
        _alone(place, writer)
    yield


def _check(writers: Sequence[Writer], place: Place, codes: list[int], found: Found) -> None:
    for k, writer in enumerate(writers):
        own = codes[3 * k : 3 * k + 3]
        one, other = _alone(place, writer)
        rules = {CLAIMS: ([0, 0, 2], [2, 2, 0]), LAST: ([0, 0, 0],)}
        held = own in rules[writer.rule] if writer.rule in rules else 0 in own and set(own) <= {0, 2}
        found.require(held, f"{writer.name}: exit codes {own}", success=False)
        allowed = [one] * (0 in own[:2]) + [other] * (own[2] == 0)
        state = writer.state(place)
        lines = min((differences(want, state) for want in allowed), key=len, default=["nobody succeeded"])
        found.require(not lines, f"{writer.name} {own}: {'; '.join(lines[:4])}", success=bool(allowed))
    strays = [path for path in place.path.rglob(".*") if ".tmp-" in path.name or path.name.endswith(".lock")]
    found.require(not strays, f"strays {[str(path) for path in strays[:3]]}", success=False)


def _kind(name: str, *writers: Writer) -> Kind:
    return Kind(
        name,
        lambda place: [words for writer in writers for words in writer.commands(place)],
        partial(_check, writers),
        slow=True,
        around=lambda place: _learnt(place, writers),
    )


# --- the commands ---


def _people(place: Place, *words: str) -> list[str]:
    """Pairs for the study of several people; its cache is new, so that commands meet there too."""
    root = place.path / "people"
    return ["study.name=folder", f"study.root={root}", f"cache_dir={place.path / 'shared'}", *words]


def _studied(command: str, *words: str) -> Callable[[Place], list[str]]:
    return lambda p: ["recon", command, *_people(p, *words), "--out", str(p.path / command)]


def _pictured(command: str, option: str, *words: str) -> Callable[[Place], list[str]]:
    return lambda p: [*_studied(command, *words)(p), option, str(p.path / "people" / "images")]


def _writer(command: str, words: Callable[[Place], list[str]], option: str, one: str, other: str) -> Writer:
    return Writer(command, words, (option, one), (option, other), (command,))


def _of_run(command: str, *words: str) -> Callable[[Place], list[str]]:
    return lambda p: p.of_run(command, *words, *PLAIN)


ENCODE = _writer("encode", _studied("encode", "--layers", "1", "2", "--permutations", "5"), "--folds", "2", "3")
BRAIN_SCORE = _writer("brain-score", _studied("brain-score", "--method", "ridge"), "--layers", "1", "2")
TIMECOURSE = _writer(
    "timecourse", _studied("timecourse", "--width", "0.05", "--step", "0.05"), "--permutations", "5", "6"
)
ONE_PERSON = ("subjects=[01]",)
SHEET = _writer("sheet", _studied("sheet", *GRID, *ONE_PERSON, "--clusters", "2"), "--folds", "2", "3")
ALIGNED_CUT = _writer(
    "aligned-cut", _studied("aligned-cut", *GRID, *ONE_PERSON, "--clusters", "2"), "--shuffles", "2", "3"
)
MAXIMIZE = _writer(
    "maximize", _pictured("maximize", "--pictures", *GRID, *ONE_PERSON, *JUDGE, *SEARCH), "--steps", "2", "1"
)
UNIVERSALITY = _writer("universality", _studied("universality", *NETWORKS, *FEW), "--shuffles", "5", "6")
RSA = _writer("rsa", _studied("rsa", *NETWORKS), "--boot", "5", "6")
ROSETTA = _writer(
    "rosetta",
    lambda p: [
        *("recon", "rosetta", *NETWORKS, "--layers", "1", "2", "--grid", "2", "--out", str(p.path / "rosetta")),
        *("--images", str(p.path / "people" / "images"), f"cache_dir={p.path / 'shared'}"),
    ],
    "--shuffles",
    "2",
    "3",
)
CAPTION = Writer(
    "caption", _of_run("caption"), ("--alignment", "pivot"), ("--alignment", "joint"), ("run/*captions*",), LAST
)
TUNE = Writer(
    "tune-pictures",
    _of_run("tune-pictures", "--held-out", "4", "--steps", "1"),
    ("--try", "strength=0"),
    ("--try", "strength=1"),
    ("run/*tuning*",),
    LAST,
)
REPRODUCE = Writer("reproduce", reproduce, ("train.epochs=3",), ("train.epochs=2",), ("paper",))
PRETRAIN = Writer(
    "pretrain",
    lambda p: [*pretrain(p), f"assets={p.path / 'model'}"],
    ("seed=0",),
    ("seed=1", "out={}/mini2"),
    ("model",),
    ANY,
)
KEPT_TOGETHER = (SHEET, ALIGNED_CUT, RSA, ROSETTA)  # in one folder, where each finds its own results again


# --- kinds that are not three of a command ---


def _together(writer: Writer, place: Place, other: bool = False) -> list[str]:
    words = writer.commands(place)[-1 if other else 0]
    words[words.index("--out") + 1] = str(place.path / "together")
    return words


def _check_together(place: Place, codes: list[int], found: Found) -> None:
    """Given again each continues with its own results; with other words it is refused."""
    found.require(set(codes) == {0}, f"commands of one folder: exit codes {codes}", success=False)
    for writer in KEPT_TOGETHER:
        again = together([_together(writer, place)], place.path / "logs" / "again")
        others = together([_together(writer, place, other=True)], place.path / "logs" / "others")
        found.require((again, others) == ([0], [2]), f"{writer.name} again {again}, with other words {others}")


def _adapt(place: Place, trials: str, out: str, *subjects: str) -> list[str]:
    words = ["--trials", trials, "--subject", *subjects, "--out", str(place.path / out)]
    return ["recon", "adapt", *_people(place, "encoder.name=encoding", "target.layer=1"), "--method", "prior", *words]


def _check_adapted(place: Place, codes: list[int], found: Found) -> None:
    """One of them has the folder of person 01: its numbers of pictures are those that the folder was made for."""
    from align.data.places import made_with
    from align.files import read_json
    from recon.adaptation.folds import CURVE

    found.require(sorted(codes) == [0, 2] and codes[:2] != [0, 0], f"adapt: exit codes {codes}", success=False)
    folder = place.path / "adapted" / "sub-01"
    asked = made_with(folder)[CURVE]["asked"]["trials"]
    rows = {row["trials"] for row in read_json(folder / CURVE)["rows"]}
    with (folder / "adapt.csv").open(encoding="utf-8") as file:
        listed = {row["trials"] for row in csv.DictReader(file)}
    whole = rows == set(asked) and listed >= {str(count) for count in rows}
    found.require(whole, f"adapt: {rows} and {listed} pictures where {asked} were asked for")
    found.require((12 in rows) == (codes[0] == 0), f"adapt: {codes} and {rows} pictures")


def _check_adapted_alike(place: Place, codes: list[int], found: Found) -> None:
    from align.checkpoint import load_run

    found.require(codes in ([0, 0, 2], [2, 2, 0]), f"adapt: exit codes {codes}", success=False)
    load_run(place.path / "new person" / "run")
    rows = json.loads((place.path / "new person" / "adapt.json").read_text(encoding="utf-8"))["rows"]
    found.require({row["trials"] for row in rows} == {12 if codes[0] == 0 else 14}, f"adapt: {codes}")


def _download(place: Place) -> list[list[str]]:
    return [["recon", "data", "download", "toy", "--root", str(place.path / "toy"), "--yes"]] * 3


@contextmanager
def _served(place: Place) -> Iterator[None]:
    from align.data.download import sources

    before = sources.catalogue
    with server(place.path / "server"):
        publish(place)
        try:
            yield
        finally:
            sources.catalogue = before  # type: ignore[assignment]


def _check_downloaded(place: Place, codes: list[int], found: Found) -> None:
    found.require(0 in codes and set(codes) <= {0, 2}, f"download: exit codes {codes}", success=False)
    names = {str(path.relative_to(place.path / "toy")) for path in (place.path / "toy").rglob("*.*")}
    wanted = {*(f"sub-0{k}/x.npy" for k in (1, 2, 3)), *(f"pictures/{k}.jpg" for k in range(20))}
    found.require(wanted <= names, f"download: {sorted(wanted - names)[:3]} is missing")
    found.require(not any(".part" in name or "lock" in name for name in names), f"download: {sorted(names - wanted)}")


@contextmanager
def _with_squeezenet(place: Place) -> Iterator[None]:
    squeezenet(place)
    with _learnt(place, [PRETRAIN]):
        yield


NEWER = (
    _kind("encode and brain-score", ENCODE, BRAIN_SCORE, TIMECOURSE),
    _kind("what drives units", SHEET, ALIGNED_CUT, MAXIMIZE),
    _kind("compare networks", UNIVERSALITY, RSA, ROSETTA),
    Kind("several in one folder", lambda p: [_together(one, p) for one in KEPT_TOGETHER], _check_together, slow=True),
    _kind("caption, tune-pictures, reproduce", CAPTION, TUNE, REPRODUCE),
    Kind(
        "adapt",
        lambda p: [_adapt(p, trials, "new person", "03") for trials in ("12", "12", "14")],
        _check_adapted_alike,
        slow=True,
    ),
    Kind(
        "adapt to one of several",
        lambda p: [_adapt(p, "12", "adapted", "01", "02"), _adapt(p, "14", "adapted/sub-01", "01")],
        _check_adapted,
        slow=True,
    ),
    Kind(
        "pretrain",
        PRETRAIN.commands,
        partial(_check, [PRETRAIN]),
        slow=True,
        around=_with_squeezenet,
    ),
    Kind("download", _download, _check_downloaded, slow=True, around=_served),
)
