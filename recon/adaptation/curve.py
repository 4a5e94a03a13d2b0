"""The learning curve of one new person: every method at every number of pictures, adapted and from scratch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.adaptation.contract import Adapted, Method, Shared
from align.adaptation.loading import Subject, known_to
from align.adaptation.people import Person
from align.adaptation.zero_shot import same_channels, zero_shot
from align.config import Config
from align.data.held_out import chosen_pictures
from align.errors import UserError
from align.model.aligner import Aligner
from align.retrieval.measures import both_directions, scores
from align.seeding import derive
from align.tracking import logger

HELD_OUT, MOST_HELD_OUT = 0.2, 200  # share of the training pictures that choose, and their number at most
ADAPTED, SCRATCH, ZERO_SHOT = "adapted", "scratch", "zero-shot"


@dataclass(frozen=True)
class Curve:
    """``rows``: one per method, number of pictures and kind, ready for JSON.

    ``chosen``: the row with the best held-out top-1 among those of the most pictures. ``final``: the same method and
    kind once more, on all training pictures of the new person, held-out ones too; ``decoder`` and ``shared`` belong to
    it (``shared`` None: from scratch). ``known``: what known people brought, after twins were left out. ``zero_shot``:
    a row without any picture of the new person, None where channels differ.
    """

    subject: str
    rows: list[dict[str, Any]]
    chosen: dict[str, Any]
    final: dict[str, Any]
    decoder: Adapted
    shared: Shared | None
    known: list[Person]
    held_out: int
    removed: int
    shared_seconds: dict[str, float]  # of every shared part
    zero_shot: dict[str, Any] | None


def learning_curve(
    config: Config,
    new: Subject,
    others: Sequence[Subject],
    methods: Sequence[Method],
    trials: Sequence[int | None],
    n_boot: int = 2000,
) -> Curve:
    """Fit shared parts to ``others``, then adapt to ``new`` from so many of its pictures (None: all not held out).

    Smaller numbers are subsets of larger ones. Method and number are chosen on held-out training pictures of the new
    subject, whole groups of them; no choice looks at the test rows, which every decoder is scored on.
    """
    held, rest = _divided(new.train, config.seed)
    known = known_to(new, others, held)
    removed = sum(len(other.train) for other in others) - sum(map(len, known))
    shared, shared_seconds = _shared(config, known, methods, new.widths)
    order = np.random.default_rng(derive(config.seed, "adapt", new.recording.subject)).permutation(len(rest))
    counts = sorted({len(rest) if count is None else min(count, len(rest)) for count in trials})
    rows: list[dict[str, Any]] = []
    for count in counts:
        person, alone = rest.take(order[:count]), dict[str, dict[str, Any] | None]()
        for method in methods:
            if method.alone not in alone:
                alone[method.alone] = _scored(config, method, SCRATCH, shared, person, new, held, n_boot)
            scratch = alone[method.alone]
            adapted = _scored(config, method, ADAPTED, shared, person, new, held, n_boot)
            for row in (adapted, scratch and {**scratch, "method": method.name}):
                if row is not None:
                    rows.append(row)
                    logger.info("%s", said(new.recording.subject, row))
    chosen = max((row for row in rows if row["trials"] == counts[-1]), key=lambda row: row["held_out"]["top1"])
    method = next(method for method in methods if method.name == chosen["method"])
    final, decoder = _decoder(config, method, chosen["kind"], shared, new.train, new, n_boot)
    assert decoder is not None  # it was there with fewer pictures
    base = shared[method.base] if chosen["kind"] == ADAPTED else None
    line = _zero_shot(config, known, new, n_boot)
    subject = new.recording.subject
    return Curve(subject, rows, chosen, final, decoder, base, known, len(held), removed, shared_seconds, line)


def _zero_shot(config: Config, known: Sequence[Person], new: Subject, n_boot: int) -> dict[str, Any] | None:
    """The row of one decoder for all known people; None, with the reason in the log, where there can be none."""
    if not same_channels([new.train, *known]):
        return None
    try:
        aligner = zero_shot(config, known, new.widths)
    except UserError as error:
        logger.info("no zero-shot line: %s", error)
        return None
    total = sum(value.numel() for value in aligner.state().values())
    row = {"method": config.encoder.name, "kind": ZERO_SHOT, "trials": 0, "trainable": 0, "total": total}
    return {**row, "test": _score(aligner, new.test, n_boot)}


def _scored(
    config: Config,
    method: Method,
    kind: str,
    shared: dict[str, Shared],
    person: Person,
    new: Subject,
    held: Person,
    n_boot: int,
) -> dict[str, Any] | None:
    """The row of `_decoder` with its scores on held-out pictures."""
    row, found = _decoder(config, method, kind, shared, person, new, n_boot)
    return None if found is None else {**row, "held_out": _score(found.aligner, held, 0)}


def _decoder(
    config: Config,
    method: Method,
    kind: str,
    shared: dict[str, Shared],
    person: Person,
    new: Subject,
    n_boot: int,
) -> tuple[dict[str, Any], Adapted | None]:
    """A decoder fitted to ``person``, and its row; None where there is none of this kind."""
    began = time.monotonic()
    base = shared[method.base]
    found = method.adapt(config, base, person) if kind == ADAPTED else method.scratch(config, person, new.widths)
    if found is None:
        return {}, None
    row = _row(method, kind, len(person), found, time.monotonic() - began)
    return {**row, "test": _score(found.aligner, new.test, n_boot)}, found


def said(subject: str, row: dict[str, Any]) -> str:
    """One row in words."""
    held, test = row["held_out"], row["test"]
    return (
        f"{subject}: {row['method']} {row['kind']}, {row['trials']} pictures: held-out top-1 {held['top1']:.3f} of "
        f"{held['candidates']}, test {test['top1']:.3f} of {test['candidates']}, {row['seconds']:.1f} s"
    )


def _divided(train: Person, seed: int) -> tuple[Person, Person]:
    count = min(MOST_HELD_OUT, int(HELD_OUT * len(train)))
    out = chosen_pictures(train.groups, count, seed, f"subject {train.name}")
    held, rest = train.take(np.flatnonzero(out)), train.take(np.flatnonzero(~out))
    return held, rest


def _shared(
    config: Config, known: Sequence[Person], methods: Sequence[Method], widths: tuple[int, ...]
) -> tuple[dict[str, Shared], dict[str, float]]:
    """Every shared part that the methods take, and the seconds it took."""
    found: dict[str, Shared] = {}
    seconds: dict[str, float] = {}
    for method in methods:
        if method.base not in found:
            began = time.monotonic()
            found[method.base] = method.share(config, known, widths)
            seconds[method.base] = round(time.monotonic() - began, 2)
            logger.info("%s of %d people: %.1f s", method.base, len(known), seconds[method.base])
    return found, seconds


def _row(method: Method, kind: str, count: int, found: Adapted, seconds: float) -> dict[str, Any]:
    size = sum(value.numel() * value.element_size() for value in found.personal.values())
    return {
        "method": method.name,
        "kind": kind,
        "trials": count,
        "trainable": found.trainable,
        "total": found.total,
        "seconds": round(seconds, 2),
        "adapter_mb": round(size / 1e6, 3) if kind == ADAPTED else None,
    }


def _score(aligner: Aligner, person: Person, n_boot: int) -> dict[str, Any]:
    similarity = scores(aligner.predict(person.x)["embeds"], aligner.embed_images(person.tokens))
    both = both_directions(similarity, n_boot=n_boot, n_perm=0)
    forward = both["brain_to_image"]
    kept = {name: forward[name] for name in ("top1", "top5", "n", "candidates", "chance_top1", "chance_top5")}
    return {**kept, "ci95_top1": forward["ci95_top1"], "image_to_brain_top1": both["image_to_brain"]["top1"]}
