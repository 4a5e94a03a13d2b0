"""Captions of pictures by an image-to-text model of transformers (GIT, BLIP): a hub id or a local folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.files import read_json
from recon.generation.bounds import require_sensible
from recon.generation.hub import HUB_ID
from recon.words.fits import require_words
from recon.words.towers import fetch_model

if TYPE_CHECKING:
    import torch

KINDS = ("git", "blip", "blip-2")
OPTION = "--captioner DIR"
LONGEST = 30  # tokens of a caption
SEEN = (
    "a captioner that was trained on COCO, as GIT and BLIP for captions are, has seen the pictures and captions of "
    "NSD: its scores there are no test on new pictures"
)
_BATCH = 8
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_NAMES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)

Captioner = Callable[["torch.Tensor"], list[str]]


def load_captioner(name: str) -> Captioner:
    """Pictures (n, 3, H, W) in [0, 1] to one text each, by greedy search.

    Raises `UserError`, one line, for a name that is no folder and no hub id, another kind of model, files that cannot
    be fetched, and weights that do not fit; the captioner, where it computes NaN and where all its texts are empty.
    """
    folder = _folder(name)
    require_sensible(folder, f"captioner {name!r}")
    kind = read_json(folder / "config.json", {}, finite=False).get("model_type")
    if kind not in KINDS:
        raise UserError(f"captioner {name!r} is of kind {kind!r}; use one of {', '.join(KINDS)}")
    try:
        return _load(name, folder)
    except UserError:
        raise
    except Exception as error:  # the library has its own exceptions
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise UserError(
            f"captioner {name!r} cannot be loaded from {str(folder)!r} ({type(error).__name__}: {reason}); it needs "
            "model.safetensors, its configuration, preprocessor and tokenizer"
        ) from error


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"captioner {name!r} holds no config.json")
        return folder
    if not HUB_ID.fullmatch(name):
        raise UserError(f"captioner {name!r} is no folder and no hub id, such as microsoft/git-base-coco")
    return fetch_model(name, f"captioner {name!r}", OPTION, _NAMES)


def _load(name: str, folder: Path) -> Captioner:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from align.vision.transformers_models import quiet_transformers

    with quiet_transformers():
        processor = AutoProcessor.from_pretrained(folder, **_LOCAL)
        model, facts = AutoModelForImageTextToText.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, use_safetensors=True, **_LOCAL
        )
    if facts["missing_keys"] or facts["mismatched_keys"]:
        first = sorted([*facts["missing_keys"], *map(str, facts["mismatched_keys"])])[0]
        raise UserError(f"weights of captioner {name!r} do not fit: {first}")
    require_words(processor.tokenizer, model.config, f"captioner {name!r}")
    model.eval().requires_grad_(False)
    asked: dict[str, Any] = {"max_new_tokens": LONGEST, "do_sample": False, "num_beams": 1}
    asked |= {"return_dict_in_generate": True, "output_logits": True}

    def caption(images: torch.Tensor) -> list[str]:
        found: list[str] = []
        for start in range(0, len(images), _BATCH):
            part = list(images[start : start + _BATCH])
            pixels = processor.image_processor(images=part, return_tensors="pt", do_rescale=False)["pixel_values"]
            with torch.no_grad():
                drawn = model.generate(pixel_values=pixels, **asked)
            if not all(bool(part.isfinite().all()) for part in drawn.logits):
                raise UserError(f"captioner {name!r} computes NaN or infinite values; its weights are damaged")
            found += [text.strip() for text in processor.batch_decode(drawn.sequences, skip_special_tokens=True)]
        if found and not any(found):
            raise UserError(
                f"captioner {name!r} has no word for any of {len(found)} pictures; its weights are damaged, or "
                "quantised (store them as float32)"
            )
        return found

    return caption
