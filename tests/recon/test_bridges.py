"""From tokens of a layer to a public adapter: every bridge against its own reference, on a real run of pictures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from sklearn.linear_model import Ridge
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from align.checkpoint import Run, load_run
from align.config import BackboneConfig, Config, load_config
from align.errors import UserError
from align.files import read_json
from align.train import train
from align.vision.backbones import load_backbone
from align.vision.taps import Backbone
from align.vision.wrap import preprocessing, transformer
from recon.cli import main
from recon.config import StageConfig
from recon.decoding.bridges.choose import BRIDGES, Conditioning, adapter_and_bridge
from recon.decoding.bridges.image_encoder import POOLED, ImageEncoder, load_image_encoder
from recon.decoding.bridges.matching import held_out_moments, matched_tokens
from recon.decoding.bridges.pairs import components_of, require_training, training_pairs
from recon.decoding.bridges.prior import Prior, PriorConfig, _train, prior_bridge
from recon.decoding.bridges.resume import resume_bridge
from recon.decoding.bridges.ridge import ALPHAS, LinearMap, ridge_bridge
from recon.decoding.plan import Sampling
from recon.decoding.predict import load_predictions, open_recording, picture_tokens
from recon.drawing.folders import read_index
from recon.drawing.generate import generate
from recon.generation.adapters import load_adapter
from tests.align.fixture_studies import write_folder
from tests.recon.tiny_family import DEPTH, HIDDEN, PATCH, SIDE, build_adapter, build_generator, build_image_encoder

N_TRAIN, N_TEST, LAYER = 40, 6, "1"
N_TOKENS = (SIDE // PATCH) ** 2 + 1
SHORT = PriorConfig(hidden=16, train=StageConfig(steps=30, batch_size=16, lr=1e-3))
QUICK = Sampling(steps=2)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bridges")
    encoder = build_image_encoder(root / "encoder")
    sd = build_generator("sd-ddim", root / "sd")
    adapters = {kind: build_adapter(kind, sd, root / "adapters", encoder) for kind in ("pooled", "plus")}
    return {"root": root, "encoder": encoder, "sd": sd, **adapters}


@pytest.fixture(scope="module")
def finished(places: dict[str, Path]) -> Path:
    """Ridge from mixed pixels to all tokens of layer 1 of the adapter's own image encoder."""
    study = places["root"] / "study"
    lines = [("train", i) for i in range(N_TRAIN)] + [("test", N_TRAIN + i) for i in range(N_TEST)]
    rows = [
        {"row": n, "image": f"pic{i:03d}.png", "split": split, "subject": "01", "concept": f"c{i // 2}"}
        for n, (split, i) in enumerate(lines)
    ]
    rng = np.random.default_rng(0)
    write_folder(study, np.zeros((len(rows), 30), np.float32), rows)
    for row in rows:  # blobs of colour: pictures that differ more than noise does
        small = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(study / "images" / str(row["image"]))
    pixels = [np.asarray(Image.open(study / "images" / str(row["image"])).resize((4, 4))).ravel() / 255 for row in rows]
    signals = np.stack(pixels) @ rng.normal(size=(48, 30)) + 0.3 * rng.normal(size=(len(rows), 30))
    np.save(study / "signals.npy", signals.astype(np.float32))
    overrides = [
        "study.name=folder",
        f"study.root={study}",
        "subjects=[01]",
        "backbone.name=transformers/tiny",
        f"backbone.weights={places['encoder']}",
        f"target.layer={LAYER}",
        "target.pooling=tokens",
        "target.components=20",
        "encoder.name=ridge",
        f"run_dir={places['root'] / 'run'}",
        f"cache_dir={places['root'] / 'cache'}",
    ]
    train(load_config(Config, None, overrides), progress=False)
    return places["root"] / "run"


@pytest.fixture
def run(finished: Path) -> Run:
    return load_run(finished)


@pytest.fixture(scope="module")
def encoder(places: dict[str, Path]) -> ImageEncoder:
    return load_image_encoder(places["encoder"])


@pytest.fixture(scope="module")
def stock(places: dict[str, Path]) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection.from_pretrained(places["encoder"]).eval()


def pictures(n: int = 2) -> torch.Tensor:
    return torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


