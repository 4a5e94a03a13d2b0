"""The pictures that ``stimuli.csv`` of a folder of recordings names."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from align.data.names import strays
from align.data.reading.safe_load import decode_image
from align.data.signals import Stimuli
from align.data.splits import merge_groups, scene_groups, scene_twins, thumbnails
from align.data.studies.folder.table import Row
from align.errors import UserError
from align.files.labels import found_file

logger = logging.getLogger(__name__)


def stimuli_of(root: Path, shown: Sequence[Row]) -> tuple[Stimuli, list[str]]:
    """The pictures of ``shown`` and sentences about them.

    Groups join near-duplicates and, where concepts are given, pictures of one concept.
    """
    paths = [_picture_file(root, row) for row in shown]
    bare = Stimuli(
        ids=tuple(row.image for row in shown),
        load=lambda i: decode_image(paths[i]),
        groups=np.arange(len(shown)),
        concepts=tuple(row.concept for row in shown),
        captions=tuple(row.caption for row in shown),
    )
    thumbs = thumbnails(bare.load(i) for i in range(len(bare)))
    groups = merge_groups(scene_groups(thumbs, bare.hashes), bare.concepts)
    return replace(bare, groups=groups), _near_duplicates(thumbs, shown)


def _picture_file(root: Path, row: Row) -> Path:
    found = found_file((root / row.image, root / "images" / row.image))
    if found is not None:
        return found
    raise UserError(f"stimuli.csv line {row.line}: image {row.image!r} is neither in the folder nor in its images/")


def outside(root: Path, shown: Sequence[Row]) -> list[str]:
    """A sentence about pictures that lie outside the study's folder, also by way of a link; told once in the log."""
    away = strays(root, [_picture_file(root, row) for row in shown])
    if not away:
        return []
    first = shown[away[0]]
    text = (
        f"{len(away)} of {len(shown)} pictures lie outside the study's folder, the first is {first.image!r} "
        f"(stimuli.csv line {first.line}); that is right after import with --link, else ask where they come from"
    )
    _tell(str(root), text)
    return [text]


@cache
def _tell(root: str, text: str) -> None:
    """Once per study and sentence."""
    logger.warning("%s: %s", root, text)


def _near_duplicates(thumbs: np.ndarray, shown: Sequence[Row]) -> list[str]:
    """A sentence naming training pictures that look like a test picture (thumbnail r > .97)."""
    train = [i for i, row in enumerate(shown) if row.split == "train"]
    test = [i for i, row in enumerate(shown) if row.split == "test"]
    twins = scene_twins(thumbs[train], thumbs[test], [], [])
    names = [shown[i].image for i, twin in zip(train, twins, strict=True) if twin]
    if not names:
        return []
    head = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"kept {len(names)} training pictures that look like a test picture (thumbnail r > .97): {head}"]
