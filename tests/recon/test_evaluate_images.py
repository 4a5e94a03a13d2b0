"""`recon evaluate-images` and its function, end to end: samples, controls, categories, skipped metrics, faults."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from scipy.stats import pearsonr
from torchvision.transforms.functional import normalize, resize

from align.errors import UserError
from recon import evaluate_images
from recon.cli import main
from recon.metrics import dream_sim, feature_nets
from recon.metrics.identification import n_way_of
from recon.metrics.metrics import METRICS
from recon.metrics.networks import NETWORKS
from recon.scoring.images import COLUMNS, as_report
from recon.scoring.set_scores import cycle_of
from tests.recon.test_picture_sets import Bomb
from tests.recon.tiny_pictures import noisy, seed_weights, smooth, squeezenet_folder, write_folder
from tests.recon.tiny_run import without_packages

NET = "SqueezeNet(1.1)"
TRUTH = smooth(12)
FAST = {"n_boot": 50, "n_perm": 99}
ALONE = {**FAST, "controls": False}


@pytest.fixture(autouse=True)
def no_weights_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(feature_nets, "CLIP_REPOSITORY", "nobody/has-this")
    without_packages(monkeypatch)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squeezenet_folder(tmp_path_factory.mktemp("weights"))


_known: dict[bytes, np.ndarray] = {}


def features(pictures: np.ndarray) -> np.ndarray:
    """What the stand-in network sees, by a hook of our own; kept, for tests ask again."""
    key = pictures.tobytes()
    if key not in _known:
        _known[key] = _features(pictures)
    return _known[key]


def _features(pictures: np.ndarray) -> np.ndarray:
    model = torchvision.models.squeezenet1_1().eval()
    seed_weights(model)
    seen: list[torch.Tensor] = []
    model.features[12].register_forward_hook(lambda module, inputs, output: seen.append(output.mean(dim=(2, 3))))
    images = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
    for size in (256, 224):
        images = resize(images, [size, size], antialias=False)
    with torch.no_grad():
        model(normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return seen[0].numpy()


def correlations(told: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Targets in rows, reconstructions in columns."""
    n = len(truth)
    return np.corrcoef(features(truth), features(told))[:n, n:]


def two_way(r: np.ndarray) -> np.ndarray:
    n = len(r)
    return np.array([sum(r[i, j] < r[j, j] for i in range(n) if i != j) / (n - 1) for j in range(n)])


def pix_corr(told: np.ndarray, truth: np.ndarray) -> np.ndarray:
    values = []
    for a, b in zip(told, truth, strict=True):
        pair = torch.from_numpy(np.stack([a, b])).movedim(-1, 1).float() / 255
        for size in (256, 425):
            pair = resize(pair, [size, size], antialias=False)
        values.append(pearsonr(pair[0].ravel(), pair[1].ravel())[0])
    return np.array(values)


def test_k_samples_are_averaged_and_none_is_picked(weights: Path) -> None:
    samples = [noisy(TRUTH, amount, seed) for seed, amount in enumerate((0.05, 0.4, 0.8))]
    frame = evaluate_images(
        np.stack(samples, axis=1), TRUTH, metrics=["PixCorr", NET], weights_dir=weights, n_way=(5,), **ALONE
    )
    for row, function in (
        ("PixCorr", lambda told: pix_corr(told, TRUTH)),
        (NET, lambda told: two_way(correlations(told, TRUTH))),
        (f"{NET}, 5-way", lambda told: n_way_of(correlations(told, TRUTH), 5)),
    ):
        each = np.stack([function(told) for told in samples])
        assert frame.value[row] == pytest.approx(each.mean(), abs=1e-4)
        assert frame.sample_sd[row] == pytest.approx(each.mean(axis=1).std(ddof=1), abs=1e-4)
        assert np.allclose(frame.attrs["per_stimulus"][row], each.mean(axis=0), atol=1e-4)
        assert each.max(axis=0).mean() > frame.value[row] + 0.02  # what best-of-k would say
        assert frame.ci95_low[row] <= frame.value[row] <= frame.ci95_high[row]
        assert (frame.samples[row], frame.n[row]) == (3, 12)
    swapped = evaluate_images(np.stack(samples[::-1], axis=1), TRUTH, metrics=["PixCorr"], **FAST)
    assert swapped.value["PixCorr"] == pytest.approx(frame.value["PixCorr"])
    single = evaluate_images(samples[0], TRUTH, metrics=["PixCorr"], **FAST)
    assert np.isnan(single.sample_sd["PixCorr"])


