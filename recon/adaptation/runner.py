"""`recon adapt`: one new subject or each in turn; files, figure, table, and an ordinary run of what was chosen.

Nothing is carried from one new subject to the next: what is shared is fitted anew, without the subject.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from align.adaptation.contract import Method
from align.adaptation.loading import Subject, load_subject
from align.adaptation.stored import save_adapter, save_shared
from align.checkpoint import home, save_run, tensors_hash
from align.config import Config
from align.data.names import joined_name, subject_name
from align.data.places import claim, part_labels, study_labels
from align.data.signals import Recording
from align.data.splits import joint_manifest, refuse_overlap
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from recon.adaptation.curve import ADAPTED, Curve, learning_curve
from recon.adaptation.figure import plot_curve
from recon.adaptation.summary import summarise

CURVE, SUMMARY, ADAPTER = "adapt.json", "adapt_all.json", "adapter.safetensors"


def adapt(
    config: Config,
    new: Sequence[str],
    known: Sequence[str],
    methods: Sequence[Method],
    trials: Sequence[int | None],
    out: Path | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Learning curves of the subjects ``new``, each with the others of ``known`` as known people.

    Returns the content of adapt.json, of several subjects that of adapt_all.json, with ``folder``. Raises `UserError`
    for unknown subjects, nobody to learn from, a folder of another configuration.
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
    asked = {"new": list(new), "known": list(known), "methods": [m.name for m in methods], "trials": list(trials)}
    with locked(folder / ".adapt.lock", f"adapting into {str(folder)!r}", wait=None, keep=False):
        claim(folder, SUMMARY if len(new) > 1 else CURVE, config, "Choose another --out FOLDER", asked, overwrite)
        subjects: dict[str, Subject] = {}
        for name in dict.fromkeys((*known, *new)):
            subjects[name] = load_subject(study, config, backbone, name, progress)
        curves = []
        for name in new:
            others = [subjects[other] for other in known if other != name]
            place = folder if len(new) == 1 else folder / subject_name(name)
            curves.append(_one(config, subjects[name], others, methods, trials, place))
        if len(new) == 1:
            return {**curves[0], "folder": str(folder)}
        result = {"study": study.info.name, "known": list(known), **summarise(curves, trials), "of_subject": curves}
        _write(folder, SUMMARY, result, result["points"], "subjects in turn, mean")
    return {**result, "folder": str(folder)}


def _one(
    config: Config,
    new: Subject,
    others: Sequence[Subject],
    methods: Sequence[Method],
    trials: Sequence[int | None],
    folder: Path,
) -> dict[str, Any]:
    curve = learning_curve(config, new, others, methods, trials)
    run = _write_run(config, new, others, curve, folder)
    result = {
        "study": new.recording.study,
        "subject": curve.subject,
        "known": [person.name for person in curve.known],
        "held_out": curve.held_out,
        "removed": curve.removed,
        "rows": curve.rows,
        "chosen": {key: curve.chosen[key] for key in ("method", "kind", "trials")},
        "final": curve.final,
        "run": run.name,
    }
    summary = summarise([result], trials)
    _write(folder, CURVE, result, summary["points"], f"subject {curve.subject}")
    return result


def _write_run(config: Config, new: Subject, others: Sequence[Subject], curve: Curve, folder: Path) -> Path:
    """The chosen decoder as an ordinary run, with its adapter and shared part where it was adapted."""
    run, aligner = folder / "run", curve.decoder.aligner
    known = [_trimmed(other, person.pictures.hashes) for other, person in zip(others, curve.known, strict=True)]
    trained = [new.recording, *(known if curve.shared is not None else [])]
    refuse_overlap(new.recording, trained_on=trained)
    final = curve.final
    method = f"{final['method']}, {final['kind']}, {final['trials']} pictures"
    told = {
        "targets": {curve.subject: new.key},
        "n_training_rows": final["trials"],
        "weights_hash": tensors_hash(aligner.state()),
        "adapted": method,
    }
    if curve.shared is not None:
        base = _base(curve)
        digest = save_shared(run / f"shared_{base}.safetensors", curve.shared, base)
        facts = {"method": final["method"], "study": new.recording.study, "subject": curve.subject}
        save_adapter(
            run / ADAPTER, curve.decoder.personal, config, {**facts, "trials": final["trials"], "shared": digest}
        )
    save_run(run, aligner, aligner.config, joint_manifest(trained, [new.recording]), told, [new.recording])
    return run


def _base(curve: Curve) -> str:
    from align.adaptation.methods import METHODS

    return METHODS[curve.chosen["method"]].base


def _trimmed(subject: Subject, hashes: Sequence[str]) -> Recording:
    """The recording with the training trials of these pictures alone."""
    stimuli, train = subject.recording.stimuli, subject.recording.train
    kept = {i for i in subject.shown if stimuli.hashes[int(i)] in set(hashes)}
    return replace(subject.recording, train=train.take(np.flatnonzero(np.isin(train.stimulus, list(kept)))))


def _write(folder: Path, name: str, result: dict[str, Any], points: list[dict[str, Any]], title: str) -> None:
    stem = name.removesuffix(".json")
    rows = [row for curve in result.get("of_subject", [result]) for row in _flat(curve)]
    chance = float(rows[0]["test_chance_top1"])
    write_atomic(folder / f"{stem}.csv", _csv(rows))
    plot_curve(points, chance, f"{result['study']}, {title}", folder / f"{stem}.png")
    write_sealed(folder / name, result)


def _flat(curve: dict[str, Any]) -> list[dict[str, Any]]:
    plain = []
    for row in curve["rows"]:
        one = {"subject": curve["subject"], **{k: v for k, v in row.items() if k not in ("held_out", "test")}}
        for side in ("held_out", "test"):
            one |= {f"{side}_{key}": value for key, value in row[side].items() if key != "ci95_top1"}
        low, high = row["test"]["ci95_top1"] or (None, None)
        plain.append({**one, "test_top1_low": low, "test_top1_high": high})
    return plain


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _folder(config: Config, new: Sequence[str]) -> Path:
    parts, exact = part_labels(config)
    people = subject_name(new[0]) if len(new) == 1 else f"{len(new)}-subjects"
    return home() / "runs" / "adapt" / joined_name([*study_labels(config), people, *parts], exact)


def table(result: dict[str, Any]) -> str:
    """Lines for the terminal: a row per method and kind, a column per number of pictures."""
    points = result.get("points") or summarise([result], _asked(result))["points"]
    columns = list(dict.fromkeys(str(point["trials"]) for point in points))
    rows = dict.fromkeys((point["method"], point["kind"]) for point in points)
    lines = [f"{'test top-1':<28}" + "".join(f"{name:>18}" for name in columns)]
    for method, kind in rows:
        cells = [p for p in points if (p["method"], p["kind"]) == (method, kind)]
        lines.append(f"{f'{method}, {kind}':<28}" + "".join(f"{_cell(point):>18}" for point in cells))
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
