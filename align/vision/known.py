"""Backbones with a configuration of their own in configs/backbones: names, pinned revisions, architectures.

Layers, tokens and sizes are not written down here: `costs.measure` reads them off the real architectures. What cannot
be had without the network is: the configurations of transformers' hub entries (public ``config.json`` and
``preprocessor_config.json`` of each repository).

A revision is the commit of the Hugging Face repository. Each one stands, for that repository, in at least two unrelated
public projects (as a pinned revision or a snapshot of a download cache). Where no such proof was found the
revision is None: the newest is taken, and the hash of the weights, which every cache records, says which weights they
were. Weights fetched by other means are passed as ``backbone.weights``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bicubic"}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}


@dataclass(frozen=True)
class Known:
    """One backbone.

    Attributes
    ----------
    name
        As in ``backbone.name``.
    revision
        Commit of its repository, or None (not pinned: could not be verified).
    model_type, architecture, preprocessing
        Of transformers only: what the repository's configuration says (sizes in px); other libraries know theirs.
    """

    name: str
    revision: str | None = None
    model_type: str = ""
    architecture: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)


def _dinov2(size: str, revision: str, width: int, blocks: int, heads: int, swiglu: bool = False) -> Known:
    facts = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads}
    facts |= {"image_size": 518, "patch_size": 14, "use_swiglu_ffn": swiglu}
    return Known(f"transformers/facebook/dinov2-{size}", revision, "dinov2", facts, {"size": 224, **_IMAGENET})


def _siglip2(name: str, revision: str, px: int, patch: int, width: int, blocks: int, heads: int, mlp: int) -> Known:
    facts = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads}
    facts |= {"intermediate_size": mlp, "image_size": px, "patch_size": patch}
    own = {"size": px, **_HALF}
    return Known(f"transformers/google/siglip2-{name}", revision, "siglip_vision_model", facts, own)


def _internvit(version: str, revision: str | None) -> Known:
    facts: dict[str, Any] = {
        "hidden_size": 3200,
        "num_hidden_layers": 45,
        "num_attention_heads": 25,
        "intermediate_size": 12800,
    }
    facts |= {"image_size": 448, "patch_size": 14, "use_qk_norm": True, "norm_type": "rms_norm"}
    name = f"transformers/OpenGVLab/InternViT-6B-448px-{version}"
    return Known(name, revision, "internvl_vision", facts, {"size": 448, **_IMAGENET})


_ALL = (
    Known("open_clip/RN50-quickgelu:openai", "ec3d92cf63a5f9d591f0d611b736895966c73076"),
    Known("open_clip/RN101-quickgelu:openai"),
    Known("open_clip/ViT-B-16:laion2b_s34b_b88k", "7288da5a0d6f0b51c4a2b27c624837a9236d0112"),
    Known("open_clip/ViT-H-14:laion2b_s32b_b79k", "1c2b8495b28150b8a4922ee1c8edee224c284c0c"),
    Known("open_clip/ViT-bigG-14:laion2b_s39b_b160k", "743c27bd53dfe508a0ade0f50698f99b39d03bec"),
    Known("open_clip/EVA02-L-14:merged2b_s4b_b131k", "bf4190eb65dd5204ffb03e980108beb1200e0873"),
    Known("open_clip/EVA02-E-14-plus:laion2b_s9b_b144k"),
    _dinov2("small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", 384, 12, 6),
    _dinov2("base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", 768, 12, 12),
    _dinov2("large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", 1024, 24, 16),
    _dinov2("giant", "611a9d42f2335e0f921f1e313ad3c1b7178d206d", 1536, 40, 24, swiglu=True),
    Known("timm/vit_base_patch16_dinov3.lvd1689m", "c6a5fb7d12bbd3cf3b0079253141c3332aaed7da"),
    Known("timm/vit_large_patch16_dinov3.lvd1689m", "30c1109559f65dea34316b0d4842d35c5771fe11"),
    Known("timm/vit_huge_plus_patch16_dinov3.lvd1689m"),
    Known("timm/vit_7b_patch16_dinov3.lvd1689m"),
    _siglip2("base-patch16-224", "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2", 224, 16, 768, 12, 12, 3072),
    _siglip2("so400m-patch14-384", "e8e487298228002f3d8a82e0cd5c8ea9c567f57f", 384, 14, 1152, 27, 16, 4304),
    Known("open_clip/ViT-gopt-16-SigLIP2-384:webli"),
    _internvit("V1-5", "03e138c81d3fd538c77439fd43a42c067d827427"),
    _internvit("V2_5", None),
    Known("timm/vit_intern300m_patch14_448.ogvl_2pt5"),
)
KNOWN: dict[str, Known] = {known.name: known for known in _ALL}