def test_directions_and_conventions_are_not_swapped(weights: Path) -> None:
    told = noisy(TRUTH, 0.5)
    r = correlations(told, TRUTH)
    frame = evaluate_images(told, TRUTH, metrics=[NET], weights_dir=weights, n_way=(2, 5, 12), **FAST)
    coded, written = two_way(r).mean(), two_way(r.T).mean()
    assert abs(coded - written) > 0.01
    assert frame.value[NET] == pytest.approx(coded)
    assert frame.value[f"{NET}, reconstructions as distractors"] == pytest.approx(written)
    assert frame.value[f"{NET}, 2-way"] == pytest.approx(coded)
    assert frame.value[f"{NET}, 12-way"] == pytest.approx(np.mean(r.max(axis=0) == np.diag(r)))
    assert [frame.chance[f"{NET}, {k}-way"] for k in (2, 5, 12)] == [1 / 2, 1 / 5, 1 / 12]
    assert (frame.better == "higher").all()
    assert "true pictures (as coded)" in frame.protocol[NET]


def test_controls_are_what_a_stranger_and_an_empty_answer_score(weights: Path) -> None:
    told = noisy(TRUTH, 0.1)
    frame = evaluate_images(told, TRUTH, metrics=["PixCorr", "SSIM", NET], weights_dir=weights, seed=3, **FAST)
    partner = cycle_of(12, 3)
    assert sorted(partner) == list(range(12)) and (partner != np.arange(12)).all()
    assert frame.shuffled["PixCorr"] == pytest.approx(pix_corr(told[partner], TRUTH).mean(), abs=1e-4)
    assert frame.shuffled[NET] == pytest.approx(two_way(correlations(told[partner], TRUTH)).mean(), abs=1e-4)
    grey = np.full((12, 32, 32, 3), 0.5, np.float32)
    alone = evaluate_images(grey, TRUTH, metrics=["PixCorr", "SSIM", NET], weights_dir=weights, controls=False, **FAST)
    for row in ("PixCorr", "SSIM", NET):
        assert frame.grey[row] == pytest.approx(alone.value[row], abs=1e-6)
        assert frame.p_shuffled[row] == 0.01  # 1 / (1 + 99)
        assert np.isnan(alone.shuffled[row]) and np.isnan(alone.p_shuffled[row])
    assert frame.grey["PixCorr"] == 0
    assert frame.grey[NET] == pytest.approx(0.5)
    stranger = evaluate_images(told[partner], TRUTH, metrics=["PixCorr"], seed=5, **FAST)
    assert stranger.p_shuffled["PixCorr"] > 0.02


def test_a_distance_is_below_that_of_a_stranger(weights: Path) -> None:
    told = noisy(TRUTH[:6], 0.1)
    row = evaluate_images(told, TRUTH[:6], metrics=["LPIPS(squeeze)"], weights_dir=weights, **FAST).iloc[0]
    assert row.better == "lower" and row.value < row.shuffled < 2 * row.grey
    assert row.p_shuffled <= 0.1  # all 6 differences have the right sign: 1/64 of the flips do as well
    swapped = evaluate_images(told[cycle_of(6, 0)], TRUTH[:6], metrics=["LPIPS(squeeze)"], weights_dir=weights, **ALONE)
    assert swapped.value.iloc[0] == pytest.approx(row.shuffled, abs=1e-6)


