"""`recon/train.py`: a conditioner for a tiny generator, from the command line to a file that stock code loads."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from align.config import flatten, keys
from align.files import read_json, read_tensors, write_json
from recon import train
from recon.config import ConditionerConfig
from recon.generation.conditioner import read_info
from recon.generation.pipeline import Generator
from recon.generation.sketch import load_sketch
from tests.recon.tiny import tiny_generator
from tests.recon.tiny_family import build_generator


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    tiny_generator(root / "generator")
    vision = CLIPVisionConfig(
        image_size=16, patch_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(root / "backbone")
    processor = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 16, "width": 16}}
    write_json(
        root / "backbone" / "preprocessor_config.json", processor | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    )
    return root


def command(root, name, steps):
    return [
        f"generator={root / 'generator'}",
        "backbone.name=mini",
        f"backbone.weights={root / 'backbone'}",
        "layer=1",
        "pooling=grid:2",
        "pictures.rendered=6",
        f"train.steps={steps}",
        "sketch.steps=3",
        "sketch.batch_size=2",
        "train.batch_size=2",
        "checkpoint_every=2",
        f"run_dir={root / name}",
        f"cache_dir={root / 'cache'}",
    ]


def test_trains_twice_alike_and_loads(folders, capsys):
    assert train.main(command(folders, "whole", 4)) == 0
    whole = capsys.readouterr().out.strip()
    assert train.main(command(folders, "parts", 4)) == 0
    first, second = (read_tensors(folders / name / "ip_adapter.safetensors")[0] for name in ("whole", "parts"))
    assert all((first[key] == second[key]).all() for key in first)
    info = read_info(whole)
    assert (info.backbone, info.layer, info.pooling, info.n_tokens, info.width) == ("mini", "1", "grid:2", 4, 8)
    model = Generator.load(str(folders / "generator"), whole)
    assert model.conditioner_info == info
    sketch = load_sketch(whole)
    assert sketch is not None and sketch(torch.zeros(1, 4, 8)).shape == (1, 4, 8, 8)
    assert train.main([*command(folders, "plain", 2), "sketch.steps=0"]) == 0
    assert load_sketch(folders / "plain" / "ip_adapter.safetensors") is None


def test_bad_input_ends_in_one_line(folders, capsys):
    assert train.main(["generator=nowhere"]) == 2
    assert train.main([*command(folders, "bad", 2), "layer=9"]) == 2
    assert train.main(["layr=1"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 3
    assert "did you mean" in lines[-1]


def test_the_shipped_configuration_trains_and_names_every_key(folders, capsys):
    path = Path(__file__).parents[2] / "configs" / "recon" / "conditioner.yaml"
    named = [key for key, _ in flatten(yaml.safe_load(path.read_text(encoding="utf-8")))]
    left = ["backbone.weights", "backbone.image_size", "backbone.revision", "backbone.crop"]
    assert sorted([*named, *left]) == sorted(keys(ConditionerConfig()))
    assert train.main(["--config", str(path), *command(folders, "shipped", 2)]) == 0
    assert read_info(capsys.readouterr().out.strip()).layer == "1"


@pytest.mark.parametrize("words", [["layer=9"], ["pooling=grid:400"], ["backbone.weights=nowhere"]])
def test_a_backbone_that_cannot_be_is_refused_before_pictures_are_rendered(folders, words, monkeypatch, capsys):
    monkeypatch.setattr("recon.pretraining.pictures.load_pool", lambda *given: pytest.fail("too late"))
    assert train.main([*command(folders, "early", 2), *words]) == 2
    assert capsys.readouterr().err.count("error: ") == 1


def test_a_conditioner_of_sdxl_is_trained_and_used(tmp_path, folders):
    generator = build_generator("sdxl", tmp_path / "sdxl")
    words = [word for word in command(folders, "xl", 2) if not word.startswith(("generator=", "run_dir="))]
    assert train.main([*words, f"generator={generator}", f"run_dir={tmp_path / 'run'}"]) == 0
    model = Generator.load(str(generator), tmp_path / "run" / "ip_adapter.safetensors")
    pictures = model.generate(torch.zeros(1, 4, 8), [0], steps=2)
    assert pictures.shape == (1, 3, model.size, model.size)
    stored = np.load(tmp_path / "run" / "latents.npy")  # pictures were encoded at the size of the generator
    assert stored.shape[2:] == (model.size // 2, model.size // 2)


def test_a_distilled_generator_is_refused(tmp_path, folders, capsys):
    generator = build_generator("lcm", tmp_path / "lcm")
    assert train.main([*command(folders, "lcm", 2), f"generator={generator}"]) == 2
    assert "is distilled" in capsys.readouterr().err


def test_a_generator_of_another_noise_schedule_is_refused(tmp_path, folders, capsys):
    generator = build_generator("sd-ddim", tmp_path / "sd")
    place = generator / "scheduler" / "scheduler_config.json"
    write_json(place, read_json(place) | {"prediction_type": "sample"})
    assert train.main([*command(folders, "other", 2), f"generator={generator}"]) == 2
    assert "a UNet that predicts epsilon or v_prediction; DDIMScheduler is of another kind" in capsys.readouterr().err
