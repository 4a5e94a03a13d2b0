"""The card of a run, `README.md` in its folder."""

from __future__ import annotations

from typing import Any

from align.checkpoint.names import MODEL
from align.config import Config

LIBRARY = "shallow-recon"  # what model cards name


def card(config: Config, meta: dict[str, Any], manifest: dict[str, Any]) -> str:
    train, test = manifest["train"], manifest["test"]
    facts = {
        "study": meta["study"],
        "subject": ", ".join(meta["subjects"]),
        "trained on": f"subject {', '.join(meta['trained_on'])}",
        "target": f"{config.backbone.name}, layer {config.target.layer}, pooling {config.target.pooling}",
        "layer chosen on": config.target.chosen_on,
        "encoder": config.encoder.name,
        "seed": config.seed,
        "training rows": f"{train['n_trials']} trials of {len(train['ids'])} pictures",
        "test pictures": f"{len(test['ids'])}, not read in training",
        "weights": f"SHA-256 {meta['weights_hash']}" if "weights_hash" in meta else MODEL,
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    header = f"---\nlibrary_name: {LIBRARY}\ntags: [brain-decoding, {meta['study']}]\n---\n"
    return (
        f"{header}\n# Brain encoder: {meta['study']}, subject {', '.join(meta['subjects'])}\n\n"
        f"Predicts embeds and backbone tokens of the picture that was seen from a recording. {_valid_for(meta)}\n\n"
        f"| | |\n|---|---|\n{lines}\n\n"
        "**Made by** `python -m align.train --config config.yaml`. **Scores** are in `report_sub-*.json` once "
        "`recon evaluate` has run; the last epoch is kept, no test row steers training.\n\n"
        "**Limits.** Valid for recordings made and prepared in the same way only. Predictions show what the decoder "
        "expects from its training pictures; they are not a recording of thought. The terms of the study's data "
        "apply.\n"
    )


def _valid_for(meta: dict[str, Any]) -> str:
    if "adapted" in meta:
        return f"Adapted to this subject ({meta['adapted']}); of the others only what people share was taken."
    if meta["subjects"] == meta["trained_on"]:
        return "For the subjects it was trained on." if len(meta["subjects"]) > 1 else "For this subject only."
    return "No recording of the subject it is tested on took part in training."
