"""Further pictures for a library from a folder or zip, and the control that shows the likeliest picture as it is."""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from align.checkpoint import Run, load_run
from align.data.signals import Recording
from align.data.studies import open_study
from align.data.studies.simulated.rendering import TRAIN_CONCEPTS, picture
from align.errors import UserError
from align.vision.backbones import load_backbone
from recon.cli import main
from recon.decoding import conditions, photographs
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.conditions import LIKELIEST
from recon.decoding.decoder import RunDecoder
from recon.decoding.library import Library, cosines, read_library, with_photographs
from recon.decoding.plan import Sampling
from recon.decoding.predict import load_predictions, open_recording
from recon.drawing.folders import PictureFolders, read_index, read_pictures, read_seed
from recon.drawing.generate import generate
from recon.evaluation import judges, report
from recon.evaluation.schema import faults
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.table import format_report
from recon.gallery.content import read_content
from recon.generation.adapters import Adapter, load_adapter
from recon.generation.conditioner import Conditioner, ConditionerInfo, save_conditioner
from recon.metrics import metrics
from tests.recon.tiny import tiny_generator
from tests.recon.tiny_run import make_run, only_pixels

N_TEST, N_NEW = 6, 5
QUICK = Sampling(steps=2, batch_size=4, strength=0.5)


@dataclasses.dataclass(frozen=True)
class Place:
    """Generator, its conditioner, two runs, and a folder of new pictures, test pictures and training pictures."""

    generator: Path
    adapter: Adapter
    home: Path
    runs: dict[str, Path]
    photos: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("library")
    folder, _, unet, _ = tiny_generator(root / "generator")
    torch.manual_seed(1)
    info = ConditionerInfo("torchvision/squeezenet1_1", "features.3", "grid:2", 4, 128, str(folder))
    path = root / "runs" / "recon" / "squeeze" / "ip_adapter.safetensors"
    save_conditioner(Conditioner(unet, info, torch.zeros(128), torch.ones(128)), path)
    runs = {name: make_run(root / name, N_TEST, encoder=name) for name in ("ridge", "encoding")}
    photos = root / "photos"
    _fill(photos, open_recording(runs["encoding"]))
    return Place(folder, load_adapter(path), root, {name: run.path for name, run in runs.items()}, photos)


def _fill(folder: Path, recording: Recording) -> None:
    """5 new pictures (one twice, in another size than the study's), 2 twins of test pictures, a training picture."""
    (folder / "new").mkdir(parents=True)
    for k in range(N_NEW):
        Image.fromarray(picture(f"{TRAIN_CONCEPTS[k * 7 + 3]}-9")).resize((80, 96)).save(folder / "new" / f"{k}.png")
    (folder / "new" / "again.png").write_bytes((folder / "new" / "0.png").read_bytes())
    test, train = np.unique(recording.test.stimulus), np.unique(recording.train.stimulus)
    Image.fromarray(recording.stimuli.load(int(test[0]))).save(folder / "same.png")
    darker = Image.fromarray(recording.stimuli.load(int(test[1])) // 2 + 40).resize((100, 100))
    darker.save(folder / "twin.JPG", quality=90)
    Image.fromarray(recording.stimuli.load(int(train[0]))).save(folder / "trained.png")
    (folder / "notes.txt").write_text("no picture")


@pytest.fixture(autouse=True)
def at_home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(place.home))


@pytest.fixture
def encoding(place: Place) -> Run:
    return load_run(place.runs["encoding"])


@pytest.fixture
def extended(encoding: Run, place: Place) -> Library:
    return with_photographs(read_library(encoding), place.photos)


