"""``report_sub-XX.json``, schema 1: retrieval and reconstruction scores of one run, never without their context.

`retrieval_report` writes the retrieval part and keeps the others that the same training of the run has; `evaluate_run`
writes all of it. Per-stimulus values for the gallery go to ``stimuli_sub-XX.json`` beside it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import labelled
from align.errors import Damaged
from align.files import launched, locked, read_json, write_sealed
from align.tracking import Stopwatch, duration
from recon.drawing.folders import find_folders, lowest_seed
from recon.drawing.record import read_record
from recon.evaluation.controls import few_pictures
from recon.evaluation.judge import made_of
from recon.evaluation.judges import open_judges
from recon.evaluation.pictures import read_others, read_scored, require_unchanged
from recon.evaluation.provenance import head
from recon.evaluation.recordings import RunData
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.stored import read_report, read_stimuli

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run

TOP = 5
log = logging.getLogger(__name__)


class Report(dict[str, Any]):
    """The content of ``report_sub-XX.json``; a notebook shows its scores beside chance and controls."""

    def __repr__(self) -> str:
        parts = ", ".join(part for part in ("retrieval", "reconstruction", "controls") if part in self)
        return f"<Report {self.get('study')} subject {self.get('subject')}: {parts or 'empty'}>"

    def _repr_html_(self) -> str:
        from align.notebook import grid_table

        rows = [
            [name, f"{part['top1']:.3f}", _interval(part["ci95_top1"]), f"{part['chance_top1']:.3g}", str(part["n"])]
            for name, part in self.get("retrieval", {}).items()
            if "top1" in part
        ]
        for name, entry in self.get("reconstruction", {}).items():
            low = self.get("controls", {}).get("shuffled", {}).get(name, {}).get("value")
            told = "" if low is None else f"{low:.3f} (shuffled)"
            rows.append([name, f"{entry['value']:.3f}", _interval(entry["ci95"]), told, str(entry["n"])])
        title = f"{self.get('study')}, subject {self.get('subject')}, layer {self.get('layer')}"
        return grid_table(title, ["score", "value", "95 %", "chance or control", "n"], rows)


def _interval(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def report_path(run: Run) -> Path:
    """``<run>/report_sub-<subject>.json``."""
    return labelled(run.path, "report_sub-{}.json", run.subject)


def stimuli_path(run: Run) -> Path:
    """``<run>/stimuli_sub-<subject>.json``: ids, per-stimulus scores, ranks and the retrieved pictures."""
    return labelled(run.path, "stimuli_sub-{}.json", run.subject)


def read_scores(run: Run) -> tuple[Any, Any]:
    """Report and stimuli as one command wrote them; raises `UserError` where one is missing or damaged."""
    with report_lock(run) if os.access(run.path, os.W_OK) else nullcontext():
        return read_report(report_path(run)), read_stimuli(stimuli_path(run))


def report_lock(run: Run) -> AbstractContextManager[None]:
    """Report and stimuli belong together and are written by one process at a time."""
    return locked(
        labelled(run.path, ".report_sub-{}.lock", run.subject), f"writing {report_path(run)}", wait=None, keep=False
    )


def retrieval_report(run: Run, settings: EvaluateConfig | None = None) -> dict[str, Any]:
    """Score retrieval among the test pictures, write the ``retrieval`` part of the report and return the report."""
    settings = settings or EvaluateConfig()
    report, stimuli = _retrieval(RunData(run), settings)
    return _write(run, {**head(run), **report}, stimuli, keep=True)


def evaluate_run(
    run: Run,
    images_dir: str | Path | None = None,
    *,
    generator: str | None = None,
    seed: int | None = None,
    settings: EvaluateConfig | None = None,
    partial: bool = False,
) -> dict[str, Any]:
    """Score retrieval and the pictures on disk beside every control, write the whole report and return it.

    ``images_dir``: folder that holds ``reconstructions/`` and ``controls/`` (default: the run's own); ``generator``
    picks one where there are several; ``seed``: which sample of each stimulus (default: the lowest, never the best).
    What the other seeds on disk would have scored is said under ``seeds``.
    ``partial``: score what is there, where pictures that were asked for are missing or seeds hold different stimuli;
    controls and seeds that were drawn with other settings are left out.
    Controls that need no generator are made and stored; those that need one are read, or listed under ``skipped``.

    Raises
    ------
    UserError
        No reconstructions, some that are missing, or sets that were drawn with different settings (unless ``partial``),
        pictures of another training of the run, pictures that change while they are scored, a judge that took part in
        the run.
    """
    settings, watch = settings or EvaluateConfig(), Stopwatch()
    from recon.evaluation.attributes import read_back
    from recon.evaluation.picture_scores import OWN, score
    from recon.evaluation.provenance import read_curves
    from recon.evaluation.seeds import seed_report
    from recon.metrics.feature_nets import FeatureNets
    from recon.metrics.fine_power import fine_power_ratios

    folders = find_folders(run, images_dir, generator)
    used = made_of(run.config.backbone.name, folders.generator)
    judges = open_judges(settings, run.study, used)
    run_data = RunData(run)
    with launched.first_then_others():
        _ = run_data.predictions  # where they are absent, the first one predicts
    seed = lowest_seed(folders.reconstructions) if seed is None else seed
    scored = read_scored(run_data, folders, seed, partial)
    ids, rows = scored.ids, scored.rows
    others, incomplete = read_others(run, folders.reconstructions, scored, seed, partial)
    drawn = read_record(run, folders.reconstructions, seed, scored.drawing)
    log.info("evaluate: seed %d, %d of %d test pictures", seed, len(ids), len(run_data.predictions.ids))
    if took := _kept(report_path(run)).get("measured", {}).get("seconds"):
        log.info("evaluate: the last one of this run took %s", duration(took))
    nets = FeatureNets(settings.weights_dir, download=settings.download)
    targets = run_data.targets(ids)
    known = run_data.training_pictures(rows[OWN].shape[-1])
    scores = score(rows, targets, nets, judges.loaded, settings, lambda stage: log.info("evaluate: %s", stage), known)
    retrieval, retrieved = _retrieval(run_data, settings)
    named = {"judge": judges.names[0], "judges": judges.facts(), "generator": folders.generator}
    report = {**head(run), **named, **retrieval, "n_stimuli": len(ids), "n_test_stimuli": len(run_data.predictions.ids)}
    report |= {"reconstruction": scores.reconstruction, "controls": scores.controls}
    report["skipped"] = {**scores.skipped, **judges.skipped, **scored.missing, **incomplete}
    report["notes"] = [*report["notes"], *_seen(rows, targets, ids), *_borrowed(drawn), *few_pictures(rows, len(ids))]
    report["fine_power"] = fine_power_ratios(rows, targets, settings.n_boot, settings.seed)
    if seeds := seed_report(scores, seed, others, targets):
        report["seeds"] = seeds
    first, right = judges.loaded.get(""), dict[str, list[float]]()
    if first is not None and first.attributes is not None:
        report["attributes"], right = read_back(first.attributes, {"seen": targets, **rows}, ids, settings)
    if drawn:
        report |= {"drawn_with": drawn, **({"tokens": drawn["tokens"]} if "tokens" in drawn else {})}
    if curves := read_curves(run, folders.generator):
        report["curves"] = curves
    report["measured"] = watch.read()
    where: dict[str, Any] = {
        "ids": ids,
        "scores": scores.per_stimulus,
        "images": None if images_dir is None else str(folders.base.resolve()),
        "controls": [key for key in rows if key != OWN],
    }
    where |= {"attributes": right} if right else {}
    where |= {"generator": folders.generator, "image_seed": seed, "pictures": scored.pictures}
    require_unchanged(folders, scored, seed)
    return _write(run, report, {**retrieved, **where}, keep=False)


def _borrowed(drawn: dict[str, Any] | None) -> list[str]:
    """A sentence where the pictures show one picture of the library each, and nothing that the run predicts."""
    if drawn is None or drawn.get("tokens") != "library":
        return []
    return [
        "reconstructions were drawn with --tokens library: each shows the library picture (a training picture, without "
        "--library) that fits the signals best, drawn anew, and no predicted tokens"
    ]


def _seen(rows: dict[str, torch.Tensor], targets: torch.Tensor, ids: list[str]) -> list[str]:
    """Sentences about pictures of one colour and about copies, which are scored as they stand."""
    from recon.evaluation.picture_scores import OWN
    from recon.metrics import copies, flat

    parts = {
        "reconstructions": rows[OWN],
        "pictures of the control oracle": rows.get("oracle"),
        "seen pictures": targets,
    }
    shown = {what: x for what, x in parts.items() if x is not None}
    return [note for what, x in shown.items() for kind in (flat, copies) for note in kind.notes_of(x, ids, what)]


def _retrieval(run_data: RunData, settings: EvaluateConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ``retrieval`` part, and per stimulus the rank of the own picture and the five nearest pictures."""
    from align import retrieval

    ids = list(run_data.predictions.ids)
    candidates = run_data.picture_embeds([run_data.row[stimulus_id] for stimulus_id in ids])
    similarity = retrieval.scores(run_data.predictions.embeds, candidates)
    part = retrieval.report(similarity, n_boot=settings.n_boot, n_perm=settings.n_perm, seed=settings.seed)
    stimuli = by_stimulus(ids, similarity, retrieval.per_stimulus(similarity))
    return {"n_stimuli": len(ids), "retrieval": part, "notes": run_data.notes}, stimuli


def by_stimulus(ids: list[str], similarity: np.ndarray, each: dict[str, Any]) -> dict[str, Any]:
    """Ids of the five nearest pictures, rank of the own one, and all scores of every stimulus.

    similarity: (n, n), rows and columns in the order of ``ids``. each: as `align.retrieval.per_stimulus` gives it.
    """
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :TOP]
    retrieved = {ids[i]: [ids[k] for k in best[i]] for i in range(len(ids))}
    rank = dict(zip(ids, each["brain_to_image"]["rank"], strict=True))
    return {"retrieved": retrieved, "rank": rank, "per_stimulus": {"ids": ids, **each}}


