"""Picture folders of a run: finding them, and reading them as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from recon.folders import PictureFolders, base_label, read_index

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run


def find_folders(run: Run, images_dir: str | Path | None = None, generator: str | None = None) -> PictureFolders:
    """The folders to score: ``images_dir`` (what `recon generate --out` was told) or the run's own.

    Raises `UserError` when there are none, or those of several generators and none is named.
    """
    base = Path(images_dir).expanduser() if images_dir else run.path
    found = sorted(path.parent.parent.name for path in base.glob(f"reconstructions/*/sub-{run.subject}/index.csv"))
    if generator is not None:
        found = [name for name in found if name == base_label(generator)]
    if not found:
        asked = f" by {generator!r}" if generator else ""
        raise UserError(
            f"no reconstructions{asked} of subject {run.subject} under {str(base)!r}; "
            f"run: recon generate --subject {run.subject} --run {run.path}"
        )
    if len(found) > 1:
        raise UserError(f"reconstructions of several generators under {str(base)!r}: {', '.join(found)}; name one")
    return PictureFolders(base, found[0], run.subject)


def lowest_seed(folder: Path) -> int:
    """The lowest seed of a folder that has an index; never the best sample."""
    return min(int(row["seed"]) for row in read_index(folder))


def read_seed(folder: Path, seed: int) -> dict[str, dict[str, str]]:
    """Stimulus id to row of the folder's index.csv, for one seed. {} where there is no index."""
    return {row["stimulus_id"]: row for row in read_index(folder) if row["seed"] == str(seed)}


def read_pictures(folder: Path, index: dict[str, dict[str, str]], ids: Sequence[str]) -> torch.Tensor:
    """Float (n, 3, H, W) in [0, 1] of ``ids``, paired through the index, never through the order of files."""
    import torch

    return torch.stack([_read(folder / index[stimulus_id]["file"]) for stimulus_id in ids])


def _read(path: Path) -> torch.Tensor:
    import torch
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise UserError(f"picture {str(path)!r} of index.csv does not exist; generate the pictures again") from error
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"picture {str(path)!r} is not a readable image; delete it and generate again") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
