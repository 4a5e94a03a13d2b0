"""Text towers: texts to embeddings, and pictures to the same space where the tower has a picture side.

``mini`` is the embedded pair. Any other name is a local folder or a hub id, and its files say what it is: a model of
open_clip, a CLIP or SigLIP of transformers, or a plain encoder whose word vectors are averaged, which is what sentence
embeddings are (Reimers & Gurevych 2019). Weights are read from safetensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.files import read_json
from recon.generation.hub import HUB_ID, fetch, listed

if TYPE_CHECKING:
    import torch

MINI = "mini"
SENTENCES = "sentence-transformers/all-MiniLM-L6-v2"
OPTION = "--text-tower DIR"
_BATCH = 64
_NAMES = (  # files of a repository that a tower is made of, beside its safetensors
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "1_Pooling/config.json",
)


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
        unit = torch.nn.functional.normalize(torch.cat(parts).float(), dim=1).numpy()
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
        found: np.ndarray = torch.nn.functional.normalize(torch.cat(parts).float(), dim=1).numpy()
        return found


def load_tower(name: str = MINI) -> TextTower:
    """The tower behind ``mini``, a local folder or a hub id.

    Raises `UserError`, one line, for a name that is none of them, files that cannot be fetched (offline), and weights
    that do not fit or are not safetensors.
    """
    from recon.words.tower_files import load_encoder, load_mini, load_open_clip, load_pair

    if name == MINI:
        return load_mini(name)
    folder = tower_folder(name)
    try:
        if (folder / "config.json").is_file():
            kind = read_json(folder / "config.json", {}, finite=False).get("model_type")
            return (load_pair if kind in ("clip", "siglip", "siglip2") else load_encoder)(name, folder)
        return load_open_clip(name, folder)
    except UserError:
        raise
    except Exception as error:  # each library has its own exceptions
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"text tower {name!r} cannot be loaded from {str(folder)!r} ({type(error).__name__}: {reason}); it needs "
            "model.safetensors, its configuration and its tokenizer"
        ) from error


def tower_folder(name: str) -> Path:
    """The folder of a tower's files, fetched where it is a hub id that is not cached."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", "open_clip_config.json")):
            raise UserError(f"text tower {name!r} holds neither config.json nor open_clip_config.json")
        return folder
    if not HUB_ID.fullmatch(name):
        raise UserError(f"text tower {name!r} is no folder and no hub id; use {MINI}, DIR or e.g. {SENTENCES}")
    return fetch_model(name, f"text tower {name!r}", OPTION, _NAMES)


def fetch_model(repository: str, what: str, option: str, names: Sequence[str]) -> Path:
    """The snapshot of a repository with its ``names`` and safetensors; raises `UserError` where it has none."""
    files = [file for file in listed(repository, what, option) if file in names or _is_weight(file)]
    if not any(map(_is_weight, files)):
        raise UserError(f"{what}: {repository} has no safetensors, and other weights are not read; {option}")
    return fetch(repository, files, what, option)


def _is_weight(file: str) -> bool:
    return "/" not in file and file.endswith((".safetensors", ".safetensors.index.json"))
