"""A text for every test picture, decoded or read off its reconstruction, beside the scores of these texts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import labelled
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from align.files.table import harmless
from recon.decoding.conditions import derangement
from recon.decoding.text_space import TextDecoder, TextSettings
from recon.evaluation.provenance import head
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.text_retrieval import named
from recon.metrics.stats import bootstrap_ci, sign_flip_p
from recon.words.bank import Candidates
from recon.words.captioner import SEEN, load_captioner
from recon.words.scores import Measure, Unavailable, clip_score, meteor, rouge_l, sentence_similarity
from recon.words.towers import load_tower

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run

SHUFFLES = 20  # orders of the control


@dataclass(frozen=True)
class Drawn:
    """Which reconstructions a captioner reads: see `recon.drawing.folders.find_folders`. ``seed`` None: the lowest."""

    captioner: str
    images: Path | None = None
    generator: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ScoredTexts:
    """``found`` (n,) and ``true`` (n,) texts of the pictures ``ids`` (n,); "" where the truth is not known."""

    ids: tuple[str, ...]
    found: tuple[str, ...]
    true: tuple[str, ...]


def captions_path(run: Run) -> Path:
    """``<run>/captions_sub-<subject>.json``; the CSV has the same name."""
    return labelled(run.path, "captions_sub-{}.json", run.subject)


def caption_run(
    run: Run,
    settings: TextSettings,
    sentences: str | None = None,
    drawn: Drawn | None = None,
    evaluate: EvaluateConfig | None = None,
) -> dict[str, Any]:
    """Decode a text for every test picture, score the texts, write CSV and JSON into the run, and return the report.

    Texts are those of the bank where one is given, else of the training pictures. ``sentences``: the tower of the
    similarity of sentences, None = that of ``settings``. ``drawn``: a captioner reads reconstructions as well. Raises
    `UserError` where the run, the study, the bank, the captioner or the pictures cannot be used.
    """
    from recon.decoding.predict import open_recording

    evaluate = evaluate or EvaluateConfig()
    decoder = TextDecoder(run, open_recording(run), settings)
    parts = {"decoded": _decoded(decoder)}
    if drawn is not None:
        parts["captioner"] = _read_off(decoder, drawn)
    similarity = decoder.tower if sentences is None else load_tower(sentences)
    rows = {name: _scored(decoder, part, similarity, evaluate) for name, part in parts.items()}
    report = {
        **head(run),
        "kind": "captions",
        **named(settings),
        "penalty": decoder.alignment.mapped.penalty,
        "steps": decoder.alignment.mapped.steps,
        "bank": {"source": decoder.captions.source, "candidates": len(_candidates(decoder).texts)},
        "sentence_tower": similarity.name,
        "captioner": None if drawn is None else drawn.captioner,
        "n_stimuli": len(decoder.test_rows),
        "scores": {name: scored for name, (scored, _) in rows.items()},
        "skipped": {f"{name}.{key}": why for name, (_, skipped) in rows.items() for key, why in skipped.items()},
        "notes": _notes(decoder, drawn),
        "captions": {name: dict(zip(part.ids, part.found, strict=True)) for name, part in parts.items()},
    }
    path = captions_path(run)
    lock = labelled(run.path, ".captions_sub-{}.lock", run.subject)
    with locked(lock, f"writing {str(path)!r}", wait=None, keep=False):  # table and report are of one command
        write_atomic(path.with_suffix(".csv"), _table(decoder, parts))
        write_sealed(path, report)
    return report


def _candidates(decoder: TextDecoder) -> Candidates:
    """Texts of no picture of the study where a bank has them, else those of the training pictures."""
    further = decoder.captions.further
    return Candidates.of(further) if further else decoder.training_candidates()


def _decoded(decoder: TextDecoder) -> ScoredTexts:
    ids, true = _ids(decoder), tuple(decoder.captions.of[row] for row in decoder.test_rows)
    return ScoredTexts(ids, decoder.nearest(decoder.test_inputs, _candidates(decoder)), true)


def _read_off(decoder: TextDecoder, drawn: Drawn) -> ScoredTexts:
    """Captions of the reconstructions of this training of the run."""
    from recon.decoding.predict import run_id
    from recon.drawing.folders import find_folders, lowest_seed, read_pictures, read_seed

    folder = find_folders(decoder.run, drawn.images, drawn.generator).reconstructions
    seed = lowest_seed(folder) if drawn.seed is None else drawn.seed
    index = read_seed(folder, seed)
    others = {row["run"] for row in index.values()} - {run_id(decoder.run)}
    if others:
        raise UserError(f"{str(folder)!r} holds pictures of {sorted(others)[0]}; run recon generate again")
    text = dict(zip(_ids(decoder), (decoder.captions.of[row] for row in decoder.test_rows), strict=True))
    ids = tuple(name for name in text if name in index)
    if not ids:
        raise UserError(f"{str(folder)!r} holds no test picture of seed {seed}; run recon generate")
    found = load_captioner(drawn.captioner)(read_pictures(folder, index, list(ids)))
    return ScoredTexts(ids, tuple(found), tuple(text[name] for name in ids))


def _ids(decoder: TextDecoder) -> tuple[str, ...]:
    return tuple(decoder.recording.stimuli.ids[row] for row in decoder.test_rows)


def _scored(
    decoder: TextDecoder, texts: ScoredTexts, similarity: Any, evaluate: EvaluateConfig
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every measure of the texts whose truth is known, and what could not be computed."""
    known = [k for k, text in enumerate(texts.true) if text]
    if len(known) < 2:
        return {}, {"scores": f"{len(known)} test pictures have a true text; 2 are needed"}
    found, true = [texts.found[k] for k in known], [texts.true[k] for k in known]
    measures: dict[str, Measure] = {"METEOR": meteor, "ROUGE-L": rouge_l}
    measures[f"sentences({similarity.name})"] = sentence_similarity(similarity)
    if decoder.tower.see is not None:
        images = _pictures(decoder, [texts.ids[k] for k in known])
        measures[f"CLIPScore({decoder.tower.name})"] = clip_score(decoder.tower, images)
    scored, skipped = {}, {}
    for name, measure in measures.items():
        try:
            scored[name] = with_control(measure, found, true, evaluate)
        except Unavailable as reason:
            skipped[name] = str(reason)
    return scored, skipped


