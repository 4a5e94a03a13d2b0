"""From a folder, a file, an array or a tensor to a set of pictures, and two sets to a pair.

Forms taken, see `open_pictures`: a folder (`picture_folders`), a stack in a file or in memory
(`picture_stacks`). Two sets are paired by id (`paired`), never by the order of files.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.safe_load import IMAGE_SUFFIXES
from align.errors import UserError
from recon.scoring.picture_sets import OpenedPictures

logger = logging.getLogger(__name__)


def open_pictures(source: Any, *, name: str = "pictures", known: Sequence[str] | None = None) -> OpenedPictures:
    """Open a folder, a ``.npy``, ``.pt`` or ``.safetensors`` file, an array or a tensor.

    Stacks: (n, H, W, 3) or (n, 3, H, W), with k samples (n, k, ...); uint8, or float in [0, 1]. ``known``: ids of the
    targets, by which a folder tells ``STEM_0`` (a sample of STEM) from a picture whose name ends so; None where the
    targets are a stack, empty where this folder holds the targets.

    Memory: folders hold decoded pictures as uint8 up to `picture_folders.HELD` (1 GiB) and decode again beyond it;
    ``.npy`` and ``.pt`` stacks are mapped, ``.safetensors`` are read by rows, so a stack costs one batch.

    Raises
    ------
    UserError
        Foreign or unsafe file, wrong shape or range, alpha channel, sizes that differ, pictures that are not square.
    """
    from recon.scoring.picture_folders import open_folder
    from recon.scoring.picture_stacks import open_stack

    if isinstance(source, OpenedPictures):
        return source
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not path.exists():
            raise UserError(f"{name} {str(path)!r} do not exist; pass a folder or a .npy, .pt or .safetensors file")
        return open_folder(path, known) if path.is_dir() else open_stack(path, str(path))
    return open_stack(source, name)


def open_pair(reconstructions: Any, targets: Any) -> tuple[OpenedPictures, OpenedPictures]:
    """Both sets, paired: stimulus i of one is stimulus i of the other. Targets have one sample.

    Targets without reconstruction are left out, which the log says. Raises `UserError` when a reconstruction has no
    target (named), or when there are fewer than 2.
    """
    truth = open_pictures(targets, name="targets", known=())
    if truth.samples != 1:
        raise UserError(f"targets {truth.name!r} hold {truth.samples} pictures per stimulus; there can be only one")
    told = open_pictures(reconstructions, name="reconstructions", known=truth.ids)
    told, truth = _met(told, truth)
    told = paired(told, truth)
    if truth.n < 2:
        raise UserError(f"targets {truth.name!r} hold {truth.n} picture; at least 2 are needed")
    return told, truth


def paired(other: OpenedPictures, truth: OpenedPictures) -> OpenedPictures:
    """``other`` in the order of ``truth``: by id where both have ids, by row where neither has.

    A folder meets a stack where its names are the row numbers 0 ... n - 1, in any number of digits.
    """
    if truth.ids is None and other.ids is None:
        if other.n != truth.n:
            raise UserError(
                f"{other.name!r} holds {other.n} stimuli, {truth.name!r} {truth.n}; stacks are paired row by row"
            )
        return other
    if truth.ids is None or other.ids is None:
        return _by_number(other, truth)
    other = _renamed(other, truth.ids)
    assert other.ids is not None
    place = {stimulus: row for row, stimulus in enumerate(other.ids)}
    _require_same(set(other.ids), set(truth.ids), other.name, truth.name)
    return other.reordered([place[stimulus] for stimulus in truth.ids], truth.ids)


def _met(told: OpenedPictures, truth: OpenedPictures) -> tuple[OpenedPictures, OpenedPictures]:
    """Reconstructions under the names of the targets, and the targets that have one."""
    if told.ids is None or truth.ids is None:
        return told, truth
    told = _renamed(told, truth.ids)
    drawn = set(told.ids or ())
    rows = [row for row, stimulus in enumerate(truth.ids) if stimulus in drawn]
    if len(rows) == truth.n or not drawn <= set(truth.ids):
        return told, truth
    logger.warning(
        "%r: %d of %d pictures have a reconstruction in %r; these are scored, among these, the others are left out",
        *(truth.name, len(rows), truth.n, told.name),
    )
    return told, truth.reordered(rows, tuple(truth.ids[row] for row in rows))


def _renamed(other: OpenedPictures, known: Sequence[str]) -> OpenedPictures:
    """Ids such as ``faces/a.png`` as the targets have them, ``a``, and the other way round; where that is plain."""
    assert other.ids is not None
    plain = {_plain(stimulus): stimulus for stimulus in known}
    if len(plain) < len(known) or len({_plain(stimulus) for stimulus in other.ids}) < other.n:
        return other
    ids = set(known)
    names = tuple(name if name in ids else plain.get(_plain(name), name) for name in other.ids)
    return other.reordered(range(other.n), names)


def _plain(stimulus: str) -> str:
    """A name without folder and ending of a picture."""
    name = stimulus.replace("\\", "/").rsplit("/", 1)[-1]
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else name


def _by_number(other: OpenedPictures, truth: OpenedPictures) -> OpenedPictures:
    folder, stack = (other, truth) if truth.ids is None else (truth, other)
    assert folder.ids is not None
    if not all(stimulus.isdecimal() for stimulus in folder.ids):
        odd = next(stimulus for stimulus in folder.ids if not stimulus.isdecimal())
        raise UserError(
            f"{stack.name!r} is a stack without ids and {folder.name!r} holds {odd!r}; name files 0.png, 1.png, ... "
            "by row, or store the ids as JSON list 'ids' in the metadata of a .safetensors"
        )
    numbers = [int(stimulus) for stimulus in folder.ids]
    if sorted(numbers) != list(range(stack.n)):
        _require_same({str(i) for i in numbers}, {str(i) for i in range(stack.n)}, folder.name, stack.name)
        raise UserError(f"{folder.name!r} numbers a picture twice; name the files 0.png, 1.png, ... by row")
    if folder is other:
        return other.reordered(list(np.argsort(numbers)), None)
    return other.reordered(numbers, truth.ids)


def _require_same(found: set[str], wanted: set[str], name: str, other: str) -> None:
    for missing, where, elsewhere in ((wanted - found, name, other), (found - wanted, other, name)):
        if missing:
            listed = ", ".join(repr(stimulus) for stimulus in sorted(missing)[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise UserError(
                f"{where!r} holds no picture of {listed}{more}, which {elsewhere!r} holds; pair them by name"
            )
