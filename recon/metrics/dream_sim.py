"""DreamSim distances, where its package and weights are on this machine; neither is a dependency."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon.metrics.feature_nets import OFFLINE, WeightsMissing

if TYPE_CHECKING:
    import torch

SIZE = 224  # px
PROTOCOL = f"DreamSim ensemble, {SIZE} px"
FOLDER = "dreamsim"


def load_dream_sim(
    weights_dir: str | Path | None, *, download: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], np.ndarray]:
    """Distance of pairs (B, 3, 224, 224) in [0, 1] to (B,): Fu, Tamir, Sundaram et al. 2023, the ensemble model.

    Raises `WeightsMissing` without the package, or without the folder ``dreamsim`` of its weights in ``weights_dir``
    (without ``weights_dir``, in torch's hub folder).
    """
    import torch

    if importlib.util.find_spec("dreamsim") is None:
        raise WeightsMissing("the package dreamsim is not installed: pip install dreamsim")
    folder = Path(weights_dir or torch.hub.get_dir()).expanduser() / FOLDER
    if not download and not any(folder.glob("*lora*")):  # the package fetches what is not there, unasked
        raise WeightsMissing(f"{OFFLINE}: put the folder {FOLDER} of its weights into --weights-dir")
    package = importlib.import_module("dreamsim")
    with contextlib.redirect_stdout(sys.stderr):  # it prints, and stdout is for results
        model, _ = package.dreamsim(pretrained=True, device="cpu", cache_dir=str(folder))
    model = model.eval()

    def distance(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            value: np.ndarray = model(a, b).double().reshape(-1).numpy()
        return value

    return distance
