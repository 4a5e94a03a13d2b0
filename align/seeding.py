"""Randomness that can be resumed: step k of a run draws from (seed, k) alone, so no generator state is stored."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *parts: int | str) -> int:
    """A 63-bit seed that is a pure function of ``seed`` and ``parts``."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_step(seed: int, step: int, stage: str = "") -> torch.Generator:
    """Seed python, numpy and torch for one training step; the returned generator is seeded likewise."""
    import torch

    value = derive(seed, stage, step)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    return torch.Generator().manual_seed(value)
