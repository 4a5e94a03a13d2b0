"""Draws held-out training pictures with every candidate, scores them, and writes what is best into the run.

No test row is read: the pictures drawn are those of the inner run (`recon.tuning.inner`), whose test pictures are
training pictures of the run, and whose training has not seen them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.files import write_sealed
from recon.drawing.generate import OWN, generate
from recon.tuning.candidates import Settings, candidates, laid_over
from recon.tuning.chosen import choice_path, drawn_by
from recon.tuning.inner import inner_run
from recon.tuning.scores import RULE, choose, load_judges, score

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.data.signals import Recording
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling
    from recon.evaluation.settings import EvaluateConfig
    from recon.generation.runtime import Runtime

SCHEMA = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Means:
    """What every candidate is drawn by. ``given``: settings in ``conditioning`` and ``sampling`` that could have been
    chosen and were given; they hold for every candidate that does not name them."""

    generator: str
    conditioning: Conditioning
    sampling: Sampling
    runtime: Runtime
    given: Settings


def tune(
    run: Run,
    means: Means,
    tried: Sequence[str] = (),
    held_out: int = 60,
    seed: int = 0,
    settings: EvaluateConfig | None = None,
) -> dict[str, Any]:
    """Choose among candidates on at most ``held_out`` training pictures; write ``tuning_sub-XX.json``, return it.

    ``tried``: candidates in place of the table, each ``name=value name=value``. ``seed``: which pictures are held out.
    Raises `UserError` for candidates that cannot be, for a run that cannot be trained again, and where every candidate
    fails or no judge is there.
    """
    from recon.drawing.folders import base_label
    from recon.evaluation.recordings import RunData
    from recon.evaluation.settings import EvaluateConfig

    started, settings = time.monotonic(), settings or EvaluateConfig()
    table = candidates(tried, means.conditioning.library is not None)
    if held_out < 2:
        raise UserError(f"--held-out {held_out} should be 2 or more: no picture is told from another otherwise")
    judges, missing = load_judges(run, base_label(means.generator), settings)
    inner = inner_run(run, held_out, seed)
    data = RunData(inner)
    ids = data.predictions.ids
    targets = data.targets(ids)
    found: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name, candidate in table.items():
        begun = time.monotonic()
        try:
            pictures = _drawn(inner, means, candidate, ids)
        except UserError as error:
            if tried:
                raise UserError(f"--try {name!r}: {error}") from error
            skipped[name] = " ".join(str(error).split())
            log.info("tune-pictures: %s left out: %s", name, skipped[name])
            continue
        scores = score(pictures, targets, judges, settings)
        seconds = round(time.monotonic() - begun, 1)
        found[name] = {"settings": {**means.given, **candidate}, **scores, "seconds": seconds}
        log.info("tune-pictures: %s: %s", name, _line(found[name]))
    if not found:
        raise UserError(f"no candidate can be drawn: {next(iter(skipped.values()))}")
    chosen = choose(found, judges[0].name)
    result = {
        **_facts(run, inner, means),
        "held_out": _held_out(inner, data.recording, ids),
        "judges": {judge.name: judge.source for judge in judges},
        "judges_missing": missing,
        "rule": RULE,
        "candidates": found,
        "skipped": skipped,
        "choice": chosen,
        "settings": found[chosen]["settings"],
        "chosen_on": f"{len(ids)} held-out training pictures (recon tune-pictures, candidate {chosen})",
        "seconds": round(time.monotonic() - started, 1),
    }
    write_sealed(choice_path(run), result)
    return result


def _drawn(inner: Run, means: Means, candidate: Settings, ids: Sequence[str]) -> torch.Tensor:
    """Pictures (n, 3, H, W) in [0, 1] of the held-out ``ids``, from the cache where they were drawn before."""
    from recon.drawing.folders import read_pictures, read_seed

    conditioning, sampling = laid_over(candidate, means.conditioning, means.sampling)
    key = hashlib.sha256(json.dumps({**means.given, **candidate}, sort_keys=True).encode()).hexdigest()[:16]
    out = inner.path / "drawn" / key
    drawn = generate(inner, means.generator, out, sampling, (), None, conditioning, means.runtime)
    folder = Path(drawn["folders"][OWN])
    return read_pictures(folder, read_seed(folder, sampling.seeds[0]), ids)


def _facts(run: Run, inner: Run, means: Means) -> dict[str, Any]:
    """Which run and which generator the choice holds for, and what it was made with."""
    from recon.decoding.predict import run_id
    from recon.evaluation.provenance import commit, versions

    return {
        "schema": SCHEMA,
        "study": run.study,
        "subject": run.subject,
        "run": run_id(run),
        "generator": means.generator,
        "drawn_by": drawn_by(means.generator, means.conditioning, means.sampling, means.runtime.half),
        "noise_seed": means.sampling.seeds[0],
        "inner_run": {"path": str(inner.path), "run": run_id(inner), "encoder": inner.config.encoder.name},
        "commit": commit(),
        "versions": versions(),
    }


def _held_out(inner: Run, recording: Recording, ids: Sequence[str]) -> dict[str, Any]:
    """Which pictures were held out, with their pixel hashes."""
    row = {name: i for i, name in enumerate(recording.stimuli.ids)}
    return {
        "from": "training pictures; no test row was read",
        "asked": inner.config.study.held_out,
        "seed": inner.config.study.held_out_seed,
        "n": len(ids),
        "n_train": len(set(recording.train.stimulus.tolist())),
        "ids": list(ids),
        "hashes": [recording.stimuli.hashes[row[name]] for name in ids],
    }


def _line(found: Mapping[str, Any]) -> str:
    """The scores of a candidate in a few words."""
    judged = ", ".join(f"{name.rpartition('/')[2]} {part['value']:.3f}" for name, part in found["two_way"].items())
    return f"two_way {judged}, PixCorr {found['PixCorr']['value']:.3f}, fine_power {found['fine_power']['value']:.2f}"