def with_control(
    measure: Measure, found: Sequence[str], true: Sequence[str], evaluate: EvaluateConfig
) -> dict[str, Any]:
    """Mean with its 95 % interval, that of the texts of other pictures (``shuffled``), and the paired p against it.

    The control is the mean of `SHUFFLES` orders in which no picture keeps its text. Signs are flipped by picture.
    """
    values = measure(found, true)
    orders = [derangement(len(found), evaluate.seed + k) for k in range(SHUFFLES)]
    shuffled = np.mean([measure([found[i] for i in order], true) for order in orders], axis=0)
    boot = {"n_boot": evaluate.n_boot, "seed": evaluate.seed}
    return {
        "value": float(values.mean()),
        "ci95": bootstrap_ci(values, **boot),
        "n": len(values),
        "shuffled": float(shuffled.mean()),
        "minus_shuffled": float((values - shuffled).mean()),
        "ci95_minus_shuffled": bootstrap_ci(values - shuffled, **boot),
        "p_vs_shuffled": sign_flip_p(values - shuffled, n_perm=evaluate.n_perm, seed=evaluate.seed),
    }


def _pictures(decoder: TextDecoder, ids: Sequence[str]) -> torch.Tensor:
    """The seen pictures (n, 3, H, W) in [0, 1]."""
    from recon.evaluation.recordings import RunData

    return RunData(decoder.run).targets(ids)


def _notes(decoder: TextDecoder, drawn: Drawn | None) -> list[str]:
    notes = ["the texts are those of training pictures"] if not decoder.captions.further else []
    if decoder.captions.stand_in:
        notes.append("the study has no captions; names of concepts stand for them")
    if decoder.tower.see is None:
        notes.append(f"no CLIPScore: text tower {decoder.tower.name} has no picture side")
    return [*notes, *([] if drawn is None else [SEEN])]


def _table(decoder: TextDecoder, parts: dict[str, ScoredTexts]) -> str:
    """Rows: id, true text, and a column for each way."""
    found = {name: dict(zip(part.ids, part.found, strict=True)) for name, part in parts.items()}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["id", "caption", *parts], lineterminator="\n")
    writer.writeheader()
    for name, row in zip(_ids(decoder), decoder.test_rows, strict=True):
        cells = {way: texts.get(name, "") for way, texts in found.items()}
        writer.writerow(harmless({"id": name, "caption": decoder.captions.of[row], **cells}))
    return text.getvalue()


def format_captions(report: dict[str, Any]) -> str:
    """The scores as lines for the terminal, and the first texts."""
    lines = [
        f"{report['study']}, subject {report['subject']}, seed {report['seed']}; {report['n_stimuli']} test pictures, "
        f"{report['bank']['candidates']} texts of {report['bank']['source']}, {report['alignment']} ({report['fit']}), "
        f"text tower {report['text_tower']}"
    ]
    for way, scores in report["scores"].items():
        for name, part in scores.items():
            low, high = part["ci95"]
            lines.append(
                f"{way:<10} {name:<20} {part['value']:.3f} [{low:.3f}, {high:.3f}]  shuffled {part['shuffled']:.3f}  "
                f"p {part['p_vs_shuffled']:.2g}  (n {part['n']})"
            )
    for way, texts in report["captions"].items():
        lines += [f"{way:<10} {name}: {text}" for name, text in list(texts.items())[:3]]
    lines += [f"note: {note}" for note in report["notes"]]
    return "\n".join(lines + [f"skipped {name}: {reason}" for name, reason in report["skipped"].items()])
