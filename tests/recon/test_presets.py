"""What a preset does to pictures, beside the same steps written out with Pillow, torchvision and scikit-image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchvision.transforms.functional import InterpolationMode, normalize, to_tensor
from torchvision.transforms.functional import resize as torchvision_resize

from align.errors import UserError
from recon import evaluate_images
from recon.metrics.metrics import METRICS
from recon.metrics.networks import IMAGENET, NETWORKS
from recon.scoring.opening import open_pictures
from recon.scoring.presets import PRESETS
from recon.scoring.set_scores import build_task
from recon.scoring.views import View
from tests.recon.tiny_pictures import noisy, seed_weights, smooth

SSIM = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
TABLE = ("PixCorr", "SSIM", "AlexNet(2)", "AlexNet(5)", "Inception", "CLIP", "EffNet", "SwAV")


def floats(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 255


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """What `transforms.Resize` of torchvision 0.16 does to a tensor."""
    return torchvision_resize(images, [size, size], interpolation=InterpolationMode.BILINEAR, antialias=False)


def score(a: torch.Tensor | np.ndarray, b: torch.Tensor | np.ndarray, **options: object) -> tuple[float, float]:
    """PixCorr and SSIM as the published scripts compute them, of one pair (H, W, 3)."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    r = np.corrcoef(b.reshape(1, -1), a.reshape(1, -1))[0, 1]
    return r, structural_similarity(rgb2gray(a), rgb2gray(b), **SSIM, **options)


def test_mindeye2_is_its_notebook() -> None:
    """Resize to 256, 0.75 x reconstruction + 0.25 x low level, then resize to 425; both SSIMs of the 2-D kind."""
    truth, told, low = smooth(3, 224), noisy(smooth(3, 300, 1), 0.1), smooth(3, 64, 2)
    images, recons, blurry = (resized(floats(x), 256) for x in (truth, told, low))
    blended = recons * 0.75 + blurry * 0.25
    pairs = zip(resized(blended, 425), resized(images, 425), strict=True)
    expected = np.array([score(a.permute(1, 2, 0), b.permute(1, 2, 0)) for a, b in pairs])
    frame = evaluate_images(
        told, truth, preset="mindeye2", metrics=["PixCorr", "SSIM"], low_level=low, controls=False, n_boot=10
    )
    found = np.array([frame.attrs["per_stimulus"][name] for name in ("PixCorr", "SSIM")]).T
    assert np.allclose(found, expected, atol=2e-5)
    assert frame.attrs["blend"] == 0.75
    plain = evaluate_images(told, truth, preset="mindeye2", metrics=["PixCorr"], controls=False, n_boot=10)
    assert plain.attrs["blend"] is None
    assert abs(plain.value["PixCorr"] - frame.value["PixCorr"]) > 1e-3
    assert frame.attrs["versions"]["published"]["torchvision"] == "0.16.0"
    assert frame.attrs["versions"]["here"]["torch"] == torch.__version__.split("+")[0]


def test_brain_diffuser_is_its_scripts() -> None:
    """PIL resize (bicubic) of the reconstruction alone to 425, native targets, SSIM of columns."""
    truth, told = smooth(2, 425), noisy(smooth(2, 512, 1), 0.1)
    expected = []
    for a, b in zip(told, truth, strict=True):
        a = np.array(Image.fromarray(a).resize((425, 425))) / 255.0
        expected.append(score(a, b / 255.0, channel_axis=-1))
    frame = evaluate_images(
        told, truth, preset="brain-diffuser", metrics=["PixCorr", "SSIM"], controls=False, n_boot=10
    )
    found = np.array([frame.attrs["per_stimulus"][name] for name in ("PixCorr", "SSIM")]).T
    assert np.allclose(found, expected, atol=2e-5)
    assert "columns (legacy" in frame.protocol["SSIM"]
    assert frame.protocol["PixCorr"] == "RGB, 425 px, resized by Pillow"
    assert frame.attrs["versions"]["published"]["scikit-image"] == "0.17.2"


def test_brain_diffuser_feeds_every_network_224_px_from_pillow() -> None:
    pictures = noisy(smooth(2, 425), 0.1)
    view = View(open_pictures(pictures), PRESETS["brain-diffuser"])
    expected = torch.stack([to_tensor(torchvision_resize(Image.fromarray(p), [224, 224])) for p in pictures])
    for size in (256, 342, 224, 255):
        assert torch.equal(view.network([0, 1], size), expected)
    unsmoothed = resized(floats(pictures), 224)
    assert not torch.allclose(expected, unsmoothed, atol=1e-2)


@pytest.mark.parametrize("preset", ["ours", "mindeye2"])
def test_tensors_pass_256_px_without_antialiasing_to_the_size_of_each_network(preset: str) -> None:
    pictures = noisy(smooth(2, 300), 0.1)
    view = View(open_pictures(pictures), PRESETS[preset])
    for size in (342, 256, 255, 224):
        expected = resized(resized(floats(pictures), 256), size)
        assert torch.allclose(view.network([0, 1], size), expected, atol=1e-6)
        antialiased = torchvision_resize(resized(floats(pictures), 256), [size, size], antialias=True)
        assert size >= 256 or not torch.allclose(expected, antialiased, atol=1e-4)
    assert torch.allclose(view.pixels([1]), resized(resized(floats(pictures[1:]), 256), 425), atol=1e-6)


