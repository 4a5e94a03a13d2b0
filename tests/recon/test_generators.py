"""One pipeline for SD 1.5, SDXL, Turbo and LCM with public adapters: against the stock pipelines, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from align.errors import UserError
from recon.generation.adapters import Adapter, load_adapter
from recon.generation.bridge import Bridge
from recon.generation.control import Control
from recon.generation.edges import edges
from recon.generation.loading import Defaults, load_pipeline
from recon.generation.pipeline import Generator
from recon.generation.runtime import Runtime
from tests.recon.tiny_family import HIDDEN, KINDS, PROJECTED, build_adapter, build_generator, build_image_encoder

TOKENS = 3  # states that a Plus adapter reads
CASES = [  # each family and each adapter once; the rest before a release
    pytest.param(kind, adapter, marks=[] if (adapter == "plus") == (kind in ("sd", "sdxl")) else pytest.mark.long)
    for kind in KINDS
    for adapter in ("pooled", "plus")
]


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("family")
    encoder = build_image_encoder(root / "encoder")
    found = {"encoder": encoder}
    for kind in KINDS:
        found[kind] = build_generator(kind, root / kind)
        for adapter in ("pooled", "plus"):
            found[f"{kind}/{adapter}"] = build_adapter(adapter, found[kind], root / "adapters" / kind, encoder)
    return found


def through(adapter: Adapter) -> Bridge:
    """A bridge that hands over the adapter's input as it is."""
    if adapter.kind == "pooled":
        return Bridge("x", lambda t: t[:, 0], torch.zeros(1, PROJECTED), (1, PROJECTED), "a test", "x")
    negative = torch.randn(1, TOKENS, HIDDEN, generator=torch.Generator().manual_seed(8))
    return Bridge("x", lambda t: t, negative, (TOKENS, HIDDEN), "a test", "x")


def load(places: dict[str, Path], kind: str, adapter: str, **runtime: Any) -> Generator:
    found = load_adapter(places[f"{kind}/{adapter}"])
    return Generator.load(str(places[kind]), found, Runtime(device="cpu", **runtime), through(found))


