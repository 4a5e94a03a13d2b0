"""Costs read off the real architectures: against published sizes, arithmetic by hand and real files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from align.config import BackboneConfig, Config, load_config
from align.vision.backbones import load_backbone, resolve_layer
from align.vision.costs import cache_bytes, geometry, measure, without_weights
from align.vision.taps import Backbone, Tap
from align.vision.targets import cached_targets
from tests.align.test_targets import pictures
from tests.conftest import PROJECT
from tests.one_line import fails

CONFIGS = [  # of the larger sisters before a release: the same code, other sizes
    pytest.param(path, marks=pytest.mark.long if re.search("large|giant|huge|l14|6b_v2|bigg|so400m", path.stem) else [])
    for path in sorted((PROJECT / "configs" / "backbones").glob("*.yaml"))
]
PUBLISHED = {  # parameters (millions) and blocks, Du et al. 2026, arXiv 2601.21948, Table 4
    "open_clip/RN50-quickgelu:openai": (38, None),
    "open_clip/RN101-quickgelu:openai": (56, None),
    "open_clip/ViT-B-16:laion2b_s34b_b88k": (86, 12),
    "open_clip/ViT-H-14:laion2b_s32b_b79k": (632, 32),
    "transformers/facebook/dinov2-giant": (1140, 40),
    "open_clip/ViT-bigG-14:laion2b_s39b_b160k": (1840, 48),
    "open_clip/EVA02-E-14-plus:laion2b_s9b_b144k": (4350, 64),
    "transformers/OpenGVLab/InternViT-6B-448px-V1-5": (5540, 45),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_file_tells_the_truth(path: Path) -> None:
    """Its comment is the real geometry, its layers exist, its numbers are the published ones."""
    config = load_config(Config, path)
    facts, text = measure(config.backbone.name), path.read_text()
    assert f"# {geometry(facts)}" in text
    own = facts["preprocessing"]
    mean, std = (", ".join(map(str, own[key])) for key in ("mean", "std"))
    assert f"# preprocessing: {own['interpolation']}, mean {mean}, std {std}\n" in text
    assert ("pinned\n" in text) and ("not pinned\n" in text) == (facts["revision"] is None)
    assert set(re.findall(r"layer\d\.\d+", text)) <= set(facts["layers"])
    taps = {layer: Tap(layer) for layer in facts["layers"]}
    backbone = Backbone("names only", torch.nn.Linear(1, 1), taps, own)
    layers = [resolve_layer(backbone, layer) for layer in [config.target.layer, *config.sweep.layers]]
    assert set(layers) <= set(facts["layers"]) and layers[-1] == list(facts["layers"])[-1]
    if config.backbone.name in PUBLISHED:
        millions, blocks = PUBLISHED[config.backbone.name]
        assert facts["parameters"] / 1e6 == pytest.approx(millions, rel=0.01)
        assert blocks is None or list(facts["layers"]) == [str(k) for k in range(blocks + 1)]


def test_numbers_by_hand() -> None:
    """ViT-B/16: 12 blocks of 12 D^2 N multiply-adds (MLP and projections) and 2 N^2 D (attention), and the patches."""
    facts = measure("open_clip/ViT-B-16:laion2b_s34b_b88k", [16_740])
    n, d = 197, 768
    by_hand = 2 * (12 * (12 * n * d * d + 2 * n * n * d) + 196 * 3 * 16 * 16 * d)
    assert facts["gflop"] == pytest.approx(by_hand / 1e9, rel=0.01)
    assert facts["layers"]["6"] == {"tokens": 197, "grid": 14, "width": 768}
    sizes = {"mean": 2 * 16_740 * 768, "grid:4": 2 * 16_740 * 16 * 768, "tokens": 2 * 16_740 * 197 * 768}
    assert facts["cache_bytes"] == {"16740": sizes}
    resnet = measure("open_clip/RN50-quickgelu:openai", [10])
    assert resnet["layers"]["layer3.5"] == {"tokens": 14 * 14, "grid": 14, "width": 1024}
    assert resnet["layers"]["attnpool"] == {"tokens": 1, "grid": 0, "width": 1024}
    assert resnet["cache_bytes"]["10"] == {  # largest: layer4, layer4 and the first maps, 112 px of 64 or 56 px of 256
        "mean": 2 * 10 * 2048,
        "grid:4": 2 * 10 * 16 * 2048,
        "tokens": 2 * 10 * 56 * 56 * 256,
    }
    assert cache_bytes({"tokens": 1, "grid": 0, "width": 7}, "grid:4", 3) == 2 * 3 * 7


def test_measured_layers_are_those_of_a_loaded_backbone(tmp_path: Path) -> None:
    """And the files have the promised size: header aside, to the byte."""
    import timm

    torch.manual_seed(0)
    for name in ("timm/test_vit", "timm/test_resnet"):
        torch.save(timm.create_model(name.split("/")[1], pretrained=False).state_dict(), tmp_path / "w.pth")
        backbone = load_backbone(BackboneConfig(name, str(tmp_path / "w.pth")))
        empty = without_weights(BackboneConfig(name))
        assert empty.layers == backbone.layers and empty.preprocessing == backbone.preprocessing
        assert (empty.prefix, empty.has_cls) == (backbone.prefix, backbone.has_cls)
        assert all(parameter.is_meta for parameter in empty.parameters())
        facts = measure(name, [6])
        assert facts["parameters"] == sum(parameter.numel() for parameter in backbone.parameters())
        layers = backbone.layers[-2:]
        for pooling in ("mean", "grid:4", "tokens"):
            found = cached_targets(backbone, pictures(6), layers, pooling, tmp_path, progress=False)
            for layer in layers:
                promised = cache_bytes(facts["layers"][layer], pooling, 6)
                assert found[layer].tokens.nbytes == promised
                assert 0 < found[layer].path.stat().st_size - promised < 1000


def test_building_without_weights_leaves_seed_and_logging_alone() -> None:
    import logging

    torch.manual_seed(5)
    after = torch.rand(1)
    torch.manual_seed(5)
    level = logging.getLogger().level
    fails("has no weights", lambda: without_weights(BackboneConfig("open_clip/RN50:nowhere")))
    without_weights(BackboneConfig("open_clip/RN50:openai"))
    assert torch.equal(torch.rand(1), after) and logging.getLogger().level == level