def test_the_tables_name_the_metrics_and_sizes_that_were_published() -> None:
    assert PRESETS["mindeye2"].metrics == PRESETS["brain-diffuser"].metrics == TABLE
    judges = {"SqueezeNet(1.0)", "EfficientNet-Lite(0)"}
    assert set(TABLE) <= set(PRESETS["ours"].metrics) == {*METRICS, "DreamSim", *judges}
    sizes = {name: NETWORKS[METRICS[name].network].size for name in TABLE if METRICS[name].network in NETWORKS}
    assert sizes == {"AlexNet(2)": 256, "AlexNet(5)": 256, "Inception": 342, "EffNet": 255, "SwAV": 224}
    for preset in PRESETS.values():
        assert (preset.pixel_size, preset.entry_size) in ((425, 256), (425, None))
        assert "antialias" in preset.resizing
    assert {name: preset.blend for name, preset in PRESETS.items()} == {
        "ours": None,
        "mindeye2": 0.75,
        "brain-diffuser": None,
    }


def test_brain_diffuser_takes_the_first_982_and_the_first_weights_of_effnet(tmp_path: Path) -> None:
    preset = PRESETS["brain-diffuser"]
    assert (preset.first, preset.networks) == (982, {"EffNet": "effnet_v1"})
    v1, v2 = (
        torchvision.models.EfficientNet_B1_Weights.IMAGENET1K_V1,
        torchvision.models.EfficientNet_B1_Weights.IMAGENET1K_V2,
    )
    assert NETWORKS["effnet_v1"].url + NETWORKS["effnet_v1"].file == v1.url
    assert NETWORKS["effnet"].url + NETWORKS["effnet"].file == v2.url
    pictures = open_pictures(smooth(5))
    few = dataclasses.replace(preset, first=3)
    task = build_task(pictures, pictures, few, None, controls=True, seed=0)  # type: ignore[arg-type]
    assert task.n == 3 and [row for rows in task.chunks(2) for row in rows] == [0, 1, 2]
    assert set(task.cycle.tolist()) == {0, 1, 2}


def test_brain_diffusers_effnet_distance_through_the_whole_path(tmp_path: Path) -> None:
    from scipy.spatial.distance import correlation
    from torchvision.models.feature_extraction import create_feature_extractor

    model = torchvision.models.efficientnet_b1().eval()
    seed_weights(model)
    torch.save(model.state_dict(), tmp_path / NETWORKS["effnet_v1"].file)
    truth, told = smooth(2, 425), noisy(smooth(2, 300, 1), 0.1)
    extractor = create_feature_extractor(model, ["avgpool"])
    features = []
    for pictures in (told, truth):
        images = [to_tensor(torchvision_resize(Image.fromarray(p), [224, 224])) for p in pictures]
        with torch.no_grad():
            features.append(extractor(normalize(torch.stack(images), *IMAGENET))["avgpool"].flatten(1).numpy())
    expected = [correlation(a, b) for a, b in zip(*features, strict=True)]
    options = {"metrics": ["EffNet"], "weights_dir": tmp_path, "controls": False, "n_boot": 10}
    frame = evaluate_images(told, truth, preset="brain-diffuser", **options)
    assert np.allclose(frame.attrs["per_stimulus"]["EffNet"], expected, atol=1e-4)
    assert frame.protocol["EffNet"] == (
        "EfficientNet-B1 avgpool, 224 px, correlation distance, resized by Pillow, IMAGENET1K_V1"
    )
    ours = evaluate_images(told, truth, **options)  # its weights are others, and absent
    assert "efficientnet_b1-c27df63c.pth" in ours.attrs["skipped"]["EffNet"]


def test_low_level_samples_are_blended_each_with_its_own() -> None:
    truth = smooth(3)
    told = np.stack([noisy(truth, 0.1, s) for s in range(2)], axis=1)
    low = np.stack([noisy(truth, 0.4, s) for s in (5, 6)], axis=1)
    options = {"preset": "mindeye2", "metrics": ["PixCorr"], "controls": False, "n_boot": 10}
    both = evaluate_images(told, truth, low_level=low, **options)
    each = [evaluate_images(told[:, s], truth, low_level=low[:, s], **options).value["PixCorr"] for s in range(2)]
    assert both.value["PixCorr"] == pytest.approx(np.mean(each), abs=1e-9)
    assert each[0] != each[1]
    shared = evaluate_images(told, truth, low_level=low[:, 0], **options)
    swapped = evaluate_images(told[:, 1], truth, low_level=low[:, 0], **options).value["PixCorr"]
    assert shared.value["PixCorr"] == pytest.approx(np.mean([each[0], swapped]), abs=1e-9)
    with pytest.raises(UserError, match=r"holds 2 samples, .* 3; give 1 or as many"):
        evaluate_images(np.stack([truth] * 3, axis=1), truth, low_level=low, **options)


def test_a_preset_that_cannot_be_followed_is_refused() -> None:
    pictures = smooth(3)
    with pytest.raises(UserError, match=r"their own 425 px, .* has 32 px"):
        evaluate_images(pictures, pictures, preset="brain-diffuser", metrics=["SSIM"])
    with pytest.raises(UserError, match=r"'ours' blends nothing, .* use mindeye2"):
        evaluate_images(pictures, pictures, low_level=pictures, metrics=["SSIM"])
    with pytest.raises(UserError, match="'mindeye3' is not known; known: ours, mindeye2, brain-diffuser"):
        evaluate_images(pictures, pictures, preset="mindeye3")
