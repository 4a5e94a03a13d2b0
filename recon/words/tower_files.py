"""Files to models of transformers and open_clip, each wrapped as a `recon.words.text_tower.TextTower`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from align.errors import UserError
from align.files import read_json, read_tensors
from align.vision import mini_weights
from align.vision.transformers_models import quiet_transformers
from recon.generation.places import mini_folder
from recon.words.fits import require_words
from recon.words.text_tower import TextTower

_HALF = 0.5  # mean and deviation of the pixels that the embedded pair reads
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_WEIGHTS: dict[str, Any] = {**_LOCAL, "dtype": torch.float32, "use_safetensors": True}


def load_mini(name: str) -> TextTower:
    """The embedded pair: the generator's text encoder with its projection, and the ``mini`` vision model."""
    from transformers import AutoTokenizer, CLIPTextModel, CLIPVisionModelWithProjection

    folder = mini_folder()
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", **_LOCAL)
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", **_WEIGHTS).eval()
    projection = read_tensors(folder / "text_projection.safetensors")[0]["weight"].float()

    def read(texts: list[str]) -> torch.Tensor:
        return text(**_tokens(tokenizer, texts)).pooler_output @ projection.T

    @cache
    def vision() -> Any:
        with quiet_transformers():
            return CLIPVisionModelWithProjection.from_pretrained(mini_weights(), **_WEIGHTS).eval()

    def see(images: torch.Tensor) -> torch.Tensor:
        pixels = _resized(images, vision().config.image_size)
        return vision()(pixel_values=(pixels - _HALF) / _HALF).image_embeds

    return TextTower(name, read, see)


def load_pair(name: str, folder: Path) -> TextTower:
    """A CLIP or SigLIP of transformers."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
        model = _whole(AutoModel, name, folder)
        processor = None
        if (folder / "preprocessor_config.json").is_file():
            processor = AutoImageProcessor.from_pretrained(folder, **_LOCAL)
    require_words(tokenizer, model.config, f"text tower {name!r}")
    longest = model.config.text_config.max_position_embeddings
    # SigLIP was trained on texts that are filled up to their full length
    options = {} if model.config.model_type == "clip" else {"padding": "max_length"}

    def read(texts: list[str]) -> torch.Tensor:
        tokens = _tokens(tokenizer, texts, longest, **options)
        return _pooled(model.get_text_features(**{key: tokens[key] for key in _read_by(model, tokens)}))

    def see(images: torch.Tensor) -> torch.Tensor:
        assert processor is not None
        pixels = processor(images=list(images), return_tensors="pt", do_rescale=False)["pixel_values"]
        return _pooled(model.get_image_features(pixel_values=pixels))

    return TextTower(name, read, None if processor is None else see)


def _read_by(model: Any, tokens: dict[str, torch.Tensor]) -> list[str]:
    """SigLIP was trained without a mask."""
    return [key for key in tokens if key == "input_ids" or model.config.model_type == "clip"]


def load_encoder(name: str, folder: Path) -> TextTower:
    """A plain text encoder: its word vectors averaged, or its first one where ``1_Pooling/config.json`` says so."""
    from transformers import AutoModel, AutoTokenizer

    pooling = folder / "1_Pooling" / "config.json"
    facts = read_json(pooling, {}, finite=False) if pooling.is_file() else {}
    first = bool(facts.get("pooling_mode_cls_token"))
    if facts and not first and not facts.get("pooling_mode_mean_tokens"):
        raise UserError(f"text tower {name!r} pools in another way than mean or first token; take another model")
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, **_LOCAL)
        model = _whole(AutoModel, name, folder)
    require_words(tokenizer, model.config, f"text tower {name!r}")
    longest = getattr(model.config, "max_position_embeddings", None)

    def read(texts: list[str]) -> torch.Tensor:
        tokens = _tokens(tokenizer, texts, longest)
        states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(states)
        return states[:, 0] if first else (states * mask).sum(1) / mask.sum(1)

    return TextTower(name, read)


def load_open_clip(name: str, folder: Path) -> TextTower:
    """A model of open_clip: ``open_clip_config.json`` and its weights in a folder."""
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{folder}", require_pretrained=True, pretrained_text=False
    )
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval().requires_grad_(False)

    def see(images: torch.Tensor) -> torch.Tensor:
        return model.encode_image(torch.stack([transform(_drawn(image)) for image in images]))

    return TextTower(name, lambda texts: model.encode_text(tokenizer(texts)), see)


def _whole(kind: Any, name: str, folder: Path) -> Any:
    """The model with every one of its tensors (a pooler, which is not read, aside)."""
    model, facts = kind.from_pretrained(folder, output_loading_info=True, **_WEIGHTS)
    absent = sorted(key for key in facts["missing_keys"] if not key.startswith("pooler."))
    if absent or facts["mismatched_keys"]:
        raise UserError(f"weights of text tower {name!r} do not fit: {(absent or sorted(facts['mismatched_keys']))[0]}")
    return model.eval().requires_grad_(False)


def _tokens(tokenizer: Any, texts: list[str], longest: int | None = None, **options: Any) -> dict[str, torch.Tensor]:
    """Numbers of the words, cut to what the model can read (``longest``, or less where the tokenizer says so)."""
    most = min(tokenizer.model_max_length, longest or tokenizer.model_max_length)
    wanted = {"padding": True, "truncation": True, "max_length": most, "return_tensors": "pt", **options}
    return dict(tokenizer(texts, **wanted))


def _pooled(output: Any) -> torch.Tensor:
    found: torch.Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    return found


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-2:] == (size, size):
        return images
    resize: Callable[..., torch.Tensor] = torch.nn.functional.interpolate
    return resize(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def _drawn(image: torch.Tensor) -> Any:
    """A picture (3, H, W) as pillow has it."""
    from PIL import Image

    return Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
