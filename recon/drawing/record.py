"""settings.json beside reconstructions: how they were drawn, in words and numbers, and who chose it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.fields.stored import require
from align.files import read_json, write_json

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.plan import Plan

FILE = "settings.json"


def write_record(plan: Plan, folder: Path, chosen_on: str | None) -> None:
    """Of the last drawing into ``folder``. ``chosen_on``: what defaults were chosen on, None = nothing was chosen."""
    from recon.decoding.predict import run_id

    used, wanted = plan.used, plan.conditioning
    record = {
        "run": run_id(plan.run),
        "seeds": list(used.seeds),
        "tokens": plan.decoder.tokens,
        "low_level": plan.decoder.low_level,
        "strength": None if plan.decoder.low_level == "none" else used.strength,
        "steps": used.steps,
        "guidance_scale": used.guidance_scale,
        "scale": used.scale,
        "guide": None if wanted.guide is None else asdict(wanted.guide),
        "best_of": wanted.best_of,
        "library": None if wanted.library is None else str(wanted.library),
        "chosen_on": chosen_on or "not chosen by recon tune-pictures",
    }
    write_json(folder / FILE, record)


def read_record(run: Run, folder: Path, seed: int) -> dict[str, Any] | None:
    """What `write_record` wrote for pictures of this training of the run and of this seed; else None."""
    from recon.decoding.predict import run_id

    path = folder / FILE
    stored = read_json(path) if path.is_file() else None
    if stored is not None:
        require(stored, {"run": str, "seeds": [int], "chosen_on?": str}, repr(str(path)))
    own = stored is not None and stored["run"] == run_id(run) and seed in stored["seeds"]
    return stored if own else None
