"""Scores belong to the weights and pictures that they were taken of: one rule for everything that repeats them.

Where either lies beside a report and has changed since, the scores are refused. What is not there (a report that was
sent alone, pictures that were deleted with their folder) cannot be compared and is left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from align.checkpoint import weights_id
from align.data.names import listed_file
from align.errors import UserError
from recon.drawing.folders import PictureFolders, picture_bytes, read_seed


def digests(folders: PictureFolders, rows: Iterable[str], seed: int, ids: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the picture files of ``ids``, in this order, by row: the reconstructions and the controls.

    Raises `UserError` where one is not there, or is not the one that its index names.
    """
    return {name: _digest(at, read_seed(at, seed), ids) for name, at in _places(folders, rows).items()}


def joint_digest(each: Iterable[str]) -> str:
    """One hash for those of several files, in this order."""
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def require_sources(path: Path, report: Mapping[str, Any], stimuli: Mapping[str, Any]) -> None:
    """Raise `UserError` where the weights or pictures beside a report at ``path`` are not those that it scores.

    ``stimuli``: the content of the file of every stimulus that belongs to the report; {} where there is none.
    """
    _require_weights(path, report)
    if "reconstruction" in report and {"ids", "generator", "image_seed"} <= set(stimuli):
        _require_pictures(path, report, stimuli)


def _require_weights(path: Path, report: Mapping[str, Any]) -> None:
    own = weights_id(path.parent, str(report.get("subject", "")))
    if own is not None and report.get("run") not in (None, own):
        raise UserError(
            f"{str(path)!r} holds scores of {report['run']}, the weights beside it are {own}; score them again (recon "
            f"evaluate --subject {report['subject']} --run {str(path.parent)!r}), or remove the report"
        )


def _require_pictures(path: Path, report: Mapping[str, Any], stimuli: Mapping[str, Any]) -> None:
    from recon.evaluation.picture_scores import OWN

    base, ids = Path(stimuli.get("images") or path.parent), stimuli["ids"]
    listed_file(base / "reconstructions", stimuli["generator"], f"{str(path)!r}, generator")
    for name in stimuli.get("controls", ()):
        listed_file(base / "controls", name, f"{str(path)!r}, controls")
    folders = PictureFolders(base, stimuli["generator"], str(report["subject"]))
    for name, folder in _places(folders, (OWN, *stimuli.get("controls", ()))).items():
        if not (folder / "index.csv").is_file():
            continue
        index = read_seed(folder, stimuli["image_seed"])
        own = set(ids) <= set(index) and all(index[name]["run"] == report.get("run") for name in ids)
        if own:
            now, stored = _digest(folder, index, ids), stimuli.get("pictures", {}).get(name)
            own = stored is None or stored == now
        if not own:
            raise UserError(
                f"{str(path)!r} holds scores of other pictures than those that lie in {str(folder)!r} now; score them "
                f"again: recon evaluate --subject {report['subject']} --run {str(path.parent)!r}"
            )


def _places(folders: PictureFolders, rows: Iterable[str]) -> dict[str, Path]:
    from recon.evaluation.picture_scores import OWN

    return {name: folders.reconstructions if name == OWN else folders.control(name) for name in rows}


def _digest(folder: Path, index: Mapping[str, Mapping[str, str]], ids: Sequence[str]) -> str:
    """``index``: rows of the folder's index.csv by stimulus."""
    if absent := next((name for name in ids if name not in index), None):
        raise UserError(f"{str(folder)!r} lists no picture of {absent!r}; run recon generate again")
    return joint_digest(hashlib.sha256(picture_bytes(folder, index[name])).hexdigest() for name in ids)