def embeddings(adapter: str, n: int = 3) -> torch.Tensor:
    shape = (n, 1, PROJECTED) if adapter == "pooled" else (n, TOKENS, HIDDEN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def stock(
    places: dict[str, Path], kind: str, embeds: torch.Tensor | None, adapter: str, cls: Any = None, **options: Any
) -> torch.Tensor:
    """One picture of the stock pipeline; ``embeds`` (2, ...) negative and positive, None = no adapter."""
    extra = {"safety_checker": None} if KINDS[kind]["family"] == "sd" else {}
    pipe: Any = (cls or diffusers.DiffusionPipeline).from_pretrained(places[kind], local_files_only=True, **extra)
    pipe.set_progress_bar_config(disable=True)
    if embeds is not None:
        place = places[f"{kind}/{adapter}"]
        pipe.load_ip_adapter(str(place.parent), subfolder="", weight_name=place.name, image_encoder_folder=None)
        options["ip_adapter_image_embeds"] = [embeds[:, None]]
    return pipe("a red disk on brick", output_type="pt", **options).images.float()


def png(pictures: torch.Tensor) -> np.ndarray:
    return np.round(pictures.numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize(("kind", "adapter"), CASES)
def test_a_picture_is_that_of_the_stock_pipeline(places: dict[str, Path], kind: str, adapter: str) -> None:
    generator, given = load(places, kind, adapter), embeddings(adapter)
    guidance = 3.0 if kind != "turbo" else 0.0
    options = {"num_inference_steps": 3, "guidance_scale": guidance}
    bridge = generator.bridge
    guided = guidance > 1 and kind != "lcm"
    embeds = torch.cat([bridge.negative, bridge(given[:1])]) if guided else bridge(given[:1])
    expected = stock(places, kind, embeds, adapter, generator=torch.Generator().manual_seed(7), **options)
    ours = generator.generate(given[:1], [7], 3, guidance, prompts=["a red disk on brick"])
    assert torch.allclose(ours, expected, atol=2e-5)
    other = generator.generate(given[1:2], [7], 3, guidance, prompts=["a red disk on brick"])
    assert not torch.allclose(ours, other, atol=1e-3)
    without = stock(places, kind, None, adapter, generator=torch.Generator().manual_seed(7), **options)
    off = generator.generate(given[:1], [7], 3, guidance, scale=0.0, prompts=["a red disk on brick"])
    assert torch.allclose(off, without, atol=2e-5)
    assert not torch.allclose(off, ours, atol=1e-3)


@pytest.mark.parametrize(("kind", "adapter"), CASES)
def test_batch_size_and_neighbours_never_change_a_picture(places: dict[str, Path], kind: str, adapter: str) -> None:
    generator, given = load(places, kind, adapter), embeddings(adapter)
    texts = ["a blue star on fur", "", "a red disk on brick"]
    together = generator.generate(given, [1, 2, 3], 3, 3.0, batch_size=3, prompts=texts)
    for sizes in (1, 2):
        apart = generator.generate(given, [1, 2, 3], 3, 3.0, batch_size=sizes, prompts=texts)
        assert torch.allclose(apart, together, atol=1e-5)
        assert np.abs(png(apart).astype(int) - png(together)).max() <= 1
        assert (png(apart) == png(together)).mean() > 0.999
    assert (together[0] - together[1]).abs().max() > 0.01


def test_adapter_and_generator_must_belong_together(places: dict[str, Path]) -> None:
    found = load_adapter(places["sdxl/pooled"])
    with pytest.raises(UserError, match=r"of another generator.*width 32.*of width 16"):
        Generator.load(str(places["sd"]), found, bridge=through(found))
    with pytest.raises(UserError, match="pass --bridge ridge, prior or resume"):
        Generator.load(str(places["sd"]), places["sd/pooled"])


def test_steps_and_guidance_are_those_a_generator_is_meant_for(places: dict[str, Path]) -> None:
    told = {kind: load(places, kind, "pooled").defaults for kind in ("sd", "sdxl", "turbo", "lcm")}
    assert told == {
        "sd": Defaults(30, 7.5),
        "sdxl": Defaults(30, 5.0),
        "turbo": Defaults(4, 1.0),
        "lcm": Defaults(4, 8.5),
    }
    generator, given = load(places, "turbo", "pooled"), embeddings("pooled", 1)
    assert torch.equal(generator.generate(given, [1]), generator.generate(given, [1], 4, 0.0))


@pytest.mark.parametrize("kind", ["sd-ddim", "sdxl"])
def test_a_start_picture_is_that_of_stock_img2img(places: dict[str, Path], kind: str) -> None:
    generator, given = load(places, kind, "pooled"), embeddings("pooled")
    start = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    bridge = generator.bridge
    name = "StableDiffusionXLImg2ImgPipeline" if kind == "sdxl" else "StableDiffusionImg2ImgPipeline"
    expected = stock(
        places,
        kind,
        torch.cat([bridge.negative, bridge(given[:1])]),
        "pooled",
        cls=getattr(diffusers, name),
        image=generator.encode(start),  # latents: the stock pipeline draws from the posterior, ours takes its mean
        strength=0.6,
        num_inference_steps=5,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
    )
    prompts = ["a red disk on brick"]
    ours = generator.generate(given[:1], [7], 5, 3.0, start=start, strength=0.6, prompts=prompts)
    assert torch.allclose(ours, expected, atol=5e-5)
    nearer = generator.generate(given[:1], [7], 5, 3.0, start=start, strength=0.2, prompts=prompts)
    seen = generator.decode(generator.encode(start))
    assert (nearer - seen).square().mean() < (ours - seen).square().mean()


@pytest.mark.parametrize("kind", ["sd-ddim", pytest.param("sdxl", marks=pytest.mark.long)])
def test_edges_are_read_as_by_the_stock_controlnet(places: dict[str, Path], kind: str) -> None:
    torch.manual_seed(0)
    unet = load_pipeline(places[kind], Runtime()).unet
    net = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))  # halves the side
    for parameter in net.parameters():
        if not parameter.any():  # the outputs of an untrained ControlNet are zero
            torch.nn.init.normal_(parameter, std=0.1)
    folder = places[kind].parent / f"controlnet-{kind}"
    net.save_pretrained(folder)
    found, given = load_adapter(places[f"{kind}/pooled"]), embeddings("pooled")
    held = Generator.load(str(places[kind]), found, Runtime(device="cpu"), through(found), Control(str(folder)))
    seen = edges(torch.rand(2, 3, held.size, held.size, generator=torch.Generator().manual_seed(4)))
    name = "StableDiffusionXLControlNetPipeline" if kind == "sdxl" else "StableDiffusionControlNetPipeline"
    pipe = getattr(diffusers, name).from_pipe(load_pipeline(places[kind], Runtime()), controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    place = places[f"{kind}/pooled"]
    pipe.load_ip_adapter(str(place.parent), subfolder="", weight_name=place.name, image_encoder_folder=None)
    embeds = torch.cat([held.bridge.negative, held.bridge(given[:1])])
    expected = pipe(
        "a red disk on brick",
        image=seen[:1],
        ip_adapter_image_embeds=[embeds[:, None]],
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).images
    words = ["a red disk on brick"] * 2
    ours = held.generate(given[:2], [7, 8], 3, 3.0, prompts=words, control=seen)
    torch.testing.assert_close(ours[:1], expected, atol=5e-5, rtol=0)
    other = held.generate(given[:2], [7, 8], 3, 3.0, prompts=words, control=seen.flip(0))
    assert (other - ours).abs().max() > 1e-3
    with pytest.raises(UserError, match="give both or neither"):
        held.generate(given[:1], [7], 3)
    with pytest.raises(UserError, match="cannot be read"):
        Generator.load(str(places[kind]), found, bridge=through(found), control=Control(str(folder / "nowhere")))


def test_edges_are_where_a_picture_changes() -> None:
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 16:] = 0.8
    found = edges(picture)
    assert found.shape == (1, 3, 32, 32) and found[..., 15:17].min() > 0.99
    assert found[..., :14].max() == 0 and found[..., 18:].max() == 0
    assert edges(torch.full((1, 3, 32, 32), 0.3)).max() == 0


