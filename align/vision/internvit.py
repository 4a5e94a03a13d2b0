"""InternViT as its authors publish it (OpenGVLab/InternViT-6B-448px-V1-5 and its kin), without running their code.

Their repositories hold safetensors, a ``config.json`` of type ``intern_vit_6b`` and Python files that the hub would
have transformers run. The same network is part of transformers as ``InternVLVisionModel``: this module renames the
tensors. Published layout: one ``qkv`` matrix per block (queries, keys, values one above the other), ``ls1``/``ls2``,
``norm1``/``norm2``; 45 blocks of width 3200 for the 448 px models of 6 B, 1 CLS token before 32 x 32 patches.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.files import read_json, require_openable
from align.vision.weights import check_fit, hub_file

MODEL_TYPE = "intern_vit_6b"  # in config.json, whatever the number of parameters
_INDEX = "model.safetensors.index.json"
_RENAMED = (
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^embeddings\.position_embedding$", "embeddings.position_embeddings"),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.", ".attention."),
    (r"\.ls([12])$", r".lambda_\1"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


def load(config: BackboneConfig, source: str, facts: dict[str, Any], *, local: bool) -> nn.Module:
    """The model in float32; memory stays at one copy of it (22 GB for 6 B) and one tensor.

    Raises
    ------
    UserError
        Tensors missing, unknown or of another shape, a truncated file.
    """
    from transformers import InternVLVisionModel

    folder = Path(source) if local else _download(source, config.revision)
    with torch.device("meta"):
        model = InternVLVisionModel(vision_config(facts))
    state = _read(folder)
    check_fit(model, state, config)
    model.load_state_dict(state, assign=True)
    return model


def vision_config(facts: dict[str, Any]) -> Any:
    """The library's configuration for a published ``config.json``; what the file leaves out is as in their code."""
    from transformers import InternVLVisionConfig

    eps = facts.get("layer_norm_eps", 1e-6)
    if facts.get("qk_normalization", True) and eps != 1e-6:
        raise UserError(f"layer_norm_eps={eps} of this InternViT is not supported with qk_normalization, only 1e-6")
    return InternVLVisionConfig(
        hidden_size=facts["hidden_size"],
        num_hidden_layers=facts["num_hidden_layers"],
        num_attention_heads=facts["num_attention_heads"],
        intermediate_size=facts["intermediate_size"],
        image_size=facts["image_size"],
        patch_size=facts["patch_size"],
        hidden_act=facts.get("hidden_act", "gelu"),
        attention_bias=facts.get("qkv_bias", False),
        use_qk_norm=facts.get("qk_normalization", True),
        norm_type=facts.get("norm_type", "rms_norm"),
        layer_norm_eps=eps,
    )


def _download(repository: str, revision: str | None) -> Path:
    """The folder with index and shards, or the one file; only these are fetched, never the Python files beside them."""
    try:
        index = hub_file(repository, _INDEX, revision)
    except OSError:
        return hub_file(repository, "model.safetensors", revision).parent
    for name in _shards(index):
        hub_file(repository, name, revision)
    return index.parent


def _shards(index: Path) -> list[str]:
    return sorted(set(read_json(index)["weight_map"].values()))


def _read(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors under the library's names, float32, from one file or from the shards that the index names."""
    from safetensors import SafetensorError, safe_open

    index = folder / _INDEX
    names = _shards(index) if index.is_file() else ["model.safetensors"]
    state: dict[str, torch.Tensor] = {}
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"{str(folder / name)!r} does not exist; fetch the whole folder again")
        require_openable(folder / name)
        try:
            with safe_open(str(folder / name), framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - no mapping
                    state |= _renamed(key, file.get_tensor(key).float())
        except SafetensorError as error:
            raise UserError(f"{str(folder / name)!r} is not a whole safetensors file: {error}") from error
    return state


def _renamed(key: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """One published tensor under the library's name; ``qkv`` becomes three."""
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    if ".qkv." not in key:
        return {key: value}
    parts = zip("qkv", value.chunk(3), strict=True)
    return {key.replace(".qkv.", f".{letter}_proj."): part.clone() for letter, part in parts}
