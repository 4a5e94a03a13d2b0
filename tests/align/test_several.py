"""Several networks as one backbone: their layers side by side, weights from one folder, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from align.config import BackboneConfig, Config, load_config
from align.data.signals import Stimuli
from align.errors import UserError
from align.seeding import derive
from align.vision.backbones import load_backbone
from align.vision.fused import layer_targets, require_pooling, resolve_layers
from align.vision.several import Several
from align.vision.untrained import load_untrained
from recon.driving.maximize import require_other
from recon.evaluation.judge import made_of, took_part

SQUEEZENET = "torchvision/squeezenet1_1"
NAME = f"{SQUEEZENET}+mini"


def _weights(folder: Path, name: str = "squeezenet1_1.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(derive(0, name) % 2**31)
    save_file(models.squeezenet1_1(weights=None).state_dict(), str(folder / name))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def several(folder: Path) -> Several:
    found = load_backbone(BackboneConfig(name=NAME, weights=str(folder), image_size=64))
    assert isinstance(found, Several)
    return found


def test_every_layer_gives_what_its_own_network_gives(several: Several, folder: Path) -> None:
    alone = {
        "squeezenet1_1": load_backbone(
            BackboneConfig(name=SQUEEZENET, weights=str(folder / "squeezenet1_1.safetensors"), image_size=64)
        ),
        "mini": load_backbone(BackboneConfig(name="mini", image_size=64)),
    }
    assert several.layers == tuple(f"{label}:{layer}" for label, one in alone.items() for layer in one.layers)
    pictures = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    wanted = ("mini:2", "squeezenet1_1:features.4", "mini:1")
    for pooling in ("grid:2", "mean", "tokens"):
        found = several.tokens(several.preprocess(pictures), wanted, pooling)
        assert list(found) == list(wanted)
        for layer, value in found.items():
            label, own = layer.split(":")
            resized = several.preprocess(pictures)  # of equal sizes, so that nobody resizes again
            torch.testing.assert_close(value, alone[label].tokens(resized, [own], pooling)[own], rtol=0, atol=0)


def test_a_network_without_a_wanted_layer_does_not_run(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(several.members["squeezenet1_1"], "read", never)
    assert several.tokens(torch.rand(1, 3, 64, 64), ["mini:1"], "mean")["mini:1"].shape[:2] == (1, 1)


def test_a_gradient_reaches_the_picture_through_every_network(several: Several) -> None:
    picture = torch.rand(1, 3, 64, 64, requires_grad=True)
    for layer in ("mini:1", "squeezenet1_1:features.3"):
        (grad,) = torch.autograd.grad(several.tokens(picture, [layer], "mean")[layer].square().sum(), picture)
        assert float(grad.abs().sum()) > 0


def test_layers_of_different_networks_are_joined_as_those_of_one(several: Several, tmp_path: Path) -> None:
    layer = resolve_layers(several, "mini:2+squeezenet1_1:features.4")
    assert layer == "squeezenet1_1:features.4+mini:2", "in the order of the networks"
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8)
    images = Stimuli(("a", "b", "c"), pictures.__getitem__, np.arange(3), ("",) * 3, ("",) * 3)
    both = layer_targets(several, images, [layer], "grid:2", tmp_path, progress=False)[layer]
    parts = layer_targets(several, images, layer.split("+"), "grid:2", tmp_path, progress=False)
    assert np.array_equal(both.tokens, np.concatenate([one.tokens for one in parts.values()], axis=2))
    assert both.widths == tuple(one.tokens.shape[2] for one in parts.values())
    with pytest.raises(UserError, match="cls"):
        require_pooling(several, ["squeezenet1_1:features.4"], "cls")


def test_weights_come_from_one_folder(folder: Path, tmp_path: Path) -> None:
    one = BackboneConfig(name=SQUEEZENET, weights=str(folder / "squeezenet1_1.safetensors"))
    two = load_backbone(BackboneConfig(name=NAME, weights=str(folder)))
    assert isinstance(two, Several)
    assert two.members["squeezenet1_1"].weights_hash == load_backbone(one).weights_hash
    assert two.weights_hash != two.members["squeezenet1_1"].weights_hash
    other = _weights(tmp_path / "other", "squeezenet1_1-imagenet.safetensors")
    assert load_backbone(BackboneConfig(name=NAME, weights=str(other))).weights_hash != two.weights_hash
    _weights(other, "squeezenet1_10.safetensors")  # another model, whose name begins alike
    load_backbone(BackboneConfig(name=NAME, weights=str(other)))
    _weights(other, "squeezenet1_1.safetensors")
    with pytest.raises(UserError, match=r"holds several weights of torchvision/squeezenet1_1: .* leave one there"):
        load_backbone(BackboneConfig(name=NAME, weights=str(other)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "FILE"}, "is one file, and .* are several networks; pass a folder"),
        ({"revision": "abc"}, "is of one network"),
        ({"name": "mini+mini"}, "names a network twice"),
        ({"name": "mini+nothing/x"}, "'nothing/x' is not known"),
        ({"name": "mini+"}, "'' is not known"),
        ({"weights": "ABSENT"}, "no such|does not exist|is not there|no file"),
    ],
)
def test_faults_are_one_line(changes: dict[str, str], said: str, folder: Path) -> None:
    places = {"FILE": str(folder / "squeezenet1_1.safetensors"), "ABSENT": str(folder / "absent")}
    config = replace(BackboneConfig(name=NAME), **{key: places.get(value, value) for key, value in changes.items()})
    with pytest.raises(UserError, match=said) as caught:
        load_backbone(config)
    assert "\n" not in str(caught.value)


def test_a_network_that_crops_is_not_joined_with_one_that_does_not(several: Several) -> None:
    mini = several.members["mini"]
    old = mini.preprocessing
    try:
        mini.preprocessing = {**old, "shorter": 80}
        with pytest.raises(UserError, match="mini cuts pictures in its own way"):
            Several(NAME, several.members)
    finally:
        mini.preprocessing = old


def test_untrained_ones_are_joined_too() -> None:
    found = load_untrained(BackboneConfig(name=NAME, image_size=64), 1)
    assert found.name == f"{NAME}@untrained:1"
    assert {layer.split(":")[0] for layer in found.layers} == {"squeezenet1_1@untrained", "mini@untrained"}


def test_the_name_is_read_from_a_configuration() -> None:
    assert load_config(Config, None, [f"backbone.name={NAME}"]).backbone.name == NAME
    assert load_config(Config, None, [f"sweep.backbones=[{NAME}@DIR]"]).sweep.backbones == [f"{NAME}@DIR"]
    with pytest.raises(UserError, match="'nothing' is not known"):
        load_config(Config, None, ["backbone.name=mini+nothing"])


def test_no_member_judges_what_it_took_part_in() -> None:
    used = made_of(NAME, "generator")
    assert used == {SQUEEZENET, "mini"}
    assert took_part(SQUEEZENET, used)
    with pytest.raises(UserError, match="reads a network that steers"):
        require_other(NAME, "mini")
    require_other(NAME, "torchvision/squeezenet1_0")
