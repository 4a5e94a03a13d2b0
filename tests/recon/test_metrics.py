"""Every metric beside an independent implementation: scipy, scikit-image, torchvision, lpips, plain loops."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.spatial.distance import correlation as scipy_correlation
from scipy.stats import pearsonr
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import normalize
from torchvision.transforms.functional import resize as torchvision_resize

from align.errors import UserError
from recon.evaluation import feature_nets, identification, metrics
from recon.evaluation.feature_nets import CLIP_STATS, IMAGENET, NETWORKS, FeatureNets, WeightsMissing
from recon.evaluation.metrics import METRICS
from tests.conftest import shared_path


def pictures(n: int = 3, size: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random targets (n, 3, size, size) in [0, 1] and noisy versions of them."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 8, 8, generator=draw)
    targets = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    recons = (0.6 * targets + 0.4 * torch.rand(targets.shape, generator=draw)).clamp(0, 1)
    return recons, targets


def at(images: torch.Tensor, size: int) -> torch.Tensor:
    """The protocol's two resizes, by torchvision."""
    entered = torchvision_resize(images, [256, 256], antialias=False)
    return torchvision_resize(entered, [size, size], antialias=False)


def test_pix_corr_is_pearson_r_at_425_px() -> None:
    recons, targets = pictures(2)
    expected = [
        pearsonr(at(a[None], 425).ravel(), at(b[None], 425).ravel())[0] for a, b in zip(recons, targets, strict=True)
    ]
    assert np.allclose(METRICS["PixCorr"](recons, targets), expected, atol=1e-6)


def test_pix_corr_of_a_flat_picture_is_0() -> None:
    _, targets = pictures(2)
    assert METRICS["PixCorr"](torch.full_like(targets, 0.5), targets).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("legacy", [False, True])
def test_ssim_is_that_of_scikit_image(legacy: bool) -> None:
    recons, targets = pictures(2, seed=1)
    channel_axis = -1 if legacy else None
    expected = []
    for a, b in zip(at(recons, 425), at(targets, 425), strict=True):
        gray_a, gray_b = (rgb2gray(x.permute(1, 2, 0).numpy().astype(np.float64)) for x in (a, b))
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        expected.append(structural_similarity(gray_b, gray_a, channel_axis=channel_axis, **options))
    assert np.allclose(metrics.ssim(recons, targets, legacy_columnwise=legacy), expected, atol=2e-5)
    if not legacy:
        assert np.allclose(METRICS["SSIM"](recons, targets), expected, atol=2e-5)


@pytest.mark.parametrize("network", ["lpips_alex", "lpips_squeeze"])
def test_lpips_is_that_of_the_lpips_package(network: str, tmp_path: Path) -> None:
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):  # its weights all come below
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net=network.removeprefix("lpips_"), pnet_rand=True, pretrained=False, verbose=False)
    reference.to_empty(device="cpu")
    lins = torch.load(
        Path(lpips.__file__).parent / f"weights/v0.1/{network[6:]}.pth", map_location="cpu", weights_only=True
    )
    reference.load_state_dict(lins, strict=False)
    reference.scaling_layer = lpips.ScalingLayer()
    spec = NETWORKS[network]
    with torch.device("meta"):
        trunk = spec.build()
    trunk.classifier = torch.nn.Identity()
    trunk.to_empty(device="cpu")
    seed_weights(trunk)
    slices = [reference.net.slice1, reference.net.slice2, reference.net.slice3, reference.net.slice4]
    slices += [reference.net.slice5, *([reference.net.slice6, reference.net.slice7] if "squeeze" in network else [])]
    for part in slices:
        for name, layer in part.named_children():
            layer.load_state_dict(trunk.features[int(name)].state_dict())
    torch.save(trunk.state_dict(), tmp_path / spec.file)
    recons, targets = pictures(2)
    with torch.no_grad():
        expected = reference(at(recons, 256), at(targets, 256), normalize=True).flatten().numpy()
    metric = METRICS["LPIPS" if "alex" in network else "LPIPS(squeeze)"]
    assert metric.network == network
    found = metric(recons, targets, FeatureNets(tmp_path))
    assert expected.min() > 1e-3
    assert np.allclose(found, expected, rtol=1e-3)


def seed_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights, exact in half precision, that keep activations alive; batch norms are left as identities."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.ndim > 1:
            value.copy_((torch.randn(value.shape, generator=draw) * (2 / value[0].numel()) ** 0.5).half())
        else:
            value.fill_(1 if name.endswith("running_var") or _is_scale(model, name) else 0)


