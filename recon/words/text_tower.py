"""A text tower, whatever model is behind it: texts to embeddings, and pictures to the same space where it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError

if TYPE_CHECKING:
    import torch

MINI = "mini"  # the embedded pair
_BATCH = 64


@dataclass(frozen=True)
class TextTower:
    """``read``: texts to (B, E). ``see``: pictures (B, 3, H, W) in [0, 1] to (B, E) of the same space, or None."""

    name: str
    read: Callable[[list[str]], torch.Tensor]
    see: Callable[[torch.Tensor], torch.Tensor] | None = None

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings (n, E) float32 of length 1; each different text is read once."""
        import torch

        once = list(dict.fromkeys(texts))
        with torch.no_grad():
            parts = [self.read(once[start : start + _BATCH]) for start in range(0, len(once), _BATCH)]
        unit = self._unit(parts)
        place = {text: i for i, text in enumerate(once)}
        found: np.ndarray = unit[[place[text] for text in texts]]
        return found

    def pictures(self, images: torch.Tensor) -> np.ndarray:
        """Embeddings (n, E) float32 of length 1 of pictures (n, 3, H, W); raises `UserError` without a picture side."""
        import torch

        if self.see is None:
            raise UserError(f"text tower {self.name!r} has no picture side; use {MINI} or a CLIP")
        with torch.no_grad():
            parts = [self.see(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return self._unit(parts)

    def _unit(self, parts: Sequence[torch.Tensor]) -> np.ndarray:
        """Rows of length 1; raises `UserError` for NaN and infinity."""
        import torch

        found: np.ndarray = torch.nn.functional.normalize(torch.cat(list(parts)).float(), dim=1).numpy()
        if not np.isfinite(found).all():
            raise UserError(f"text tower {self.name!r} computes NaN or infinite values; its weights are damaged")
        return found
