"""`recon/train.py`: a conditioner for a tiny generator, from the command line to a file that stock code loads."""

import pytest
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from align.files import read_tensors, write_json
from recon import train
from recon.generation.conditioner import read_info
from recon.generation.pipeline import Generator
from tests.recon.tiny import tiny_generator


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
        "num_tokens=3",
        f"train.steps={steps}",
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
    assert Generator.load(str(folders / "generator"), whole).conditioner_info == info


def test_bad_input_ends_in_one_line(folders, capsys):
    assert train.main(["generator=nowhere"]) == 2
    assert train.main([*command(folders, "bad", 2), "layer=9"]) == 2
    assert train.main(["layr=1"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 3
    assert "did you mean" in lines[-1]
