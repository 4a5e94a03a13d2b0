"""settings.json beside reconstructions: how they were drawn, in words and numbers, and who chose it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import Damaged
from align.files import locked, read_json, write_sealed
from align.files.json_text import reading

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.plan import Plan

log = logging.getLogger(__name__)
FILE = "settings.json"
NOT_TUNED = "not chosen by recon tune-pictures"
_ASKED, _MEASURED = "asked", "measured"
_SHAPE = {
    "run?": str,
    "seeds?": [int],
    "chosen_on?": (str, None),
    "drawing?": str,
    f"{_ASKED}?": {"run": str, "seeds": {str: int}},
}


def write_record(plan: Plan, folder: Path, chosen_on: str | None, measured: dict[str, Any] | None = None) -> None:
    """Of the last drawing into ``folder``, and of those before it that were drawn alike.

    ``chosen_on``: what defaults were chosen on, None = nothing was chosen. ``measured``: what the drawing took (see
    `align.tracking.Stopwatch`); None where nothing was drawn, which leaves what stands there.
    """
    from recon.decoding.predict import run_id

    used, wanted = plan.used, plan.conditioning
    record = {
        "run": run_id(plan.run),
        "drawing": plan.drawing,
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
        **({} if wanted.words == "none" else {"words": wanted.words, "text_tower": wanted.text_tower}),
        "chosen_on": chosen_on or NOT_TUNED,
    }
    with _writing(folder):
        before = _known(folder)
        kept = {key: value for key, value in before.items() if key in record and key != "seeds"}
        if kept == {key: value for key, value in record.items() if key != "seeds"}:
            record["seeds"] = sorted({*before["seeds"], *used.seeds})
        stays = {key: before[key] for key in (_ASKED, _MEASURED) if key in before}
        write_sealed(folder / FILE, {**record, **stays, **({} if measured is None else {_MEASURED: measured})})


def write_asked(plan: Plan, folder: Path, seeds: Sequence[int]) -> None:
    """Of a drawing that begins: how many pictures of each of ``seeds`` the folder will hold when it is whole."""
    from recon.decoding.predict import run_id

    own, asked = run_id(plan.run), {str(seed): len(plan.decoder.ids) for seed in seeds}
    with _writing(folder):
        before = _known(folder)
        earlier = before.get(_ASKED, {})
        kept = earlier.get("seeds", {}) if earlier.get("run") == own else {}
        write_sealed(folder / FILE, {**before, _ASKED: {"run": own, "seeds": {**kept, **asked}}})


def read_asked(folder: Path, run_id: str) -> dict[int, int]:
    """By seed the number of pictures that was asked for; {} where nothing says so (as before this was written).

    Raises `UserError` for a damaged file.
    """
    asked = _read(folder).get(_ASKED, {})
    with reading(repr(str(folder / FILE))):
        return {int(seed): n for seed, n in asked["seeds"].items()} if asked.get("run") == run_id else {}


def read_record(run: Run, folder: Path, seed: int, drawing: str | None = None) -> dict[str, Any] | None:
    """What `write_record` wrote for pictures of this training of the run, of this seed and of this `Plan.drawing`
    ("" of older ones, None: of any); else None."""
    from recon.decoding.predict import run_id

    stored = _read(folder)
    if stored.get("run") != run_id(run) or seed not in stored.get("seeds", []):
        return None
    if drawing not in (None, stored.get("drawing", "")):
        return None
    return {key: value for key, value in stored.items() if key != _ASKED}


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    return dict(read_json(path, _SHAPE)) if path.is_file() else {}


def _known(folder: Path) -> dict[str, Any]:
    """What is kept of it when it is written again; nothing of a damaged file."""
    try:
        return _read(folder)
    except Damaged as error:
        log.warning("%s; it is written anew", error)
        return {}


def _writing(folder: Path) -> AbstractContextManager[None]:
    """Other seeds of the same folder may be drawn at the same time."""
    return locked(folder / ".settings.lock", f"writing {str(folder / FILE)!r}", wait=None, keep=False)