def _is_scale(model: torch.nn.Module, name: str) -> bool:
    """Whether a vector is the weight of a batch norm."""
    owner, _, kind = name.rpartition(".")
    return kind == "weight" and isinstance(model.get_submodule(owner), torch.nn.BatchNorm2d)


CASES = {
    "AlexNet(2)": ("alexnet", {}, "features.4", 256, "two_way"),
    "AlexNet(5)": ("alexnet", {}, "features.11", 256, "two_way"),
    "Inception": ("inception_v3", {"transform_input": True, "init_weights": False}, "avgpool", 342, "two_way"),
    "EffNet": ("efficientnet_b1", {}, "avgpool", 255, "distance"),
    "SwAV": ("resnet50", {}, "avgpool", 224, "distance"),
}


@pytest.mark.parametrize("name", CASES)
def test_feature_metric_reads_the_node_torchvision_extracts(name: str, tmp_path: Path) -> None:
    architecture, options, node, size, kind = CASES[name]
    with torch.device("meta"):
        model = getattr(torchvision.models, architecture)(weights=None, **options).eval()
    network = METRICS[name].network
    for part in set(NETWORKS[network].drop) & {"classifier"}:  # large, and behind the node
        setattr(model, part, torch.nn.Identity())
    model.to_empty(device="cpu")
    seed_weights(model)
    state = model.state_dict()
    if name == "SwAV":  # as published: wrapped, with training heads, without classifier
        state = {f"module.{key}": value for key, value in state.items() if not key.startswith("fc.")}
        state |= {"module.projection_head.0.weight": torch.zeros(2, 2), "module.prototypes.weight": torch.zeros(2, 2)}
    torch.save({key: v.half() if v.ndim > 1 else v for key, v in state.items()}, tmp_path / NETWORKS[network].file)
    recons, targets = pictures(3)
    extractor = create_feature_extractor(model, [node], suppress_diff_warning=True)
    with torch.no_grad():
        ours, theirs = (
            extractor(normalize(at(x, size), *IMAGENET))[node].flatten(1).numpy() for x in (recons, targets)
        )
    nets = FeatureNets(tmp_path)
    assert np.allclose(nets.features(network, targets), theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    value = METRICS[name](recons, targets, nets)
    if kind == "distance":
        assert np.allclose(
            value, [scipy_correlation(a, b) for a, b in zip(ours, theirs, strict=True)], rtol=1e-2, atol=1e-5
        )
    else:
        assert np.allclose(value, brute_two_way(ours, theirs))


def test_clip_reads_the_projected_embedding(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=32,
        projection_dim=16,
    )
    torch.manual_seed(0)
    tower = CLIPVisionModelWithProjection(config).eval()
    tower.save_pretrained(tmp_path / "clip-vit-large-patch14")
    recons, targets = pictures(4)
    with torch.no_grad():
        ours, theirs = (tower(normalize(at(x, 224), *CLIP_STATS)).image_embeds.numpy() for x in (recons, targets))
    nets = FeatureNets(tmp_path)
    assert np.allclose(nets.features("clip", targets), theirs, atol=1e-5)
    assert np.allclose(METRICS["CLIP"](recons, targets, nets), brute_two_way(ours, theirs))


def brute_two_way(recons: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The definition as loops over pairs: other true pictures that the reconstruction resembles strictly less."""
    n = len(recons)
    r = [[pearsonr(targets[i].ravel(), recons[j].ravel())[0] for j in range(n)] for i in range(n)]
    return np.array([sum(r[i][j] < r[j][j] for i in range(n) if i != j) / (n - 1) for j in range(n)])


def test_two_way_is_the_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(12, 30))
    recons = targets + 3 * rng.normal(size=(12, 30))
    found = identification.two_way(recons, targets)
    assert np.allclose(found, brute_two_way(recons, targets))
    assert 0.5 < found.mean() < 1
    swapped = brute_two_way(targets, recons)  # reconstructions as distractors: another score
    assert not np.allclose(found, swapped)


def test_two_way_of_identity_is_1_of_noise_one_half_and_of_a_constant_0() -> None:
    rng = np.random.default_rng(1)
    targets = rng.normal(size=(200, 40))
    assert identification.two_way(targets, targets).mean() == 1
    assert identification.two_way(rng.normal(size=(200, 40)), targets).mean() == pytest.approx(0.5, abs=0.06)
    same = np.repeat(rng.normal(size=(1, 40)), 200, axis=0)
    assert identification.two_way(same, targets).mean() == pytest.approx(0.5)
    assert identification.two_way(np.ones((200, 40)), targets).mean() == 0


def test_two_way_counts_a_tie_as_failure() -> None:
    targets = np.random.default_rng(2).normal(size=(6, 20))
    targets[3] = targets[0]
    found = identification.two_way(targets, targets)
    assert found.tolist() == [0.8, 1, 1, 0.8, 1, 1]


@pytest.mark.parametrize("k", [10, 20])
def test_knowing_the_category_alone_reaches_its_ceiling(k: int) -> None:
    rng = np.random.default_rng(3)
    category = np.repeat(np.arange(k), 400 // k)
    centres = 100 * rng.normal(size=(k, 60))
    targets = centres[category] + rng.normal(size=(400, 60))
    recons = centres[category] + rng.normal(size=(400, 60))
    assert identification.two_way(recons, targets).mean() == pytest.approx(identification.category_ceiling(k), abs=0.01)


def test_n_way_is_the_mean_over_all_candidate_sets() -> None:
    from itertools import combinations

    rng = np.random.default_rng(4)
    targets = rng.normal(size=(8, 20))
    recons = targets + 2.5 * rng.normal(size=(8, 20))
    r = np.corrcoef(targets, recons)[:8, 8:]
    for k in (2, 4, 8):
        expected = []
        for j in range(8):
            sets = list(combinations([i for i in range(8) if i != j], k - 1))
            expected.append(np.mean([all(r[i, j] < r[j, j] for i in others) for others in sets]))
        assert np.allclose(identification.n_way(recons, targets, k), expected)
    assert np.allclose(identification.n_way(recons, targets, 2), identification.two_way(recons, targets))


def test_correlations_hold_for_features_wider_than_one_block() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(3, 40000)).astype(np.float32), rng.normal(size=(3, 40000)).astype(np.float32) + 50
    assert np.allclose(identification.correlations(a, b), np.corrcoef(b, a)[:3, 3:], atol=1e-6)
    assert np.allclose(
        identification.correlation_distance(a, b),
        [scipy_correlation(x, y) for x, y in zip(a, b, strict=True)],
        atol=1e-6,
    )


def test_every_metric_has_a_network_or_none() -> None:
    assert {metric.network for metric in METRICS.values()} <= {*NETWORKS, "clip", None}
    assert list(METRICS)[:4] == ["PixCorr", "SSIM", "LPIPS", "LPIPS(squeeze)"]


def test_hooks_are_registered_once(tmp_path: Path) -> None:
    torch.save(torchvision.models.squeezenet1_0().state_dict(), tmp_path / "squeezenet1_0_here.pth")
    nets = FeatureNets(tmp_path)
    recons, targets = pictures(2)
    first, second = nets.features("squeezenet1_0", recons), nets.features("squeezenet1_0", targets)
    assert first.shape == (2, 512)
    assert not np.allclose(first, second)
    model = nets._reader("squeezenet1_0").model
    assert sum(len(module._forward_hooks) for module in model.modules()) == 1
    assert np.array_equal(nets.features("squeezenet1_0", recons), first)


def test_missing_weights_are_said_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recons, targets = pictures(2)
    for name, metric in METRICS.items():
        if metric.network:
            with pytest.raises(WeightsMissing, match="not available offline"):
                metric(recons, targets, FeatureNets())
        else:
            assert len(metric(recons, targets)) == 2, name


def test_broken_or_foreign_weights_are_one_line(tmp_path: Path) -> None:
    recons, _ = pictures(2)
    file = tmp_path / "squeezenet1_0.pth"
    file.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match="not a whole file"):
        FeatureNets(tmp_path).features("squeezenet1_0", recons)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    with pytest.raises(UserError, match="holds no weights of squeezenet1_0") as caught:
        FeatureNets(tmp_path).features("squeezenet1_0", recons)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is not a folder"):
        FeatureNets(tmp_path / "nowhere")


def test_the_same_pictures_with_real_squeezenet_weights() -> None:
    folder = shared_path("weights/squeezenet1_1_imagenet.safetensors").parent
    recons, targets = pictures(3)
    nets = FeatureNets(folder)
    distance = METRICS["LPIPS(squeeze)"](recons, targets, nets)
    assert METRICS["LPIPS(squeeze)"](targets, targets, nets).max() == 0
    assert (distance > 0.1).all()
    assert nets.source("lpips_squeeze").startswith("squeezenet1_1_imagenet.safetensors@")


def test_unknown_counts_are_refused() -> None:
    recons, targets = pictures(3)
    with pytest.raises(ValueError, match="2 reconstructions for 3 targets"):
        METRICS["PixCorr"](recons[:2], targets)
    assert feature_nets.WeightsMissing.__doc__