def test_the_encoder_reads_what_the_library_reads(encoder: ImageEncoder, stock: CLIPVisionModelWithProjection) -> None:
    seen = pictures()
    whole = [Image.fromarray((p.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)) for p in seen]
    pixels = CLIPImageProcessor(size=SIDE, crop_size=SIDE)(whole, return_tensors="pt").pixel_values
    assert torch.allclose(encoder.backbone.preprocess((seen * 255).round() / 255), pixels, atol=1e-5)
    with torch.no_grad():
        expected = stock(pixels, output_hidden_states=True)
        empty = stock(torch.zeros(1, 3, SIDE, SIDE), output_hidden_states=True).hidden_states[-2]
    assert torch.allclose(encoder.backbone.read(pixels, [POOLED])[POOLED][:, 0], expected.image_embeds, atol=1e-5)
    assert torch.allclose(encoder.zero_states(), empty, atol=1e-5)


@pytest.mark.parametrize("kind", ["pooled", "plus"])
@pytest.mark.parametrize("layer", range(DEPTH + 1))
def test_resumed_true_tokens_are_the_whole_encoder(
    places: dict[str, Path], encoder: ImageEncoder, stock: CLIPVisionModelWithProjection, kind: str, layer: int
) -> None:
    adapter = load_adapter(places[kind])
    backbone = load_backbone(BackboneConfig("transformers/tiny", str(places["encoder"])))
    if kind == "plus" and layer == DEPTH:
        with pytest.raises(UserError, match=r"starts after a block \(0 to 2\)"):
            resume_bridge(adapter, encoder, backbone, str(layer), "tokens")
        return
    bridge = resume_bridge(adapter, encoder, backbone, str(layer), "tokens")
    assert bridge.takes == (N_TOKENS, HIDDEN)
    tokens = backbone.tokens(pictures(), [str(layer)])[str(layer)]
    with torch.no_grad():
        out = stock(backbone.preprocess(pictures()), output_hidden_states=True)
        empty = stock(torch.zeros(1, 3, SIDE, SIDE), output_hidden_states=True).hidden_states[-2]
    expected = out.image_embeds if kind == "pooled" else out.hidden_states[-2]
    assert torch.allclose(bridge(tokens), expected, atol=1e-4)
    assert torch.allclose(bridge.negative, torch.zeros(1, 12) if kind == "pooled" else empty, atol=1e-5)
    assert not torch.allclose(bridge(tokens.flip(0)), expected, atol=1e-2)


