"""How a generator is run: number format, device, attention, compiling, offload. Checked before anything is loaded."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass

import torch

from align.errors import UserError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATTENTIONS = ("sdpa", "xformers")


@dataclass(frozen=True)
class Runtime:
    """``device`` auto = cuda where there is one. ``offload``: parts of the pipeline wait in main memory (GPU only)."""

    precision: str = "fp32"
    device: str = "auto"
    attention: str = "sdpa"
    compile: bool = False
    offload: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; latents stay float32."""
        return PRECISIONS[self.precision]

    @property
    def half(self) -> bool:
        """Whether the weights have 2 bytes per value."""
        return self.precision in ("bf16", "fp16")

    @property
    def key(self) -> list[str | bool]:
        """What of it may change the last digits of a picture."""
        return [self.precision, self.attention, self.compile]


def check_runtime(runtime: Runtime) -> torch.device:
    """The device to use. Raises `UserError` for an unknown name and for what cannot run here, with the reason."""
    if runtime.precision not in PRECISIONS:
        raise UserError(f"precision {runtime.precision!r} is not known; use {', '.join(PRECISIONS)}")
    if runtime.attention not in ATTENTIONS:
        raise UserError(f"attention {runtime.attention!r} is not known; use {', '.join(ATTENTIONS)}")
    gpu = torch.cuda.is_available()
    if runtime.device != "auto" and not runtime.device.startswith(("cpu", "cuda")):
        raise UserError(f"device {runtime.device!r} is not known; use auto, cpu or cuda")
    if runtime.device.startswith("cuda") and not gpu:
        raise UserError(f"device {runtime.device!r}: torch {torch.__version__} sees no GPU; use device auto or cpu")
    device = torch.device(("cuda" if gpu else "cpu") if runtime.device == "auto" else runtime.device)
    if runtime.offload and device.type != "cuda":
        raise UserError("--offload moves parts of a generator between main memory and a GPU, and none is used here")
    if runtime.attention == "xformers":
        reason = xformers_obstacle(device)
        if reason:
            raise UserError(f"attention xformers cannot run: {reason}; sdpa (the default) needs nothing")
    return device


def default_precision(generator: str, device: str = "auto") -> str:
    """On a GPU the number format it is fast in: bf16 from compute capability 8.0 (A100, RTX 30) on, else fp16.

    The embedded generator is small enough for fp32 everywhere, and so is everything on a CPU.
    """
    if generator == "mini" or device.startswith("cpu") or not torch.cuda.is_available():
        return "fp32"
    place = torch.device("cuda" if device == "auto" else device)
    return "bf16" if torch.cuda.get_device_capability(place) >= (8, 0) else "fp16"


def xformers_obstacle(device: torch.device) -> str | None:
    """Why xformers cannot be used on ``device``; None where a small attention ran."""
    if importlib.util.find_spec("xformers") is None:
        return f"xformers is not installed (a build for torch {torch.__version__} is needed)"
    if device.type != "cuda":
        return "it needs a GPU, and none is used here"
    try:
        operators = importlib.import_module("xformers.ops")
        probe = torch.zeros(1, 2, 1, 64, device=device, dtype=torch.float16)
        operators.memory_efficient_attention(probe, probe, probe)
    except Exception as error:  # a build for another torch fails at import or at the call, in many ways
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
    return None