def test_identical_pictures_are_perfect(weights: Path) -> None:
    metrics = ["PixCorr", "SSIM", NET, "LPIPS(squeeze)"]
    frame = evaluate_images(TRUTH[:4], TRUTH[:4], metrics=metrics, n_way=(3,), weights_dir=weights, **ALONE)
    assert np.allclose(frame.value, [1, 1, 1, 1, 1, 0], atol=1e-6)
    assert list(frame.index) == [
        "PixCorr", "SSIM", NET, f"{NET}, reconstructions as distractors", f"{NET}, 3-way", "LPIPS(squeeze)",
    ]  # fmt: skip
    assert list(frame.columns) == list(COLUMNS)


def test_two_way_within_the_category_and_what_the_category_alone_is_worth(weights: Path) -> None:
    told = noisy(TRUTH, 0.4)
    labels = ["a"] * 5 + ["b"] * 6 + ["alone"]
    frame = evaluate_images(told, TRUTH, metrics=[NET, "PixCorr"], weights_dir=weights, labels=labels, **FAST)
    r = correlations(told, TRUTH)
    within, known = [], []
    for j in range(12):
        same = [i for i in range(12) if labels[i] == labels[j] and i != j]
        within.append(np.mean([r[i, j] < r[j, j] for i in same]) if same else np.nan)
        known.append(np.mean([0.5 if labels[i] == labels[j] else 1 for i in range(12) if i != j]))
    row = f"{NET}, within category"
    assert frame.value[row] == pytest.approx(np.nanmean(within))
    assert np.allclose(frame.attrs["per_stimulus"][row], within, equal_nan=True)
    assert (frame.n[row], frame.n[NET]) == (11, 12)
    assert np.isfinite(frame.p_shuffled[row])
    assert frame.category_ceiling[NET] == pytest.approx(np.mean(known))
    assert frame.category_ceiling.notna().sum() == 2  # both conventions of two-way, and nothing else
    assert frame.attrs["category"] == {"k": 3, "ceiling_equal": 1 - 1 / 6, "ceiling": pytest.approx(np.mean(known))}
    lonely = evaluate_images(told, TRUTH, metrics=[NET], weights_dir=weights, labels=list(range(12)), **FAST)
    assert lonely.n[row] == 0 and np.isnan(lonely.value[row])
    entry = as_report(lonely)["metrics"][row]
    assert not {"value", "ci95", "shuffled", "p_shuffled"} & set(entry)


def test_labels_come_as_file_mapping_or_list(tmp_path: Path) -> None:
    names = [f"p{i:02d}" for i in range(12)]
    truth = write_folder(tmp_path / "t", {f"{name}.png": p for name, p in zip(names, TRUTH, strict=True)})
    labels = dict(zip(reversed(names), "aaaabbbbcccc", strict=True))
    path = tmp_path / "labels.csv"
    path.write_text("label,id\n" + "".join(f"{label},{name}\n" for name, label in labels.items()), encoding="utf-8-sig")
    for form in (path, str(path), labels, list(labels.values())[::-1]):
        frame = evaluate_images(truth, truth, metrics=["PixCorr"], labels=form, **FAST)
        assert frame.attrs["category"]["k"] == 3 and frame.attrs["ids"] == names
    for wrong, match in (
        ("id,label\np00,a\n", r"no label for 'p01' \(11 of 12 are missing\)"),
        ("name,label\np00,a\n", "lack the columns id,label; found name, label"),
        ("", "lack the columns id,label; found none"),
        ("id,label\np00,a\np00,b\n", "call 'p00' 'a' and 'b'; keep one"),
        ("id,label\n" + "".join(f"{name}\n" for name in names), r"no label for 'p00' \(12 of 12"),
    ):
        path.write_text(wrong)
        with pytest.raises(UserError, match=match):
            evaluate_images(truth, truth, metrics=["PixCorr"], labels=path, **FAST)
    with pytest.raises(UserError, match="11 labels for 12 targets"):
        evaluate_images(truth, truth, metrics=["PixCorr"], labels=["a"] * 11, **FAST)


