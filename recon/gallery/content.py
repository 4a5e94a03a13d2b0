"""What every gallery shows: pictures, captions and scores of one run, and which stimuli are best, median and worst."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import listed_file
from align.errors import UserError
from align.files.json_text import require
from recon.drawing.folders import PictureFolders
from recon.evaluation.report import read_scores, report_path, stimuli_path
from recon.evaluation.sources import require_sources
from recon.evaluation.stored import require_agreement
from recon.gallery.extras import Extras, read_extras, read_seed_pictures, reduced

if TYPE_CHECKING:
    from align.checkpoint import Run

log = logging.getLogger(__name__)

RULE = ("two_way", "PixCorr")  # the first scores the choice of best, median and worst goes by; the next breaks ties
CONTROLS = {  # in the order shown, with the words that explain them
    "oracle": "the generator given the true tokens of the seen picture: its ceiling",
    "shuffled": "the generator given the tokens predicted for another stimulus",
    "zero_brain": "the generator given what the decoder says without a brain",
    "pixel_ridge": "ridge regression from the signals straight to 16 x 16 pixels",
    "nearest_training_image": "the training picture nearest to the predicted embedding",
    "likeliest_library_image": "the library picture that the response makes likeliest, as it is: to be beaten",
    "random_training_image": "a training picture drawn at random",
    "mean_image": "the mean of all training pictures",
    "grey": "flat grey",
    "blurred_target": "the seen picture itself, blurred: what a perfect low-resolution decoder would score",
}


@dataclass(frozen=True)
class Item:
    """One stimulus. Pictures are uint8 (H, W, 3); ``retrieved`` are ids of candidate pictures, nearest first.

    ``others``: samples of further seeds, by seed; scores are of ``reconstructed``. ``evidence``: uint8 (H, W), white =
    decided by the brain; ``lit``: its share of the area in [0, 1]. None or empty where the run holds none.
    """

    stimulus_id: str
    caption: str
    concept: str
    reconstructed: np.ndarray
    controls: dict[str, np.ndarray]
    retrieved: tuple[str, ...]
    rank: float
    scores: dict[str, float]
    others: dict[int, np.ndarray] = field(default_factory=dict)
    low_level: np.ndarray | None = None
    evidence: np.ndarray | None = None
    lit: float | None = None


@dataclass(frozen=True)
class Content:
    """``items`` in the order of the test split; ``seen`` and ``captions`` cover every candidate picture by id.

    ``folder``: name of the run folder; ``image_seed``: of the scored pictures; ``extras``: what `read_extras` found;
    ``curves``: see `recon.gallery.curves`.
    """

    report: dict[str, Any]
    items: tuple[Item, ...]
    seen: dict[str, np.ndarray]
    captions: dict[str, str]
    controls: tuple[str, ...]
    folder: str
    image_seed: int
    extras: Extras
    audit: dict[str, Any]
    curves: dict[str, Any] | None = None

    @property
    def better(self) -> dict[str, str]:
        """Score to "higher" or "lower"."""
        return {name: entry["better"] for name, entry in self.report["reconstruction"].items()}

    @property
    def rule(self) -> tuple[str, ...]:
        """The scores of `RULE` that were computed."""
        return tuple(name for name in RULE if name in self.better) or tuple(self.better)[:1]

    @property
    def headline(self) -> tuple[str, ...]:
        """The scores of `rule`, and ``two_way`` by the other judge."""
        return (*self.rule, *(name for name in self.better if name.startswith("two_way(")))


def read_content(run: Run) -> Content:
    """Read what `recon evaluate` left; raises `UserError` naming that command when it has not run for this training."""
    from recon.decoding.predict import open_recording, run_id
    from recon.gallery.audit import audit_summary
    from recon.gallery.curves import read_figure

    command = f"run: recon evaluate --subject {run.subject} --run {run.path}"
    if not report_path(run).is_file() or not stimuli_path(run).is_file():
        raise UserError(f"run {str(run.path)!r} has no scores to show; {command}")
    report, stored = read_scores(run)
    if "reconstruction" not in report or "scores" not in stored or report["run"] != run_id(run):
        raise UserError(f"the scores of run {str(run.path)!r} are incomplete or of another training; {command}")
    _require_whole(run, report, stored)
    stimuli = open_recording(run).stimuli
    row = {stimulus_id: i for i, stimulus_id in enumerate(stimuli.ids)}
    folders = scored_folders(run, stored)
    controls = tuple(name for name in CONTROLS if name in stored["controls"])
    named = [*stored["ids"], *(other for near in stored["retrieved"].values() for other in near)]
    if strange := next((name for name in named if name not in row), None):
        raise UserError(f"{str(stimuli_path(run))!r} names {strange!r}, which the study does not have; {command}")
    ids, seed, own = stored["ids"], stored["image_seed"], report["run"]
    reconstructed = _pictures(folders.reconstructions, ids, seed, own)
    columns = {name: _pictures(folders.control(name), ids, seed, own) for name in controls}
    extras = read_extras(folders, ids, seed, own)
    require_sources(report_path(run), report, stored)  # after they were read: what changed before or since is refused
    items = tuple(
        Item(
            stimulus_id=stimulus_id,
            caption=stimuli.captions[row[stimulus_id]],
            concept=stimuli.concepts[row[stimulus_id]],
            reconstructed=reconstructed[stimulus_id],
            controls={name: pictures[stimulus_id] for name, pictures in columns.items()},
            retrieved=tuple(stored["retrieved"][stimulus_id]),
            rank=stored["rank"][stimulus_id],
            scores={name: values[k] for name, values in stored["scores"].items()},
            others={other: found[stimulus_id] for other, found in extras.others.items() if stimulus_id in found},
            low_level=extras.low_level.get(stimulus_id),
            evidence=extras.evidence.get(stimulus_id),
            lit=extras.lit.get(stimulus_id),
        )
        for k, stimulus_id in enumerate(ids)
    )
    shown = dict.fromkeys([*ids, *(other for item in items for other in item.retrieved)])
    seen = {stimulus_id: reduced(stimuli.load(row[stimulus_id])) for stimulus_id in shown}
    captions = {stimulus_id: stimuli.captions[row[stimulus_id]] for stimulus_id in shown}
    audit, curves = audit_summary(run), read_figure(run, stored["generator"])
    return Content(report, items, seen, captions, controls, run.path.name, seed, extras, audit, curves)


_SHOWN = dict.fromkeys(("backbone", "layer", "layer_chosen_on", "encoder", "generator"), str)


def _require_whole(run: Run, report: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raise `UserError` where a part is missing that a gallery shows, or where both files disagree."""
    require(report, {**_SHOWN, "controls": object, "seed": object}, repr(str(report_path(run))))
    known = ("retrieved", "rank")
    wanted = dict.fromkeys(("ids", "controls", "generator", "image_seed", *known), object)
    require(stored, wanted, repr(str(stimuli_path(run))))
    require_agreement(report, stored, report_path(run))
    for part in known:
        if lacking := [name for name in stored["ids"] if name not in stored[part]]:
            raise UserError(f"{str(stimuli_path(run))!r}: {part} lacks {lacking[0]!r}; score the run again")
    if lacking := [name for name in report["reconstruction"] if name not in stored["scores"]]:
        raise UserError(f"{str(stimuli_path(run))!r}: scores lacks {lacking[0]!r}, which the report has; score again")
    if not stored["ids"]:
        raise UserError(f"{str(stimuli_path(run))!r}: ids is empty; score the run again")


