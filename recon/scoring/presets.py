"""How published tables prepare pictures, one entry per table; ``ours`` is what `recon evaluate` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from recon.metrics.metrics import METRICS

JUDGES = ("SqueezeNet(1.0)", "EfficientNet-Lite(0)")  # the networks that judge in `recon evaluate`
_TABLE = ("PixCorr", "SSIM", "AlexNet(2)", "AlexNet(5)", "Inception", "CLIP", "EffNet", "SwAV")


@dataclass(frozen=True)
class Preset:
    """What happens to pictures before the metrics, and which variants of the metrics are meant.

    ``entry_size``: side to which every picture is brought before anything else; None: its own. ``pixel_size``:
    PixCorr and SSIM. ``resize``: ``tensor`` = bilinear on floats, ``pil`` = Pillow on bytes (bicubic for PixCorr and
    SSIM, bilinear for networks, both antialiased). ``antialias``: of the ``tensor`` resize. ``network_size``: one
    input size for all networks; None: that of each network. ``blend``: share of the reconstruction where a low-level
    set is given. ``native_targets``: targets must come at ``pixel_size`` and are not resized for PixCorr and SSIM.
    ``first``: only so many stimuli, in order. ``networks``: metric to network where it is another than usual.
    ``versions``: libraries of the published numbers, for the report.
    """

    source: str
    entry_size: int | None = 256
    pixel_size: int = 425
    resize: Literal["tensor", "pil"] = "tensor"
    antialias: bool = False
    network_size: int | None = None
    ssim_columnwise: bool = False
    blend: float | None = None
    native_targets: bool = False
    first: int | None = None
    metrics: tuple[str, ...] = _TABLE
    networks: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def resizing(self) -> str:
        """How pictures are brought to size, in words for the report."""
        if self.resize == "pil":
            return "Pillow on 8 bits, antialiased: bicubic for PixCorr and SSIM, bilinear for networks"
        return f"bilinear on floats, {'with' if self.antialias else 'without'} antialiasing"


PRESETS: dict[str, Preset] = {
    "ours": Preset(
        source="the protocol of mindeye2 without blending, with LPIPS, DreamSim and two judges",
        metrics=(*METRICS, "DreamSim", *JUDGES),
    ),
    "mindeye2": Preset(
        source="MindEye2 (Scotti et al. 2024), src/final_evaluations.ipynb; the paper says 4:1 where the code has 3:1",
        blend=0.75,
        versions={"torch": "2.1.0", "torchvision": "0.16.0", "open_clip_torch": "2.24.0", "scikit-image": "0.22.0"},
    ),
    "brain-diffuser": Preset(
        source="Brain-Diffuser (Ozcelik & VanRullen 2023), eval_extract_features.py, evaluate_reconstruction.py",
        entry_size=None,
        resize="pil",
        antialias=True,
        network_size=224,
        ssim_columnwise=True,
        native_targets=True,
        first=982,
        networks={"EffNet": "effnet_v1"},  # weights=True of torchvision 0.13 means IMAGENET1K_V1
        versions={"torch": "1.12.1", "torchvision": "0.13.1", "scikit-image": "0.17.2", "pillow": "9.2.0"},
    ),
}
