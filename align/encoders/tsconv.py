"""The temporal-spatial convolution of NICE (Song et al., ICLR 2024, arXiv 2308.13234), for EEG and MEG windows."""

from __future__ import annotations

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders.mlp import ResidualBlock
from align.encoders.shapes import channels_and_times


class TSConv(nn.Module):
    """(B, C, T) -> (B, E): temporal filters, pooling, one spatial filter per map, linear, residual block, LayerNorm.

    NICE convolves in time (F filters of ``kernel`` samples) and then averages windows of ``pool`` samples every
    ``stride`` samples. Averaging and convolution commute, so here the signals are averaged first and the filters are
    applied only where the pooled output needs them: the same function with F times less to average.
    """

    def __init__(self, n_chans: int, n_times: int, config: EncoderConfig) -> None:
        super().__init__()
        filters, n_pooled = config.filters, (n_times - config.kernel - config.pool + 1) // config.stride + 1
        self.pool = nn.AvgPool2d((1, config.pool), stride=1)
        self.temporal = nn.Conv2d(1, filters, (1, config.kernel), stride=(1, config.stride))
        self.spatial = nn.Conv2d(filters, filters, (n_chans, 1))
        self.project = nn.Conv2d(filters, filters, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)])
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Sequential(
            nn.Linear(filters * n_pooled, config.width),
            ResidualBlock(config.width, config.dropout),
            nn.LayerNorm(config.width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.elu(self.norms[0](self.temporal(self.pool(x[:, None]))))
        maps = self.dropout(nn.functional.elu(self.norms[1](self.spatial(maps))))
        return self.head(self.project(maps).flatten(1))


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """A `TSConv`; raises `UserError` for signals without a time axis or with too short a one.

    As published for 63 channels and 250 samples (1440 numbers before the projection): ``width=768 dropout=0.5``.
    """
    return TSConv(*check_window("tsconv", in_shape, config), config)


def check_window(name: str, in_shape: tuple[int, ...], config: EncoderConfig) -> tuple[int, int]:
    """(C, T), long enough for one pooled sample."""
    least = config.kernel + config.pool - 1
    way_out = f"lower encoder.kernel and encoder.pool (now {config.kernel} + {config.pool} - 1)"
    return channels_and_times(name, in_shape, least, way_out)
