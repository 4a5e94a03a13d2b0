"""The conditioner: tokens of one backbone layer to image tokens that every cross-attention of a UNet reads.

The "full" form of IP-Adapter (Ye et al. 2023, arXiv 2308.06721): a small network maps every token to one image token,
and each cross-attention gets a second pair of key and value matrices. Attention ignores the order of its input, so
fixed 2-D position channels are appended to every token. Saved in the public layout that stock ``load_ip_adapter``
reads; the standardisation of the tokens is folded into the first linear map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterFullImageProjection
from torch import nn

from align.checkpoint import require_numbers
from align.errors import UserError
from align.files import read_tensors, require_openable, save_tensors
from align.files.json_text import reading
from recon.generation.sketch import Sketch, folded

POSITION_CHANNELS = 16
MOST_TOKENS = 1 << 16  # that a file may ask for, and the largest width of one
WEIGHTS = "ip_adapter.safetensors"


@dataclass(frozen=True)
class ConditionerInfo:
    """What the conditioner takes (``n_tokens`` x ``width`` tokens of a layer) and for which generator it was made.

    ``resizing``: how the backbone was shown the pictures (`Backbone.resizing`); empty in older files, which do not say.
    """

    backbone: str
    layer: str
    pooling: str
    n_tokens: int
    width: int
    generator: str = "mini"
    resizing: str = ""


def positions(n: int) -> torch.Tensor:
    """Fixed position channels (n, 16): sines and cosines of row and column for a square grid, or of a grid with a
    leading CLS token (zeros), or of the index otherwise."""
    cls = math.isqrt(n - 1) ** 2 == n - 1 and n > 1 and math.isqrt(n) ** 2 != n
    cells = n - cls
    side = math.isqrt(cells)
    index = torch.arange(cells)
    square = side * side == cells
    rows = (index // side if square else index).float() / max(1, (side if square else cells) - 1)
    columns = (index % side if square else index).float() / max(1, (side if square else cells) - 1)
    waves = [
        f(math.pi * k * axis) for axis in (rows, columns) for k in (0.5, 1.0, 2.0, 4.0) for f in (torch.sin, torch.cos)
    ]
    grid = torch.stack(waves, dim=1)
    return torch.cat([torch.zeros(1, POSITION_CHANNELS), grid]) if cls else grid


def with_positions(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens (B, N, D) to (B, N, D + 16), as the adapter's file expects them."""
    channels = positions(tokens.shape[1]).to(tokens)
    return torch.cat([tokens, channels.expand(len(tokens), -1, -1)], dim=-1)