def in_open_clip(stock: CLIPVisionModelWithProjection, size: int = SIDE) -> Backbone:
    """The same weights as a vision tower of open_clip."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    tower = VisionTransformer(size, PATCH, HIDDEN, DEPTH, 2, 2.0, output_dim=12, act_layer=QuickGELU)
    own = {name.removeprefix("vision_model."): value for name, value in stock.state_dict().items()}
    state = {
        "class_embedding": own["embeddings.class_embedding"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "conv1.weight": own["embeddings.patch_embedding.weight"],
        "proj": own["visual_projection.weight"].T,
    }
    names = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
    names |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    for part in ("weight", "bias"):
        state |= {f"ln_pre.{part}": own[f"pre_layrnorm.{part}"], f"ln_post.{part}": own[f"post_layernorm.{part}"]}
        for k in range(DEPTH):
            theirs, ours = f"encoder.layers.{k}", f"transformer.resblocks.{k}"
            joined = [own[f"{theirs}.self_attn.{x}_proj.{part}"] for x in "qkv"]
            state[f"{ours}.attn.in_proj_{part}"] = torch.cat(joined)
            state |= {f"{ours}.{new}.{part}": own[f"{theirs}.{old}.{part}"] for old, new in names.items()}
    tower.load_state_dict(state)
    facts = preprocessing(size, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, "bicubic")
    return transformer(BackboneConfig("open_clip/tiny"), tower, "transformer.resblocks", PATCH, facts)


def test_a_backbone_of_another_library_with_the_same_weights_is_resumed(
    places: dict[str, Path], encoder: ImageEncoder, stock: CLIPVisionModelWithProjection
) -> None:
    backbone = in_open_clip(stock)
    bridge = resume_bridge(load_adapter(places["pooled"]), encoder, backbone, "2", "tokens")
    tokens = backbone.tokens(pictures(), ["2"])["2"]
    with torch.no_grad():
        expected = backbone.model(backbone.preprocess(pictures()))
    assert torch.allclose(bridge(tokens), expected, atol=1e-4)


def test_resume_refuses_what_it_cannot_continue(places: dict[str, Path], encoder: ImageEncoder, tmp_path: Path) -> None:
    adapter = load_adapter(places["pooled"])
    backbone = load_backbone(BackboneConfig("transformers/tiny", str(places["encoder"])))
    with pytest.raises(UserError, match="needs all tokens, not pooling 'grid:2'"):
        resume_bridge(adapter, encoder, backbone, "1", "grid:2")
    other = load_backbone(BackboneConfig("transformers/tiny", str(build_image_encoder(tmp_path / "other", seed=9))))
    with pytest.raises(UserError, match=r"is another .tokens of layer 1 deviate by"):
        resume_bridge(adapter, encoder, other, "1", "tokens")
    with pytest.raises(UserError, match=r"are \(64, 128\)|are \(65, 128\)"):
        resume_bridge(adapter, encoder, load_backbone(BackboneConfig("mini")), "1", "tokens")
    with pytest.raises(UserError, match=r"not at layer 'features\.3'"):
        import torchvision

        torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "s.pth")
        squeeze = load_backbone(BackboneConfig("torchvision/squeezenet1_1", str(tmp_path / "s.pth")))
        resume_bridge(adapter, encoder, squeeze, "features.3", "tokens")


def true_pairs(run: Run, stock: CLIPVisionModelWithProjection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components, embeddings and groups of the training pictures, without the project's own pairs."""
    recording = open_recording(run)
    rows = np.unique(recording.train.stimulus)
    tokens = np.asarray(picture_tokens(run, recording)[rows], dtype=np.float32)
    images = np.stack([recording.stimuli.load(int(i)) for i in rows])
    pixels = CLIPImageProcessor(do_resize=False, do_center_crop=False)(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = stock(pixels).image_embeds.numpy()
    return components_of(run, tokens, np.arange(len(rows))).numpy(), embeds, recording.stimuli.groups[rows]


def test_pairs_are_those_of_training_pictures(
    run: Run, encoder: ImageEncoder, stock: CLIPVisionModelWithProjection
) -> None:
    pairs = training_pairs(run, encoder)
    components, embeds, groups = true_pairs(run, stock)
    assert len(pairs.ids) == N_TRAIN
    assert np.allclose(pairs.components, components, atol=1e-3)
    assert np.allclose(pairs.embeds, embeds, atol=5e-3)  # the cache is half precision
    assert (pairs.groups == groups).all() and len(set(groups)) < N_TRAIN


def test_a_test_picture_is_refused(run: Run) -> None:
    recording = open_recording(run)
    rows = np.unique(recording.train.stimulus)
    require_training(run, recording, rows)
    with pytest.raises(UserError, match="is a test picture of"):
        require_training(run, recording, np.append(rows, recording.test.stimulus[0]))
    stored = run.path / "split.json"
    kept = stored.read_text()
    split = read_json(stored)
    try:  # the manifest of the run counts, not only the files of today
        split["test"]["hashes"][0] = split["train"]["hashes"][0]
        stored.write_text(json.dumps(split))
        with pytest.raises(UserError, match=r"is a test picture of|differ from those"):
            require_training(run, recording, rows)
    finally:
        stored.write_text(kept)


def test_ridge_is_that_of_scikit_learn(
    run: Run, places: dict[str, Path], encoder: ImageEncoder, stock: CLIPVisionModelWithProjection
) -> None:
    bridge = ridge_bridge(run, load_adapter(places["pooled"]), encoder)
    pairs = training_pairs(run, encoder)
    path = run.path / "bridges" / f"ridge_{pairs.key}.safetensors"
    from align.files import read_tensors

    tensors, facts = read_tensors(path)
    alpha, gain = float(facts["alpha"]), float(tensors["gain"])
    assert alpha in ALPHAS and 1 <= gain <= 5
    x, y = pairs.components.numpy(), pairs.embeds.numpy()
    tokens = load_predictions(run).tokens
    assert tokens is not None
    own = components_of(run, tokens, np.arange(N_TEST)).numpy()
    plain = Ridge(alpha=alpha).fit(x.astype(np.float64), y).predict(own)
    expected = y.mean(0) + gain * (plain - y.mean(0))
    assert np.allclose(bridge(torch.from_numpy(tokens)), expected, atol=1e-3)
    assert torch.equal(bridge.negative, torch.zeros(1, 12))
    stamp = path.stat().st_mtime_ns
    again = ridge_bridge(run, load_adapter(places["pooled"]), encoder)
    assert path.stat().st_mtime_ns == stamp and again.key == bridge.key
    recording = open_recording(run)
    oracle = torch.from_numpy(np.asarray(picture_tokens(run, recording)[N_TRAIN:], dtype=np.float32))
    images = np.stack([recording.stimuli.load(i) for i in range(N_TRAIN, N_TRAIN + N_TEST)])
    pixels = CLIPImageProcessor(do_resize=False, do_center_crop=False)(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        true = stock(pixels).image_embeds
    centre = pairs.embeds.mean(0)
    cosine = torch.nn.functional.cosine_similarity(bridge(oracle) - centre, true - centre)
    assert cosine.mean() > 0.5  # pictures it has never seen


def test_prior_starts_as_ridge_learns_and_resumes(
    run: Run, places: dict[str, Path], encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon.generation import loop

    adapter = load_adapter(places["pooled"])
    tokens = torch.from_numpy(load_predictions(run).tokens)
    none = dataclasses.replace(SHORT, train=StageConfig(steps=0, batch_size=16, lr=1e-3))
    ridge = ridge_bridge(run, adapter, encoder)
    assert torch.allclose(prior_bridge(run, adapter, encoder, none)(tokens), ridge(tokens), atol=1e-4)
    whole = prior_bridge(run, adapter, encoder, SHORT)
    first = whole(tokens)
    assert not torch.allclose(first, ridge(tokens), atol=1e-3)
    file = next((run.path / "bridges").glob("prior_*_30_*.safetensors"))
    file.unlink()
    for path in file.with_suffix("").iterdir():
        path.unlink()
    original, calls = loop.JsonLines, []

    class Dying(original):
        def __call__(self, record: dict[str, float]) -> None:
            super().__call__(record)
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(loop, "JsonLines", Dying)
    with pytest.raises(KeyboardInterrupt):
        prior_bridge(run, adapter, encoder, SHORT)
    monkeypatch.setattr(loop, "JsonLines", original)
    assert torch.equal(prior_bridge(run, adapter, encoder, SHORT)(tokens), first)


def test_prior_learns(run: Run, encoder: ImageEncoder, tmp_path: Path) -> None:
    """From a linear path that says the same for every picture to embeddings of their own."""
    pairs = training_pairs(run, encoder)
    mean = pairs.embeds.mean(0)
    torch.manual_seed(0)
    prior = Prior(LinearMap(torch.zeros(12, 20), mean, mean, 1.0), 16, 0.0)
    config = dataclasses.replace(SHORT, train=StageConfig(steps=150, batch_size=16, lr=1e-2))
    start = (prior(pairs.components) - pairs.embeds).square().mean().item()
    trained = _train(prior, pairs, config, tmp_path, 0).eval()
    assert (trained(pairs.components) - pairs.embeds).square().mean().item() < 0.3 * start


def test_pooled_bridges_refuse_token_states(run: Run, places: dict[str, Path], encoder: ImageEncoder) -> None:
    for bridge in (ridge_bridge, prior_bridge):
        with pytest.raises(UserError, match="is an IP-Adapter-Plus"):
            bridge(run, load_adapter(places["plus"]), encoder)


def test_matching_moments(run: Run) -> None:
    kept, zero = matched_tokens(run, "spread")
    assert np.array_equal(kept, load_predictions(run).tokens)
    flat, _ = matched_tokens(run, "none")
    matched, resting = matched_tokens(run, "moments")
    assert matched.shape == flat.shape == kept.shape and resting.shape == zero.shape
    assert flat.std(0).mean() < kept.std(0).mean()
    moments = held_out_moments(run)
    estimate, true = torch.randn(500, 20) * moments.std + moments.mean, moments.true_std
    gain = (true / moments.std).clamp(1, 10)
    assert torch.allclose(moments.apply(estimate).std(0), gain * estimate.std(0), rtol=1e-4)
    assert torch.allclose(moments.apply(moments.mean[None])[0], moments.true_mean, atol=1e-5)
    recording = open_recording(run)  # every picture that it looked at is a training one, one fifth of them
    rows = np.unique(recording.train.stimulus)
    true_all = components_of(run, np.asarray(picture_tokens(run, recording), np.float32), rows)
    assert (moments.true_std - true_all.std(0)).abs().max() < 1.0
    components = components_of(run, flat, np.arange(N_TEST))
    expected = components_of(run, matched, np.arange(N_TEST))
    ratio = (expected.norm() / moments.apply(components).norm()).item()
    assert 0.5 < ratio <= 1.01  # the bound on single predictions may shorten them
    with pytest.raises(UserError, match="match 'mean' is not known"):
        matched_tokens(run, "mean")


@pytest.mark.parametrize("bridge", ["ridge", pytest.param("prior", marks=pytest.mark.long), "resume"])
def test_every_bridge_draws_pictures_once(run: Run, places: dict[str, Path], tmp_path: Path, bridge: str) -> None:
    how = Conditioning(str(places["pooled"]), bridge, prior=SHORT)
    told = generate(run, str(places["sd"]), tmp_path, QUICK, ("shuffled",), 3, how)
    assert told["sampled"] == 6 and told["bridge"] == bridge
    folder = Path(told["folders"]["reconstructions"])
    assert folder.parent.name == f"sd_ip-adapter-pooled_{bridge}"
    assert generate(run, str(places["sd"]), tmp_path, QUICK, ("shuffled",), 3, how)["sampled"] == 0
    assert len(read_index(folder)) == 3
    oracle = true_tokens_through(run, places, bridge)
    assert oracle.shape == (2, 12)


def true_tokens_through(run: Run, places: dict[str, Path], bridge: str) -> torch.Tensor:
    """What the adapter reads for the true tokens of two pictures."""
    how = Conditioning(str(places["pooled"]), bridge, prior=SHORT)
    _, made = adapter_and_bridge(run, how, str(places["sd"]), "sd")
    return made(torch.from_numpy(np.asarray(picture_tokens(run, open_recording(run))[:2], dtype=np.float32)))


def test_bridges_and_adapters_that_do_not_fit_are_named(run: Run, places: dict[str, Path], tmp_path: Path) -> None:
    assert set(BRIDGES) == {"own", "ridge", "prior", "resume"}

    def choose(**wanted: str) -> None:
        adapter_and_bridge(run, Conditioning(**wanted), "mini", "sd")

    with pytest.raises(UserError, match="bridge 'rigde' is not known"):
        choose(bridge="rigde")
    with pytest.raises(UserError, match="pass --adapter FILE, DIR or HUB_ID"):
        choose(bridge="ridge")
    with pytest.raises(UserError, match="reads no tokens of a layer"):
        choose(adapter=str(places["pooled"]))
    with pytest.raises(UserError, match="no conditioner of mini takes tokens tokens"):
        choose()
    alone = tmp_path / places["pooled"].name
    alone.write_bytes(places["pooled"].read_bytes())
    with pytest.raises(UserError, match=r"no CLIP image encoder of projection_dim 12 lies.*--image-encoder DIR"):
        choose(adapter=str(alone), bridge="ridge")
    choose(adapter=str(alone), bridge="ridge", image_encoder=str(places["encoder"]))
    choose(adapter=str(tmp_path), bridge="ridge", image_encoder=str(places["encoder"]))
    with pytest.raises(UserError, match="holds 2 weight files"):
        choose(adapter=str(places["pooled"].parent), bridge="ridge")


def test_the_command_line_reaches_every_option(
    run: Run, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "--subject", "01", "--run", str(run.path), "--json", "--out", str(tmp_path), "--limit", "2"]
    words += ["--generator", str(places["sd"]), "--adapter", str(places["pooled"]), "--bridge", "ridge"]
    options = ["--seeds", "0", "3", "--batch-size", "3", "--scale", "0.7", "--precision", "bf16", "--match", "none"]
    options += ["--steps", "2", "--guidance-scale", "3", "--attention", "sdpa", "--device", "cpu"]
    assert main([*words, *options, "--image-encoder", str(places["encoder"])]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["sampled"], told["seeds"], told["bridge"], told["match"]) == (2 * 2 * 4, [0, 3], "ridge", "none")
    assert told["generator"] == "sd_ip-adapter-pooled_ridge_none"
    assert set(told["folders"]) == {"reconstructions", "shuffled", "zero_brain", "oracle"}
    for bad, what in (
        (["--generator", "someone/absent"], "--generator DIR"),
        (["--adapter", "someone/absent"], "--adapter FILE"),
        (["--offload", "--device", "cpu"], "--offload"),
        (["--seeds", "1", "1"], "different whole numbers"),
    ):
        assert main([*words, *bad]) == 2
        told_wrong = capsys.readouterr().err.splitlines()
        assert what in told_wrong[-1] and told_wrong[-1].startswith("recon generate: ")
