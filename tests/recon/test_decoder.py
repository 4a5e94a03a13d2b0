"""What a run tells a generator beside tokens: coarse pictures, words, a choice among samples; per control."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from align.checkpoint import Run, load_run
from align.errors import UserError
from align.vision.backbones import load_backbone
from recon.cli import main
from recon.decoding.bridges.choose import Conditioning, adapter_and_bridge
from recon.decoding.conditions import derangement
from recon.decoding.decoder import RunDecoder
from recon.decoding.joining import started
from recon.decoding.library import read_library
from recon.decoding.plan import Sampling
from recon.decoding.predict import load_predictions, open_recording, picture_tokens, signals_at_rest
from recon.drawing.best_of import require_agreement
from recon.drawing.folders import PictureFolders, read_index, read_pictures, read_seed
from recon.drawing.generate import generate
from recon.generation.adapters import Adapter, load_adapter
from recon.generation.conditioner import Conditioner, ConditionerInfo, read_info, save_conditioner
from recon.generation.pipeline import Generator
from recon.generation.sketch import Sketch, load_sketch
from recon.images import load_image
from tests.one_line import fails
from tests.recon.tiny import tiny_generator
from tests.recon.tiny_run import make_run

N_TEST = 6
QUICK = Sampling(steps=2, batch_size=4, strength=0.5)


@dataclass(frozen=True)
class Place:
    """Folder of the generator, its conditioner of SqueezeNet tokens, and the runs of two encoders."""

    generator: Path
    adapter: Adapter
    home: Path
    runs: dict[str, Path]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("decoder")
    folder, _, unet, _ = tiny_generator(root / "generator")
    torch.manual_seed(1)
    info = ConditionerInfo("torchvision/squeezenet1_1", "features.3", "grid:2", 4, 128, str(folder))
    conditioner = Conditioner(unet, info, torch.zeros(128), torch.ones(128))
    path = root / "runs" / "recon" / "squeeze" / "ip_adapter.safetensors"
    save_conditioner(conditioner, path, sketch=Sketch(4, 128, 4, 8, hidden=16, depth=1))
    runs = {name: make_run(root / name, N_TEST, encoder=name).path for name in ("ridge", "encoding")}
    return Place(folder, load_adapter(path), root, runs)


@pytest.fixture(autouse=True)
def at_home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(place.home))


@pytest.fixture
def ridge(place: Place) -> Run:
    return load_run(place.runs["ridge"])


@pytest.fixture
def encoding(place: Place) -> Run:
    return load_run(place.runs["encoding"])


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The encoding run with a constant on both sides."""
    return make_run(tmp_path_factory.mktemp("constant"), N_TEST, encoder="encoding", more=["encoder.constant=2"])


@pytest.fixture(scope="module")
def model(place: Place) -> Generator:
    return Generator.load(str(place.generator), place.adapter)


def decode(run: Run, place: Place, **wanted: object) -> RunDecoder:
    return RunDecoder(run, place.adapter, Conditioning(**wanted))  # type: ignore[arg-type]


def test_with_a_sketch_pictures_start_from_it(ridge: Run, place: Place, model: Generator) -> None:
    decoder, sketch = decode(ridge, place), load_sketch(place.adapter.path)
    assert decoder.low_level == "tokens" and sketch is not None
    for name in ("reconstructions", "zero_brain", "oracle"):
        condition = decoder.condition(name, 0)
        start = decoder.start(model, condition)
        expected = model.decode(sketch(torch.from_numpy(np.array(condition.tokens, dtype=np.float32))))
        torch.testing.assert_close(start, expected)
    assert decode(ridge, place, low_level="none").start(model, condition) is None