class Conditioner(nn.Module):
    """Trainable adapter for ``unet``; key and value matrices start as copies of the UNet's own.

    ``mean`` and ``std`` (D,): statistics of the true tokens of the training pictures.
    """

    def __init__(
        self,
        unet: nn.Module,
        info: ConditionerInfo,
        mean: torch.Tensor,
        std: torch.Tensor,
    ) -> None:
        super().__init__()
        self.info = info
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        cross = unet.config.cross_attention_dim
        self.image_proj = IPAdapterFullImageProjection(info.width + POSITION_CHANNELS, cross)
        self.ip_adapter = nn.ModuleList()
        for module in cross_attentions(unet).values():
            processor = IPAdapterAttnProcessor2_0(
                module.to_k.out_features, cross, num_tokens=[info.n_tokens], scale=[1.0]
            )
            processor.to_k_ip[0].weight.data.copy_(module.to_k.weight)
            processor.to_v_ip[0].weight.data.copy_(module.to_v.weight)
            self.ip_adapter.append(processor)

    def standardised(self, tokens: torch.Tensor) -> torch.Tensor:
        """Raw tokens (B, N, D) to zero mean and unit spread per channel."""
        return (tokens - self.mean) / self.std

    def image_tokens(self, standardised: torch.Tensor) -> torch.Tensor:
        """Standardised tokens (B, N, D) to image tokens (B, N, cross_attention_dim)."""
        return self.image_proj(with_positions(standardised))

    def denoise(
        self,
        unet: nn.Module,
        latents: torch.Tensor,
        t: torch.Tensor,
        text: torch.Tensor,
        tokens: torch.Tensor,
        added: dict[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The UNet's output with this adapter in place; ``tokens`` (B, N, D) standardised, ``added``: see `texts`."""
        with self._installed(unet):
            states = (text, [self.image_tokens(tokens)[:, None]])
            return unet(latents, t, encoder_hidden_states=states, added_cond_kwargs=added or {}).sample

    @contextmanager
    def _installed(self, unet: nn.Module) -> Iterator[None]:
        modules = cross_attentions(unet).values()
        for module, processor in zip(modules, self.ip_adapter, strict=True):
            module.set_processor(processor)
        try:
            yield
        finally:
            for module in modules:
                module.set_processor(AttnProcessor2_0())


def cross_attentions(unet: nn.Module) -> dict[str, nn.Module]:
    """The UNet's cross-attentions in the order in which the public layout numbers them."""
    names = [name[: -len(".processor")] for name in unet.attn_processors if not name.endswith("attn1.processor")]
    return {name: unet.get_submodule(name) for name in names}


def save_conditioner(
    conditioner: Conditioner, path: str | Path, extra: dict[str, str] | None = None, sketch: Sketch | None = None
) -> None:
    """Write the public layout (``image_proj.*``, ``ip_adapter.*``) and ``sketch.*``, half precision, with facts."""
    tensors = {f"image_proj.{key}": value for key, value in _public_image_proj(conditioner).items()}
    for index, processor in enumerate(conditioner.ip_adapter):
        tensors[f"ip_adapter.{2 * index + 1}.to_k_ip.weight"] = processor.to_k_ip[0].weight
        tensors[f"ip_adapter.{2 * index + 1}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    if sketch is not None:
        tensors |= folded(sketch, conditioner.get_buffer("mean"), conditioner.get_buffer("std"))
    metadata = {key: str(value) for key, value in asdict(conditioner.info).items() if value != ""} | (extra or {})
    if sketch is not None:
        metadata["sketch_size"] = str(sketch.size)
    metadata["mean"] = " ".join(f"{value:.6g}" for value in conditioner.mean.tolist())
    save_tensors(path, {key: value.half() for key, value in tensors.items()}, metadata)


def read_info(path: str | Path) -> ConditionerInfo:
    """The facts a conditioner file carries; raises `UserError` for a foreign file."""
    from safetensors import SafetensorError, safe_open

    require_openable(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = dict(file.metadata() or {})
        info = ConditionerInfo(
            facts["backbone"],
            facts["layer"],
            facts["pooling"],
            int(facts["n_tokens"]),
            int(facts["width"]),
            facts["generator"],
            facts.get("resizing", ""),
        )
        if not (0 < info.n_tokens <= MOST_TOKENS and 0 < info.width <= MOST_TOKENS):
            raise ValueError(f"{info.n_tokens} tokens of width {info.width}")
        return info
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a conditioner written by recon/train.py: {error}") from error


def read_adapter(path: str | Path) -> dict[str, dict[str, torch.Tensor]]:
    """The nested dict that stock ``load_ip_adapter`` takes, float32."""
    tensors, _ = read_tensors(path)
    require_numbers(tensors, path)
    nested: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        if part in nested:
            nested[part][name] = value.float()
    return nested


def null_embeds(path: str | Path) -> torch.Tensor:
    """The negative input (1, N, D + 16): the mean token everywhere, which training used for dropped conditions."""
    _, metadata = read_tensors(path)
    with reading(f"{str(path)!r}, its mean"):
        mean = torch.tensor([float(value) for value in metadata["mean"].split()])
        require_numbers({"mean": mean}, path)
        return with_positions(mean.expand(1, int(metadata["n_tokens"]), -1))


_PUBLIC = {"ff.net.0.proj": "proj.0", "ff.net.2": "proj.2", "norm": "proj.3"}


def _public_image_proj(conditioner: Conditioner) -> dict[str, torch.Tensor]:
    """The projection under its public names, with the tokens' standardisation folded into its first linear map."""
    state = dict(conditioner.image_proj.state_dict())
    first, width = "ff.net.0.proj", conditioner.info.width
    weight, bias = state[f"{first}.weight"].double(), state[f"{first}.bias"].double()
    scaled = weight[:, :width] / conditioner.std.double()
    state[f"{first}.weight"] = torch.cat([scaled, weight[:, width:]], dim=1).float()
    state[f"{first}.bias"] = (bias - scaled @ conditioner.mean.double()).float()
    return {
        key.replace(own, public): value
        for key, value in state.items()
        for own, public in _PUBLIC.items()
        if key.startswith(f"{own}.")
    }
