"""InternViT as OpenGVLab publishes it: files in their layout, and the network written out by hand.

Chen et al. 2024, arXiv 2312.14238: a plain vision transformer with RMS norms and layer scales.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional


def write_internvit(
    folder: Path, width: int, depth: int, heads: int, *, size: int = 448, shards: int = 2, norm_type: str = "rms_norm"
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """``config.json`` (with the code that must not run), bfloat16 shards, index, preprocessor; returns facts and
    tensors."""
    layer_norm = norm_type == "layer_norm"  # the 300 M kin: LayerNorm, biases, no norm of queries and keys
    facts = {
        "architectures": ["InternVisionModel"],
        "auto_map": {
            "AutoConfig": "configuration_intern_vit.InternVisionConfig",
            "AutoModel": "modeling_intern_vit.InternVisionModel",
        },
        "model_type": "intern_vit_6b",
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 2 * width,
        "image_size": size,
        "patch_size": 14,
        "num_channels": 3,
        "hidden_act": "gelu",
        "initializer_factor": 0.1,
        "layer_norm_eps": 1e-6,
        "norm_type": norm_type,
        "qk_normalization": not layer_norm,
        "qkv_bias": layer_norm,
        "torch_dtype": "bfloat16",
        "use_flash_attn": True,
    }
    (folder / "config.json").write_text(json.dumps(facts))
    for file in ("configuration_intern_vit.py", "modeling_intern_vit.py"):
        (folder / file).write_text("raise SystemExit('code of a repository was run')\n")
    own = {"do_resize": True, "size": size, "do_center_crop": True, "crop_size": size, "do_normalize": True}
    own |= {"resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    own |= {"feature_extractor_type": "CLIPFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))

    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in _shapes(facts).items():
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        state[name] = (centre + 0.1 * torch.randn(shape, generator=generator)).bfloat16()
    names = sorted(state)
    files = {f"model-{i + 1:05d}-of-{shards:05d}.safetensors": names[i::shards] for i in range(shards)}
    for file, inside in files.items():
        save_file({name: state[name] for name in inside}, folder / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, inside in files.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return facts, {name: value.float() for name, value in state.items()}


def _shapes(facts: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, patch = facts["hidden_size"], facts["intermediate_size"], facts["patch_size"]
    patches = (facts["image_size"] // patch) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (1, 1, width),
        "embeddings.position_embedding": (1, patches + 1, width),
        "embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "embeddings.patch_embedding.bias": (width,),
    }
    for k in range(facts["num_hidden_layers"]):
        block = {
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "mlp.fc1.weight": (inner, width),
            "mlp.fc1.bias": (inner,),
            "mlp.fc2.weight": (width, inner),
            "mlp.fc2.bias": (width,),
            "norm1.weight": (width,),
            "norm2.weight": (width,),
            "ls1": (width,),
            "ls2": (width,),
        }
        if facts["qk_normalization"]:
            block |= {"attn.q_norm.weight": (width,), "attn.k_norm.weight": (width,)}
        if facts["qkv_bias"]:
            block |= {"attn.qkv.bias": (3 * width,)}
        if facts["norm_type"] == "layer_norm":
            block |= {"norm1.bias": (width,), "norm2.bias": (width,)}
        shapes |= {f"encoder.layers.{k}.{name}": shape for name, shape in block.items()}
    return shapes


def internvit_states(
    facts: dict[str, Any], state: dict[str, torch.Tensor], pixels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Hidden state after the embedding ("0") and after every block, (B, 1 + patches, D)."""
    maps = functional.conv2d(
        pixels,
        state["embeddings.patch_embedding.weight"],
        state["embeddings.patch_embedding.bias"],
        facts["patch_size"],
    )
    cls = state["embeddings.class_embedding"].expand(len(pixels), -1, -1)
    x = torch.cat([cls, maps.flatten(2).mT], 1) + state["embeddings.position_embedding"]
    states = {"0": x}
    for k in range(facts["num_hidden_layers"]):
        block = {n.removeprefix(f"encoder.layers.{k}."): v for n, v in state.items() if f".layers.{k}." in n}
        x = x + block["ls1"] * _attention(facts, block, _norm(facts, block, "norm1", x))
        hidden = functional.linear(_norm(facts, block, "norm2", x), block["mlp.fc1.weight"], block["mlp.fc1.bias"])
        x = x + block["ls2"] * functional.linear(
            functional.gelu(hidden), block["mlp.fc2.weight"], block["mlp.fc2.bias"]
        )
        states[str(k + 1)] = x
    return states


def _norm(facts: dict[str, Any], block: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    if facts["norm_type"] == "layer_norm":
        return functional.layer_norm(x, x.shape[-1:], block[f"{name}.weight"], block[f"{name}.bias"], 1e-6)
    return _rms(x, block[f"{name}.weight"])


def _rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def _attention(facts: dict[str, Any], block: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    q, k, v = functional.linear(x, block["attn.qkv.weight"], block.get("attn.qkv.bias")).split(x.shape[-1], -1)
    if facts["qk_normalization"]:
        q, k = _rms(q, block["attn.q_norm.weight"]), _rms(k, block["attn.k_norm.weight"])
    size = x.shape[-1] // facts["num_attention_heads"]
    heads = []
    for h in range(facts["num_attention_heads"]):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].mT / size**0.5
        heads.append(scores.softmax(-1) @ v[..., part])
    return functional.linear(torch.cat(heads, -1), block["attn.proj.weight"], block["attn.proj.bias"])
