"""Every known backbone through the real loading code, as a tiny twin with random weights; its pinned revision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from align.config import BackboneConfig, Config, load_config
from align.vision.backbones import load_backbone, resolve_layer
from align.vision.known import KNOWN
from align.vision.taps import Backbone
from tests.align.fixture_backbones import shrink, tiny
from tests.align.fixture_internvit import internvit_states, write_internvit
from tests.conftest import PROJECT
from tests.one_line import fails

CONFIGS = sorted((PROJECT / "configs" / "backbones").glob("*.yaml"))
PREFIX = {"dinov2": 1, "dinov3": 5, "SigLIP2": 0, "siglip2": 0, "ViT": 1, "EVA02": 1, "intern": 1, "Intern": 1, "RN": 0}


def smooth_picture(side: int = 120) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side))


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].float() / 255


def expected_prefix(name: str) -> int:
    """CLS and registers, as the papers of the families say."""
    return next(count for part, count in sorted(PREFIX.items(), key=lambda item: -len(item[0])) if part in name)


@pytest.mark.parametrize("name", KNOWN)
def test_tiny_twin_gives_its_hidden_states(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = tiny(name, tmp_path, monkeypatch)
    backbone = load_backbone(twin.config)
    assert backbone.name == name
    picture = smooth_picture()
    pixels = backbone.preprocess(tensor(picture))
    spread = min(backbone.preprocessing["std"])
    torch.testing.assert_close(pixels, twin.processor(picture), rtol=0, atol=2 / 255 / spread)  # 8-bit rounding

    with torch.no_grad():
        expected = twin.states(pixels)
    found = backbone.read(pixels, list(expected))
    for layer, tokens in expected.items():
        torch.testing.assert_close(found[layer], tokens, rtol=1e-4, atol=1e-4)
    assert backbone.prefix == expected_prefix(name) and backbone.has_cls == (backbone.prefix > 0)
    assert resolve_layer(backbone, "-1") == backbone.layers[-1] == list(expected)[-1]
    assert resolve_layer(backbone, "0.5") == backbone.layers[(len(backbone.layers) - 1 + 1) // 2]
    if "RN" not in name:
        assert list(expected) == list(backbone.layers)
        check_geometry(backbone, pixels)


def check_geometry(backbone: Backbone, pixels: torch.Tensor) -> None:
    """Layer 0: prefix tokens know nothing of the picture, patches stand in row-major order behind them."""
    before = backbone.read(pixels, ["0"])["0"]
    grid = int((before.shape[1] - backbone.prefix) ** 0.5)
    patch = pixels.shape[-1] // grid
    row, column = 1, 3
    changed = pixels.clone()
    changed[:, :, row * patch : row * patch + 4, column * patch : column * patch + 4] += 1.0
    difference = (backbone.read(changed, ["0"])["0"] - before).abs().amax((0, 2))
    assert difference.nonzero().flatten().tolist() == [backbone.prefix + row * grid + column]
    assert backbone.read(pixels, ["0"], "mean")["0"].shape[1] == 1


@pytest.mark.parametrize("name", KNOWN)
def test_offline_one_line_says_what_is_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)  # nothing large is built even if the order of fetching and building were wrong
    offline(monkeypatch, tmp_path)
    line = fails(r"offline, pass backbone\.weights=FILE or DIR", lambda: load_backbone(BackboneConfig(name)))
    revision = KNOWN[name].revision
    assert name in line and (revision is None or f"at revision {revision}" in line)
    other = fails("cannot load", lambda: load_backbone(BackboneConfig(name, revision="abc")))
    assert "at revision abc" in other


HUB = {  # one of each way from the hub to a model
    "timm/vit_base_patch16_dinov3.lvd1689m": "timm/vit_base_patch16_dinov3.lvd1689m",
    "open_clip/ViT-B-16:laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "transformers/facebook/dinov2-giant": "facebook/dinov2-giant",
    "transformers/OpenGVLab/InternViT-6B-448px-V1-5": "OpenGVLab/InternViT-6B-448px-V1-5",
}


@pytest.mark.parametrize("name", HUB)
def test_the_pinned_revision_is_loaded_from_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download cache as the hub's client keeps it, without network: the pinned commit, and other weights as main."""
    revision, other = KNOWN[name].revision, "0" * 40
    assert revision is not None
    cache = tmp_path / f"models--{HUB[name].replace('/', '--')}"
    folder = cache / "snapshots" / revision
    folder.mkdir(parents=True)
    twin = tiny(name, folder, monkeypatch)
    shutil.copytree(folder, cache / "snapshots" / other)
    for file in (cache / "snapshots" / other).glob("*.safetensors"):
        save_file({key: value + 1 for key, value in load_file(file).items()}, file, {"format": "pt"})
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(other)

    offline(monkeypatch, tmp_path)
    expected = load_backbone(twin.config)
    found = load_backbone(BackboneConfig(name))
    assert (found.weights_hash, found.preprocessing) == (expected.weights_hash, expected.preprocessing)
    assert load_backbone(BackboneConfig(name, revision=other)).weights_hash != expected.weights_hash
    assert load_backbone(BackboneConfig(name, revision="main")).weights_hash != expected.weights_hash


