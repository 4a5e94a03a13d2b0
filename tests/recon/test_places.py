"""Finding generators, adapters and image encoders: local paths, the cache of the hub, and no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from align.errors import UserError
from recon.generation import places
from recon.generation.adapters import load_adapter
from recon.generation.places import mini_folder
from tests.recon.tiny_family import PROJECTED, build_adapter, build_generator, build_image_encoder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("places")
    generator = build_generator("sd-ddim", root / "sd")
    encoder = build_image_encoder(root / "encoder")
    return {"sd": generator, "encoder": encoder, "pooled": build_adapter("pooled", generator, root / "adapters")}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repository: str, source: Path, under: str = "") -> Path:
    """A repository as the hub's client leaves it in its cache."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("a" * 40)
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("a" * 40)
    if source.is_dir():
        shutil.copytree(source, snapshot / under, dirs_exist_ok=True)
    else:
        (snapshot / under).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, snapshot / under / source.name)
    return snapshot


def test_a_generator_is_found_where_it_lies(built: dict[str, Path], cache: Path) -> None:
    assert places.generator_folder("mini") == mini_folder()
    assert places.generator_folder(str(built["sd"])) == built["sd"]
    snapshot = put(cache, "someone/tiny-sd", built["sd"])
    assert places.generator_folder("someone/tiny-sd") == snapshot


@pytest.mark.parametrize("gone", ["unet/diffusion_pytorch_model.safetensors", "tokenizer", "model_index.json"])
def test_half_a_generator_in_the_cache_is_not_taken(built: dict[str, Path], cache: Path, gone: str) -> None:
    snapshot = put(cache, "someone/tiny-sd", built["sd"])
    assert places.whole(snapshot)
    victim = snapshot / gone
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    assert not places.whole(snapshot)
    with pytest.raises(UserError, match="someone/tiny-sd"):
        places.generator_folder("someone/tiny-sd")


def test_offline_one_line_says_what_is_missing(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        places.generator_folder("stabilityai/sdxl-turbo")
    line = str(caught.value)
    assert "generator 'stabilityai/sdxl-turbo' is not in the local cache" in line
    assert "--generator DIR" in line and "\n" not in line
    with pytest.raises(UserError) as caught:
        places.find_adapter("h94/IP-Adapter", "sdxl")
    line = str(caught.value)
    assert (
        "file sdxl_models/ip-adapter_sdxl_vit-h.safetensors" in line and "--adapter FILE" in line and "\n" not in line
    )


def test_names_that_are_neither_path_nor_id(tmp_path: Path) -> None:
    for name in (str(tmp_path), "no such thing", "a/b/c", str(tmp_path / "absent")):
        with pytest.raises(UserError, match="is no diffusers folder"):
            places.generator_folder(name)
    for name in (str(tmp_path / "absent.safetensors"), "word", "two words/x"):
        with pytest.raises(UserError, match="does not exist"):
            places.find_adapter(name, "sd")


def test_an_adapter_of_the_hub_brings_the_encoder_that_fits(built: dict[str, Path], cache: Path) -> None:
    file = "models/ip-adapter-pooled.safetensors"
    snapshot = put(cache, "someone/adapters", built["pooled"], "models")
    place = places.find_adapter(f"someone/adapters/{file}", "sd")
    assert (place.path, place.repository, place.file) == (snapshot / file, "someone/adapters", file)
    with pytest.raises(
        UserError, match=r"image encoder someone/adapters/models/image_encoder is not in the local cache"
    ):
        places.image_encoder_folder(place, PROJECTED, True)
    put(cache, "someone/adapters", built["encoder"], "models/image_encoder")
    assert places.image_encoder_folder(place, PROJECTED, True) == snapshot / "models/image_encoder"
    with pytest.raises(UserError, match="no CLIP image encoder of hidden_size 99"):
        places.image_encoder_folder(place, 99, False)


def test_files_of_other_makers(built: dict[str, Path], tmp_path: Path) -> None:
    adapter = load_adapter(built["pooled"])
    assert (adapter.kind, adapter.width, adapter.info) == ("pooled", PROJECTED, None)
    torch.save(adapter.state, tmp_path / "same.bin")  # the other layout in circulation: a nested dict
    same = load_adapter(tmp_path / "same.bin")
    assert same.kind == "pooled"
    assert torch.equal(same.state["image_proj"]["proj.weight"], adapter.state["image_proj"]["proj.weight"])
    face = {"proj.0.weight": torch.zeros(2, 2), "proj.2.weight": torch.zeros(2, 2), "norm.weight": torch.zeros(2)}
    torch.save({"image_proj": face, "ip_adapter": adapter.state["ip_adapter"]}, tmp_path / "face.bin")
    with pytest.raises(UserError, match="FaceID and full-face files need a face model"):
        load_adapter(tmp_path / "face.bin")
    torch.save({"weights": 1}, tmp_path / "other.bin")
    with pytest.raises(UserError, match="is no readable adapter"):
        load_adapter(tmp_path / "other.bin")