def test_metrics_without_weights_are_skipped_by_name_with_the_reason() -> None:
    frame = evaluate_images(TRUTH, TRUTH, **FAST)
    assert list(frame.index) == ["PixCorr", "SSIM"]
    skipped = frame.attrs["skipped"]
    judges = {"SqueezeNet(1.0)": "squeezenet1_0-b66bff10.pth", "EfficientNet-Lite(0)": "shallow-recon[weights]"}
    assert set(skipped) == {*METRICS, "DreamSim", *judges} - {"PixCorr", "SSIM"}
    for name, file in (
        *judges.items(),
        ("LPIPS", "alexnet-owt-7be5be79.pth"),
        ("LPIPS(vgg)", "vgg16-397923af.pth"),
        ("AlexNet(5)", "alexnet-owt-7be5be79.pth"),
        ("Inception", "inception_v3_google-0cc3c7bd.pth"),
        ("EffNet", "efficientnet_b1-c27df63c.pth"),
        ("SwAV", "swav_800ep_pretrain.pth.tar"),
        ("CLIP", "nobody/has-this"),
    ):
        assert "weights not available offline" in skipped[name] and file in skipped[name]
    assert "DreamSim" in skipped and "\n" not in "".join(skipped.values())


def test_both_families_judge_and_top_1_among_all_pictures_stands_beside_two_way(tmp_path: Path) -> None:
    """EfficientNet-Lite with random weights; what it says of the pictures is read from the model itself."""
    network = NETWORKS["efficientnet_lite0"]
    torch.manual_seed(0)
    model = network.build().eval()
    torch.save(model.state_dict(), tmp_path / network.file)
    told = noisy(TRUTH, 0.2)
    told[[3, 5]] = told[[5, 3]]  # each is nearer to the other's picture than to its own
    name = "EfficientNet-Lite(0)"
    frame = evaluate_images(told, TRUTH, metrics=[name], weights_dir=tmp_path, **FAST)
    read = []
    for pictures in (told, TRUTH):
        x = resize(torch.from_numpy(pictures).movedim(-1, 1).float() / 255, [256, 256], antialias=False)
        x = resize(x, [224, 224], antialias=False)
        with torch.no_grad():
            read.append(model.forward_features((x - 0.5) / 0.5).mean((2, 3)).numpy())
    r = np.corrcoef(read[1], read[0])[: len(TRUTH), len(TRUTH) :]
    assert list(frame.index) == [name, f"{name}, reconstructions as distractors", f"{name}, 10-way", f"{name}, 12-way"]
    assert frame.value[name] == pytest.approx(two_way(r).mean(), abs=1e-6)
    top1 = float(np.mean(r.argmax(0) == np.arange(len(TRUTH))))
    assert 0 < top1 < 1 and frame.value[f"{name}, 12-way"] == pytest.approx(top1)
    assert frame.chance[f"{name}, 12-way"] == pytest.approx(1 / 12)
    assert frame.ci95_low[f"{name}, 12-way"] < top1 < frame.ci95_high[f"{name}, 12-way"]


def test_a_failed_download_is_a_reason_to_skip_not_to_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, path: str, prefix: str | None) -> None:
        assert prefix == "7be5be79"
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    frame = evaluate_images(TRUTH, TRUTH, metrics=["PixCorr", "AlexNet(2)"], download=True, **FAST)
    reason = frame.attrs["skipped"]["AlexNet(2)"]
    assert reason == "download of https://download.pytorch.org/models/alexnet-owt-7be5be79.pth failed: no route to host"


