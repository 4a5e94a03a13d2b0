"""One caption for each picture of NSD: from a table of captions, or from COCO's own annotations.

- ``COCO_73k_annots_curated.npy`` (pscotti/naturalscenesdataset): five captions of every picture;
- ``captions_train2017.json`` and ``captions_val2017.json`` of COCO (``annotations_trainval2017.zip``), with NSD's
  ``nsd_stim_info_merged.csv``, which says which picture of COCO each of the 73,000 is.

They lie in ``study.root``, ``study.images`` or a folder of one of them. The table comes first where both are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.convert import open_container
from align.data.reading.stored_array import StoredArray
from align.errors import UserError
from align.files import read_json
from align.files.table import read_rows

TABLE = "COCO_73k_annots_curated.npy"
INFO = "nsd_stim_info_merged.csv"
ANNOTATIONS = "captions_{}.json"
SPLITS = ("train2017", "val2017")
_FOLDERS = (".", "evals", "annotations")
_COLUMNS = ("nsdId", "cocoId", "cocoSplit")
_SHAPE = {"annotations": [{"image_id": int, "id": int, "caption": str}]}


def read_captions(images: Path, root: Path, shown: Sequence[int]) -> tuple[str, ...]:
    """The first caption that is not empty of each of the pictures ``shown`` (rows of COCO-73k); "" where none is known.

    Raises `UserError` for files that are there and hold something else.
    """
    table = _found(TABLE, images, root)
    if table is not None:
        return _of_table(table, shown)
    info = _found(INFO, images, root)
    files = {split: _found(ANNOTATIONS.format(split), images, root) for split in SPLITS}
    if info is None or not any(files.values()):
        return ("",) * len(shown)
    return _of_coco(info, files, shown)


def _found(name: str, *bases: Path) -> Path | None:
    return next(
        (base / folder / name for base in bases for folder in _FOLDERS if (base / folder / name).is_file()), None
    )


def _of_table(path: Path, shown: Sequence[int]) -> tuple[str, ...]:
    """Of texts (73000, 5), or (73000,)."""
    stored: Any = open_container(path)
    table = stored.open() if isinstance(stored, StoredArray) else np.empty(0)
    if table.ndim not in (1, 2) or table.dtype.kind not in "UO" or len(table) <= max(shown, default=-1):
        raise UserError(f"{str(path)!r} holds {table.dtype} {table.shape}, expected texts (pictures, captions)")
    return tuple(_first(str(text) for text in np.atleast_1d(table[row])) for row in shown)


def _of_coco(info: Path, files: dict[str, Path | None], shown: Sequence[int]) -> tuple[str, ...]:
    """Of the annotations with the lowest numbers."""
    place = _coco_pictures(info, set(shown))
    texts: dict[tuple[str, int], list[tuple[int, str]]] = {}
    wanted = set(place.values())
    for split, path in files.items():
        if path is None or not any(name == split for name, _ in wanted):
            continue
        for item in read_json(path, _SHAPE)["annotations"]:
            if (split, item["image_id"]) in wanted:
                texts.setdefault((split, item["image_id"]), []).append((item["id"], item["caption"]))
    if not texts and any(files[split] for split, _ in wanted if split in files):
        raise UserError(f"{str(info)!r} and the captions of COCO name no picture in common; fetch both again")
    return tuple(_first(text for _, text in sorted(texts.get(place[row], []))) for row in shown)


def _coco_pictures(info: Path, shown: set[int]) -> dict[int, tuple[str, int]]:
    """COCO's split and number of each of the pictures ``shown``."""
    found: dict[int, tuple[str, int]] = {}
    for number, row in enumerate(read_rows(info, _COLUMNS, "fetch it again"), 1):
        try:
            own, coco = int(row["nsdId"]), int(row["cocoId"])
        except ValueError as error:
            raise UserError(
                f"{str(info)!r}, row {number}: nsdId or cocoId is no whole number; fetch it again"
            ) from error
        if own in shown:
            found[own] = (row["cocoSplit"], coco)
    lacking = sorted(shown - set(found))
    if lacking:
        raise UserError(f"{str(info)!r} lacks picture {lacking[0]} ({len(lacking)} such); fetch it again")
    return found


def _first(texts: Any) -> str:
    return next((text for text in (" ".join(text.split()) for text in texts) if text), "")
