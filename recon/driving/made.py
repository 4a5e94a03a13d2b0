"""What `recon maximize` has made for the units of one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recon.driving.units import Driven

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Made:
    """Of K units: ``natural`` (K, 3, h, w) the best natural picture of the steering encoder, ``made`` (K, 3, H, W).

    ``rows``: of the table, a dict for each unit.
    """

    subject: str
    driven: Driven
    natural: torch.Tensor
    made: torch.Tensor
    rows: list[dict[str, Any]]
    facts: dict[str, Any]
