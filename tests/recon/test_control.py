"""ControlNets and T2I-Adapters beside the own adapter: against the stock pipelines, and in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from align.errors import UserError
from recon.decoding.bridges.choose import Conditioning
from recon.generation.adapters import load_adapter
from recon.generation.bridge import own_bridge
from recon.generation.conditioner import save_conditioner
from recon.generation.control import Control, ControlNetwork, _misfit_adapter, _misfit_controlnet, load_control
from recon.generation.latents import LatentScale
from recon.generation.loading import load_pipeline
from recon.generation.pipeline import Generator
from recon.generation.runtime import Runtime
from tests.recon.tiny import N_TOKENS, WIDTH, tiny_conditioner, tiny_generator, tiny_unet
from tests.recon.tiny_family import build_controlnet, build_generator, build_t2i_adapter

SIDE = 16
WORDS = "a red disk on brick"
STOCK = {
    ("sd", "net"): "StableDiffusionControlNetPipeline",
    ("sdxl", "net"): "StableDiffusionXLControlNetPipeline",
    ("sd", "t2i"): "StableDiffusionAdapterPipeline",
    ("sdxl", "t2i"): "StableDiffusionXLAdapterPipeline",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """SD and SDXL with an own conditioner, a ControlNet and a T2I-Adapter each."""
    root = tmp_path_factory.mktemp("control")
    found = {"sd": tiny_generator(root / "sd")[0], "sdxl": build_generator("sdxl", root / "sdxl")}
    for family, folder in list(found.items()):
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        found[f"{family}/own"] = root / f"{family}.safetensors"
        save_conditioner(tiny_conditioner(unet, str(folder)), found[f"{family}/own"])
        found[f"{family}/net"] = build_controlnet(folder, root / f"{family}-net")
        found[f"{family}/t2i"] = build_t2i_adapter(family, root / f"{family}-t2i")
    return found


def held(places: dict[str, Path], family: str, kind: str, reads: str = "sketch", scale: float = 1.0) -> Generator:
    control = Control(str(places[f"{family}/{kind}"]), reads, scale)
    return Generator.load(str(places[family]), places[f"{family}/own"], Runtime(device="cpu"), control=control)


def drawn(
    places: dict[str, Path], family: str, kind: str, tokens: torch.Tensor, seen: torch.Tensor, scale: float
) -> Any:
    """One picture of the stock pipeline with the stock adapter loaded. That of SD and T2I-Adapter has no way to the
    image tokens, so there they are handed to the stock UNet itself."""
    name = STOCK[family, kind]
    pipe = load_pipeline(places[family], Runtime())
    place = places[f"{family}/own"]
    pipe.load_ip_adapter(str(place.parent), subfolder="", weight_name=place.name, image_encoder_folder=None)
    net = (ControlNetModel if kind == "net" else T2IAdapter).from_pretrained(places[f"{family}/{kind}"])
    part = {"controlnet": net} if kind == "net" else {"adapter": net}
    pipe = getattr(diffusers, name).from_pipe(pipe, **part)
    pipe.set_progress_bar_config(disable=True)
    bridge = own_bridge(load_adapter(place))
    embeds = torch.cat([bridge.negative, bridge(tokens)])[:, None]
    options: dict[str, Any] = {f"{'controlnet' if kind == 'net' else 'adapter'}_conditioning_scale": scale}
    if name == "StableDiffusionAdapterPipeline":
        plain = pipe.unet.forward
        pipe.unet.forward = lambda *a, **k: plain(*a, **{**k, "added_cond_kwargs": {"image_embeds": [embeds]}})
        options |= {"height": SIDE, "width": SIDE, "output_type": "latent"}
    else:
        options["ip_adapter_image_embeds"] = [embeds]
    options = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "pt", **options}
    found = pipe(WORDS, image=seen, generator=torch.Generator().manual_seed(7), **options).images
    if options["output_type"] == "pt":
        return found
    with torch.no_grad():
        return (pipe.vae.decode(found / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize(("family", "kind"), list(STOCK))
@pytest.mark.parametrize("scale", [0.6, pytest.param(1.0, marks=pytest.mark.long)])
def test_tokens_and_control_together_are_those_of_the_stock_pipeline(
    places: dict[str, Path], family: str, kind: str, scale: float
) -> None:
    draw = torch.Generator().manual_seed(4)
    model, given = held(places, family, kind, scale=scale), 2 * torch.randn(2, N_TOKENS, WIDTH, generator=draw)
    seen = torch.rand(2, 3, SIDE, SIDE, generator=draw)
    ours = model.generate(given, [7, 8], 3, 3.0, prompts=[WORDS] * 2, control=seen)
    torch.testing.assert_close(ours[:1], drawn(places, family, kind, given[:1], seen[:1], scale), atol=2e-5, rtol=0)
    alone = torch.cat(
        [model.generate(given[i : i + 1], [7 + i], 3, 3.0, prompts=[WORDS], control=seen[i : i + 1]) for i in (0, 1)]
    )
    torch.testing.assert_close(alone, ours, atol=1e-5, rtol=0)
    other = model.generate(given, [7, 8], 3, 3.0, prompts=[WORDS] * 2, control=seen.flip(0))
    assert (other - ours).abs().amax((1, 2, 3)).min() > 1e-3
    with pytest.raises(UserError, match="belong together; give both or neither"):
        model.generate(given, [7, 8], 3)


@pytest.mark.parametrize("kind", ["net", "t2i"])
def test_scale_zero_is_the_generator_without_it(places: dict[str, Path], kind: str) -> None:
    given, seen = torch.randn(1, N_TOKENS, WIDTH), torch.rand(1, 3, SIDE, SIDE)
    plain = Generator.load(str(places["sd"]), places["sd/own"], Runtime(device="cpu")).generate(given, [1], 3)
    off, full = (held(places, "sd", kind, scale=s).generate(given, [1], 3, control=seen) for s in (0.0, 1.0))
    torch.testing.assert_close(off, plain)
    assert (full - plain).abs().max() > 1e-3


def test_the_control_picture_is_the_coarse_one_or_its_edges() -> None:
    from recon.generation.edges import edges

    coarse = torch.rand(2, 3, 8, 8)
    assert Control("x", "sketch").picture(coarse) is coarse
    assert torch.equal(Control("x").picture(coarse), edges(coarse))


def test_a_network_of_one_channel_reads_grey(places: dict[str, Path], tmp_path: Path) -> None:
    folder = build_t2i_adapter("sd", tmp_path / "grey", in_channels=1)
    net, seen = T2IAdapter.from_pretrained(folder), torch.rand(2, 3, 2 * SIDE, 2 * SIDE)
    added = ControlNetwork(Control("x", scale=0.5), net, SIDE).residuals(seen, True)
    small = torch.nn.functional.avg_pool2d(seen, 2).mean(1, keepdim=True)
    expected = [0.5 * torch.cat([feature, feature]) for feature in net(small)]
    for _ in range(2):  # the UNet empties the list that it is given
        found = added(seen, seen, {})["down_intrablock_additional_residuals"]
        assert [f.shape for f in found] == [f.shape for f in expected]
        for own, due in zip(list(found), expected, strict=True):
            torch.testing.assert_close(own, due)
        found.clear()


def test_a_controlnet_of_plain_latents_fits_a_unet_that_reads_a_sketch(tmp_path: Path) -> None:
    folder, path, _, _ = tiny_generator(tmp_path / "reads", reads_sketch=True)
    plain = tiny_generator(tmp_path / "plain")[0]
    control = Control(str(build_controlnet(plain, tmp_path / "net")))
    model = Generator.load(str(folder), path, Runtime(device="cpu"), control=control)
    given, seen = torch.randn(1, N_TOKENS, WIDTH), torch.rand(1, 3, SIDE, SIDE)
    assert model.generate(given, [0], 2, control=seen).shape == (1, 3, SIDE, SIDE)


def public(family: str) -> tuple[Any, Any, int]:
    """UNet, T2I-Adapter and picture size of the public models, without weights (from their config.json)."""
    with torch.device("meta"):
        if family == "sd":
            unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
            return unet, T2IAdapter(channels=[320, 640, 1280, 1280], downscale_factor=8), 512
        unet = UNet2DConditionModel(
            sample_size=128,
            cross_attention_dim=2048,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            use_linear_projection=True,
        )
        kind = {"adapter_type": "full_adapter_xl", "downscale_factor": 16}
        return unet, T2IAdapter(channels=[320, 640, 1280, 1280], **kind), 1024


def test_public_networks_fit_their_own_family_alone() -> None:
    (sd, sd_adapter, small), (xl, xl_adapter, large) = public("sd"), public("sdxl")
    assert _misfit_adapter(sd_adapter, sd, 4, small) is None and _misfit_adapter(xl_adapter, xl, 4, large) is None
    assert "not 320x64x64, 640x64x64, 1280x32x32" in str(_misfit_adapter(sd_adapter, xl, 4, large))
    assert "features of shape" in str(_misfit_adapter(xl_adapter, sd, 4, small))
    with torch.device("meta"):
        net = ControlNetModel(cross_attention_dim=768)
    assert _misfit_controlnet(net, sd, 4, small) is None
    assert _misfit_controlnet(net, xl, 4, large) == "width 768, not 2048"


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("sdxl/net", "is of another generator: width 32, not 16"),
        ("sdxl/t2i", "is of another generator: features of shape .* not 8x8x8, 16x4x4"),
        ("unet", "holds a UNet2DConditionModel; known kinds: ControlNetModel, T2IAdapter"),
        ("nowhere/at/all", "cannot be read: "),
        ("blocks", r"blocks of \(8, 24\) channels, not \(8, 16\)"),
        ("latents", "latents of 16 channels, not 4"),
        ("smaller", "it makes pictures 4 times smaller, and latents are 2 times"),
        ("four", "reads 4 channels, not a picture's 3 or 1"),
        ("cells", "pictures of 16 px cannot be cut into cells of 3 px"),
        ("other weights", "cannot be read: "),
    ],
)
def test_what_does_not_fit_is_refused(places: dict[str, Path], tmp_path: Path, folder: str, message: str) -> None:
    unet = UNet2DConditionModel.from_pretrained(places["sd"] / "unet")
    name, made = str(places.get(folder, tmp_path / folder)), tmp_path / folder
    if folder == "unet":
        unet.save_pretrained(made)
    elif folder in ("blocks", "latents", "smaller"):
        options = {"blocks": {"block_out_channels": (8, 24)}, "latents": {"in_channels": 16}}.get(folder, {})
        sizes = (8, 8, 16) if folder == "smaller" else (8, 16)
        other = tiny_unet(**options)
        ControlNetModel.from_unet(other, conditioning_embedding_out_channels=sizes).save_pretrained(made)
    elif folder in ("four", "cells"):
        options = {"in_channels": 4} if folder == "four" else {"downscale_factor": 3}
        build_t2i_adapter("sd", made, **options)
    elif folder == "other weights":
        build_t2i_adapter("sd", made)
        (made / "config.json").write_bytes((places["sd/net"] / "config.json").read_bytes())
    with pytest.raises(UserError, match=f"--controlnet .*{message}") as caught:
        load_control(Control(name), unet, 4, SIDE, torch.float32, torch.device("cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"control": "sketch"}, "pass --controlnet too"),
        ({"control_scale": 0.0}, "pass --controlnet too"),
        ({"controlnet": "x", "control": "depth"}, "--control 'depth' is not known; use edges, sketch"),
        ({"controlnet": "x", "control_scale": -1.0}, "--control-scale -1.0 should be 0 or more"),
        ({"controlnet": "x", "control_scale": float("nan")}, "--control-scale nan should be 0 or more"),
    ],
)
def test_words_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Conditioning(**options)


def test_latents_are_scaled_as_by_the_stock_pipeline_of_sdxl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_generator("sdxl", tmp_path / "xl")
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    vae.register_to_config(latents_mean=[-1.5, 0.5, 1.0, 2.0], latents_std=[2.0, 3.0, 1.5, 0.7], scaling_factor=0.5)
    vae.save_pretrained(folder / "vae")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    save_conditioner(tiny_conditioner(unet, str(folder)), tmp_path / "own.safetensors")
    model = Generator.load(str(folder), tmp_path / "own.safetensors", Runtime(device="cpu"))
    start = torch.rand(1, 3, SIDE, SIDE)
    pipe = diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(folder, local_files_only=True)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    with torch.no_grad():
        due = pipe.prepare_latents(2 * start - 1, None, 1, 1, torch.float32, "cpu", add_noise=False)
    torch.testing.assert_close(model.encode(start), due)
    stock = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    stock.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 3.0, "output_type": "pt"}
    expected = stock(WORDS, generator=torch.Generator().manual_seed(7), **options).images
    ours = model.generate(torch.zeros(1, N_TOKENS, WIDTH), [7], 3, 3.0, scale=0.0, prompts=[WORDS])
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)
    scale = LatentScale.of(vae)
    torch.testing.assert_close(scale.raw(scale.scaled(due)), due)
