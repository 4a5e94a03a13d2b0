"""`recon adapt`: one new subject or each in turn; files, figure, table, and an ordinary run of what was chosen.

Nothing is carried from one new subject to the next: what is shared is fitted anew, without the subject. What is
finished is kept: the same call continues with the subjects that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.adaptation.contract import Method
from align.checkpoint import home
from align.config import Config
from align.data.names import joined_name, subject_name
from align.data.places import Claim, part_labels, study_labels
from align.errors import UserError
from align.files import locked
from recon.adaptation.curve import ADAPTED
from recon.adaptation.folds import CURVE, Fold, compute_folds
from recon.adaptation.results import write_results
from recon.adaptation.summary import summarise

SUMMARY = "adapt_all.json"
_INSTEAD = "Choose another --out FOLDER"


def adapt(
    config: Config,
    new: Sequence[str],
    known: Sequence[str],
    methods: Sequence[Method],
    trials: Sequence[int | None],
    out: Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
    jobs: int = 1,
) -> dict[str, Any]:
    """Learning curves of the subjects ``new``, each with the others of ``known`` as known people.

    ``jobs``: new subjects at a time, each in a process of its own with its share of the threads. Returns the content of
    adapt.json, of several subjects that of adapt_all.json, with ``folder``. Raises `UserError` for unknown subjects,
    nobody to learn from, a folder of another configuration.
    """
    from align.data.studies import open_study
    from align.vision.backbones import load_backbone
    from align.vision.fused import require_pooling, resolve_layers

    study = open_study(config)
    for subject in dict.fromkeys((*new, *known)):
        study.require_subject(subject)
    alone = [subject for subject in new if not set(known) - {subject}]
    if alone:
        raise UserError(f"subject {alone[0]} has nobody to learn from; name other subjects with --known")
    backbone = load_backbone(config.backbone)
    config = replace(config, target=replace(config.target, layer=resolve_layers(backbone, config.target.layer)))
    require_pooling(backbone, [config.target.layer], config.target.pooling)
    folder = out or _folder(config, new)
    asked = {"known": list(known), "methods": [m.name for m in methods], "trials": list(trials)}

    def claim(place: Path, results: str, people: Sequence[str]) -> Claim:
        return Claim(place, results, config, _INSTEAD, {"new": list(people), **asked}, overwrite)

    places = [folder if len(new) == 1 else folder / subject_name(name) for name in new]
    folds = [Fold(name, place, claim(place, CURVE, [name])) for name, place in zip(new, places, strict=True)]
    claims = [claim(folder, SUMMARY, new)] if len(new) > 1 else []
    with _alone(folder, *sorted(set(places) - {folder})):
        for one in (*claims, *(fold.claim for fold in folds)):
            one.check()
        left = [fold for fold in folds if not fold.finished]
        compute_folds(config, left, claims, known, methods, trials, jobs, progress)
        for one in claims:
            one.take()
        curves = [fold.read() for fold in folds]
        if len(new) == 1:
            return {**curves[0], "folder": str(folder)}
        result = {"study": study.info.name, "known": list(known), **summarise(curves, trials), "of_subject": curves}
        write_results(folder, SUMMARY, result, result, "subjects in turn, mean")
    return {**result, "folder": str(folder)}


@contextmanager
def _alone(*folders: Path) -> Iterator[None]:
    """Keep other processes out of ``folders``, also those that adapt to one person into one of several."""
    with ExitStack() as stack:
        for folder in folders:
            doing = f"adapting into {str(folder)!r}"
            stack.enter_context(locked(folder / ".adapt.lock", doing, wait=None, keep=False))
        yield


def _folder(config: Config, new: Sequence[str]) -> Path:
    parts, exact = part_labels(config)
    people = subject_name(new[0]) if len(new) == 1 else f"{len(new)}-subjects"
    return home() / "runs" / "adapt" / joined_name([*study_labels(config), people, *parts], exact)


def table(result: dict[str, Any]) -> str:
    """Lines for the terminal: a row per method and kind, a column per number of pictures."""
    summary = result if "points" in result else summarise([result], _asked(result))
    points = summary["points"]
    columns = list(dict.fromkeys(str(point["trials"]) for point in points))
    rows = dict.fromkeys((point["method"], point["kind"]) for point in points)
    lines = [f"{'test top-1':<28}" + "".join(f"{name:>18}" for name in columns)]
    for method, kind in rows:
        cells = [p for p in points if (p["method"], p["kind"]) == (method, kind)]
        lines.append(f"{f'{method}, {kind}':<28}" + "".join(f"{_cell(point):>18}" for point in cells))
    zero_shot = summary.get("zero_shot")
    if zero_shot:
        lines.append(f"{zero_shot['method'] + ', zero-shot':<28}{_cell(zero_shot):>18}")
    for pair in result.get("paired", []):
        against = pair["to_best_scratch"]
        if against:
            p = "" if against["p"] is None else f", p {against['p']:.3f}"
            lines.append(
                f"{pair['method']} at {pair['trials']}: {against['ratio']:.2f} times the best from scratch"
                f" (difference {against['difference']:+.3f}{p})"
            )
    return "\n".join(lines)


def _cell(point: dict[str, Any]) -> str:
    interval = "" if point["t95"] is None else f" [{point['t95'][0]:.3f}, {point['t95'][1]:.3f}]"
    return f"{point['top1']:.3f}{interval}"


def _asked(result: dict[str, Any]) -> list[int | None]:
    return sorted({row["trials"] for row in result["rows"]})


__all__ = ["ADAPTED", "adapt", "table"]
