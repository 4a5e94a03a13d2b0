"""Prompts to what a UNet reads, each encoded once and alone, so that no batch can change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Text:
    """``states`` (B, L, W); ``pooled`` (B, P) of SDXL's second encoder, None for SD 1.5."""

    states: torch.Tensor
    pooled: torch.Tensor | None = None


class Texts:
    """The text side of a pipeline of family "sd" or "sdxl"."""

    def __init__(self, pipe: object, family: str, device: torch.device) -> None:
        self._pipe, self._family, self._device = pipe, family, device
        self._known: dict[str, Text] = {}
        self.negative = self._encode("")[1]

    def batch(self, prompts: Sequence[str]) -> Text:
        """The given prompts, one row each."""
        for prompt in set(prompts) - set(self._known):
            self._known[prompt] = self._encode(prompt)[0]
        return joined([self._known[prompt] for prompt in prompts])

    @torch.no_grad()
    def _encode(self, prompt: str) -> tuple[Text, Text]:
        """The prompt, and what the generator's makers put against it (an empty prompt, or zeros: SDXL)."""
        options = {"device": self._device, "num_images_per_prompt": 1, "do_classifier_free_guidance": True}
        found = self._pipe.encode_prompt(prompt, **options)  # type: ignore[attr-defined]
        if self._family == "sdxl":
            return Text(found[0], found[2]), Text(found[1], found[3])
        return Text(found[0]), Text(found[1])


def joined(texts: Sequence[Text]) -> Text:
    """Rows of several texts below each other."""
    pooled = [text.pooled for text in texts if text.pooled is not None]
    return Text(torch.cat([text.states for text in texts]), torch.cat(pooled) if pooled else None)


def added_conditions(
    pipe: Any, text: Text, size: int, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """What SDXL reads beside the text, row by row: pooled text, and the ``size`` (px) of an uncropped picture."""
    if text.pooled is None:
        return {}
    width = text.pooled.shape[-1]
    times = pipe._get_add_time_ids((size, size), (0, 0), (size, size), dtype=dtype, text_encoder_projection_dim=width)
    return {
        "text_embeds": text.pooled.to(device, dtype),
        "time_ids": times.to(device).repeat(len(text.pooled), 1),
    }