def test_impossible_starts_are_refused(places: dict[str, Path]) -> None:
    generator, given = load(places, "sd-ddim", "pooled"), embeddings("pooled", 1)
    start = torch.rand(1, 3, 16, 16)
    one = generator.generate(given, [1], 4, start=start, strength=0.2)  # a fifth of four steps is one of them
    assert torch.equal(one, generator.generate(given, [1], 4, start=start, strength=0.25))
    with pytest.raises(UserError, match="above 0 and at most 1"):
        generator.generate(given, [1], 4, start=start, strength=1.5)
    with pytest.raises(UserError, match="2 start pictures for 1 rows"):
        generator.generate(given, [1], 4, start=torch.cat([start, start]))


@pytest.mark.parametrize("kind", ["sd-ddim", "sdxl", pytest.param("turbo", marks=pytest.mark.long), "lcm"])
def test_the_hook_decides_the_picture(places: dict[str, Path], kind: str) -> None:
    generator, given = load(places, kind, "pooled"), embeddings("pooled")
    plain = generator.generate(given, [1, 2, 3], 4, 3.0, batch_size=2)
    seen: list[tuple[int, range]] = []

    def look(x0: torch.Tensor, step: int, rows: range) -> torch.Tensor:
        seen.append((step, rows))
        assert x0.shape == (len(rows), 4, 8, 8)
        return x0

    same = generator.generate(given, [1, 2, 3], 4, 3.0, batch_size=2, guide=look)
    assert torch.allclose(same, plain, atol=1e-4)
    assert seen == [(step, rows) for rows in (range(0, 2), range(2, 3)) for step in range(4)]
    wanted = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    forced = generator.generate(given, [1, 2, 3], 4, 3.0, batch_size=2, guide=lambda x0, step, rows: wanted[list(rows)])
    if kind != "lcm":  # whose boundary condition keeps a share of the noisy latents
        assert torch.allclose(forced, generator.decode(wanted), atol=1e-3)
    assert not torch.allclose(forced, plain, atol=1e-2)


