"""NIfTI files of others, opened with the checks that their headers need."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.safe_load import GRACE, RATIO
from align.errors import UserError
from align.files import no_file

AFFINE_TOLERANCE = 1e-3  # mm
SUFFIXES = (".nii", ".nii.gz")


def open_image(path: Path) -> Any:
    """An image whose values are still in the file; raises `UserError` for what is no NIfTI of plain numbers."""
    import nibabel
    from nibabel.imageglobals import logger

    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}")
    if path.suffix == ".npy" and path.name.startswith("TYPE"):
        raise UserError(
            f"{str(path)!r} is GLMsingle's own file, a dictionary without an affine. Write its betas as NIfTI in "
            "Python: from align.data.reading.containers import read_container (it runs no code of the file); "
            "b = read_container(FILE)['betasmd'].open(); nibabel.save(nibabel.Nifti1Image(b, affine), 'betas.nii.gz'), "
            "with the affine of your functional runs"
        )
    if not path.name.lower().endswith(SUFFIXES):
        raise UserError(f"{str(path)!r} is no NIfTI file; known endings: {', '.join(SUFFIXES)}")
    try:
        with _silent(logger):  # it would comment on every odd header
            image: Any = nibabel.load(path, keep_file_open=True)  # what is compressed is unpacked once, start to end
            shape, affine = tuple(image.shape), np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # the library raises whatever it likes on broken bytes
        raise unreadable(path, error) from error
    if math.prod(shape) * image.get_data_dtype().itemsize > GRACE + RATIO * path.stat().st_size:
        raise UserError(f"{str(path)!r} announces the shape {shape}, far more than the file holds")
    if not np.isfinite(affine).all() or image.get_data_dtype().kind not in "biuf":
        raise UserError(f"{str(path)!r} holds {image.get_data_dtype()} or has no affine; store plain numbers")
    return image


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def unreadable(path: Path, error: Exception) -> UserError:
    """What is said of a file that the library cannot read."""
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(f"{str(path)!r} is truncated or no NIfTI file ({text}); write or fetch it again")
