"""Picture folders of a run: finding them, reading them as tensors, writing controls in the same layout."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.files import atomic_path, write_atomic
from recon.generate import (
    INDEX_COLUMNS,
    control_folder,
    generator_label,
    read_index,
    reconstruction_folder,
    safe_names,
)

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run


@dataclass(frozen=True)
class PictureFolders:
    """Where the pictures of one subject and one generator are. ``base`` is the run folder unless told otherwise."""

    base: Path
    generator: str
    subject: str

    @property
    def reconstructions(self) -> Path:
        """Folder of the pictures from predicted tokens."""
        return reconstruction_folder(self.base, self.generator, self.subject)

    def control(self, name: str) -> Path:
        """Folder of one control."""
        return control_folder(self.base, name, self.generator, self.subject)


def find_folders(run: Run, images_dir: str | Path | None = None, generator: str | None = None) -> PictureFolders:
    """The folders to score: ``images_dir`` (what `recon generate --out` was told) or the run's own.

    Raises `UserError` when there are none, or those of several generators and none is named.
    """
    base = Path(images_dir).expanduser() if images_dir else run.path
    found = sorted(path.parent.parent.name for path in base.glob(f"reconstructions/*/sub-{run.subject}/index.csv"))
    if generator is not None:
        found = [name for name in found if name == generator_label(generator)]
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


def write_pictures(folder: Path, ids: Sequence[str], images: torch.Tensor, *, seed: int, run_id: str) -> None:
    """Write pictures (n, 3, H, W) as PNG with an index.csv, in the layout of `recon generate`."""
    from PIL import Image

    rows = []
    for stimulus_id, name, image in zip(ids, safe_names(ids), images.numpy(), strict=True):
        file = f"{name}_seed-{seed}.png"
        pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        with atomic_path(folder / file) as temporary:
            Image.fromarray(pixels).save(temporary)
        rows.append({"stimulus_id": stimulus_id, "file": file, "seed": seed, "run": run_id})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, INDEX_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "index.csv", buffer.getvalue())


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
