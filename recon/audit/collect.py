"""What can be audited from a run folder of this project, or from the folder of a sweep.

Nothing is trained, predicted or written in the run; the embeds of its pictures come from the targets cache, which is
filled where it is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.data.names import labelled
from align.data.splits import read_split
from align.errors import UserError
from align.files import read_json, text_of
from align.files.json_text import parse_json
from align.files.table import finite, read_rows
from recon.audit.checks import Material, Pictures, Samples
from recon.audit.inside import places
from recon.audit.selection import Choice

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.recordings import RunData

logger = logging.getLogger(__name__)
_CHOSEN = {"layer_chosen_on?": str, "epoch_chosen_on?": str}
_CURVE = {"backbone": str, "encoder": str, "chosen": str, "validation_top1": {str: float}}
_CHOICE = {"criterion": str, "curves": [_CURVE]}
PARTS = ("pictures", "signals", "embeds", "reconstructions")


def from_folder(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Material, str]:
    """Material of a run or sweep folder, and one line that says what it is.

    ``overrides``: ``study.root=...``, ``cache_dir=...``, ``backbone.weights=...`` of a run whose files have moved.
    What cannot be read is noted under ``missing``. Raises `UserError` when the folder is neither.
    """
    path = Path(path)
    if (path / "choice.json").is_file():
        return from_sweep(path), f"sweep {path}"
    from align.checkpoint import load_run
    from align.config import set_key
    from recon.config import places_in, require_places

    require_places(overrides)
    run = load_run(path)
    for pair in overrides:
        key, _, value = pair.partition("=")
        set_key(run.config, key, value)
    if said := places_in(run.config, overrides):
        logger.info("%s", said)
    return from_run(run), f"run {path}: {identity(run)}"


def identity(run: Run) -> str:
    """Study, subject, layer and `recon.decoding.predict.run_id`: an audit of another training of the run reads
    otherwise."""
    from recon.decoding.predict import run_id

    return f"study {run.study}, subject {run.subject}, layer {run.config.target.layer}, training {run_id(run)}"


def from_run(run: Run, parts: Sequence[str] = PARTS) -> Material:
    """Split and categories from split.json, what the run says of its choices, and ``parts`` through the study.

    The gallery asks for no part: split.json and declarations are read in no time, a study may take minutes.
    """
    from recon.evaluation.recordings import RunData

    material, run_data = Material(), RunData(run)
    material.declared = _declared(run)
    material.missing["order"] = "a run keeps no times of its trials"
    material.places = places(run) if parts else None
    _try(material, "split", partial(_add_split, material, run.path / "split.json"))
    rest = {
        "pictures": _add_pictures,
        "signals": _add_signals,
        "embeds": _add_embeds,
        "reconstructions": _add_reconstructions,
    }
    for name, add in rest.items():
        if name not in parts:
            material.missing[name] = "it was left out here"
        elif "split" in material.missing:  # without it nobody knows what the run was trained on
            material.missing[name] = material.missing["split"]
        else:
            _try(material, name, partial(add, material, run_data))
    return material


def from_sweep(folder: Path) -> Material:
    """The choice of a sweep: mean validation score of every layer, test scores of those that were refitted."""
    stored = read_json(folder / "choice.json", _CHOICE)
    rows = []
    if (folder / "sweep.csv").is_file():
        rows = [
            {**row, "top1": finite(row["top1"], folder / "sweep.csv")}
            for row in read_rows(folder / "sweep.csv", ("direction", "split", "backbone", "encoder", "layer", "top1"))
            if row["direction"] == "brain_to_image" and row["split"] == "test"
        ]
    material = Material(declared={"layer": stored["criterion"]})
    for curve in stored["curves"]:
        layers = list(curve["validation_top1"])
        if curve["chosen"] not in layers:
            raise UserError(f"{str(folder / 'choice.json')!r}: chosen {curve['chosen']!r} is none of its layers")
        mine = [row for row in rows if (row["backbone"], row["encoder"]) == (curve["backbone"], curve["encoder"])]
        scores = [[float(str(row["top1"])) for row in mine if row["layer"] == layer] for layer in layers]
        test = np.array([np.mean(found) if found else np.nan for found in scores])
        validation = np.array([curve["validation_top1"][layer] for layer in layers])
        name = f"layer of {curve['backbone']} for {curve['encoder']}"
        material.choices.append(Choice(name, test, validation, layers.index(curve["chosen"])))
    return material


def _try(material: Material, name: str, read: Callable[[], None]) -> None:
    try:
        read()
    except (UserError, OSError) as error:
        material.missing[name] = " ".join(str(error).split())


def _add_split(material: Material, path: Path) -> None:
    split = read_split(path)
    train, test = split["train"], split["test"]
    material.train_ids, material.test_ids = train["ids"], test["ids"]
    material.train_pictures = Pictures(tuple(train["ids"]), tuple(train["hashes"]), None)
    material.test_pictures = Pictures(tuple(test["ids"]), tuple(test["hashes"]), None)
    if any(train["concepts"]) and any(test["concepts"]):
        material.train_labels, material.test_labels = train["concepts"], test["concepts"]


def _declared(run: Run) -> dict[str, str]:
    path = labelled(run.path, "report_sub-{}.json", run.subject)
    report = read_json(path, _CHOSEN) if path.is_file() else {}
    layer = (report.get("layer_chosen_on"), run.config.target.chosen_on)  # one text, unless one was edited
    declared = {
        "layer": "; ".join(dict.fromkeys(text for text in layer if text)),
        "epoch": report.get("epoch_chosen_on") or "",
    }
    if pictures := _declared_pictures(run):
        declared["pictures"] = pictures
    metrics = run.path / "metrics.jsonl"
    lines = text_of(metrics).splitlines() if metrics.is_file() else []
    whole = [line for line in lines if line.startswith("{") and line.endswith("}")]
    names = {name for line in whole for name in parse_json(line, f"a line of {str(metrics)!r}", {})}
    if read := sorted(name for name in names if name.startswith("test")):
        declared["training log"] = f"test scores were read while training ({', '.join(read)} in metrics.jsonl)"
    return declared


def _declared_pictures(run: Run) -> str | None:
    """What the settings of drawing were chosen on (`recon tune-pictures`), held against the split of the run."""
    from recon.decoding.predict import run_id
    from recon.tuning.chosen import choice_path

    path, split = choice_path(run), run.path / "split.json"
    stored = (
        read_json(path, {"chosen_on?": str, "run?": str, "held_out?": {"hashes?": [str]}}) if path.is_file() else {}
    )
    if "chosen_on" not in stored or not split.is_file() or stored.get("run", run_id(run)) != run_id(run):
        return None
    tested = set(read_split(split)["test"]["hashes"])
    shared = tested & set(stored.get("held_out", {}).get("hashes", []))
    said = str(stored["chosen_on"])
    return f"{said}; {len(shared)} of these are test pictures" if shared else said


def _add_pictures(material: Material, run_data: RunData) -> None:
    """Hashes of the pictures as they are now, which may differ from those of the day of training, and thumbnails."""
    from recon.audit.files import picture_set

    stimuli, row = run_data.recording.stimuli, run_data.row
    for name in ("train_pictures", "test_pictures"):
        part = getattr(material, name)
        strange = [stimulus_id for stimulus_id in part.ids if stimulus_id not in row]
        if strange:
            raise UserError(f"the study has no picture of {strange[0]!r}, which split.json lists")
        images = (np.asarray(stimuli.load(row[stimulus_id])) for stimulus_id in part.ids)
        setattr(material, name, picture_set(part.ids, images))


def _add_signals(material: Material, run_data: RunData) -> None:
    from recon.audit.signals import flattened

    material.train_signals = flattened(run_data.recording.train.x)
    material.test_signals = flattened(run_data.recording.test.x)


def _add_embeds(material: Material, run_data: RunData) -> None:
    """Stored predictions only: an audit trains and predicts nothing."""
    from recon.decoding.predict import predictions_path, read_predictions, same_signals

    path = predictions_path(run_data.run, "test")
    if not path.is_file():
        raise UserError(f"no predictions at {str(path)!r}; run recon predict --subject {run_data.run.subject}")
    predictions = read_predictions(path)
    again = f"recon predict --subject {run_data.run.subject}"
    _require_own(run_data.run, {predictions.run_id}, path, again)
    if not same_signals(run_data.run, predictions):
        raise UserError(
            f"{str(path)!r} was predicted from other signals than the study holds now; run recon predict again"
        )
    run_data.require_known(predictions.ids, f"the file {str(path)!r}")
    material.brain, material.brain_ids = predictions.embeds.astype(np.float64), predictions.ids
    concepts = dict(zip(material.test_ids or (), material.test_labels or (), strict=False))
    if all(concepts.get(name) for name in predictions.ids):
        material.labels = [concepts[name] for name in predictions.ids]
    rows = [run_data.row[name] for name in predictions.ids]
    material.images = run_data.picture_embeds(rows).astype(np.float64)
    material.image_ids = [run_data.recording.stimuli.ids[i] for i in rows]
    train = np.unique(run_data.recording.train.stimulus)
    material.train_embeds = run_data.picture_embeds(train).astype(np.float64)


def _require_own(run: Run, found: set[str], path: Path, again: str) -> None:
    """Raise `UserError` for results of another training of the run; ``again``: the command that makes them anew."""
    from recon.decoding.predict import run_id

    if others := found - {run_id(run)}:
        raise UserError(f"{str(path)!r} is of {sorted(others)[0]}, and this run is {run_id(run)}; run {again}")


def _require_alike(rows: Sequence[dict[str, str]], path: Path, again: str) -> None:
    """Raise `UserError` where pictures that are compared were not drawn with the same settings."""
    from recon.drawing.folders import DRAWING

    if len({row.get(DRAWING) or "" for row in rows}) > 1:
        raise UserError(f"{str(path)!r}, or it and the control oracle, were drawn with other settings; run {again}")


def _add_reconstructions(material: Material, run_data: RunData) -> None:
    """The published sample is the one of the lowest seed (what `recon evaluate` scores); the others are its rivals."""
    from align.data.splits import thumbnails
    from recon.audit.files import all_samples, beside_seen, rowwise
    from recon.drawing.folders import find_folders
    from recon.scoring.opening import open_pictures

    folders, stimuli = find_folders(run_data.run), run_data.recording.stimuli
    told = open_pictures(folders.reconstructions)
    ids = told.ids or ()
    index = folders.reconstructions / "index.csv"
    again = f"recon generate --subject {run_data.run.subject}"
    drawn, oracle_index = read_rows(index, ("run",)), folders.control("oracle") / "index.csv"
    _require_own(run_data.run, {str(row["run"]) for row in drawn}, index, again)
    _require_alike([*drawn, *(read_rows(oracle_index, ("run",)) if oracle_index.is_file() else ())], index, again)
    run_data.require_known(ids, f"the folder {told.name!r}")

    def seen(names: Sequence[str]) -> Iterator[np.ndarray]:
        return (np.asarray(stimuli.load(run_data.row[name])) for name in names)

    targets = thumbnails(seen(ids))
    material.copied = beside_seen(ids, told, seen(ids))
    if oracle_index.is_file():
        oracle = open_pictures(folders.control("oracle"))
        known = [name for name in oracle.ids or () if name in run_data.row]
        best = beside_seen(known, oracle.reordered([(oracle.ids or ()).index(n) for n in known], None), seen(known))
        material.copied = replace(material.copied, oracle=best.r.max(axis=1))
    thumbs = all_samples(told)
    material.shown = (thumbs[:, 0], targets)
    if told.samples == 1:
        material.missing["samples"] = "this run has one of each, so none was picked"
    else:
        material.samples = Samples(rowwise(thumbs, targets), np.zeros(told.n, dtype=np.int64))