def _write(run: Run, report: dict[str, Any], stimuli: dict[str, Any], *, keep: bool) -> dict[str, Any]:
    """Write both files; with ``keep`` the new parts are laid over what the same training of the run has on disk.

    Of several processes that were launched together, the first one writes.
    """
    if not launched.is_first():
        return Report(report)
    stimuli = {"run": report["run"], **stimuli}
    with report_lock(run):
        for path, new in ((report_path(run), report), (stimuli_path(run), stimuli)):
            old = _kept(path) if keep else {}
            if old.get("run") == new["run"] and old.get("schema") == new.get("schema"):
                kept = {key: value for key, value in old.items() if key not in new}
                if "reconstruction" in kept:  # n_stimuli counts the pictures where there are any
                    new["n_stimuli"] = old["n_stimuli"]
                    if "notes" in new:  # those on the pictures stand beside their scores
                        new["notes"] = list(dict.fromkeys([*new["notes"], *old.get("notes", [])]))
                new |= kept
            write_sealed(path, new)
    return Report(report)


def _kept(path: Path) -> dict[str, Any]:
    """What is on disk; {} where it is absent or damaged."""
    try:
        old = read_json(path) if path.is_file() else {}
    except Damaged as error:
        log.warning("%s; what it held of other scores is lost: run recon evaluate again", error)
        return {}
    return old if isinstance(old, dict) else {}
