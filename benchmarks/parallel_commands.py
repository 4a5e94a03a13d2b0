"""Commands of every kind at once on one place, many times over: is anything lost, and is anybody told too much?

    python -m benchmarks.parallel_commands 50          rounds; 0 is the exit code when nothing was lost

Every round copies a small study and a trained run, then starts commands of one kind together, kind after kind. What
they leave is compared with what one command alone leaves. Counted are losses (a row, a picture or a file that is
absent or of two commands) and successes with something missing: exit code 0, though what the command was asked for
is not there. A command may also be told to wait, or end with exit code 2 and one line.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.at_once import PLAIN, Found, Kind, Place, make_people, make_pickles, together, warm
from benchmarks.parallel_newer import NEWER

TRAIN, TEST = 20, 12  # pictures
DRAWN = {"reconstructions", "shuffled", "zero_brain", "oracle"}  # what recon generate fills
DRAW = ["--steps", "2", "--batch-size", "2"]


def make_study(folder: Path) -> None:
    """Rendered noise and responses that tell the pictures apart, as the `folder` study reads them."""
    (folder / "images").mkdir(parents=True)
    rng, rows, signals = np.random.default_rng(0), [["row", "image", "split", "subject", "concept"]], []
    weights = rng.normal(size=(48, 20))
    for k in range(TRAIN + TEST):
        picture = (np.kron(rng.random((4, 4, 3)), np.ones((16, 16, 1))) * 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"p{k:02d}.png")
        means = picture.reshape(4, 16, 4, 16, 3).mean((1, 3)).ravel() / 255
        signals.append(means @ weights + 0.05 * rng.normal(size=20))
        rows.append([str(k), f"p{k:02d}.png", "train" if k < TRAIN else "test", "01", f"c{k}"])
    np.save(folder / "signals.npy", np.array(signals, dtype=np.float32))
    with (folder / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


# --- what each kind leaves ---


def _both(codes: list[int], found: Found, what: str) -> None:
    found.require(set(codes) == {0}, f"{what}: exit codes {codes}", success=False)


def _weights(run: Path) -> str | None:
    from align.checkpoint import weights_hash
    from align.errors import UserError

    try:
        return weights_hash(run)
    except (UserError, OSError):
        return None


def _check_training(place: Place, codes: list[int], found: Found) -> None:
    found.require(set(codes) <= {0, 2} and 0 in codes, f"train: exit codes {codes}", success=False)
    found.require(_weights(place.path / "new") == _weights(place.run), "train: the run is not what one training gives")


def _check_targets(place: Place, codes: list[int], found: Found) -> None:
    from align.vision.targets import open_targets

    _both(codes, found, "targets")
    files = list((place.path / "fresh" / "targets").glob("*.safetensors"))
    found.require(bool(files), "targets: no file")
    for file in files:
        found.require(len(open_targets(file).tokens) == TRAIN + TEST, f"targets: {file}")
    found.require(not list((place.path / "fresh" / "targets").glob("*.part*")), "targets: parts stay", success=False)


def _check_sweep(place: Place, codes: list[int], found: Found) -> None:
    from align.files import read_json

    _both(codes, found, "sweep")
    folder = place.path / "sweep"
    found.require(len(list((folder / "cells").glob("*.json"))) == 4, "sweep: cells are missing")
    stored = read_json(folder / "sweep.json")
    choice = read_json(folder / "choice.json")
    found.require(stored["chosen"] == choice["chosen"], "sweep: sweep.json and choice.json of two sweeps")


def _check_predicted(place: Place, codes: list[int], found: Found) -> None:
    from align.files import read_json, read_tensors

    _both(codes, found, "predict, retrieve")
    tensors, _ = read_tensors(place.run / "predictions" / "sub-01_test.safetensors")
    found.require(len(tensors["embeds"]) == TEST, "predict: rows are missing")
    for name in ("report_sub-01.json", "stimuli_sub-01.json"):
        found.require("run" in read_json(place.run / name), f"retrieve: {name}")


def _indexes(run: Path) -> Iterator[tuple[Path, list[dict[str, str]]]]:
    from recon.drawing.folders import read_index

    for path in run.rglob("index.csv"):
        if "low_level" not in path.parts and "likeliest" not in str(path):
            yield path.parent, read_index(path.parent)


def _check_seeds(place: Place, codes: list[int], found: Found, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    _both(codes, found, "generate")
    folders = 0
    for folder, rows in _indexes(place.run):
        if not DRAWN & set(folder.parts):
            continue
        folders += 1
        for seed in seeds:
            listed = {row["stimulus_id"] for row in rows if row["seed"] == str(seed)}
            found.require(len(listed) == TEST, f"generate: {folder} lists {len(listed)} of {TEST} of seed {seed}")
        absent = [row["file"] for row in rows if not (folder / row["file"]).is_file()]
        found.require(not absent, f"generate: {folder} lacks {absent[:1]}")
    found.require(folders == 4, f"generate: {folders} folders")


def _check_settings(place: Place, codes: list[int], found: Found) -> None:
    """Two drawings of one seed: the pictures of a folder, and those of all folders, are of one of them."""
    _check_seeds(place, codes, found, (0,))
    twice = 0
    for _, rows in _indexes(place.run):
        twice += len({(row["stimulus_id"], row["seed"]) for row in rows}) != len(rows)
    found.require(not twice, "generate: a picture is listed twice")
    kept = together([place.of_run("generate", "--steps", "2", "--batch-size", "2", "--json")], place.path / "again")
    text = (place.path / "again" / "0.log").read_text(encoding="utf-8")
    sampled = json.loads(text[text.index("{") :])["sampled"]
    found.require(kept == [0] and sampled in (0, 4 * TEST), f"generate: {sampled} pictures of another drawing")


def _check_evaluated(place: Place, codes: list[int], found: Found) -> None:
    from align.files import read_json

    found.require(set(codes) <= {0, 2}, f"evaluate and others: exit codes {codes}", success=False)
    _both(codes[:2], found, "evaluate twice")
    report, stored = read_json(place.run / "report_sub-01.json"), read_json(place.run / "stimuli_sub-01.json")
    found.require(report.get("n_stimuli") == TEST and "reconstruction" in report, "evaluate: the report lacks scores")
    found.require(len(stored.get("ids", [])) == TEST, "evaluate: stimuli are missing")
    for folder, rows in _indexes(place.run):
        for seed in ("0", "1"):
            listed = [row for row in rows if row["seed"] == seed]
            found.require(len(listed) == TEST, f"evaluate: {folder} lists {len(listed)} of seed {seed}")


def _check_drawn_and_scored(place: Place, codes: list[int], found: Found) -> None:
    """Scored while another seed is drawn: all of it, or told that pictures are missing."""
    from align.files import read_json

    found.require(codes[0] == 0 and codes[1] in (0, 2), f"generate and evaluate: exit codes {codes}", success=False)
    if codes[1] == 0:
        report = read_json(place.run / "report_sub-01.json")
        whole = report["n_stimuli"] == TEST and report.get("seeds", {}).get("seeds") in (None, [0, 1], [0, 1, 2])
        found.require(whole and not any(name.startswith("seeds.") for name in report["skipped"]), "evaluate: partial")
    _check_seeds_only(place, found)


def _check_seeds_only(place: Place, found: Found) -> None:
    for folder, rows in _indexes(place.run):
        if "reconstructions" in folder.parts:
            listed = {row["stimulus_id"] for row in rows if row["seed"] == "2"}
            found.require(len(listed) == TEST, f"generate: {folder} lists {len(listed)} of seed 2")


def _check_converted(place: Place, codes: list[int], found: Found) -> None:
    from align.data.reading.convert import convert_folder

    _both(codes, found, "convert")
    written, kept = convert_folder(place.path / "pickles")
    found.require((len(written), len(kept)) == (0, 4), f"convert: {len(kept)} of 4 copies are whole")
    strays = [path for path in (place.path / "pickles").rglob(".*") if path.is_file() or "tmp" in path.name]
    found.require(not strays, f"convert: strays {strays[:1]}", success=False)


def _check_imported(place: Place, codes: list[int], found: Found) -> None:
    found.require(sorted(codes) == [0, 2], f"import: exit codes {codes}", success=False)
    out = place.path / "imported"
    found.require(all((out / name).exists() for name in ("signals.npy", "stimuli.csv", "images")), "import: not whole")
    found.require(not list(place.path.glob(".imported*")), "import: strays", success=False)


def _check_described(place: Place, codes: list[int], found: Found) -> None:
    from align.files import read_json

    _both(codes, found, "repeats, curves, evidence, audit")
    for name in ("curves.json", "evidence.json"):
        files = list(place.run.rglob(name))
        found.require(len(files) == 1, f"{name} is missing")
        for file in files:
            content = read_json(file)
            found.require("run" in content, f"{name} is not whole")
    for folder, rows in _indexes(place.run):
        if "evidence" in folder.parts:
            told = read_json(folder / "evidence.json")
            found.require({row["stimulus_id"] for row in rows} == set(told["rows"]), "evidence: index and maps differ")
            found.require(len({row["seed"] for row in rows}) == 1, "evidence: maps of two seeds")
    read_json(place.path / "audit.json")


def _import_words(place: Place) -> list[list[str]]:
    source = place.path / "study"
    words = [
        "recon",
        "data",
        "import",
        "--embeddings",
        str(source / "signals.npy"),
        "--ids",
        str(source / "stimuli.csv"),
    ]
    words += ["--images", str(source / "images"), "--stimulus-column", "image"]
    return [[*words, "--out", str(place.path / "imported")]] * 2


KINDS = (
    Kind("train", lambda p: [p.train(p.path / "new")] * 2, _check_training),
    Kind(
        "targets",
        lambda p: [["recon", "targets", *p.pairs, f"cache_dir={p.path / 'fresh'}"]] * 2,
        _check_targets,
    ),
    Kind("sweep", lambda p: [["recon", "sweep", *p.pairs, f"run_dir={p.path / 'sweep'}"]] * 2, _check_sweep),
    Kind(
        "predict",
        lambda p: [
            p.of_run("predict"),
            p.of_run("predict"),
            p.of_run("retrieve", *PLAIN),
            p.of_run("retrieve", *PLAIN),
        ],
        _check_predicted,
    ),
    Kind(
        "generate seeds",
        lambda p: [p.of_run("generate", *DRAW, "--seed", str(seed)) for seed in (0, 1)],
        lambda p, codes, found: _check_seeds(p, codes, found, (0, 1)),
    ),
    Kind(
        "evaluate",
        lambda p: [
            p.of_run("evaluate", "--seed", "0", *PLAIN),
            p.of_run("evaluate", "--seed", "1", *PLAIN),
            p.of_run("retrieve", *PLAIN),
        ],
        _check_evaluated,
    ),
    Kind(
        "gallery",
        lambda p: [p.of_run("gallery"), p.of_run("gallery"), p.of_run("evaluate", "--seed", "1", *PLAIN)],
        lambda p, codes, found: _both(codes, found, "gallery"),
        slow=True,
    ),
    Kind(
        "evaluate while drawing",
        lambda p: [p.of_run("generate", *DRAW, "--seed", "2"), p.of_run("evaluate", *PLAIN)],
        _check_drawn_and_scored,
    ),
    Kind(
        "describe",
        lambda p: [
            p.of_run("curves", "--steps", "1", "--limit", "3", "--ranks", "1", *PLAIN),
            p.of_run("curves", "--steps", "1", "--limit", "2", "--ranks", "1", *PLAIN),
            p.of_run("evidence", "--steps", "2", "--nulls", "4", "--limit", "2"),
            p.of_run("evidence", "--steps", "2", "--nulls", "4", "--limit", "3", "--seed", "1"),
            ["recon", "audit", str(p.run), "--out", str(p.path / "audit.json")],
            ["recon", "audit", str(p.run), "--out", str(p.path / "audit.json")],
        ],
        _check_described,
        slow=True,
    ),
    Kind(
        "generate one seed in two ways",
        lambda p: [
            p.of_run("generate", "--batch-size", "2", "--steps", "2"),
            p.of_run("generate", "--batch-size", "2", "--steps", "1"),
        ],
        _check_settings,
        slow=True,
    ),
    Kind(
        "convert",
        lambda p: [["recon", "data", "convert", "things_eeg2", "--root", str(p.path / "pickles")]] * 3,
        _check_converted,
    ),
    Kind("import", _import_words, _check_imported),
    *NEWER,
)


def prepare(folder: Path) -> Place:
    """A study, pickles and a trained run; raises `RuntimeError` where the training fails."""
    place = Place(folder)
    make_study(folder / "study")
    make_people(folder / "people")
    make_pickles(folder / "pickles")
    codes = together([place.train(place.run)], folder / "logs")
    if codes != [0]:
        raise RuntimeError((folder / "logs" / "0.log").read_text(encoding="utf-8"))
    return place


def one_round(base: Place, folder: Path, kinds: Sequence[Kind], found: Found) -> None:
    """Every kind once, on a copy of ``base`` in ``folder``; what a kind leaves, the next one finds."""
    shutil.copytree(base.path, folder)
    place = Place(folder)
    for kind in kinds:
        logs = folder / "logs" / kind.name
        with kind.around(place):
            codes = together(kind.commands(place), logs)
        found.commands, found.refused = found.commands + len(codes), found.refused + codes.count(2)
        before = len(found.losses) + len(found.false_successes)
        try:
            kind.check(place, codes, found)
        except Exception as error:  # a file that is absent, damaged or of another shape
            found.losses.append(f"{kind.name}: {error}")
        for text in [*found.losses, *found.false_successes][before:]:
            print(text, *(log.read_text(encoding="utf-8")[-400:] for log in sorted(logs.glob("*.log"))), sep="\n")


def main() -> int:
    """Command line: rounds, and where to work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    names = [kind.name for kind in KINDS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="KIND", help=f"of: {', '.join(names)}")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if not options.only or kind.name in options.only]
    warm()
    found, told = Found(), 0
    with tempfile.TemporaryDirectory(prefix="parallel-") as work:
        base = prepare(Path(work) / "base")
        for number in range(options.rounds):
            began = time.monotonic()
            one_round(base, Path(work) / "round", kinds, found)
            shutil.rmtree(Path(work) / "round")
            wrong = [*found.losses, *found.false_successes]
            print(
                f"round {number + 1} of {options.rounds}: {time.monotonic() - began:.1f} s, {len(wrong)} wrong so far"
            )
            print(*wrong[told:], sep="\n", end="\n" * (len(wrong) > told), flush=True)
            told = len(wrong)
    print(
        f"{options.rounds} rounds, {found.commands} commands, {found.refused} refused in one line: "
        f"{len(found.losses)} losses, {len(found.false_successes)} successes with something missing"
    )
    return int(bool(found.losses or found.false_successes))


if __name__ == "__main__":
    sys.exit(main())