def test_coarse_part_and_detail_of_a_start_are_those_of_the_condition(
    ridge: Run, place: Place, model: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, sketch = decode(ridge, place, low_level="both"), load_sketch(place.adapter.path)
    condition = decoder.condition("reconstructions", 0)
    assert sketch is not None and condition.pixels is not None
    assert condition.detail is not None and np.ptp(condition.detail) > 0.1
    sketched = model.decode(sketch(torch.from_numpy(np.array(condition.tokens, dtype=np.float32)))).detach()
    start = decoder.start(model, condition)
    assert start is not None
    torch.testing.assert_close(start, started(torch.from_numpy(condition.pixels), sketched, condition.detail))
    told: list[np.ndarray] = []  # pictures of the tiny generator are too small to show detail
    monkeypatch.setattr(
        "recon.decoding.joining.started", lambda pixels, pictures, detail: told.append(detail) or pictures
    )
    decoder.start(model, condition)
    np.testing.assert_array_equal(told[0], condition.detail)


@pytest.mark.parametrize("path", ["tokens", "both"])
def test_starts_do_not_depend_on_how_many_are_made_at_once(
    ridge: Run, place: Place, model: Generator, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    decoder = decode(ridge, place, low_level=path)
    condition = decoder.condition("reconstructions", 0)
    whole = decoder.start(model, condition)
    monkeypatch.setattr("recon.decoding.decoder._BATCH", 5)
    in_parts = decoder.start(model, condition)
    assert whole is not None and in_parts is not None and len(whole) == N_TEST
    torch.testing.assert_close(in_parts, whole, atol=1e-5, rtol=0)


def test_with_pixels_alone_a_start_is_the_small_picture_enlarged(ridge: Run, place: Place, model: Generator) -> None:
    decoder = decode(ridge, place, low_level="pixels")
    condition = decoder.condition("reconstructions", 0)
    start = decoder.start(model, condition)
    assert start is not None and condition.pixels is not None
    small = torch.from_numpy(condition.pixels)
    expected = torch.nn.functional.interpolate(small, (model.size, model.size), mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(start, expected)


def test_nothing_is_fitted_to_a_subject_that_the_run_never_saw(ridge: Run, encoding: Run, place: Place) -> None:
    for run in (ridge, encoding):
        unseen = replace(run, meta={**run.meta, "trained_on": ["02", "03"]})
        for path in ("pixels", "both"):
            with pytest.raises(UserError, match=f"--low-level {path} is fitted to training rows of subject 01"):
                decode(unseen, place, low_level=path)
        assert decode(unseen, place, tokens="library").low_level == "tokens"


def test_the_oracle_has_true_tokens_and_no_pixels(ridge: Run, place: Place) -> None:
    decoder = decode(ridge, place, low_level="both")
    recording = open_recording(ridge)
    rows = [recording.stimuli.ids.index(name) for name in decoder.ids]
    oracle = decoder.condition("oracle", 0)
    np.testing.assert_allclose(oracle.tokens, picture_tokens(ridge, recording)[rows], rtol=1e-3)
    assert oracle.pixels is None and oracle.detail is None and oracle.embeds is None
    assert decoder.condition("reconstructions", 0).pixels is not None


def test_without_a_sketch_the_oracle_of_pixels_has_those_of_the_picture(ridge: Run, place: Place) -> None:
    plain = replace(place.adapter, kind="pooled", info=None)
    decoder = RunDecoder(ridge, plain, Conditioning(low_level="pixels"))
    stimuli = open_recording(ridge).stimuli
    oracle = decoder.condition("oracle", 0)
    assert oracle.pixels is not None and oracle.pixels.shape == (N_TEST, 3, 16, 16)
    for small, name in zip(oracle.pixels, decoder.ids, strict=True):
        blocks = load_image(stimuli, stimuli.ids.index(name)).float().reshape(3, 16, 4, 16, 4).mean((2, 4)).numpy()
        assert np.corrcoef(small.ravel(), blocks.ravel())[0, 1] > 0.95


def test_another_stimulus_lends_everything(ridge: Run, place: Place) -> None:
    decoder = decode(ridge, place, low_level="both", words="retrieved")
    own, other = decoder.condition("reconstructions", 0), decoder.condition("shuffled", 0)
    order = derangement(N_TEST, 0)
    for name in ("tokens", "embeds", "pixels", "detail"):
        np.testing.assert_array_equal(getattr(other, name), getattr(own, name)[order])
    assert other.prompts == tuple(own.prompts[i] for i in order) and other.owners == tuple(own.owners[i] for i in order)
    silent = decoder.condition("zero_brain", 0)
    assert silent.owners == ("",) * N_TEST and len(set(silent.prompts)) == 1
    assert np.ptp(silent.pixels, axis=0).max() == 0 and np.ptp(own.pixels, axis=0).max() > 0.05
    rest = decoder.of_signals(signals_at_rest(ridge), 0)
    assert rest.detail is not None and np.ptp(own.detail) > 0.1
    np.testing.assert_allclose(silent.detail, np.repeat(rest.detail, N_TEST), atol=1e-6)
    np.testing.assert_allclose(silent.pixels, np.repeat(rest.pixels, N_TEST, axis=0), atol=1e-6)


def test_words_are_those_of_the_nearest_training_picture(ridge: Run, place: Place) -> None:
    decoder = decode(ridge, place, words="retrieved")
    recording = open_recording(ridge)
    rows = np.unique(recording.train.stimulus)
    embeds = ridge.aligner.embed_images(np.asarray(picture_tokens(ridge, recording)[rows], dtype=np.float32))
    found = []
    for own in load_predictions(ridge).embeds:
        cosine = [own @ e / np.linalg.norm(own) / np.linalg.norm(e) for e in embeds]
        found.append(recording.stimuli.captions[rows[int(np.argmax(cosine))]])
    assert decoder.condition("reconstructions", 0).prompts == tuple(found)
    caption = dict(zip(recording.stimuli.ids, recording.stimuli.captions, strict=True))
    assert decoder.condition("oracle", 0).prompts == tuple(caption[name] for name in decoder.ids)


def test_a_study_without_captions_has_no_words(ridge: Run, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = open_recording(ridge)
    blank = replace(recording.stimuli, captions=("",) * len(recording.stimuli))
    monkeypatch.setattr("recon.decoding.predict.open_recording", lambda run: replace(recording, stimuli=blank))
    with pytest.raises(UserError, match="--words retrieved needs captions"):
        decode(ridge, place, words="retrieved").condition("reconstructions", 0)


def test_an_encoding_model_finds_its_tokens_in_the_library(encoding: Run, place: Place) -> None:
    decoder = decode(encoding, place)
    assert decoder.varies and decoder.low_level == "both" and decoder.layer == "features.3"
    library = read_library(encoding)
    recording = open_recording(encoding)
    assert set(library.ids) == {recording.stimuli.ids[i] for i in recording.train.stimulus}
    backbone = load_backbone(replace(encoding.config.backbone, image_size=None))
    tokens = decoder.condition("reconstructions", 0).tokens
    for own, found in zip(load_predictions(encoding).embeds, tokens, strict=True):
        cosine = library.responses @ own / np.linalg.norm(library.responses, axis=1)
        picture = torch.from_numpy(library.load(int(cosine.argmax())).copy()).permute(2, 0, 1)[None] / 255
        expected = backbone.tokens(picture, ["features.3"], "grid:2")["features.3"][0]
        np.testing.assert_allclose(found, expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({}, marks=pytest.mark.long),
        {"tokens": "posterior"},
        {"low_level": "pixels"},
        {"words": "retrieved"},
    ],
)
def test_a_constant_changes_what_is_retrieved_and_nothing_that_is_drawn(
    encoding: Run, constant: Run, place: Place, wanted: dict[str, str]
) -> None:
    own, other = load_predictions(encoding), load_predictions(constant)
    assert np.array_equal(other.embeds[:, :-1], own.embeds) and (other.embeds[:, -1] > 0).all()
    plain, with_it = decode(encoding, place, **wanted), decode(constant, place, **wanted)
    x = open_recording(encoding).test.x[:3]
    pairs = [
        [one.condition(name, 0) for one in (plain, with_it)] for name in ("reconstructions", "zero_brain", "oracle")
    ]
    for one, two in [*pairs, [part.of_signals(x, 0) for part in (plain, with_it)]]:
        for name in ("tokens", "embeds", "pixels", "detail"):
            a, b = getattr(one, name), getattr(two, name)
            assert (a is None and b is None) or np.array_equal(a, b), name
        assert one.prompts == two.prompts
        np.testing.assert_array_equal(plain.responses(one), with_it.responses(two))


def test_further_seeds_take_the_next_likely_pictures(encoding: Run, place: Place) -> None:
    decoder, library = decode(encoding, place), read_library(encoding)
    own = load_predictions(encoding).embeds[0]
    cosine = library.responses @ own / np.linalg.norm(library.responses, axis=1)
    for seed in (0, 1, 5):
        row = int(np.argsort(-cosine)[seed])
        expected = library.tokens(np.array([row]), "features.3", "grid:2")[0]
        np.testing.assert_array_equal(decoder.condition("reconstructions", seed).tokens[0], expected)
    with pytest.raises(UserError, match="seed 40: the library has 40 pictures"):
        decoder.condition("reconstructions", 40)


def test_a_test_picture_under_another_name_never_enters_the_library(
    encoding: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.data.studies import open_study

    recording = open_recording(encoding)
    test = np.unique(recording.test.stimulus)
    stimuli = recording.stimuli
    twins = replace(
        stimuli,
        ids=tuple(f"twin {i}" for i in test),
        load=lambda k: stimuli.load(int(test[k])),
        groups=np.arange(len(test)),
        concepts=("",) * len(test),
        captions=("",) * len(test),
        known_hashes=None,
    )
    monkeypatch.setattr(type(open_study(encoding.config)), "further_pictures", lambda self: twins)
    assert not any(name.startswith("twin") for name in read_library(encoding).ids)


@pytest.mark.parametrize("encoder", ["ridge", "encoding"])
def test_signals_of_the_test_rows_are_told_like_the_test_rows(place: Place, encoder: str) -> None:
    run = load_run(place.runs[encoder])
    decoder = decode(run, place, low_level="both", words="retrieved")
    recording = open_recording(run)
    place_of = {recording.stimuli.ids[i]: k for k, i in enumerate(recording.test.stimulus)}
    x = recording.test.x[[place_of[name] for name in decoder.ids]]
    told, expected = decoder.of_signals(x, 2), decoder.condition("reconstructions", 2)
    for name in ("tokens", "embeds", "pixels", "detail"):
        np.testing.assert_allclose(getattr(told, name), getattr(expected, name), atol=1e-4)
    assert told.prompts == expected.prompts and told.owners == ("",) * N_TEST


def test_expected_tokens_have_their_counterpart_in_every_control(encoding: Run, place: Place) -> None:
    decoder, library = decode(encoding, place, tokens="posterior"), decode(encoding, place, tokens="library")
    assert decoder.tokens == "posterior" and not decoder.varies and decoder.layer == "features.3"
    own, other = decoder.condition("reconstructions", 0), decoder.condition("shuffled", 0)
    np.testing.assert_array_equal(other.tokens, own.tokens[derangement(N_TEST, 0)])
    np.testing.assert_array_equal(decoder.condition("reconstructions", 5).tokens, own.tokens)
    silent = decoder.condition("zero_brain", 0)
    assert np.ptp(silent.tokens, axis=0).max() == 0 and np.ptp(own.tokens, axis=0).max() > 0.01
    oracle = decoder.condition("oracle", 0)
    np.testing.assert_array_equal(oracle.tokens, library.condition("oracle", 0).tokens)
    np.testing.assert_array_equal(decoder.likeliest(), library.likeliest())
    recording = open_recording(encoding)
    place_of = {recording.stimuli.ids[i]: k for k, i in enumerate(recording.test.stimulus)}
    x = recording.test.x[[place_of[name] for name in decoder.ids]]
    np.testing.assert_allclose(decoder.of_signals(x, 2).tokens, own.tokens, atol=1e-4)
    rest = decoder.of_signals(signals_at_rest(encoding), 0)
    np.testing.assert_allclose(rest.tokens[0], silent.tokens[0], atol=1e-4)
    flat = decode(encoding, place, tokens="posterior", match="none").condition("reconstructions", 0)
    assert flat.tokens.std(0).mean() < own.tokens.std(0).mean()


def test_expected_tokens_are_refused_where_they_cannot_be(ridge: Run, encoding: Run, place: Place) -> None:
    with pytest.raises(UserError, match="--tokens posterior needs a run that predicts responses"):
        decode(ridge, place, tokens="posterior")
    with pytest.raises(UserError, match="matched by spread or none, not 'moments'"):
        decode(encoding, place, tokens="posterior", match="moments")
    words = ["generate", "--subject", "01", "--run", str(ridge.path), "--tokens", "posterior"]
    assert main([*words, "--generator", str(place.generator)]) == 2


def test_what_the_run_or_the_adapter_lacks_is_named(ridge: Run, encoding: Run, place: Place) -> None:
    bare = replace(place.adapter, kind="pooled", info=None)
    assert RunDecoder(ridge, bare, Conditioning()).low_level == "none"
    with pytest.raises(UserError, match="--low-level both needs an own conditioner"):
        RunDecoder(ridge, bare, Conditioning(low_level="both"))
    with pytest.raises(UserError, match="--match moments is for predicted tokens"):
        decode(encoding, place, match="moments")
    with pytest.raises(UserError, match="low-level path 'edges' is not known"):
        Conditioning(low_level="edges")
    with pytest.raises(UserError, match="--best-of 0 should be 1 or more"):
        Conditioning(best_of=0)


@pytest.mark.parametrize("encoder", [pytest.param("ridge", marks=pytest.mark.long), "encoding"])
def test_the_best_of_n_is_what_the_brain_agrees_with(place: Place, tmp_path: Path, encoder: str) -> None:
    run = load_run(place.runs[encoder])
    wanted = Conditioning(best_of=3)
    told = generate(run, str(place.generator), tmp_path, QUICK, ("shuffled", "oracle"), conditioning=wanted)
    assert told["sampled"] == 3 * N_TEST * 2 + N_TEST and told["generator"] == "generator_best-of-3"
    folders = PictureFolders(tmp_path, told["generator"], "01")
    backbone, ids = load_backbone(run.config.backbone), load_predictions(run).ids
    order = derangement(N_TEST, 0)
    for name, folder, whose in (
        ("reconstructions", folders.reconstructions, np.arange(N_TEST)),
        ("shuffled", folders.control("shuffled"), order),
    ):
        samples = [
            read_pictures(folders.candidates(name), read_seed(folders.candidates(name), j), ids) for j in (0, 1, 2)
        ]
        chosen = read_pictures(folder, read_seed(folder, 0), ids)
        for i in range(N_TEST):
            said = load_predictions(run).embeds[whose[i]]
            scores = []
            for sample in samples:
                tokens = backbone.tokens(sample[i : i + 1], [run.config.target.layer], run.config.target.pooling)
                embed = run.aligner.embed_images(tokens[run.config.target.layer].numpy())[0]
                scores.append(said @ embed / np.linalg.norm(said) / np.linalg.norm(embed))
            torch.testing.assert_close(chosen[i], samples[int(np.argmax(scores))][i], atol=0, rtol=0)
    assert not folders.candidates("oracle").exists() and len(read_index(folders.control("oracle"))) == N_TEST
    again = generate(run, str(place.generator), tmp_path, QUICK, ("shuffled", "oracle"), conditioning=wanted)
    assert again["sampled"] == 0


def test_a_choice_by_the_seen_picture_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require_agreement("agreement")
    command = ["generate", "--subject", "01", "--run", str(place.runs["ridge"]), "--out", str(tmp_path / "out")]
    assert main([*command, "--best-of", "4", "--choose-by", "SSIM"]) == 2
    err = capsys.readouterr().err
    assert "refused" in err.splitlines()[-1] and len(err.splitlines()) == 2 and not (tmp_path / "out").exists()


def test_low_level_pictures_are_stored_for_the_gallery(ridge: Run, place: Place, tmp_path: Path) -> None:
    sampling = replace(QUICK, seeds=(3, 1))
    generate(ridge, str(place.generator), tmp_path, sampling, ())
    rows = read_index(PictureFolders(tmp_path, "generator", "01").low_level)
    assert [row["seed"] for row in rows] == ["3"] * N_TEST


def test_a_controlnet_is_given_the_edges_of_each_own_start(ridge: Run, place: Place, tmp_path: Path) -> None:
    from diffusers import ControlNetModel, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(place.generator / "unet")
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    net.save_pretrained(tmp_path / "net")
    wanted = Conditioning(controlnet=str(tmp_path / "net"))
    told = generate(ridge, str(place.generator), tmp_path, QUICK, ("oracle",), conditioning=wanted)
    assert told["generator"] == "generator_controlnet-net" and told["sampled"] == 2 * N_TEST
    plain = generate(ridge, str(place.generator), tmp_path, QUICK, ("oracle",))
    for name, folder in told["folders"].items():
        held, free = (
            read_pictures(Path(where), read_seed(Path(where), 0), load_predictions(ridge).ids)
            for where in (folder, plain["folders"][name])
        )
        assert (held - free).abs().max() > 2 / 255
    with pytest.raises(UserError, match="--controlnet reads the edges of the coarse picture"):
        nothing = replace(wanted, low_level="none")
        generate(ridge, str(place.generator), tmp_path, QUICK, conditioning=nothing)


def _conditioner(place: Place, path: Path, resizing: str) -> Path:
    """The conditioner of the place, made of pictures that were resized in this way; "" = it does not say."""
    unet = tiny_generator(path.parent / "generator")[2]
    assert place.adapter.info is not None
    conditioner = Conditioner(unet, replace(place.adapter.info, resizing=resizing), torch.zeros(128), torch.ones(128))
    save_conditioner(conditioner, path)
    assert read_info(path).resizing == resizing
    return path


def test_a_conditioner_of_another_crop_is_refused(place: Place, ridge: Run, tmp_path: Path) -> None:
    own, other = "whole picture to 224 x 224, no crop", "shorter side to 256 px, centre crop to 224 x 224"
    assert ridge.meta["resizing"] == own
    unsaid = {key: value for key, value in ridge.meta.items() if key != "resizing"}
    older = replace(ridge, meta=unsaid)  # of before this was kept
    uncropped = replace(ridge.config, backbone=replace(ridge.config.backbone, crop="none"))

    def fit(run: Run, path: Path) -> object:
        return adapter_and_bridge(run, Conditioning(str(path)), str(place.generator), "sd")

    alike = _conditioner(place, tmp_path / "alike" / "a.safetensors", own)
    cropped = _conditioner(place, tmp_path / "cropped" / "a.safetensors", other)
    silent = _conditioner(place, tmp_path / "silent" / "a.safetensors", "")
    for run, path in ((ridge, alike), (ridge, silent), (older, alike), (older, cropped)):
        fit(run, path)
    for run in (ridge, replace(older, config=uncropped)):
        line = fails("resized otherwise", lambda run=run: fit(run, cropped))
        assert other in line and "no crop" in line and f"backbone.crop={run.config.backbone.crop}" in line


def test_the_conditioner_that_fits_is_found_beside_a_newer_one(
    place: Place, ridge: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    at = tmp_path / "runs" / "recon"
    first = _conditioner(place, at / "first" / "ip_adapter.safetensors", ridge.meta["resizing"])
    _conditioner(place, at / "second" / "ip_adapter.safetensors", "shorter side to 256 px")
    find = partial(adapter_and_bridge, ridge, Conditioning(), str(place.generator), "sd")
    assert find()[0].path == first
    first.unlink()
    fails("resized otherwise", find)
