"""Stand-ins for the hub: what public repositories hold, as their file lists show it; sizes in bytes, rounded.

The sizes of the UNets of SDXL-Turbo and of the image encoders are those that users report; the others follow from the
number of weights.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

GB = 10**9
_TOKENIZER = {
    "merges.txt": 524_619,
    "special_tokens_map.json": 472,
    "tokenizer_config.json": 737,
    "vocab.json": 1_059_962,
}


def _both(folder: str, name: str, full: int, config: int = 600) -> dict[str, int]:
    return {
        f"{folder}/config.json": config,
        f"{folder}/{name}.safetensors": full,
        f"{folder}/{name}.fp16.safetensors": full // 2,
    }


def _tokenizer(folder: str) -> dict[str, int]:
    return {f"{folder}/{name}": size for name, size in _TOKENIZER.items()}


_SDXL = {
    "model_index.json": 685,
    "README.md": 5_000,
    "scheduler/scheduler_config.json": 459,
    **_tokenizer("tokenizer"),
    **_tokenizer("tokenizer_2"),
    **_both("text_encoder", "model", 492_265_168),
    **_both("text_encoder_2", "model", 2_778_702_264),
    **_both("unet", "diffusion_pytorch_model", 10_270_077_736),
    **_both("vae", "diffusion_pytorch_model", 334_643_268),
}
LISTINGS: dict[str, dict[str, int]] = {
    "stabilityai/sdxl-turbo": {
        **_SDXL,
        "sd_xl_turbo_1.0.safetensors": 13_875_718_734,
        "sd_xl_turbo_1.0_fp16.safetensors": 6_938_081_905,
        "unet/model.onnx": 2_000_000,
        "unet/model.onnx_data": 10_270_000_000,
        "text_encoder/model.onnx": 492_587_457,
        "vae_decoder/config.json": 607,
        "vae_decoder/model.onnx": 198_093_688,
        "vae_encoder/model.onnx": 136_775_724,
    },
    "stabilityai/stable-diffusion-xl-base-1.0": {
        **_SDXL,
        "sd_xl_base_1.0.safetensors": 6_938_078_334,
        "text_encoder/flax_model.msgpack": 492_265_168,
        "unet/openvino_model.bin": 10_270_000_000,
        "vae_1_0/config.json": 600,
        "vae_1_0/diffusion_pytorch_model.safetensors": 334_643_268,
    },
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        "model_index.json": 541,
        "v1-5-pruned.safetensors": 7_703_324_286,
        "v1-5-pruned-emaonly.ckpt": 4_265_380_512,
        "feature_extractor/preprocessor_config.json": 342,
        "safety_checker/config.json": 4_720,
        "safety_checker/model.safetensors": 1_216_061_799,
        "safety_checker/model.fp16.safetensors": 608_018_440,
        "scheduler/scheduler_config.json": 308,
        **_tokenizer("tokenizer"),
        **_both("text_encoder", "model", 492_265_874),
        "text_encoder/pytorch_model.bin": 492_305_335,
        **_both("unet", "diffusion_pytorch_model", 3_438_167_534),
        "unet/diffusion_pytorch_model.bin": 3_438_354_725,
        "unet/diffusion_pytorch_model.non_ema.safetensors": 3_438_167_540,
        **_both("vae", "diffusion_pytorch_model", 334_643_268),
    },
    "h94/IP-Adapter": {
        "models/ip-adapter_sd15.safetensors": 44_642_768,
        "models/ip-adapter_sd15_vit-G.safetensors": 46_215_824,
        "models/ip-adapter-plus_sd15.safetensors": 98_183_288,
        "models/image_encoder/config.json": 560,
        "models/image_encoder/model.safetensors": 2_528_373_448,
        "models/image_encoder/pytorch_model.bin": 2_528_481_905,
        "sdxl_models/ip-adapter_sdxl.safetensors": 702_585_376,
        "sdxl_models/ip-adapter_sdxl_vit-h.safetensors": 698_391_064,
        "sdxl_models/image_encoder/config.json": 560,
        "sdxl_models/image_encoder/model.safetensors": 3_689_912_664,
    },
    "latent-consistency/lcm-lora-sdv1-5": {"README.md": 4_000, "pytorch_lora_weights.safetensors": 134_621_556},
    "latent-consistency/lcm-lora-sdxl": {"pytorch_lora_weights.safetensors": 393_855_224},
    "latent-consistency/lcm-sdxl": {
        "config.json": 1_800,
        "diffusion_pytorch_model.safetensors": 10_270_077_736,
        "diffusion_pytorch_model.fp16.safetensors": 5_135_151_440,
    },
    "ByteDance/SDXL-Lightning": {
        "sdxl_lightning_4step.safetensors": 6_938_040_682,
        "sdxl_lightning_4step_lora.safetensors": 393_854_624,
        "sdxl_lightning_4step_unet.safetensors": 5_135_149_760,
        "sdxl_lightning_8step_unet.safetensors": 5_135_149_760,
    },
    "someone/sd-3-copy": {"model_index.json": 600, "transformer/diffusion_pytorch_model.safetensors": 4_170_000_000},
    "someone/only-half": {
        "model_index.json": 500,
        "scheduler/scheduler_config.json": 300,
        **_tokenizer("tokenizer"),
        "text_encoder/config.json": 600,
        "text_encoder/model.fp16.safetensors": 246_000_000,
        "unet/config.json": 700,
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors": 1_000_000_000,
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors": 719_000_000,
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json": 60_000,
        "vae/config.json": 500,
        "vae/diffusion_pytorch_model.safetensors": 334_643_268,
    },
}


class Hub:
    """A hub that answers lists and counts what is asked of it; nothing can be fetched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from recon.generation import hub

        self.asked: list[str] = []
        hub._asked.cache_clear()

        def model_info(_: Any, repository: str, *, files_metadata: bool = False, **__: Any) -> Any:
            assert files_metadata
            self.asked.append(repository)
            if repository not in LISTINGS:
                raise OSError(f"404 Client Error: {repository}")
            files = LISTINGS[repository].items()
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in files])

        monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