def test_dreamsim_is_used_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"metrics": ["DreamSim"], "weights_dir": tmp_path, **FAST}
    with monkeypatch.context() as patch:
        patch.setattr(dream_sim.importlib.util, "find_spec", lambda name: None)
        assert "not installed" in evaluate_images(TRUTH, TRUTH, **options).attrs["skipped"]["DreamSim"]
    package = tmp_path / "site" / "dreamsim"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, a, b):\n"
        "        assert a.shape[1:] == (3, 224, 224) and 0 <= float(a.min()) and float(a.max()) < 1.00001\n"
        "        return (a - b).abs().mean(dim=(1, 2, 3)).squeeze()\n"
        "def dreamsim(pretrained, device, cache_dir):\n"
        "    print('Using cached', cache_dir)\n"
        "    return Model(), None\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "dreamsim", raising=False)
    (tmp_path / "dreamsim").mkdir()  # without weights the package would fetch them
    assert "weights not available offline" in evaluate_images(TRUTH, TRUTH, **options).attrs["skipped"]["DreamSim"]
    (tmp_path / "dreamsim" / "ensemble_lora").mkdir()
    told = np.full_like(TRUTH, 255)
    frame = evaluate_images(told, TRUTH, **options)
    monkeypatch.delitem(sys.modules, "dreamsim")
    assert frame.value["DreamSim"] == pytest.approx(1 - TRUTH.mean() / 255, abs=5e-3)
    assert frame.better["DreamSim"] == "lower"
    assert capsys.readouterr().out == ""


