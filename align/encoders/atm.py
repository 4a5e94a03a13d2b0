"""ATM (Li et al., NeurIPS 2024, arXiv 2403.07721): self-attention among channels, then TSConv."""

from __future__ import annotations

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders.tsconv import TSConv, check_window
from align.errors import UserError


class ChannelAttention(nn.Module):
    """Self-attention among the channels, each one a token of T numbers: (B, C, T) -> (B, C, T).

    Every head has T // ``heads`` dimensions, so T need not be a multiple of ``heads`` (250 samples, 4 heads of 62).
    """

    def __init__(self, n_times: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, inner = heads, n_times // heads * heads
        self.query, self.key, self.value = (nn.Linear(n_times, inner) for _ in range(3))
        self.out = nn.Linear(inner, n_times)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))


class ChannelLayer(nn.Module):
    """A transformer layer over channel tokens, normalised after each residual sum: (B, C, T) -> (B, C, T)."""

    def __init__(self, n_times: int, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = ChannelAttention(n_times, config.heads, config.attention_dropout)
        self.feedforward = nn.Sequential(
            nn.Linear(n_times, config.feedforward),
            nn.GELU(),
            nn.Dropout(config.attention_dropout),
            nn.Linear(config.feedforward, n_times),
        )
        self.norms = nn.ModuleList([nn.LayerNorm(n_times), nn.LayerNorm(n_times)])
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norms[0](x + self.dropout(self.attention(x)))
        return self.norms[1](x + self.dropout(self.feedforward(x)))


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """Channel embedding (linear over time), ``config.layers`` layers, LayerNorm, `TSConv`: (B, C, T) -> (B, E).

    As published for 63 channels and 250 samples: ``width=1024 dropout=0.5 heads=4 layers=1 feedforward=256
    attention_dropout=0.25``, 3.07 M parameters in use. The subject tokens of its joint training are left out.
    Raises `UserError` for signals without a time axis, with too short a one.
    """
    n_chans, n_times = check_window("atm", in_shape, config)
    if config.heads > n_times:
        raise UserError(f"encoder.heads={config.heads} should be at most the number of samples, {n_times}")
    embedding = nn.Sequential(nn.Linear(n_times, n_times), nn.Dropout(config.attention_dropout))
    layers = [ChannelLayer(n_times, config) for _ in range(config.layers)]
    return nn.Sequential(embedding, *layers, nn.LayerNorm(n_times), TSConv(n_chans, n_times, config))
