"""Views of pictures against torchvision, PIL's definition and plain loops; what they do to the targets cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from align.errors import UserError
from align.vision.fused import layer_targets
from align.vision.targets import cached_targets, target_key
from align.vision.views import canonical, parse_view, views_of
from tests.align.test_targets import LAYERS, N, pictures, tiny_backbone

VIEWS = ["original", "blur:15", "noise:25", "lowres:0.1", "mosaic:5", "foveal:51"]


def _picture(height: int = 224, width: int = 240) -> np.ndarray:
    """Coarse coloured structure and fine noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, axis=0).repeat(8, axis=1)
    coarse = coarse[:height, :width]
    return np.clip(coarse * 0.7 + rng.integers(0, 77, (height, width, 3)), 0, 255).astype(np.uint8)


def _view(name: str, picture: np.ndarray) -> np.ndarray:
    return views_of(picture, [name])[0]


def test_every_view_is_a_picture_and_leaves_its_source_alone() -> None:
    for picture in (_picture(), _picture(112, 120), np.full((9, 12, 3), 200, np.uint8)):
        before = picture.copy()
        for name, view in zip(VIEWS, views_of(picture, VIEWS), strict=True):
            assert view.dtype == np.uint8 and view.shape == picture.shape, name
            assert np.array_equal(view, picture) == (name == "original" or (len(picture) == 9 and name != "noise:25"))
        assert np.array_equal(picture, before)


def test_blur_equals_torchvision() -> None:
    picture = _picture()
    sigma = 0.3 * ((15 - 1) * 0.5 - 1) + 0.8
    pixels = torch.tensor(picture).permute(2, 0, 1).float()
    expected = gaussian_blur(pixels, [21, 21], [sigma, sigma]).permute(1, 2, 0).numpy()
    inner = slice(12, -12)  # the edges are continued differently
    assert np.abs(_view("blur:15", picture).astype(float) - expected)[inner, inner].max() < 1.5


def test_blur_grows_with_the_picture() -> None:
    picture = _picture()
    large = picture.repeat(2, axis=0).repeat(2, axis=1)
    halved = _view("blur:21", large).astype(float).reshape(224, 2, 240, 2, 3).mean((1, 3))
    assert np.abs(halved - _view("blur:21", picture))[20:-20, 20:-20].mean() < 2


def test_noise_has_the_deviation_and_belongs_to_the_picture() -> None:
    grey = np.full((224, 224, 3), 128, np.uint8)
    change = _view("noise:25", grey).astype(float) - 128
    assert change.std() == pytest.approx(25, rel=0.02) and abs(change.mean()) < 0.5
    assert np.array_equal(_view("noise:25", grey), _view("noise:25", grey.copy()))
    other = _view("noise:25", np.full((224, 224, 3), 127, np.uint8)).astype(float) - 127
    assert abs(np.corrcoef(change.ravel(), other.ravel())[0, 1]) < 0.02


def test_mosaic_is_the_mean_of_every_cell() -> None:
    picture = _picture(224, 232)
    expected = np.zeros(picture.shape)
    for top in range(0, 224, 5):
        for left in range(0, 232, 5):
            cell = picture[top : top + 5, left : left + 5]
            expected[top : top + 5, left : left + 5] = cell.reshape(-1, 3).mean(0)
    assert np.abs(_view("mosaic:5", picture) - expected).max() <= 0.5
    assert np.array_equal(_view("mosaic:1", picture), picture)


def test_low_resolution_keeps_means_of_areas_only() -> None:
    picture = _picture(200, 200)
    view = _view("lowres:0.1", picture).astype(float)
    centres = view.reshape(20, 10, 20, 10, 3)[:, 4:6, :, 4:6].mean((1, 3))  # where the enlarged grid has its nodes
    means = picture.reshape(20, 10, 20, 10, 3).mean((1, 3))
    assert np.abs(centres - means)[1:-1, 1:-1].mean() < 5
    assert np.corrcoef(centres.ravel(), means.ravel())[0, 1] > 0.99
    assert np.abs(np.diff(view, axis=0)).max() < 0.2 * np.abs(np.diff(picture.astype(float), axis=0)).max()