def offline(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The hub's clients find nothing but ``cache``."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HOME", str(cache))


def test_revisions_are_commits_and_belong_to_the_hub(tmp_path: Path) -> None:
    for known in KNOWN.values():
        assert known.revision is None or (len(known.revision) == 40 and int(known.revision, 16))
    local = str(tmp_path)
    (tmp_path / "w.pth").touch()
    for config, words in (
        (BackboneConfig("timm/test_vit", local, revision="a"), "pass one"),
        (BackboneConfig("torchvision/squeezenet1_1", revision="a"), "pinned by its file's hash"),
        (BackboneConfig("mini", revision="a"), "ships with this package"),
        (BackboneConfig("open_clip/ViT-B-16:laion2b", local + "/w.pth"), "known: openai"),
        (BackboneConfig("open_clip/ViT-B-17:laion2b", local + "/x"), "does not exist"),
        (BackboneConfig("open_clip/ViT-B-17:openai"), "did you mean open_clip/ViT-B-16"),
        (BackboneConfig("timm/test_vit", local), "holds no model.safetensors"),
    ):
        fails(words, lambda config=config: load_backbone(config))


def test_weights_of_openai_get_their_activation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under either name of the architecture; others keep GELU."""
    twin = tiny("open_clip/ViT-B-16:laion2b_s34b_b88k", tmp_path, monkeypatch)
    found = {}
    for tag in ("openai", "laion2b_s34b_b88k"):
        backbone = load_backbone(BackboneConfig(f"open_clip/ViT-B-16:{tag}", twin.config.weights))
        found[tag] = type(backbone.model.transformer.resblocks[0].mlp.gelu).__name__
    assert found == {"openai": "QuickGELU", "laion2b_s34b_b88k": "GELU"}


@pytest.mark.parametrize("norm_type", ["rms_norm", "layer_norm"])
def test_published_internvit_without_its_code(norm_type: str, tmp_path: Path) -> None:
    facts, state = write_internvit(tmp_path, 48, 2, heads=3, size=56, shards=1, norm_type=norm_type)
    name = "transformers/OpenGVLab/InternViT-300M-448px"
    backbone = load_backbone(BackboneConfig(name, str(tmp_path)))
    pixels = backbone.preprocess(torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0)))
    found = backbone.read(pixels, ["0", "1", "2"])
    for layer, tokens in internvit_states(facts, state, pixels).items():
        torch.testing.assert_close(found[layer], tokens, rtol=1e-4, atol=1e-5)
    assert type(backbone.model).__name__ == "InternVLVisionModel"
    larger = load_backbone(BackboneConfig(name, str(tmp_path), image_size=84))
    assert larger.tokens(torch.rand(1, 3, 84, 84), ["2"])["2"].shape == (1, 1 + 36, 48)


def test_internvit_of_transformers_own_layout(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, InternVLVisionConfig, InternVLVisionModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    model = InternVLVisionModel(InternVLVisionConfig(**sizes, image_size=56, norm_type="rms_norm", use_qk_norm=True))
    model.eval().save_pretrained(tmp_path)
    CLIPImageProcessor(size={"height": 56, "width": 56}, do_center_crop=False).save_pretrained(tmp_path)
    check_hidden_states(model, BackboneConfig("transformers/x/internvit", str(tmp_path)), prefix=1)


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov3_and_registers_of_transformers(registers: int, tmp_path: Path) -> None:
    from transformers import (
        BitImageProcessor,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        DINOv3ViTConfig,
        DINOv3ViTModel,
    )

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_register_tokens": registers}
    for kind, settings, patch in (
        (DINOv3ViTModel, DINOv3ViTConfig, 16),
        (Dinov2WithRegistersModel, Dinov2WithRegistersConfig, 14),
    ):
        torch.manual_seed(0)
        folder = tmp_path / kind.__name__
        model = kind(settings(**sizes, image_size=4 * patch, patch_size=patch)).eval()
        model.save_pretrained(folder)
        square = {"height": 4 * patch, "width": 4 * patch}
        BitImageProcessor(size=square, do_center_crop=False).save_pretrained(folder)
        check_hidden_states(model, BackboneConfig("transformers/x/dino", str(folder)), prefix=1 + registers)


def check_hidden_states(model: Any, config: BackboneConfig, prefix: int) -> None:
    backbone = load_backbone(config)
    pixels = backbone.preprocess(tensor(smooth_picture()))
    with torch.no_grad():
        expected = model(pixels, output_hidden_states=True).hidden_states
    assert len(expected) == len(backbone.layers)
    for layer, tokens in backbone.read(pixels, backbone.layers).items():
        torch.testing.assert_close(tokens, expected[int(layer)], rtol=1e-4, atol=1e-5)
    assert backbone.prefix == prefix
    check_geometry(backbone, pixels)


def test_faulty_internvit_and_foreign_code_end_in_one_line(tmp_path: Path) -> None:
    config = BackboneConfig("transformers/OpenGVLab/InternViT-6B-448px-V1-5", str(tmp_path))
    write_internvit(tmp_path, 32, 1, heads=2, size=28)
    index = tmp_path / "model.safetensors.index.json"
    shards = sorted(tmp_path.glob("*.safetensors"))
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-7])
    fails("not a whole safetensors", lambda: load_backbone(config))
    shards[1].unlink()
    fails("does not exist; fetch the whole folder", lambda: load_backbone(config))
    index.unlink()
    shards[0].rename(tmp_path / "model.safetensors")
    fails("weights of .* lack", lambda: load_backbone(config))
    index.write_text(json.dumps({"weight_map": {"x": "../outside.safetensors"}}))
    (tmp_path.parent / "outside.safetensors").write_bytes(whole)
    fails("does not exist", lambda: load_backbone(config))

    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(facts | {"model_type": "somebodys_vit"}))
    fails("needs code of its repository, which is never run", lambda: load_backbone(config))


def test_siglip2_that_takes_cut_patches_is_refused(tmp_path: Path) -> None:
    """NaFlex: pictures of any shape, cut up beforehand; there is no square grid of tokens."""
    from transformers import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    Siglip2VisionModel(Siglip2VisionConfig(**sizes, patch_size=8, num_patches=16)).save_pretrained(tmp_path)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    config = BackboneConfig("transformers/x/y", str(tmp_path))
    fails("says no size of its pictures", lambda: load_backbone(config))
    config.image_size = 32
    fails("no plain vision transformer", lambda: load_backbone(config))


def test_every_known_backbone_has_one_configuration() -> None:
    names = [load_config(Config, path).backbone.name for path in CONFIGS]
    assert sorted(names) == sorted(KNOWN)
