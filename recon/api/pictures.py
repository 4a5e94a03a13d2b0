"""`Pictures`: what was drawn, beside what was seen; scored, shown and stored."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.notebook import grid_table, thumbnail

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 6  # pictures in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Pictures:
    """Reconstructions and, where they are known, the pictures that were seen.

    Attributes
    ----------
    images : ndarray of shape (n, seeds, 3, H, W), float32 in [0, 1]
        One picture per trial (or test picture) and seed.
    ids : tuple of str
        Name of the seen picture, or the place of the trial.
    seeds : tuple of int
        Of the starting noise.
    targets : list of ndarray of shape (3, H, W), float32 in [0, 1], or None
        What was seen; sizes may differ between pictures.
    folder : pathlib.Path or None
        Where the files lie, with their index.csv; None = in memory only.
    generator : str
        Name of the generator, with what was unusual about its use.
    """

    images: np.ndarray
    ids: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    targets: list[np.ndarray] | None = None
    folder: Path | None = None
    generator: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def evaluate(
        self, metrics: Sequence[str | Callable[..., Any]] | None = None, targets: Any = None, **options: Any
    ) -> pd.DataFrame:
        """Score the pictures against what was seen: the table of `recon.evaluate_images`.

        Parameters
        ----------
        metrics : sequence of str or callable, optional
            Names (PixCorr, SSIM, CLIP, ...), or functions ``(reconstructions, targets) -> (n,)`` of two float arrays
            (n, 3, S, S) in [0, 1]. A function's row carries its ``__name__``; an attribute ``better = "lower"`` says
            that small is good.
        targets : array (n, H, W, 3) or (n, 3, H, W), optional
            What was seen, where the pictures do not know it.
        **options
            Of `recon.evaluate_images`: preset, weights_dir, n_boot, n_perm, ...

        Returns
        -------
        pandas.DataFrame
            One row per metric, with interval, controls and p; reasons for what was skipped in ``.attrs["skipped"]``.

        Raises
        ------
        UserError
            No targets, unknown metrics, a function that gives no (n,) numbers.
        """
        from recon.scoring.images import evaluate_images

        truth = self._square_targets() if targets is None else targets
        return evaluate_images(self.images, truth, metrics=metrics, **options)

    def gallery(self, path: str | Path) -> Path:
        """Write a page of all pictures beside what was seen; it needs nothing else and works offline.

        ``path``: a file .html, or a sheet of pictures as .png. Returns it. Raises `UserError` for another ending.
        """
        out = Path(path).expanduser()
        if out.suffix.lower() == ".html":
            from align.files import write_atomic

            title = html.escape(f"{self.generator}: {len(self)} pictures, seeds {', '.join(map(str, self.seeds))}")
            write_atomic(
                out, f'<!doctype html><meta charset="utf-8"><title>{title}</title>{self._table(len(self), 96)}'
            )
        elif out.suffix.lower() == ".png":
            self._sheet(out)
        else:
            raise UserError(f"{str(out)!r} should end in .html or .png")
        return out

    def save(self, folder: str | Path) -> Path:
        """Write every picture as PNG with an index.csv, in the layout of ``recon generate``; returns the folder.

        Raises `UserError` where it holds an index.csv already.
        """
        from recon.drawing.folders import DIGEST, safe_names, write_index, write_png

        out = Path(folder).expanduser()
        if (out / "index.csv").exists():
            raise UserError(f"{str(out)!r} holds pictures already; give another folder")
        rows = []
        for column, seed in enumerate(self.seeds):
            for row, (name, stem) in enumerate(zip(self.ids, safe_names(self.ids), strict=True)):
                file = f"{stem}_seed-{seed}.png"
                digest = write_png(out / file, self.images[row, column])
                rows.append({"stimulus_id": name, "file": file, "seed": seed, DIGEST: digest})
        write_index(out, rows)
        return out

    def _square_targets(self) -> np.ndarray:
        """(n, 3, S, S): their own size where they are alike and square, else 256 px as the metrics take them."""
        if self.targets is None:
            raise UserError("what was seen is not known; pass targets, one picture per row")
        shapes = {target.shape for target in self.targets}
        if len(shapes) == 1 and len({*next(iter(shapes))[1:]}) == 1:
            return np.stack(self.targets)
        import torch

        from recon.metrics.pixels import enter

        return np.stack([enter(torch.from_numpy(target)[None])[0].numpy() for target in self.targets])

    def _sheet(self, path: Path) -> None:
        from PIL import Image

        from align.files import atomic_path

        side, columns = self.images.shape[-1], len(self.seeds) + (self.targets is not None)
        sheet = Image.new("RGB", (columns * side, len(self) * side))
        for row in range(len(self)):
            line = ([] if self.targets is None else [self.targets[row]]) + list(self.images[row])
            for column, pixels in enumerate(line):
                picture = Image.fromarray(_bytes(pixels)).resize((side, side))
                sheet.paste(picture, (column * side, row * side))
        with atomic_path(path) as temporary:
            sheet.save(temporary, "PNG")

    def _table(self, count: int, side: int = 64) -> str:
        columns = ["picture", *([] if self.targets is None else ["seen"]), *(f"seed {seed}" for seed in self.seeds)]
        rows = [
            [
                self.ids[i],
                *([] if self.targets is None else [thumbnail(self.targets[i], side)]),
                *(thumbnail(one, side) for one in self.images[i]),
            ]
            for i in range(min(count, len(self)))
        ]
        more = f", first {count}" if count < len(self) else ""
        return grid_table(f"{len(self)} pictures by {self.generator}{more}", columns, rows)

    def __repr__(self) -> str:
        n, k, _, height, width = self.images.shape
        return f"<Pictures: {n} x {k} seed{'s' * (k != 1)}, {width} x {height} px, by {self.generator}>"

    def _repr_html_(self) -> str:
        return self._table(SHOWN)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
