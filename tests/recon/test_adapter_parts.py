"""Adapter files and generator folders that lack parts, have them in other shapes, or ask for impossible sizes."""

from __future__ import annotations

import copy
import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from align.errors import UserError
from align.files import read_tensors
from recon.generation.adapters import load_adapter
from recon.generation.bounds import require_sensible
from recon.generation.bridge import own_bridge
from recon.generation.conditioner import read_info
from recon.generation.loading import load_pipeline
from recon.generation.pipeline import Generator
from recon.generation.places import mini_folder
from recon.generation.runtime import Runtime
from recon.generation.sketch import load_sketch
from recon.pretraining.export import save_half
from tests.one_line import fails
from tests.recon.test_generators import through
from tests.recon.tiny import tiny_generator, tiny_unet
from tests.recon.tiny_family import build_adapter, build_generator, build_image_encoder

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Generator folder and adapter file of each kind."""
    root = tmp_path_factory.mktemp("parts")
    encoder, folder = build_image_encoder(root / "encoder"), build_generator("sd", root / "sd")
    found = {kind: (folder, build_adapter(kind, folder, root / "adapters", encoder)) for kind in ("pooled", "plus")}
    return found | {"own": tiny_generator(root / "own")[:2]}


@lru_cache
def pipeline_of(folder: Path) -> Any:
    return load_pipeline(folder, Runtime())


def drawn_with(folder: Path, adapter: Path) -> None:
    """As the command: read the adapter, load the generator, draw one picture."""
    found = load_adapter(adapter)
    bridge = own_bridge(found) if found.kind == "own" else through(found)
    model = Generator(copy.deepcopy(pipeline_of(folder)), found, bridge, "tiny")
    model.generate(torch.zeros(1, *model.bridge.takes), [0], steps=1)


@pytest.mark.parametrize("kind", ["pooled", pytest.param("plus", marks=pytest.mark.long), "own"])
def test_an_adapter_without_one_part_or_with_it_in_another_shape_is_one_line(
    kind: str, places: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, whole = places[kind]
    tensors, facts = read_tensors(whole)
    drawn_with(folder, whole)
    harms = {
        "gone": lambda value: None,
        "flat": lambda value: value.reshape(-1),
        "half": lambda value: value[: len(value) // 2].clone(),
        "scalar": lambda value: torch.tensor(1.0),
    }
    accepted = []
    first = [name for name in tensors if name.startswith("ip_adapter.")][:2]
    for name in [*(name for name in tensors if name.startswith("image_proj.") and "layers.1" not in name), *first]:
        for harm, change in harms.items():
            changed: dict[str, Any] = {**tensors, name: change(tensors[name])}
            if changed[name] is not None and changed[name].shape == tensors[name].shape:
                continue
            path = tmp_path / "x.safetensors"
            save_file({key: value for key, value in changed.items() if value is not None}, path, facts)
            try:
                drawn_with(folder, path)
            except UserError as error:
                assert "\n" not in str(error), (name, harm)
                continue
            accepted.append((name, harm))
    assert not accepted


@pytest.mark.parametrize("fact", ["n_tokens", "width"])
@pytest.mark.parametrize("value", ["0", "-1", "999999999999", "x", "5"])
def test_facts_of_a_conditioner_that_its_tensors_deny_are_refused(
    fact: str, value: str, places: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    folder, whole = places["own"]
    tensors, facts = read_tensors(whole)
    save_file(tensors, tmp_path / "x.safetensors", {**facts, fact: value})
    if (fact, value) == ("n_tokens", "5"):  # it takes any number of tokens
        return drawn_with(folder, tmp_path / "x.safetensors")
    with pytest.raises(UserError):
        drawn_with(folder, tmp_path / "x.safetensors")


@pytest.mark.parametrize("harm", ["enter.weight", "spread", "leave.bias", "sketch_size", "n_tokens"])
def test_a_sketch_without_a_part_is_refused(harm: str, tmp_path: Path) -> None:
    whole = next(path for path in sorted((mini_folder() / "conditioners").glob("*.safetensors")) if load_sketch(path))
    tensors, facts = read_tensors(whole)
    if harm in facts:
        facts[harm] = "100000"
    else:
        del tensors[f"sketch.{harm}"]
    save_file(tensors, tmp_path / "x.safetensors", facts)
    with pytest.raises(UserError, match="holds no whole sketch"):
        load_sketch(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("unet/config.json", "sample_size", 10**6),
        ("unet/config.json", "layers_per_block", 10**9),
        ("unet/config.json", "transformer_layers_per_block", [1, 10**9]),
        ("unet/config.json", "block_out_channels", [64, 10**8, 192]),
        ("unet/config.json", "cross_attention_dim", 1e300),
        ("vae/config.json", "latent_channels", 10**7),
        ("text_encoder/config.json", "num_hidden_layers", 10**7),
        ("text_encoder/config.json", "hidden_size", -(10**7)),
        ("text_encoder/config.json", "vocab_size", 10**10),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 10**12),
    ],
)
def test_impossible_sizes_are_refused_before_memory_is_taken(file: str, key: str, value: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(mini_folder(), tmp_path / "mini", ignore=shutil.ignore_patterns("conditioners"))
    require_sensible(folder, "generator 'x'")
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError, match=f"{file}' asks for {key} .*; at most [0-9,]+ is read here"):
        Generator.load(str(folder), next((mini_folder() / "conditioners").glob("*.safetensors")))


@pytest.mark.parametrize("size", [[64, 64], 0, 4000])
def test_latents_that_are_no_square_or_too_large_are_refused(size: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(mini_folder(), tmp_path / "mini", ignore=shutil.ignore_patterns("conditioners"))
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample_size": size}))
    with pytest.raises(UserError, match=r"draws latents of side .*; one whole number to 512 is read here"):
        load_pipeline(folder, Runtime())


def test_public_models_stay_within_the_bounds(tmp_path: Path) -> None:
    """The largest numbers in the files of SDXL, its text encoders (ViT-bigG) and schedulers."""
    public = {
        "unet/config.json": {"sample_size": 128, "projection_class_embeddings_input_dim": 2816, "layers_per_block": 2},
        "vae/config.json": {"sample_size": 1024, "block_out_channels": [128, 256, 512, 512]},
        "text_encoder_2/config.json": {"intermediate_size": 5120, "vocab_size": 49408, "eos_token_id": 151645},
        "image_encoder/config.json": {"num_hidden_layers": 48, "intermediate_size": 8192, "initializer_factor": 1.0},
        "scheduler/scheduler_config.json": {"num_train_timesteps": 1000, "original_inference_steps": 50},
        "tokenizer/tokenizer_config.json": {"model_max_length": 10**30},
    }
    for name, content in public.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    require_sensible(tmp_path, "generator 'x'")


def test_pretraining_replaces_its_own_model_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "unet"
    for _ in range(2):
        save_half(tiny_unet(), folder)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".safetensors"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already, made by somebody else"):
        save_half(tiny_unet(), folder)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("told", [{"n_tokens": "0"}, {"n_tokens": "70000"}, {"width": "-1"}, {"width": "70000"}])
def test_sizes_that_a_conditioner_tells_are_bounded(told: dict[str, str], tmp_path: Path) -> None:
    facts = {"backbone": "mini", "layer": "6", "pooling": "grid:4", "n_tokens": "16", "width": "64", "generator": "g"}
    path = tmp_path / "own.safetensors"
    save_file({"x": torch.zeros(1)}, str(path), {**facts, **told})
    fails("tokens of width", lambda: read_info(path))
    save_file({"x": torch.zeros(1)}, str(path), facts)
    assert (read_info(path).n_tokens, read_info(path).width) == (16, 64)