def test_a_scheduler_without_an_estimate_refuses_the_hook(places: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="PNDMScheduler has no estimate"):
        load(places, "sd", "pooled").generate(embeddings("pooled", 1), [1], 3, guide=lambda x0, step, rows: x0)


@pytest.mark.parametrize(
    ("kind", "precision"), [("sd-ddim", "bf16"), pytest.param("sdxl", "fp16", marks=pytest.mark.long), ("mini", "bf16")]
)
def test_half_precision_is_near(places: dict[str, Path], kind: str, precision: str) -> None:
    if kind == "mini":
        from recon.generation.pipeline import find_conditioner

        place = find_conditioner("mini", "1", "grid:8")
        full, half = (Generator.load("mini", place, Runtime(p, device="cpu")) for p in ("fp32", precision))
        given = torch.randn(1, *full.bridge.takes, generator=torch.Generator().manual_seed(1))
    else:
        full, half = (load(places, kind, "pooled", precision=p) for p in ("fp32", precision))
        given = embeddings("pooled", 1)
    first, second = (g.generate(given, [1], 3) for g in (full, half))
    assert second.dtype == torch.float32
    assert not torch.equal(first, second)
    assert (first - second).abs().mean() < 0.03


def test_the_compiler_sees_one_shape(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch is filled up, and what fills it up is dropped again; the tracer itself needs half a minute."""
    shapes: list[tuple[int, ...]] = []

    def recording(model: Any, **options: Any) -> Any:
        assert options == {"dynamic": False}

        def run(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            shapes.append(tuple(x.shape))
            return model(x, *args, **kwargs)

        return run

    monkeypatch.setattr(torch, "compile", recording)
    given, start = embeddings("pooled"), torch.rand(3, 3, 16, 16)
    plain, compiled = load(places, "sd-ddim", "pooled"), load(places, "sd-ddim", "pooled", compile=True)
    rows: list[range] = []

    def look(x0: torch.Tensor, step: int, own: range) -> torch.Tensor:
        assert len(x0) == len(own)
        rows.append(own)
        return x0

    expected = plain.generate(given, [1, 2, 3], 4, 3.0, start=start, strength=0.5)
    ours = compiled.generate(given, [1, 2, 3], 4, 3.0, batch_size=2, start=start, strength=0.5, guide=look)
    assert torch.allclose(ours, expected, atol=1e-4)
    assert set(shapes) == {(4, 4, 8, 8)}
    assert rows == [range(0, 2)] * 2 + [range(2, 3)] * 2


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"precision": "fp8"}, "precision 'fp8' is not known"),
        ({"attention": "flash"}, "attention 'flash' is not known"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"offload": True, "device": "cpu"}, "--offload moves"),
        ({"attention": "xformers", "device": "cpu"}, "xformers cannot run: (xformers is not installed|it needs a GPU)"),
    ],
)
def test_what_cannot_run_says_why(places: dict[str, Path], runtime: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Generator.load(str(places["sd"]), places["sd/pooled"], Runtime(**runtime))


def test_a_generator_of_another_kind_is_refused(places: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(UserError, match="is a FluxPipeline; known kinds"):
        load_pipeline(tmp_path, Runtime())