def scored_folders(run: Run, stored: dict[str, Any]) -> PictureFolders:
    """Where the scored pictures lie; ``stored``: the content of `stimuli_path`.

    Pictures that `recon evaluate --images` found elsewhere are told in the log. Raises `UserError` for a generator
    whose name leaves the folder.
    """
    base, generator = Path(stored.get("images") or run.path), stored["generator"]
    listed_file(base / "reconstructions", generator, f"{str(stimuli_path(run))!r}, generator")
    if not base.resolve().is_relative_to(run.path.resolve()):
        log.warning("the pictures of run %s lie outside it, in %s", run.path, base)
    return PictureFolders(base, generator, run.subject)


def choose(content: Content, count: int) -> dict[str, list[Item]]:
    """``count`` best, median and worst items by `Content.rule`, fewer when there are not three times as many."""
    ranked = ordered(content)
    count = max(1, min(count, len(ranked) // 3))
    middle = (len(ranked) - count) // 2
    return {"best": ranked[:count], "median": ranked[middle : middle + count], "worst": ranked[-count:]}


def ordered(content: Content) -> list[Item]:
    """All items, best first by `Content.rule`; remaining ties keep the order of the split."""
    sign = {name: -1 if content.better[name] == "higher" else 1 for name in content.rule}
    return sorted(content.items, key=lambda item: tuple(sign[name] * item.scores[name] for name in content.rule))


def _pictures(folder: Path, ids: Sequence[str], seed: int, run_id: str) -> dict[str, np.ndarray]:
    """Pictures of every id; raises `UserError` where one is missing."""
    pictures = read_seed_pictures(folder, ids, seed, run_id)
    absent = [stimulus_id for stimulus_id in ids if stimulus_id not in pictures]
    if absent:
        raise UserError(f"{str(folder)!r} lists no picture of {absent[0]!r}, seed {seed}; run recon generate again")
    return pictures