def test_weights_of_one_network_can_be_named(weights: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.bin"
    file.write_bytes((weights / "squeezenet1_1.pth").read_bytes())
    frame = evaluate_images(TRUTH, TRUTH, metrics=[NET], weights_files={"squeezenet1_1": file}, **FAST)
    assert frame.weights[NET].startswith("mine.bin@")
    for files, match in (
        ({"squeezenet1_1": tmp_path / "no"}, "do not exist"),
        ({"squeezenet": file}, r"'squeezenet' is not known; known: alexnet_2, .*, clip"),
        ({"clip": tmp_path}, "folder with config.json and model.safetensors"),
    ):
        with pytest.raises(UserError, match=match):
            evaluate_images(TRUTH, TRUTH, metrics=[NET, "CLIP"], weights_files=files, **FAST)


def test_clip_is_read_from_a_folder(tmp_path: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    tower = CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32, projection_dim=16, **sizes)).eval()
    tower.save_pretrained(tmp_path / "any-name")
    told, images = noisy(TRUTH, 0.5), []
    for pictures in (told, TRUTH):
        x = torch.from_numpy(pictures).movedim(-1, 1).float() / 255
        x = resize(resize(x, [256, 256], antialias=False), [224, 224], antialias=False)
        images.append(normalize(x, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    with torch.no_grad():
        ours, theirs = (tower(x).image_embeds.numpy() for x in images)
    expected = two_way(np.corrcoef(theirs, ours)[:12, 12:])
    frame = evaluate_images(told, TRUTH, metrics=["CLIP"], weights_files={"clip": tmp_path / "any-name"}, **FAST)
    assert np.allclose(frame.attrs["per_stimulus"]["CLIP"], expected)
    assert frame.weights["CLIP"].startswith("any-name/model.safetensors@")


def test_features_are_taken_in_batches_of_any_size(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth, told = TRUTH[:6], noisy(TRUTH[:6], 0.5)
    options = {"metrics": [NET, "LPIPS(squeeze)", "PixCorr"], "weights_dir": weights, **ALONE}
    whole = evaluate_images(told, truth, **options)
    monkeypatch.setattr("recon.scoring.set_scores.Task.chunks.__defaults__", (4,))
    assert np.allclose(evaluate_images(told, truth, **options).value, whole.value, atol=1e-5)


def test_the_same_seed_gives_the_same_table(weights: Path) -> None:
    told = noisy(TRUTH, 0.5)
    options = {"metrics": [NET, "PixCorr"], "weights_dir": weights, **FAST}
    first, again, other = (evaluate_images(told, TRUTH, seed=seed, **options) for seed in (1, 1, 2))
    assert first.equals(again)
    assert (first.value == other.value).all() and not first.shuffled.equals(other.shuffled)


@pytest.fixture()
def folders(tmp_path: Path) -> list[str]:
    """Words of the command for two folders of 12, with 2 samples."""
    names = [f"p{i:02d}" for i in range(12)]
    write_folder(tmp_path / "t", {f"{name}.png": p for name, p in zip(names, TRUTH, strict=True)})
    for s in (0, 1):
        told = noisy(TRUTH, 0.3, s)
        write_folder(tmp_path / "r", {f"{name}_seed-{s}.png": p for name, p in zip(names, told, strict=True)})
    return ["evaluate-images", "--reconstructions", str(tmp_path / "r"), "--targets", str(tmp_path / "t")]


def test_the_command_end_to_end(
    folders: list[str], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\n" + "".join(f"p{i:02d},{i % 3}\n" for i in range(12)))
    words = [*folders, "--metrics", "PixCorr", "SSIM", NET, "Inception", "--labels", str(labels)]
    words += ["--weights-file", f"squeezenet1_1={weights / 'squeezenet1_1.pth'}", "--n-way", "3", "12", "--seed", "4"]
    assert main([*words, "--json", "--out", str(tmp_path / "new" / "table.json")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "new" / "table.json").read_text()) == report
    assert report["measured"]["seconds"] >= 0 and {"device", "memory"} <= set(report["measured"])
    frame = evaluate_images(
        tmp_path / "r", tmp_path / "t", metrics=["PixCorr", "SSIM", NET], n_way=(3, 12), weights_dir=weights, seed=4
    )
    rows = ["PixCorr", "SSIM", NET, f"{NET}, reconstructions as distractors", f"{NET}, 3-way", f"{NET}, 12-way"]
    assert list(report["metrics"]) == [*rows, f"{NET}, within category"]
    for row in rows:
        entry = report["metrics"][row]
        assert entry["value"] == pytest.approx(frame.value[row], abs=1e-12)
        assert entry["ci95"] == pytest.approx([frame.ci95_low[row], frame.ci95_high[row]], abs=1e-12)
        assert (entry["n"], entry["samples"]) == (12, 2) and entry["sample_sd"] > 0
        assert {"shuffled", "grey", "p_shuffled", "better", "protocol"} <= set(entry)
    assert (report["schema"], report["n_stimuli"], report["preset"], report["blend"]) == (1, 12, "ours", None)
    assert "inception_v3_google" in report["skipped"]["Inception"]
    assert main([*words, "--out", str(tmp_path / "table.csv")]) == 0
    printed = capsys.readouterr().out
    for text in (f"{NET}, 12-way +", "skipped Inception: weights", "n 12, samples 2 (mean over all)", "3 categories"):
        assert text in printed
    assert f"{report['metrics']['SSIM']['value']:.3f}" in printed
    with (tmp_path / "table.csv").open(newline="") as file:
        table = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(table["SSIM"]["value"]) == pytest.approx(report["metrics"]["SSIM"]["value"])
    assert (table["SSIM"]["n"], table["SSIM"]["samples"]) == ("12", "2")
    assert table["Inception"]["value"] == "" and table["Inception"]["protocol"].startswith("skipped: weights not")


def _save_stack(folder: Path, stack: np.ndarray) -> None:
    """Put a stack in the place of the folder of reconstructions."""
    for path in (folder / "r").iterdir():
        path.unlink()
    (folder / "r").rmdir()
    with (folder / "r").open("wb") as file:
        np.save(file, stack)
    (folder / "r").rename(folder / "r.npy")


def _cut(folder: Path) -> None:
    path = folder / "r" / "p05_seed-1.png"
    path.write_bytes(path.read_bytes()[:600])


def _nan(folder: Path) -> None:
    stack = np.full((12, 16, 16, 3), 0.5, np.float32)
    stack[7, 0, 0, 0] = np.nan
    _save_stack(folder, stack)


def _bomb(folder: Path) -> None:
    _save_stack(folder, TRUTH)
    (folder / "r.npy").unlink()
    torch.save({"images": torch.zeros(12, 3, 16, 16), "x": Bomb(folder / "ran")}, folder / "r.pt")


def _empty(folder: Path) -> None:
    for path in (folder / "r").iterdir():
        path.unlink()


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "mismatched ids": (lambda f: (f / "t" / "p03.png").rename(f / "t" / "q.png"), "holds no picture of 'q'"),
    "one sample missing": (lambda f: (f / "r" / "p03_seed-1.png").unlink(), "holds 1 pictures of 'p03' but 2"),
    "alpha": (lambda f: write_folder(f / "t", {"p01.png": np.zeros((32, 32, 4), np.uint8)}), "alpha channel"),
    "another size": (lambda f: write_folder(f / "t", {"p01.png": smooth(1, 40)[0]}), "'p01.png' is 40 x 40 px"),
    "corrupt header": (lambda f: (f / "t" / "p02.png").write_bytes(b"\x89PNG"), "p02.png' is corrupt"),
    "truncated": (_cut, "p05_seed-1.png' is corrupt"),
    "empty folder": (_empty, "holds no pictures"),
    "floats of 0 to 255": (lambda f: _save_stack(f, TRUTH.astype(np.float32)), "divide 0 to 255 by 255"),
    "bytes of 0 and 1": (lambda f: _save_stack(f, TRUTH // 255), "floats in [0, 1] were cast to bytes"),
    "[-1, 1]": (lambda f: _save_stack(f, TRUTH.astype(np.float32) / 127.5 - 1), "(x + 1) / 2"),
    "NaN": (_nan, "NaN or infinity in 1 of 12 rows (7)"),
    "too few": (lambda f: _save_stack(f, TRUTH[:11]), "holds 'p00'"),
    "unsafe": (_bomb, "run code, and is refused"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_one_line_exit_2_and_nothing_written(
    what: str, folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = FAULTS[what]
    change(tmp_path)
    told = next(path for path in (tmp_path / "r", tmp_path / "r.npy", tmp_path / "r.pt") if path.exists())
    folders[2] = str(told)
    assert main([*folders, "--metrics", "PixCorr", "--out", str(tmp_path / "out" / "table.json")]) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert last.startswith("recon evaluate-images: ") and expected in last
    assert "Traceback" not in err and out == ""
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--metrics", "FID"], "metric 'FID' is not known; known: PixCorr, SSIM"),
        (["--preset", "mindeye1"], "preset 'mindeye1' is not known"),
        (["--preset", "brain-diffuser"], "at their own 425 px"),
        (["--n-way", "13"], "13-way needs 13 pictures and at least 2 candidates, there are 12"),
        (["--n-way", "1"], "1-way needs"),
        (["--weights-file", "clip"], "'clip' should be NETWORK=FILE"),
        (["--weights-file", "resnet=x"], "network 'resnet' is not known"),
        (["--weights-dir", "/no/such"], "weights_dir='/no/such' is not a folder"),
        (["--labels", "/no/such.csv"], "'/no/such.csv' does not exist"),
        (["--out", "table.txt"], "'table.txt' should end in .json or .csv"),
        (["--low-level", "/no/such"], "blends nothing"),
        (["--preset", "mindeye2", "--low-level", "/no/such"], "low level '/no/such' do not exist"),
        (["--targets", "/no/such"], "targets '/no/such' do not exist"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    words: list[str], expected: str, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*folders, *words]) == 2
    out, err = capsys.readouterr()
    assert expected in err and err.count("\n") == 1 and out == ""


def test_names_of_metrics_and_presets_may_be_written_in_any_case() -> None:
    frame = evaluate_images(TRUTH, TRUTH, metrics=["pixcorr", "PIXCORR"], preset="Ours", n_boot=5, n_perm=5)
    assert list(frame.index) == ["PixCorr"] and frame.attrs["preset"] == "ours"
