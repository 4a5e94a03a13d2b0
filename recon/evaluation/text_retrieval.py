"""Texts found from brain signals, brain rows from texts, and the category of the seen picture: scores with controls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import labelled
from align.errors import UserError
from align.files import write_sealed
from align.retrieval.measures import p_value, retrieve, scores
from recon.decoding.text_space import TextDecoder, TextSettings
from recon.evaluation.provenance import head
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.table import direction_line
from recon.words.bank import Candidates, concept_name

if TYPE_CHECKING:
    from align.checkpoint import Run

PROMPT = "a photo of a {}"
PERMUTED, ORACLE = "permuted_captions", "oracle"
PERMUTATIONS = 199


def text_report_path(run: Run, alignment: str) -> Path:
    """``<run>/text_<alignment>_sub-<subject>.json``."""
    return labelled(run.path, f"text_{alignment}_sub-{{}}.json", run.subject)


def text_report(run: Run, settings: TextSettings, evaluate: EvaluateConfig | None = None) -> dict[str, Any]:
    """Score retrieval of texts, write the report into the run and return it.

    Candidates: the different texts of the test pictures and of the bank. Controls: the same fitted to the captions of
    other training pictures, and the oracle, i.e. the true tokens of the seen pictures. Raises `UserError` where the
    run, the study or the bank cannot be scored.
    """
    from recon.decoding.predict import open_recording

    decoder, options = TextDecoder(run, open_recording(run), settings), _options(evaluate or EvaluateConfig())
    rows = decoder.captions.rows(decoder.test_rows)
    if len(rows) < 2:
        raise UserError(f"{len(rows)} test pictures of {run.study} have a text; 2 are needed (--bank FILE.csv)")
    own = np.flatnonzero(np.isin(decoder.test_rows, rows))
    candidates = Candidates.of([*(decoder.captions.of[row] for row in rows), *decoder.captions.further])
    if len(candidates.texts) < 2:
        raise UserError(f"all test pictures of {run.study} have the same text ({candidates.texts[0]!r})")
    index = candidates.index[: len(rows)]
    texts = decoder.texts(candidates.texts)
    found = directions(decoder.brain()[own], texts, index, options)
    others = (brain[own] for brain in decoder.permuted(PERMUTATIONS, run.config.seed))
    categories, skipped = _categories(decoder, options)
    report = {
        **head(run),
        "kind": "text retrieval",
        **named(settings),
        "penalty": decoder.alignment.mapped.penalty,
        "steps": decoder.alignment.mapped.steps,
        "bank": _bank(decoder, candidates, len(rows)),
        "n_stimuli": len(rows),
        "retrieval": found,
        "controls": {
            PERMUTED: permuted_captions(found, others, texts, index),
            ORACLE: directions(decoder.pictures()[own], texts, index, options),
        },
        "categories": categories,
        "skipped": skipped,
        "notes": _notes(decoder, len(decoder.test_rows) - len(rows)),
    }
    write_sealed(text_report_path(run, settings.alignment), report)
    return report


def named(settings: TextSettings) -> dict[str, Any]:
    """The settings as a report keeps them."""
    found = asdict(settings)
    return {"alignment": found["alignment"], "fit": found["fit"], "text_tower": found["tower"]}


def directions(brain: np.ndarray, texts: np.ndarray, index: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
    """Both directions: brain rows (n, E), different texts (K, E), ``index`` (n,) the right text of each row.

    In ``text_to_brain`` the queries are the texts that belong to a row, and rows of one text are averaged first, so
    that there is one right row for each.
    """
    forward = retrieve(scores(brain, texts), index, **options)
    used, whose = np.unique(index, return_inverse=True)
    rows = np.stack([brain[whose == k].mean(axis=0) for k in range(len(used))])
    backward = retrieve(scores(texts[used], rows), np.arange(len(used)), **options)
    return {"brain_to_text": forward, "text_to_brain": backward}


def permuted_captions(
    found: dict[str, Any], brains: Iterable[np.ndarray], texts: np.ndarray, index: np.ndarray
) -> dict[str, Any]:
    """What fits to permuted captions reach, by direction: mean ``top1`` and ``top5``, the 95 % range of top1 over the
    permutations, and ``p``: how often one of them reaches the top1 of ``found``, (1 + #>=) / (1 + permutations).

    ``brains``: rows (n, E) of each fit. One fit may be above or below chance by more than its pairs would suggest: the
    same wrong map is used for all pictures. That is why there are many.
    """
    scored = [directions(brain, texts, index, {"n_boot": 0, "n_perm": 0}) for brain in brains]
    parts = {}
    for direction, own in found.items():
        top1 = np.array([part[direction]["top1"] for part in scored])
        parts[direction] = {
            "top1": float(top1.mean()),
            "top5": float(np.mean([part[direction]["top5"] for part in scored])),
            "range95_top1": [float(end) for end in np.percentile(top1, [2.5, 97.5])],
            "permutations": len(top1),
            "p": p_value(own["top1"], top1),
        }
    return parts


def _categories(decoder: TextDecoder, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Which concept was seen, by the name of the concept alone; or the reason why it is not scored.

    Classes are the concepts of the test pictures. Their embeddings are centred with their own mean, since a prompt has
    another common part than a caption.
    """
    concepts = decoder.recording.stimuli.concepts
    own = np.array([k for k, row in enumerate(decoder.test_rows) if concepts[row]], dtype=np.int64)
    classes = Candidates.of([concept_name(concepts[row]) for row in decoder.test_rows[own]])
    if len(classes.texts) < 2:
        return {}, {"categories": f"the test pictures of {decoder.run.study} have {len(classes.texts)} concepts"}
    embeds = decoder.tower.texts([PROMPT.format(name) for name in classes.texts])
    similarity = scores(decoder.brain()[own], embeds - embeds.mean(axis=0))
    trained = Candidates.of([concept_name(concepts[row]) for row in np.unique(decoder.recording.train.stimulus)])
    known = sum(Candidates.of([*trained.texts, name]).index[-1] < len(trained.texts) for name in classes.texts)
    scored = retrieve(similarity, classes.index, **options)
    return {**scored, "classes": len(classes.texts), "classes_in_training": int(known), "prompt": PROMPT}, {}


def _bank(decoder: TextDecoder, candidates: Candidates, n: int) -> dict[str, Any]:
    given = n + len(decoder.captions.further)
    return {
        "source": decoder.captions.source,
        "texts": given,
        "candidates": len(candidates.texts),
        "equal_texts": given - len(candidates.texts),
        "training_texts": len(decoder.training_rows),
    }


def _notes(decoder: TextDecoder, without: int) -> list[str]:
    notes = [f"{without} test pictures have no text and are left out"] if without else []
    if decoder.captions.stand_in:
        notes.append("the study has no captions; names of concepts stand for them")
    return notes


def _options(evaluate: EvaluateConfig) -> dict[str, Any]:
    return {"n_boot": evaluate.n_boot, "n_perm": evaluate.n_perm, "seed": evaluate.seed}


def _permuted_line(name: str, part: dict[str, Any]) -> str:
    low, high = part["range95_top1"]
    return (
        f"{name:<14}  top1 {part['top1']:6.1%} ({low:.1%} to {high:.1%})  top5 {part['top5']:6.1%}  fitted to permuted "
        f"captions, {part['permutations']} times; p {part['p']:.2g}"
    )


def format_text_report(report: dict[str, Any]) -> str:
    """The report as lines for the terminal."""
    bank = report["bank"]
    lines = [
        f"{report['study']}, subject {report['subject']}, layer {report['layer']} of {report['backbone']}, seed "
        f"{report['seed']}; texts: {bank['source']}, {report['alignment']} ({report['fit']}), text tower "
        f"{report['text_tower']}",
        *(direction_line(name, part) for name, part in report["retrieval"].items()),
        *(_permuted_line(name, part) for name, part in report["controls"][PERMUTED].items()),
        "oracle, from the pictures' own tokens:",
        *(direction_line(name, part) for name, part in report["controls"][ORACLE].items()),
    ]
    if report["categories"]:
        part = report["categories"]
        lines.append(direction_line("category", part))
        lines.append(f"  of {part['classes']} classes {part['classes_in_training']} were seen in training")
    if bank["equal_texts"]:
        lines.append(f"note: {bank['equal_texts']} texts equal another one; equal texts are one candidate")
    lines += [f"note: {note}" for note in report["notes"]]
    return "\n".join(lines + [f"skipped {name}: {reason}" for name, reason in report["skipped"].items()])
