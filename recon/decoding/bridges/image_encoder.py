"""The CLIP image encoder a public adapter was trained with: its pooled embedding, its states, its later blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from align.errors import UserError
from align.files import read_json
from align.vision.taps import Backbone, Tap
from align.vision.transformers_models import quiet_transformers
from align.vision.wrap import preprocessing
from recon.generation.bounds import require_sensible
from recon.generation.foreign import require_no_code

POOLED = "pooled"  # name of the layer that holds the projected embedding
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # Radford et al. 2021, as in the public code
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageEncoder:
    """``backbone``: its blocks by number and its embedding under `POOLED`; ``depth``: number of blocks."""

    backbone: Backbone
    model: Any
    depth: int

    def zero_states(self) -> torch.Tensor:
        """Penultimate states (1, N, H) of an all-zero input, which Plus adapters take for "no picture"."""
        size = self.backbone.preprocessing["size"]
        return self.backbone.read(
            self.backbone.model.visual_projection.weight.new_zeros(1, 3, size, size), [self.last]
        )[self.last]

    @property
    def last(self) -> str:
        """The penultimate states, which Plus adapters read: those after the last block but one."""
        return str(self.depth - 1)

    @torch.no_grad()
    def resume(self, tokens: torch.Tensor, layer: int, pooled: bool) -> torch.Tensor:
        """States (B, N, H) after block ``layer`` to the embedding (B, E), or to the penultimate states (B, N, H)."""
        vision = self.model.vision_model
        states = tokens.to(self.model.visual_projection.weight)
        for block in vision.encoder.layers[layer : self.depth if pooled else self.depth - 1]:
            out = block(states, attention_mask=None)
            states = out[0] if isinstance(out, tuple) else out
        if not pooled:
            return states
        return self.model.visual_projection(vision.post_layernorm(states[:, 0]))


def load_image_encoder(folder: Path) -> ImageEncoder:
    """A CLIP image encoder with its projection in a local folder, float32; raises `UserError` for anything else.

    Preprocessing: the folder's, else CLIP's; the whole picture is resized without a crop, as for backbones. For square
    pictures that is what the adapter saw in training.
    """
    from transformers import CLIPVisionModelWithProjection

    require_no_code(folder, f"image encoder {str(folder)!r}")
    require_sensible(folder, f"image encoder {str(folder)!r}")
    config = read_json(folder / "config.json", {"vision_config?": {}}, finite=False)
    config = config.get("vision_config", config)
    try:
        with quiet_transformers():
            model, info = CLIPVisionModelWithProjection.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # transformers fails in as many ways as folders can be broken
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"image encoder {str(folder)!r} cannot be read: {reason}") from error
    if info["missing_keys"]:
        raise UserError(f"image encoder {str(folder)!r} lacks {sorted(info['missing_keys'])[0]!r}")
    own = folder / "preprocessor_config.json"
    facts = read_json(own, {"image_mean?": [float], "image_std?": [float]}, finite=False) if own.is_file() else {}
    mean, std = facts.get("image_mean", _CLIP_MEAN), facts.get("image_std", _CLIP_STD)
    depth = model.config.num_hidden_layers
    blocks = "vision_model.encoder.layers"
    taps = {"0": Tap(f"{blocks}.0", before=True)} | {str(k): Tap(f"{blocks}.{k - 1}") for k in range(1, depth + 1)}
    backbone = Backbone(
        "image encoder",
        model,
        taps | {POOLED: Tap("visual_projection")},
        preprocessing(model.config.image_size, mean, std, "bicubic"),
        prefix=1,
        has_cls=True,
    )
    return ImageEncoder(backbone, model, depth)
