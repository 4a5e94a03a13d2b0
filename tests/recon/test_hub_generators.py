"""Generators of the hub: which files are fetched, what a dry run prints, UNets and LoRAs through a base, refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from align.errors import UserError
from recon import cli
from recon.generation import hub, loading, named, places
from recon.generation.loading import Defaults, defaults_of, load_pipeline
from recon.generation.needs import needs
from recon.generation.patches import add_lora
from recon.generation.runtime import Runtime, default_precision
from recon.generation.selection import generator_files, weight_files
from tests.recon.hub_listings import GB, LISTINGS, Hub
from tests.recon.test_places import cache, put
from tests.recon.tiny_family import build_generator

__all__ = ["cache"]  # a fixture
LIGHTNING = "ByteDance/SDXL-Lightning"
H94 = LISTINGS["h94/IP-Adapter"]


@pytest.fixture(autouse=True)
def listings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    yield Hub(monkeypatch)
    hub._asked.cache_clear()


def paths(found: list, repository: str) -> dict[str, int]:
    return {need.path: need.size for need in found if need.repository == repository}


def bytes_of(repository: str, *files: str) -> int:
    return sum(LISTINGS[repository][file] for file in files)


def test_sdxl_turbo_in_half_with_the_vit_h_adapter(cache: Path) -> None:
    found = needs("sdxl-turbo", True, "h94/IP-Adapter", bridge="ridge")
    own = paths(found, "stabilityai/sdxl-turbo")
    weights = sorted(path for path in own if path.endswith(".safetensors"))
    assert weights == [
        "text_encoder/model.fp16.safetensors",
        "text_encoder_2/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert len(own) == 1 + 1 + 2 * 4 + 4 * 2  # index, scheduler, tokenizers, models with their configurations
    assert paths(found, "h94/IP-Adapter") == {
        name: H94[name]
        for name in (
            "sdxl_models/ip-adapter_sdxl_vit-h.safetensors",
            "models/image_encoder/config.json",
            "models/image_encoder/model.safetensors",
        )
    }
    full = paths(needs("stabilityai/sdxl-turbo", False), "stabilityai/sdxl-turbo")
    assert not any("fp16" in path or "onnx" in path or path.startswith("sd_xl") for path in full)
    assert full["unet/diffusion_pytorch_model.safetensors"] == 2 * own["unet/diffusion_pytorch_model.fp16.safetensors"]


def test_sd15_with_the_plus_adapter(cache: Path) -> None:
    found = needs("sd15", True, "h94/IP-Adapter/models/ip-adapter-plus_sd15.safetensors", bridge="prior")
    own = paths(found, "stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert not any(path.startswith(("safety_checker", "feature_extractor", "v1-5")) for path in own)
    assert not any(path.endswith((".bin", ".ckpt")) or "non_ema" in path for path in own)
    assert sum(path.endswith(".safetensors") for path in own) == 3
    assert set(paths(found, "h94/IP-Adapter")) == {
        "models/ip-adapter-plus_sd15.safetensors",
        "models/image_encoder/config.json",
        "models/image_encoder/model.safetensors",
    }


def test_patches_are_fetched_beside_their_base(cache: Path) -> None:
    lora = needs("lcm-lora-sd15", True)
    assert paths(lora, "latent-consistency/lcm-lora-sdv1-5") == {"pytorch_lora_weights.safetensors": 134_621_556}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in paths(lora, named.SHORT["sd15"])
    for name, repository, files in (
        ("lcm-sdxl", "latent-consistency/lcm-sdxl", {"diffusion_pytorch_model.fp16.safetensors", "config.json"}),
        (LIGHTNING, LIGHTNING, {"sdxl_lightning_4step_unet.safetensors"}),
        (
            "sdxl+ByteDance/SDXL-Lightning/sdxl_lightning_8step_unet.safetensors",
            LIGHTNING,
            {"sdxl_lightning_8step_unet.safetensors"},
        ),
    ):
        found = needs(name, True)
        assert set(paths(found, repository)) == files
        base = paths(found, named.SHORT["sdxl"])
        assert "unet/config.json" in base and not any(path.startswith("unet/diff") for path in base)
        assert "vae/diffusion_pytorch_model.fp16.safetensors" in base and not any("vae_1_0" in path for path in base)


def test_a_half_run_and_what_only_exists_in_half(cache: Path) -> None:
    for half in (True, False):
        own = generator_files(LISTINGS["someone/only-half"], half, "x")
        assert sum("unet/diffusion" in path for path in own) == 3  # two pieces and their list
        assert "vae/diffusion_pytorch_model.safetensors" in own
    assert weight_files(["model.bin", "model.onnx", "model.ema.safetensors"], True) == []
    old = ["model-00001-of-00002.fp16.safetensors", "model-00002-of-00002.fp16.safetensors", "model.safetensors"]
    assert weight_files(old, True) == old[:2] and weight_files(old, False) == old[2:]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flux", "draws with a transformer"),
        ("black-forest-labs/FLUX.1-dev", "draws with a transformer"),
        ("stabilityai/stable-diffusion-3.5-large", "draws with a transformer"),
        ("sdxl+black-forest-labs/FLUX.1-schnell", "draws with a transformer"),
        ("someone/sd-3-copy", "draws with a transformer"),
        ("h94/IP-Adapter", r"holds no whole pipeline.*sdxl\+h94/IP-Adapter"),
        ("ByteDance/SDXL-Lightning/nothing.safetensors", "has no 'nothing.safetensors'; it holds sdxl_lightning_4step"),
        ("sdxl+", r"BASE\+PATCH"),
        ("someone/nobody-knows", "someone/nobody-knows cannot be fetched"),
    ],
)
def test_what_cannot_be_drawn_with_is_one_line(cache: Path, name: str, words: str) -> None:
    for ask in (lambda: needs(name, True), lambda: places.generator_folder(name, True)):
        with pytest.raises(UserError, match=words) as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("SD15", "sd15"),
        ("Mini", "mini"),
        ("SDXL+LCM-LoRA-SDXL", "sdxl+lcm-lora-sdxl"),
        ("sdxl+Someone/Some-LoRA", "sdxl+Someone/Some-LoRA"),
        ("Someone/SD15", "Someone/SD15"),
    ],
)
def test_short_names_may_be_written_in_capitals(name: str, own: str) -> None:
    assert named.spelled(name) == own
    assert named.full_name(name) == named.full_name(own) and named.patch_of(name) == named.patch_of(own)
    assert cli.parse(["generate", "--generator", name]).generator == own


def test_a_folder_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SD15").mkdir()
    assert named.spelled("SD15") == "SD15" == named.full_name("SD15")


def test_the_dry_run_prints_files_disk_and_memory(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], listings: Hub
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", no_fetching)
    command = ["generate", "--dry-run", "--generator", "sdxl-turbo", "--bridge", "ridge", "--precision", "bf16"]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    turbo = [f["path"] for f in found["files"] if f["repository"] == "stabilityai/sdxl-turbo"]
    adapter = [f["path"] for f in found["files"] if f["repository"] == "h94/IP-Adapter"]
    expected = bytes_of("stabilityai/sdxl-turbo", *turbo) + bytes_of("h94/IP-Adapter", *adapter)
    assert found["bytes_to_fetch"] == expected > 10 * GB
    assert len({(f["repository"], f["path"]) for f in found["files"]}) == len(found["files"])
    assert found["bytes_cached"] == 0 and found["adapter"] == "h94/IP-Adapter"
    unet = LISTINGS["stabilityai/sdxl-turbo"]["unet/diffusion_pytorch_model.fp16.safetensors"]
    assert found["gpu_bytes_with_offload"] == unet < found["gpu_bytes_of_weights"]
    assert sorted(set(listings.asked)) == ["h94/IP-Adapter", "stabilityai/sdxl-turbo"] and len(listings.asked) == 2
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert (
        "to fetch" in text and "5.14 GB  stabilityai/sdxl-turbo  unet/diffusion_pytorch_model.fp16.safetensors" in text
    )
    assert "disk: " in text and "GPU memory in bf16: " in text and "--offload 5.14 GB" in text
    assert cli.main(["generate", "--generator", "sdxl-turbo"]) == 2
    assert "--subject" in capsys.readouterr().err


def no_fetching(*_: object, local_files_only: bool = False, **__: object) -> str:
    assert local_files_only, "the dry run fetches nothing"
    raise FileNotFoundError


def test_what_is_cached_is_told_and_not_counted(cache: Path) -> None:
    snapshot = cache / "models--stabilityai--sdxl-turbo" / "snapshots" / ("a" * 40)
    (snapshot / "vae").mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    (snapshot / "vae" / "config.json").write_text("{}")
    found = needs("sdxl-turbo", True)
    assert [need.path for need in found if need.cached] == ["vae/config.json"]
    assert all(need.cached for need in needs("mini", False))


def test_names_and_precision() -> None:
    assert named.full_name("sdxl-turbo") == "stabilityai/sdxl-turbo"
    assert named.patch_of("lcm-lora-sdxl") == named.patch_of("latent-consistency/lcm-lora-sdxl")
    assert places.adapter_file("h94/IP-Adapter", "sdxl")[1] == "sdxl_models/ip-adapter_sdxl_vit-h.safetensors"
    assert places.adapter_file("h94/IP-Adapter/sdxl_models", "sdxl") == places.adapter_file("h94/IP-Adapter", "sdxl")
    with pytest.raises(UserError, match="names a folder"):
        places.adapter_file("h94/IP-Adapter/somewhere", "sd")
    for file, first in (
        ("models/ip-adapter_sd15_vit-G.safetensors", "sdxl_models"),
        ("models/ip-adapter_sd15.safetensors", "models"),
        ("models/ip-adapter-plus_sd15.bin", "models"),
        ("sdxl_models/ip-adapter_sdxl.safetensors", "sdxl_models"),
        ("sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors", "models"),
        ("mine/adapter.safetensors", "mine"),
    ):
        assert places.encoder_places(file)[0] == f"{first}/image_encoder"
    assert default_precision("sd15", "cpu") == default_precision("mini") == "fp32"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_the_default_precision_goes_by_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place: capability)
    assert default_precision("sdxl-turbo") == default_precision("sd15", "cuda:1") == expected
    assert default_precision("sdxl-turbo", "cpu") == default_precision("mini") == "fp32"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_generator("sd-ddim", tmp_path_factory.mktemp("base") / "sd")


def test_a_lora_is_added_to_the_unet_of_its_base(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path / "home"))
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    linear, conv = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1"
    changes = {}
    tensors: dict[str, torch.Tensor] = {}
    for name, kohya in ((linear, True), (conv, False)):
        weight = unet.get_submodule(name).weight
        down = torch.randn(2, *weight.shape[1:])
        up = torch.randn(weight.shape[0], 2, *([1, 1] if weight.ndim == 4 else []))
        changes[name] = (up.flatten(1) @ down.flatten(1)).view(weight.shape)
        if kohya:
            place = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {
                f"{place}.lora_down.weight": down,
                f"{place}.lora_up.weight": up,
                f"{place}.alpha": torch.tensor(1.0),
            }
            changes[name] /= 2
        else:
            tensors |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    file = tmp_path / "my_lcm_lora.safetensors"
    save_file(tensors, file)
    folder = places.generator_folder(f"{base}+{file}")
    assert folder == places.generator_folder(f"{base}+{file}") and folder.is_relative_to(tmp_path / "home")
    pipe = load_pipeline(folder, Runtime(device="cpu"))
    before = unet.state_dict()
    for name, value in pipe.unet.state_dict().items():
        change = changes.get(name.removesuffix(".weight"))
        torch.testing.assert_close(
            value, before[name] if change is None or name.endswith("bias") else before[name] + change
        )
    assert type(pipe.scheduler).__name__ == "LCMScheduler" and defaults_of(pipe, "pooled") == Defaults(4, 1.0)
    assert pipe.scheduler.config.beta_schedule == "scaled_linear" and loading.family_of(folder) == "sd"
    for fault, words in (
        ({"lora_unet_input_blocks_1.lora_up.weight": torch.zeros(2, 2)}, "no part for 'lora_unet_input"),
        (
            {f"unet.{linear}.lora_A.weight": torch.zeros(2, 3), f"unet.{linear}.lora_B.weight": torch.zeros(16, 2)},
            "another shape",
        ),
        ({f"unet.{linear}.lora_A.weight": torch.zeros(2, 16)}, "lacks up"),
        ({"lora_te_text_model.alpha": torch.zeros(1)}, "no part for"),
    ):
        save_file(fault, tmp_path / "bad_lora.safetensors")
        with pytest.raises(UserError, match=words):
            add_lora(unet, tmp_path / "bad_lora.safetensors")


def test_a_unet_takes_the_place_of_its_base_s(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path / "home"))
    distilled = build_generator("lcm", tmp_path / "lcm") / "unet"
    (tmp_path / "someone-lcm").mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        shutil.copy(distilled / name, tmp_path / "someone-lcm" / name)
    pipe = load_pipeline(places.generator_folder(f"{base}+{tmp_path / 'someone-lcm'}"), Runtime(device="cpu"))
    assert defaults_of(pipe, "pooled") == Defaults(4, 8.5)
    expected = load_file(distilled / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, expected[name]) for name, value in pipe.unet.state_dict().items())
    alone = tmp_path / "few_steps_turbo_unet.safetensors"
    save_file(
        {name: value + 1 for name, value in load_file(base / "unet/diffusion_pytorch_model.safetensors").items()}, alone
    )
    pipe = load_pipeline(places.generator_folder(f"{base}+{alone}"), Runtime(device="cpu"))
    assert pipe.scheduler.config.timestep_spacing == "trailing" and defaults_of(pipe, "pooled") == Defaults(4, 1.0)
    assert (base / "scheduler" / "scheduler_config.json").read_text().find("trailing") < 0  # the base is as it was


def test_the_copy_in_half_is_fetched_for_a_half_run_and_read(
    base: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = base.parent / "hub"
    shutil.copytree(base, source, dirs_exist_ok=True)
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        state = load_file(source / part / f"{name}.safetensors")
        half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        save_file(half, source / part / f"{name}.fp16.safetensors")
    (source / "safety_checker").mkdir(exist_ok=True)
    (source / "safety_checker" / "model.safetensors").write_bytes(b"1" * 100)
    files = {path.relative_to(source).as_posix(): path.stat().st_size for path in source.rglob("*") if path.is_file()}
    monkeypatch.setitem(LISTINGS, "someone/sd", files)
    fetched: list[str] = []

    def download(repository: str, allow_patterns: list[str] | None = None, local_files_only: bool = False) -> str:
        folder = cache / "models--someone--sd" / "snapshots" / ("a" * 40)
        if local_files_only:
            if not folder.is_dir():
                raise FileNotFoundError(repository)
            return str(folder)
        for name in allow_patterns or []:
            if not (folder / name).is_file():
                fetched.append(name)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, folder / name)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    printed = [need.path for need in needs("someone/sd", True)]
    folder = places.generator_folder("someone/sd", half=True)
    assert fetched == printed == sorted(printed) and sum("fp16" in name for name in fetched) == 3
    assert places.generator_folder("someone/sd", half=True) == folder and len(fetched) == len(printed)
    pipe = load_pipeline(folder, Runtime("bf16", device="cpu"))
    assert pipe.unet.dtype == torch.bfloat16 and pipe.safety_checker is None
    places.generator_folder("someone/sd")
    assert sorted(fetched[len(printed) :]) == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert load_pipeline(folder, Runtime(device="cpu")).unet.dtype == torch.float32


def test_the_encoder_of_vit_g_is_found_in_its_folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("h94")
    for name, width in (("models", 1024), ("sdxl_models", 1280)):
        (tmp_path / name / "image_encoder").mkdir(parents=True)
        (tmp_path / name / "image_encoder" / "config.json").write_text(json.dumps({"projection_dim": width}))
        (tmp_path / name / "image_encoder" / "model.safetensors").write_bytes(b"")
    (tmp_path / "models" / "ip-adapter_sd15_vit-G.safetensors").write_bytes(b"")
    snapshot = put(cache, "h94/IP-Adapter", tmp_path)
    hub_place = places.find_adapter("h94/IP-Adapter/models/ip-adapter_sd15_vit-G.safetensors", "sd")
    assert places.image_encoder_folder(hub_place, 1280, True) == snapshot / "sdxl_models/image_encoder"
    assert places.image_encoder_folder(hub_place, 1024, True) == snapshot / "models/image_encoder"
    local = places.find_adapter(str(tmp_path / "models" / "ip-adapter_sd15_vit-G.safetensors"), "sd")
    assert places.image_encoder_folder(local, 1280, True).resolve() == tmp_path / "sdxl_models/image_encoder"