def test_foveal_is_sharp_in_the_centre_and_blurred_at_the_edge() -> None:
    picture = _picture(225, 225)
    view, blurred = _view("foveal:51", picture).astype(float), _view("blur:51", picture).astype(float)
    assert np.array_equal(view[112, 112], picture[112, 112])
    np.testing.assert_array_equal(view[:, :1], blurred[:, :1])
    half = 0.5 * picture[112, 168] + 0.5 * blurred[112, 168]  # half way to the near edge
    assert np.abs(view[112, 168] - half).max() <= 1
    loss = np.abs(view - picture).mean(2)
    assert loss[100:125, 100:125].mean() < 0.3 * loss[:25, :25].mean()


def test_the_target_is_the_mean_over_views(tmp_path: Path) -> None:
    backbone, stimuli = tiny_backbone(), pictures(7)
    views = ["original", "blur:51", "noise:60"]
    found = cached_targets(backbone, stimuli, LAYERS, "grid:2", tmp_path, batch_size=3, progress=False, views=views)
    for row in range(7):
        parts = []
        for view in views_of(stimuli.load(row), views):
            image = torch.tensor(view).permute(2, 0, 1)[None] / 255
            parts.append(backbone.tokens(image, LAYERS, "grid:2"))
        for layer in LAYERS:
            expected = torch.stack([part[layer][0] for part in parts]).mean(0)
            np.testing.assert_allclose(found[layer].tokens[row], expected, atol=2e-3)
    info = json.loads(found["first"].path.with_suffix(".json").read_text())
    assert info["views"] == ["blur:51", "noise:60", "original:1"]
    single = cached_targets(backbone, stimuli, ["first"], "grid:2", tmp_path, progress=False)["first"]
    assert "views" not in json.loads(single.path.with_suffix(".json").read_text())
    assert np.abs(single.tokens - found["first"].tokens).max() > 0.01


def test_views_enter_the_key_and_none_leave_it_as_it_was(tmp_path: Path) -> None:
    backbone, stimuli = tiny_backbone(), pictures(3)
    plain = target_key(backbone, stimuli, "first", "mean")
    assert target_key(backbone, stimuli, "first", "mean", ()) == plain
    keys = [target_key(backbone, stimuli, "first", "mean", each) for each in (["blur:15"], ["blur:17"], VIEWS)]
    assert len({plain, *keys}) == 4
    assert target_key(backbone, stimuli, "first", "mean", ["blur:15.0"]) == keys[0]
    assert target_key(backbone, stimuli, "first", "mean", VIEWS[::-1]) == keys[2]
    assert canonical(["noise:25", "original"]) == ["noise:25", "original:1"]
    joined = layer_targets(backbone, stimuli, ["first", "second"], "mean", tmp_path, False, ["blur:15"])
    assert {target.key for target in joined.values()} == {
        keys[0],
        target_key(backbone, stimuli, "second", "mean", ["blur:15"]),
    }


def test_an_interrupted_extraction_of_views_ends_with_the_same_bytes(tmp_path: Path) -> None:
    backbone, stimuli, views = tiny_backbone(), pictures(), ["noise:25", "mosaic:40"]

    def extract(images: object, folder: str) -> bytes:
        found = cached_targets(backbone, images, ["first"], "mean", tmp_path / folder, 4, False, views)  # type: ignore[arg-type]
        return found["first"].path.read_bytes()

    whole = extract(stimuli, "whole")
    hashes, broken = stimuli.hashes, pictures()
    load = broken.load

    def fails(index: int) -> np.ndarray:
        if index == N - 5:
            raise KeyboardInterrupt
        return load(index)

    slain = type(stimuli)(broken.ids, fails, broken.groups, broken.concepts, broken.captions, lambda: hashes)
    with pytest.raises(KeyboardInterrupt):
        extract(slain, "cut")
    assert extract(stimuli, "cut") == whole


WRONG = [
    ("blurr:15", r"'blurr:15' is not known; use original, blur:15, noise:25"),
    ("blur", r"'blur' should have a strength of 3 to 223, such as blur:15"),
    ("blur:x", r"such as blur:15"),
    ("noise:-1", r"strength of 0 to 255"),
    ("lowres:2", r"strength of 0\.01 to 1"),
    ("mosaic:nan", r"such as mosaic:5"),
    ("original:2", r"'original:2' should have no strength"),
]


@pytest.mark.parametrize(("view", "message"), WRONG)
def test_wrong_views_are_refused_in_one_line(view: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_view(view)
    assert parse_view("lowres:.5") == ("lowres", 0.5)
