"""`recon demo`: the whole path on the embedded simulation for one subject, every stage done for real."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SUBJECT = "01"
# What configs/align/simulated.yaml says, whatever lies in the folder the demo is run in; a test compares the two.
RECIPE = (
    "study.name=simulated",
    "target.layer=1",
    "target.pooling=grid:8",
    "target.components=60",
    "target.chosen_on=grouped 3-fold cross-validation on training rows",
    "loss.normalize_brain=true",
    "train.epochs=40",
    "train.batch_size=230",
)
_log = logging.getLogger(__name__)


def demo(out: Path, seed: int = 0, noise: str = "low", overwrite: bool = False) -> dict[str, Any]:
    """Targets, training, prediction, retrieval, pictures, scores, gallery into ``out``; interrupted, it continues.

    ``noise``: of the simulated recording, low (as arrays of many spiking units have) or eeg. ``overwrite``: replace
    the weights of another demo in ``out``.

    Returns scores, seconds per stage and paths; the last entry is the path of the gallery page.
    """
    from align.checkpoint import load_run
    from align.config import Config, load_config
    from align.data.names import labelled
    from align.train import train
    from align.vision.targets import run as extract
    from recon.decoding.predict import predict
    from recon.drawing.generate import generate
    from recon.evaluation.report import evaluate_run
    from recon.evaluation.settings import EvaluateConfig
    from recon.gallery import gallery

    seconds: dict[str, float] = {}
    places = [f"run_dir={out}", f"cache_dir={out / 'cache'}"]
    config = load_config(
        Config, None, [*RECIPE, f"subjects=[{SUBJECT}]", f"seed={seed}", f"simulated.noise={noise}", *places]
    )
    with _stage("targets", "tokens of every picture from the frozen backbone", seconds):
        extract(config)
    with _stage("train", "the brain encoder", seconds):
        train(config, overwrite=overwrite)
    run = load_run(out)
    with _stage("predict", "tokens of the test pictures from brain signals", seconds):
        predict(run)
    with _stage("generate", "pictures from predicted and control tokens", seconds):
        generate(run)
    with _stage("evaluate", "scores beside their controls", seconds):
        # a cached CLIP or Inception would take many minutes on two cores
        report = evaluate_run(run, settings=EvaluateConfig(networks=False))
    with _stage("gallery", "the page", seconds):
        pages = gallery(run)
    return {
        "study": run.study,
        "subject": run.subject,
        "layer": run.config.target.layer,
        "n_stimuli": report["n_stimuli"],
        "retrieval": report["retrieval"]["brain_to_image"],
        "reconstruction": {name: score["value"] for name, score in report["reconstruction"].items()},
        "seconds": seconds,
        "report": str(labelled(out, "report_sub-{}.json", run.subject)),
        "gallery": pages["page"],
    }


@contextmanager
def _stage(name: str, what: str, seconds: dict[str, float]) -> Iterator[None]:
    _log.info("%s: %s", name, what)
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    _log.info("%s: %.1f s", name, seconds[name])
