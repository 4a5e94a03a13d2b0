"""Text towers: texts to embeddings, and pictures to the same space where the tower has a picture side.

``mini`` is the embedded pair. Any other name is a local folder or a hub id, and its files say what it is: a model of
open_clip, a CLIP or SigLIP of transformers, or a plain encoder whose word vectors are averaged, which is what sentence
embeddings are (Reimers & Gurevych 2019). Weights are read from safetensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.errors import UserError
from align.files import read_json
from recon.generation.bounds import require_sensible
from recon.generation.hub import HUB_ID, fetch, listed
from recon.words.text_tower import MINI, TextTower

SENTENCES = "sentence-transformers/all-MiniLM-L6-v2"
OPTION = "--text-tower DIR"
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


def load_tower(name: str = MINI) -> TextTower:
    """The tower behind ``mini``, a local folder or a hub id.

    Raises `UserError`, one line, for a name that is none of them, files that cannot be fetched (offline), and weights
    that do not fit or are not safetensors.
    """
    from recon.words.tower_files import load_encoder, load_mini, load_open_clip, load_pair

    if name == MINI:
        return load_mini(name)
    folder = tower_folder(name)
    require_sensible(folder, f"text tower {name!r}")
    try:
        if any(map(_is_own, _files(folder))):
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
        files = _files(folder)
        if "config.json" not in files and "open_clip_config.json" not in files:
            raise UserError(f"text tower {name!r} holds neither config.json nor open_clip_config.json")
        if not any(map(_is_weight, files)):
            raise UserError(f"text tower {name!r} has no safetensors, and other weights are not read; convert it")
        return folder
    if not HUB_ID.fullmatch(name):
        raise UserError(f"text tower {name!r} is no folder and no hub id; use {MINI}, DIR or e.g. {SENTENCES}")
    return fetch_model(name, f"text tower {name!r}", OPTION, _NAMES)


def fetch_model(repository: str, what: str, option: str, names: Sequence[str]) -> Path:
    """The snapshot of a repository with its ``names`` and safetensors; raises `UserError` where it has none.

    Of weights that are there for transformers and for open_clip, those for transformers are fetched.
    """
    there = listed(repository, what, option)
    weights = [file for file in there if _is_weight(file)]
    weights = [file for file in weights if _is_own(file)] or weights
    if not weights:
        raise UserError(f"{what}: {repository} has no safetensors, and other weights are not read; {option}")
    return fetch(repository, [*weights, *(file for file in there if file in names)], what, option)


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _is_weight(file: str) -> bool:
    return "/" not in file and file.endswith((".safetensors", ".safetensors.index.json"))


def _is_own(file: str) -> bool:
    """Weights under the names of transformers."""
    return _is_weight(file) and file.startswith("model")
