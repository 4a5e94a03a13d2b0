"""Every family, tiny, from its real classes: tap k equals the model's own hidden state k."""

import copy
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.vision import mini_weights, wrap
from align.vision.backbones import BACKBONES, load_backbone, resolve_layer
from align.vision.taps import Backbone, Tap, hash_weights
from tests.conftest import shared_path

Reference = Callable[[torch.Tensor], dict[str, torch.Tensor]]
IMAGES = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))


def squeezenet_states(model: nn.Module, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Module by module, by hand, nothing in place."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    states = {}
    value = pixels
    for index, module in enumerate(model.features):
        value = module(value)
        states[f"features.{index}"] = value.flatten(2).transpose(1, 2)
    states["classifier"] = model(pixels)[:, None]
    return states


def torchvision_case(folder: Path) -> tuple[BackboneConfig, Reference]:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    model = squeezenet1_1()
    half = {name: value.half() for name, value in model.state_dict().items()}
    save_file(half, folder / "squeezenet.safetensors")
    model.load_state_dict(half)
    config = BackboneConfig("torchvision/squeezenet1_1", str(folder / "squeezenet.safetensors"), image_size=64)
    return config, lambda pixels: squeezenet_states(model, pixels)


def timm_case(folder: Path) -> tuple[BackboneConfig, Reference]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False).eval()
    torch.save(model.state_dict(), folder / "vit.pth")

    def reference(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        states = {"0": model.norm_pre(model._pos_embed(model.patch_embed(pixels)))}
        outputs = model.forward_intermediates(
            pixels, return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
        )
        return states | {str(k): torch.cat([cls, patches], 1) for k, (patches, cls) in enumerate(outputs, 1)}

    return BackboneConfig("timm/test_vit", str(folder / "vit.pth")), reference


def open_clip_case(folder: Path) -> tuple[BackboneConfig, Reference]:
    import open_clip

    vision = {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
    own = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": own}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")

    def reference(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = model.visual.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
        pairs = zip(out["image_intermediates_prefix"], out["image_intermediates"], strict=True)
        states = {str(k): torch.cat(pair, 1) for k, pair in enumerate(pairs, 1)}
        return {"0": model.visual._embeds(pixels)} | states

    return BackboneConfig("open_clip/tiny", str(folder)), reference


def clip_case(
    folder: Path, name: str = "transformers/openai/clip-vit-base-patch32"
) -> tuple[BackboneConfig, Reference]:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=64,
            patch_size=16,
            projection_dim=16,
        )
    ).eval()
    model.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    crop = {"height": 64, "width": 64}
    CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=crop, image_mean=half, image_std=half).save_pretrained(
        folder
    )
    return BackboneConfig(name, str(folder)), hidden_states(model)


def dinov2_case(folder: Path) -> tuple[BackboneConfig, Reference]:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 70, "patch_size": 14}
    model = Dinov2Model(Dinov2Config(**sizes)).eval()
    model.save_pretrained(folder)
    crop = {"height": 56, "width": 56}
    BitImageProcessor(size={"shortest_edge": 64}, crop_size=crop).save_pretrained(folder)
    return BackboneConfig("transformers/facebook/dinov2-small", str(folder)), hidden_states(model)