def test_twins_and_known_pictures_are_left_out_and_counted(
    encoding: Run, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    own = read_library(encoding)
    with caplog.at_level(logging.INFO):
        found = with_photographs(own, place.photos)
    assert found.ids == (*own.ids, *(f"new/{k}.png" for k in range(N_NEW)))
    assert found.added is not None and len(found) == len(own) + N_NEW
    assert (found.added.pictures, found.added.added, found.added.twins, found.added.known) == (9, N_NEW, 2, 2)
    assert "9 pictures, 5 added, 2 twins of test pictures left out, 2 there already" in caplog.text
    np.testing.assert_array_equal(found.responses[: len(own)], own.responses)


def test_test_pictures_that_the_study_keeps_out_are_left_out(
    encoding: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(place.photos / "new" / "3.png") as image:
        seen = np.asarray(image.convert("RGB").resize((64, 64)))
    monkeypatch.setattr(type(open_study(encoding.config)), "kept_out", lambda self: [seen])
    found = with_photographs(read_library(encoding), place.photos)
    assert "new/3.png" not in found.ids and found.added is not None and found.added.twins == 3


def test_responses_and_tokens_are_those_of_the_backbone(encoding: Run, extended: Library) -> None:
    backbone = load_backbone(encoding.config.backbone)
    rows = np.arange(len(extended) - N_NEW, len(extended))
    tokens = extended.tokens(np.array([0, *rows]), "features.3", "grid:2")
    for row, told in zip(rows, tokens[1:], strict=True):
        shown = torch.from_numpy(extended.load(int(row)).copy()).permute(2, 0, 1)[None] / 255
        expected = backbone.tokens(shown, ["features.3"], "grid:2")["features.3"].numpy()
        np.testing.assert_allclose(told, expected[0], atol=2e-3, rtol=2e-3)
        response = encoding.aligner.embed_images(expected, subject=encoding.number)[0]
        np.testing.assert_allclose(extended.responses[row], response, atol=0.02, rtol=0.02)
    np.testing.assert_array_equal(extended.tokens(rows[2:3], "features.3", "grid:2")[0], tokens[3])


def test_what_was_read_is_read_from_the_cache_and_again_where_it_is_damaged(
    encoding: Run, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoding.config.cache_dir = str(tmp_path)
    own = read_library(encoding)
    first = with_photographs(own, place.photos)
    files = sorted((tmp_path / "libraries").glob("*.safetensors"))
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr(photographs, "pixel_hash", lambda image: pytest.fail("decoded again"))
        patch.setattr(type(encoding.aligner), "embed_images", lambda *given, **told: pytest.fail("computed again"))
        np.testing.assert_array_equal(with_photographs(own, place.photos).responses, first.responses)
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        caplog.clear()
        np.testing.assert_array_equal(with_photographs(own, place.photos).responses, first.responses)
        assert f"{str(file)!r} is damaged" in caplog.text and "it is made again" in caplog.text
        assert len(file.read_bytes()) == len(content)


def test_a_zip_is_the_same_library_as_the_folder(
    extended: Library, encoding: Run, place: Place, tmp_path: Path
) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in place.photos.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(place.photos).as_posix())
    found = with_photographs(read_library(encoding), path)
    assert found.ids == extended.ids and found.added is not None and extended.added is not None
    assert found.added.digest == extended.added.digest
    np.testing.assert_array_equal(found.responses, extended.responses)


def test_ranks_are_those_of_one_whole_sort(encoding: Run, extended: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "_RANKED", 100)  # two responses at a time
    embeds = load_predictions(encoding).embeds
    source = conditions.LibraryTokens(encoding, extended, embeds, embeds[0] * 0, ("features.3", "grid:2"))
    expected = np.argsort(-cosines(embeds, extended.responses), axis=1)
    for seed in (0, 1, 17):
        np.testing.assert_array_equal(source.rows(seed)[:-1], expected[:, seed])


def test_new_pictures_lend_their_tokens_and_leave_the_coarse_picture_alone(encoding: Run, place: Place) -> None:
    bare = RunDecoder(encoding, place.adapter, Conditioning(low_level="pixels"))
    decoder = RunDecoder(encoding, place.adapter, Conditioning(low_level="pixels", library=place.photos))
    own, other = bare.condition("reconstructions", 0), decoder.condition("reconstructions", 0)
    np.testing.assert_array_equal(own.pixels, other.pixels)
    rows = decoder.likeliest()
    np.testing.assert_array_equal(decoder.library.tokens(rows, "features.3", "grid:2"), other.tokens)
    assert (np.take_along_axis(cosines(own.embeds, decoder.library.responses), rows[:, None], 1)[:, 0]
            >= cosines(own.embeds, bare.library.responses).max(1) - 1e-6).all()  # fmt: skip


def test_the_likeliest_picture_is_shown_and_scored(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(place.runs["encoding"])
    wanted, sampling = Conditioning(library=place.photos), dataclasses.replace(QUICK, seeds=(0, 2))
    told = generate(run, str(place.generator), tmp_path, sampling, conditioning=wanted)
    assert told["generator"] == "generator_library-photos" and told["library"]["twins"] == 2
    assert told["sampled"] == 4 * 2 * N_TEST
    folders = PictureFolders(tmp_path, told["generator"], "01")
    folder = folders.control(LIKELIEST)
    assert json.loads((folder / "library.json").read_text())["added"] == told["library"]
    decoder = RunDecoder(run, place.adapter, wanted)
    assert {row["seed"] for row in read_index(folder)} == {"0", "2"}
    for seed in (0, 2):
        index = read_seed(folder, seed)
        shown = read_pictures(folder, index, decoder.ids)
        for image, name, row in zip(shown, decoder.ids, decoder.likeliest(), strict=True):
            assert index[name]["tokens_of"] == decoder.library.id(int(row))
            small = Image.fromarray(decoder.library.load(int(row))).resize(image.shape[1:], Image.Resampling.BILINEAR)
            np.testing.assert_allclose(image.numpy(), np.asarray(small).transpose(2, 0, 1) / 255, atol=0.02)
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setattr(judges, "load_judge", only_pixels)
    settings = EvaluateConfig(n_boot=100, n_perm=99, networks=False)
    found = report.evaluate_run(run, tmp_path, settings=settings)
    assert faults(found) == [] and LIKELIEST in found["controls"]
    for name, entry in found["reconstruction"].items():
        difference = entry["minus_control"][LIKELIEST]
        assert difference["value"] == pytest.approx(entry["value"] - found["controls"][LIKELIEST][name]["value"])
        assert difference["ci95"][0] <= difference["value"] <= difference["ci95"][1]
        assert LIKELIEST in entry["p_vs_control"]
    assert f"PixCorr minus {LIKELIEST}: " in format_report(found)
    content = read_content(run)
    place_of = {name: i for i, name in enumerate(decoder.ids)}
    for item in content.items:
        image = (shown[place_of[item.stimulus_id]].permute(1, 2, 0) * 255).round().numpy()
        np.testing.assert_array_equal(item.controls[LIKELIEST], image)
    (folder / "index.csv").unlink()  # as in a run that was drawn before there was this control
    older = report.evaluate_run(run, tmp_path, settings=settings)
    assert faults(older) == [] and LIKELIEST not in older["controls"]
    assert f"controls.{LIKELIEST}" in older["skipped"]
    assert all(LIKELIEST not in entry["minus_control"] for entry in older["reconstruction"].values())


def test_other_pictures_in_the_library_are_other_settings(place: Place, tmp_path: Path) -> None:
    run, photos = load_run(place.runs["encoding"]), tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(picture(f"{TRAIN_CONCEPTS[1]}-7")).save(photos / "a.png")
    wanted = Conditioning(library=photos)
    folder = PictureFolders(tmp_path, "generator_library-photos", "01").reconstructions
    settings = []
    for name in ("a", "b"):
        Image.fromarray(picture(f"{TRAIN_CONCEPTS[2]}-7")).save(photos / f"{name}.png")
        generate(run, str(place.generator), tmp_path, QUICK, (), conditioning=wanted)
        settings.append([row["settings"] for row in read_index(folder)])
    assert all(old != new for old, new in zip(*settings, strict=True))


def test_a_run_without_likelihood_has_no_such_control(place: Place, tmp_path: Path) -> None:
    run = load_run(place.runs["ridge"])
    told = generate(run, str(place.generator), tmp_path, QUICK)
    assert set(told["folders"]) == {"reconstructions", "shuffled", "zero_brain", "oracle"} and "library" not in told
    with pytest.raises(UserError, match="needs a run that predicts responses"):
        generate(run, str(place.generator), tmp_path, QUICK, (LIKELIEST,))


def test_bad_libraries_are_one_line(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04" + b"\0" * 20 + b"PK\x05\x06" + b"\1" * 16 + b"\0\0")
    for encoder, path, what in (
        ("encoding", tmp_path / "nowhere", "is neither a folder nor a zip file of pictures"),
        ("encoding", tmp_path / "text.zip", "is neither a folder nor a zip file of pictures"),
        ("encoding", tmp_path / "cut.zip", "cut.zip"),
        ("encoding", tmp_path / "empty", "holds no picture"),
        ("encoding", tmp_path / "broken", "a.jpg is not a readable picture"),
        ("ridge", place.photos, "encoder ridge predicts none"),
    ):
        for command in ("generate", "curves"):
            words = [command, "--subject", "01", "--run", str(place.runs[encoder]), "--library", str(path)]
            assert main([*words, "--generator", str(place.generator), "--steps", "2"]) == 2
            told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"recon {command}: ")]
            assert len(told) == 1 and what in told[0]
    with pytest.raises(UserError, match="in place of predicted ones"):
        Conditioning(tokens="predicted", library=place.photos)


def test_other_weights_of_the_backbone_are_refused_before_pictures_are_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(place.runs["encoding"])
    other = dataclasses.replace(run, meta={**run.meta, "targets": {run.subject: "0" * 64}})
    study = type(open_study(run.config))
    monkeypatch.setattr(study, "further_pictures", lambda self: pytest.fail("further pictures were made"))
    with pytest.raises(UserError, match=r"differ from those run .* was trained with"):
        read_library(other)