def hidden_states(model: nn.Module) -> Reference:
    def reference(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        states = model(pixels, output_hidden_states=True).hidden_states
        return {str(k): state for k, state in enumerate(states)}

    return reference


CASES: dict[str, Callable[[Path], tuple[BackboneConfig, Reference]]] = {
    "mini": lambda folder: clip_case(folder, "mini"),
    "torchvision": torchvision_case,
    "timm": timm_case,
    "open_clip": open_clip_case,
    "transformers": clip_case,
    "transformers (DINOv2)": dinov2_case,
}


def test_every_family_has_a_case() -> None:
    assert {name.split(" ")[0] for name in CASES} == set(BACKBONES)


@pytest.mark.parametrize("case", CASES)
def test_tap_k_is_hidden_state_k(case: str, tmp_path: Path) -> None:
    config, reference = CASES[case](tmp_path)
    backbone = load_backbone(config)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.train().model.training
    assert backbone.name == config.name

    with torch.no_grad():
        expected = reference(backbone.preprocess(IMAGES))
    found = backbone.tokens(IMAGES, backbone.layers)
    assert list(found) == list(backbone.layers) == list(expected)
    for layer in backbone.layers:
        assert found[layer].dtype == torch.float32
        torch.testing.assert_close(found[layer], expected[layer], rtol=1e-4, atol=1e-5)
        alone = backbone.tokens(IMAGES, [layer])[layer]  # the pass stops early
        torch.testing.assert_close(alone, expected[layer], rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())

    sizes = [pixels.shape[-2:] for pixels in (backbone.preprocess(IMAGES),)]
    assert sizes == [(backbone.preprocessing["size"],) * 2]


@pytest.mark.parametrize("case", ["torchvision", "open_clip"])
def test_poolings_agree_with_the_tokens(case: str, tmp_path: Path) -> None:
    backbone = load_backbone(CASES[case](tmp_path)[0])
    layer = backbone.layers[2]
    patches = backbone.tokens(IMAGES, [layer])[layer][:, backbone.prefix :]
    side = int(patches.shape[1] ** 0.5)
    corner = patches.unflatten(1, (side, side))[:, : -(-side // 2), : -(-side // 2)].mean((1, 2))
    torch.testing.assert_close(backbone.tokens(IMAGES, [layer], "grid:2")[layer][:, 0], corner)
    torch.testing.assert_close(backbone.tokens(IMAGES, [layer], "mean")[layer][:, 0], patches.mean(1))
    if case == "torchvision":
        assert backbone.tokens(IMAGES, ["classifier"], "grid:2")["classifier"].shape == (2, 1, 1000)
        with pytest.raises(UserError, match="CLS"):
            backbone.tokens(IMAGES, [layer], "cls")


def test_stops_after_the_deepest_wanted_layer_and_leaves_no_hook_after_an_error(tmp_path: Path) -> None:
    backbone = load_backbone(torchvision_case(tmp_path)[0])
    ran = []
    handle = backbone.model.classifier.register_forward_hook(lambda *_: ran.append(1))
    backbone.tokens(IMAGES, ["features.9"])
    assert not ran
    backbone.tokens(IMAGES, ["features.9", "classifier"])
    assert ran
    handle.remove()
    with pytest.raises(UserError, match="finer"):
        backbone.tokens(IMAGES, ["features.12"], "grid:64")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())


def test_a_layer_that_never_runs_fails_loudly(tmp_path: Path) -> None:
    model = nn.ModuleDict({"used": nn.Conv2d(3, 2, 3), "unused": nn.Conv2d(3, 2, 3)})
    model.forward = lambda pixels: model["used"](pixels)  # type: ignore[method-assign]
    config = {"size": 8, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    backbone = Backbone("toy", model, {"used": Tap("used"), "unused": Tap("unused")}, config)
    with pytest.raises(UserError, match="'unused' gave no output"):
        backbone.tokens(IMAGES, ["used", "unused"])


def test_timm_convnet_and_channels_last_model() -> None:
    import timm
    from timm.models.swin_transformer import SwinTransformer

    config = BackboneConfig("timm/toy")
    own = wrap.preprocessing(64, [0.5] * 3, [0.5] * 3, "bilinear")
    swin = SwinTransformer(img_size=64, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4).eval()
    for model, names in (
        (
            timm.create_model("test_resnet", pretrained=False).eval(),
            ["act1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"],
        ),
        (swin, ["layers.0", "layers.1"]),
    ):
        reference = copy.deepcopy(model)
        backbone = wrap.timm_parts(config, model, model, "", own)
        with torch.no_grad():
            maps = reference.forward_intermediates(
                backbone.preprocess(IMAGES), norm=False, output_fmt="NCHW", intermediates_only=True
            )
        found = backbone.tokens(IMAGES, names)
        for name, expected in zip(names, maps, strict=True):
            torch.testing.assert_close(found[name], expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_torchvision_vision_transformer_by_block() -> None:
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32).eval()
    own = wrap.preprocessing(32, [0.5] * 3, [0.5] * 3, "bilinear")
    backbone = wrap.transformer(BackboneConfig("torchvision/toy"), model, "encoder.layers", 8, own)
    found = backbone.tokens(IMAGES, ["0", "2"])
    with torch.no_grad():
        patches = model._process_input(backbone.preprocess(IMAGES))
        start = torch.cat([model.class_token.expand(2, -1, -1), patches], 1) + model.encoder.pos_embedding
        torch.testing.assert_close(found["0"], start)
        torch.testing.assert_close(found["2"], model.encoder.layers(start))
    assert backbone.has_cls and backbone.prefix == 1
    with pytest.raises(UserError, match="image_size=64"):
        wrap.transformer(BackboneConfig("torchvision/toy"), model, "encoder.layers", 8, own | {"size": 64})


def test_preprocessing_is_the_models_own(tmp_path: Path) -> None:
    """Square pictures: what the library's own pipeline gives, up to its rounding to 8 bits."""
    from PIL import Image
    from torchvision.transforms import functional
    from transformers import CLIPImageProcessorPil

    rng = np.random.default_rng(0)
    picture = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((100, 100)))
    tensor = torch.tensor(picture).permute(2, 0, 1)[None].float() / 255

    clip = load_backbone(clip_case(tmp_path)[0])
    own = CLIPImageProcessorPil.from_pretrained(tmp_path)
    expected = own(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(clip.preprocess(tensor), expected, rtol=0, atol=2 / 255 / 0.5)

    squeezenet = load_backbone(torchvision_case(tmp_path)[0])
    resized = functional.to_tensor(functional.resize(Image.fromarray(picture), [64, 64]))
    expected = functional.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None]
    torch.testing.assert_close(squeezenet.preprocess(tensor), expected, rtol=0, atol=2 / 255 / 0.22)

    wide = torch.rand(1, 3, 40, 90)
    assert squeezenet.preprocess(wide).shape == (1, 3, 64, 64)  # squeezed, nothing cut off
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        squeezenet.tokens(squeezenet.preprocess(wide), ["features.3"])


def test_default_sizes_are_the_models_own(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    save_file(squeezenet1_1().state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(BackboneConfig("torchvision/squeezenet1_1", str(tmp_path / "w.safetensors")))
    assert backbone.preprocessing == {
        "size": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bilinear",
        "antialias": True,
        "resize": "whole picture to size x size, no crop",
    }
    assert backbone.layers == (*(f"features.{i}" for i in range(13)), "classifier")


def test_other_image_sizes_for_transformers(tmp_path: Path) -> None:
    for case in (clip_case, open_clip_case, timm_case):
        folder = tmp_path / case.__name__
        folder.mkdir()
        config = case(folder)[0]
        config.image_size = 96
        backbone = load_backbone(config)
        patches = backbone.tokens(IMAGES, ["1"])["1"].shape[1] - backbone.prefix
        assert patches == {clip_case: 36, open_clip_case: 144, timm_case: 36}[case]
        assert backbone.prefix == 1 and backbone.has_cls


def test_layers_by_name_and_by_depth(tmp_path: Path) -> None:
    backbone = load_backbone(torchvision_case(tmp_path)[0])
    assert resolve_layer(backbone, "features.9") == "features.9"
    assert resolve_layer(backbone, "0.5") == backbone.layers[7]  # 13 steps between 14 layers, half rounded up
    assert resolve_layer(backbone, "0.99") == "classifier"
    assert [resolve_layer(backbone, index) for index in ("0", "13", "-1", "-14")] == [
        *("features.0", "classifier", "classifier", "features.0")
    ]
    assert list(backbone.tokens(IMAGES, ["0.5"])) == ["0.5"]
    for unknown, near in (("feature.9", "features.9"), ("classifer", "classifier")):
        with pytest.raises(UserError, match=f"did you mean '{near}'"):
            resolve_layer(backbone, unknown)
    for unknown in ("14", "-15", "1.0", "-0.5", "nan", "--1"):
        with pytest.raises(UserError, match=r"has no layer"):
            resolve_layer(backbone, unknown)


def test_weights_hash_depends_on_values_only(tmp_path: Path) -> None:
    config = torchvision_case(tmp_path)[0]
    first = load_backbone(config)
    state = {name: value.clone() for name, value in first.model.state_dict().items()}
    torch.save(state, tmp_path / "again.pth")
    config.weights = str(tmp_path / "again.pth")
    assert load_backbone(config).weights_hash == first.weights_hash  # float32 .pth = float16 .safetensors
    state["features.0.bias"][0] += 1e-3
    torch.save(state, tmp_path / "other.pth")
    config.weights = str(tmp_path / "other.pth")
    assert load_backbone(config).weights_hash != first.weights_hash
    assert hash_weights(first.model, without=["features.0.bias"]) == hash_weights(
        load_backbone(config).model, without=["features.0.bias"]
    )


def test_a_missing_pooler_neither_changes_the_hash_nor_the_seed(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    config = BackboneConfig("transformers/google/vit", str(tmp_path))
    torch.manual_seed(5)
    first = load_backbone(config)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    torch.manual_seed(6)
    assert load_backbone(config).weights_hash == first.weights_hash


def test_faults_end_in_one_line(tmp_path: Path) -> None:
    good = torchvision_case(tmp_path)[0].weights
    assert good is not None
    (tmp_path / "cut.safetensors").write_bytes(Path(good).read_bytes()[:1000])
    state = torch.load(timm_case(tmp_path)[0].weights or "", weights_only=True)
    save_file({k: v for k, v in state.items() if "blocks.2" not in k}, tmp_path / "lacking.safetensors")
    save_file({f"module.{k}": v for k, v in state.items()}, tmp_path / "prefixed.safetensors")
    save_file(state | {"pos_embed": torch.zeros(1, 3, 64)}, tmp_path / "shape.safetensors")
    torch.save({"weights": Path("x")}, tmp_path / "objects.pth")
    empty = tmp_path / "empty"
    empty.mkdir()
    faults = [
        ("nothing/x", None, "Families: mini"),
        ("torchvison/squeezenet1_1", None, "did you mean 'torchvision/MODEL'"),
        ("torchvision", None, "is not known"),
        ("mini/x", None, "is not known"),
        ("torchvision/squeezenet1_2", good, r"did you mean torchvision/squeezenet1_1\?"),
        ("timm/test_vitt", good, "did you mean timm/test_vit"),
        ("torchvision/squeezenet1_1", str(tmp_path / "absent.pth"), "does not exist"),
        ("torchvision/squeezenet1_1", str(empty), "pass a state dict"),
        ("torchvision/squeezenet1_1", str(tmp_path / "cut.safetensors"), "not a whole safetensors"),
        ("timm/test_vit", str(tmp_path / "lacking.safetensors"), r"lack 'blocks\.2"),
        ("timm/test_vit", str(tmp_path / "prefixed.safetensors"), "lack"),
        ("timm/test_vit", str(tmp_path / "shape.safetensors"), r"expected \(1, 101, 64\)"),
        ("timm/test_vit", str(tmp_path / "objects.pth"), "plain tensors"),
        ("open_clip/ViT-B-32", None, "ViT-B-32:TAG"),
        ("open_clip/tiny", str(empty), "cannot load"),
        ("transformers/x/y", good, "pass a folder"),
        ("transformers/x/y", str(empty), "cannot load"),
        ("mini", str(empty), "pass backbone.weights=DIR"),
    ]
    for name, weights, message in faults:
        with pytest.raises(UserError, match=message) as caught:
            load_backbone(BackboneConfig(name, weights))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["torchvision/squeezenet1_1", "timm/test_vit", "open_clip/RN50:openai", "transformers/nobody/nothing"]
)
def test_default_weights_offline_end_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"pass backbone\.weights=FILE or DIR") as caught:
        load_backbone(BackboneConfig(name))
    assert "\n" not in str(caught.value)


def test_a_clip_without_one_block_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = clip_case(tmp_path)[0]
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in state.items() if "layers.1.mlp.fc1.weight" not in name}
    assert len(kept) == len(state) - 1
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"do not fit: .*layers\.1\.mlp\.fc1\.weight"):
        load_backbone(config)


def test_embedded_mini_weights() -> None:
    assert mini_weights().parts[-3:] == ("align", "vision", "mini")
    backbone = load_backbone(BackboneConfig("mini"))
    found = backbone.tokens(IMAGES, backbone.layers, "grid:4")
    assert {tokens.shape for tokens in found.values()} == {(2, 16, 128)}


def test_real_squeezenet_weights_name_real_pictures() -> None:
    """Public weights on one photograph of every 25th ImageNet class: trained, in order, rightly normalised."""
    from PIL import Image

    weights = shared_path("weights/squeezenet1_1_imagenet.safetensors")
    pictures = zipfile.ZipFile(shared_path("images/natural_128.zip"))
    names = sorted(name for name in pictures.namelist() if name.startswith("imagenet1k/") and name.endswith(".jpg"))
    assert len(names) == 1000  # one per class, in the order of the class index
    chosen = range(0, 1000, 25)
    backbone = load_backbone(BackboneConfig("torchvision/squeezenet1_1", str(weights)))
    images = [np.array(Image.open(pictures.open(names[i])).convert("RGB").resize((128, 128))) for i in chosen]
    logits = backbone.tokens(torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255, ["classifier"])["classifier"]
    assert (logits[:, 0].argmax(1) == torch.tensor(chosen)).float().mean() > 0.4  # chance .001


def test_dinov2_sees_pictures_as_its_own_processor_cuts_them(tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    config, _ = dinov2_case(tmp_path)
    image = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)).resize((120, 80))
    )
    pixels = torch.tensor(image).permute(2, 0, 1)[None] / 255
    own = load_backbone(config)
    assert own.preprocessing["resize"] == "shorter side to 64 px, centre crop to size x size"
    with warnings.catch_warnings():  # of torch about arrays inside the processor
        warnings.simplefilter("ignore", UserWarning)
        expected = AutoImageProcessor.from_pretrained(tmp_path)(images=image, return_tensors="pt")["pixel_values"]
    assert own.preprocess(pixels).shape == expected.shape == (1, 3, 56, 56)
    assert (own.preprocess(pixels) - expected).abs().max() < 0.05  # the processor rounds to 8 bits in between
    whole = load_backbone(replace(config, crop="none"))
    assert whole.preprocessing["resize"] == "whole picture to size x size, no crop"
    assert (whole.preprocess(pixels) - expected).abs().max() > 0.5
    assert load_backbone(replace(config, image_size=28)).preprocessing["shorter"] == 32
