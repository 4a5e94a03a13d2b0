"""Text towers and captioners of the real classes, built tiny, against the models called directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from align.errors import UserError
from recon.pretraining import miniature
from recon.words.captioner import load_captioner
from recon.words.text_tower import MINI, TextTower
from recon.words.towers import load_tower

TEXTS = ["a red disk on brick", "a blue star", "a red disk on brick", "a"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
    "[ENC]",
    "a",
    "red",
    "blue",
    "disk",
    "star",
    "on",
    "brick",
]
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SQUARE = {"height": 16, "width": 16}


def unit(x: Any) -> np.ndarray:
    return torch.nn.functional.normalize(x.detach().float(), dim=1).numpy()


def bert_tokenizer(folder: Path) -> BertTokenizer:
    (folder / "words.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return BertTokenizer(str(folder / "words.txt"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tokenizer = miniature.build_tokenizer(TEXTS)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    words = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 12, **ends}
    model = CLIPModel(CLIPConfig(text_config=words, vision_config=VISION, projection_dim=6))
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE).save_pretrained(folder)
    return folder


def test_the_embedded_pair_knows_what_pictures_show() -> None:
    from align.data.studies.simulated.rendering import TEST_CONCEPTS, picture, scene_of

    ids = [f"{name}-0" for name in TEST_CONCEPTS[::10]]
    tower = load_tower(MINI)
    texts = tower.texts([scene_of(name).caption for name in ids])
    images = torch.stack([torch.from_numpy(picture(name)).permute(2, 0, 1) / 255 for name in ids])
    similarity = tower.pictures(images) @ texts.T
    assert texts.shape == (20, 128) and np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    assert (similarity.argmax(1) == np.arange(20)).mean() > 0.25  # chance .05


def test_clip_of_transformers(clip: Path) -> None:
    tower, model = load_tower(str(clip)), CLIPModel.from_pretrained(clip).eval()
    tokenizer = miniature.build_tokenizer(TEXTS)
    for text, row in zip(TEXTS, tower.texts(TEXTS), strict=True):  # alone, without padding
        own = model.get_text_features(**tokenizer([text], return_tensors="pt")).pooler_output
        np.testing.assert_allclose(row, unit(own)[0], atol=1e-5)
    images = torch.rand(3, 3, 16, 16)
    mean, std = (
        torch.tensor(getattr(CLIPImageProcessor(), f"image_{name}"))[:, None, None] for name in ("mean", "std")
    )
    own = model.get_image_features(pixel_values=(images - mean) / std).pooler_output
    np.testing.assert_allclose(tower.pictures(images), unit(own), atol=1e-4)
    assert tower.texts(["a star " * 90]).shape == (1, 6)  # cut to what the model can read


def test_siglip_is_filled_up_and_not_masked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=miniature.build_tokenizer(TEXTS).backend_tokenizer,
        pad_token=miniature.END,
        model_max_length=8,
    )
    words = {**TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 8, "projection_size": 16}
    model = SiglipModel(SiglipConfig(text_config=words, vision_config=VISION)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    SiglipImageProcessor(size=SQUARE).save_pretrained(tmp_path)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=8, truncation=True, return_tensors="pt")["input_ids"]
    assert tokens.shape == (4, 8)
    own = model.get_text_features(input_ids=tokens).pooler_output
    np.testing.assert_allclose(load_tower(str(tmp_path)).texts(TEXTS), unit(own), atol=1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_sentences_are_means_of_their_words(tmp_path: Path, first: bool) -> None:
    torch.manual_seed(0)
    tokenizer = bert_tokenizer(tmp_path)
    model = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **TEXT), add_pooling_layer=False)
    model.eval().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    facts = {"pooling_mode_cls_token": first, "pooling_mode_mean_tokens": not first}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(facts))
    tower = load_tower(str(tmp_path))
    for text, row in zip(TEXTS, tower.texts(TEXTS), strict=True):
        states = model(**tokenizer([text], return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(row, unit(states[:, 0] if first else states.mean(1))[0], atol=1e-5)
    with pytest.raises(UserError, match="no picture side"):
        tower.pictures(torch.rand(1, 3, 16, 16))
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match="pools in another way"):
        load_tower(str(tmp_path))


def test_open_clip_of_a_folder(tmp_path: Path) -> None:
    import open_clip

    torch.manual_seed(0)
    sizes = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    model = open_clip.CLIP(**sizes).eval()
    facts = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": sizes, "preprocess_cfg": facts}))
    with pytest.raises(UserError, match="no safetensors"):
        load_tower(str(tmp_path))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    tower = load_tower(str(tmp_path))
    own = model.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS))
    np.testing.assert_allclose(tower.texts(TEXTS), unit(own), atol=1e-5)
    images = (torch.rand(2, 3, 16, 16) * 255).round() / 255
    np.testing.assert_allclose(tower.pictures(images), unit(model.encode_image((images - 0.5) / 0.5)), atol=1e-4)


def test_towers_that_cannot_be_had_are_one_line(tmp_path: Path, clip: Path) -> None:
    for name, said in (
        ("sentence-transformers/all-MiniLM-L6-v2", "offline, give a local copy: --text-tower DIR"),
        ("no such tower", "no folder and no hub id"),
        (str(tmp_path), "neither config.json nor"),
    ):
        with pytest.raises(UserError, match=said) as error:
            load_tower(name)
        assert "\n" not in str(error.value)
    (clip / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_tower(str(clip))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("there", "fetched"),
    [
        (["open_clip_model.safetensors", "model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], ["open_clip_model.safetensors"]),
        (
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json", "onnx/model.safetensors"],
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json"],
        ),
        (["pytorch_model.bin"], None),
    ],
)
def test_one_copy_of_the_weights_is_fetched(
    monkeypatch: pytest.MonkeyPatch, there: list[str], fetched: list[str] | None
) -> None:
    from recon.words import towers

    asked: list[list[str]] = []
    monkeypatch.setattr(towers, "listed", lambda *_: dict.fromkeys([*there, "config.json", "README.md"], 1))
    monkeypatch.setattr(towers, "fetch", lambda _, files, *__: asked.append(list(files)) or Path("here"))
    if fetched is None:
        with pytest.raises(UserError, match="has no safetensors"):
            towers.tower_folder("some/tower")
    else:
        assert towers.tower_folder("some/tower") == Path("here") and asked == [[*fetched, "config.json"]]


def test_weights_that_lack_a_tensor_are_refused(clip: Path) -> None:
    state = CLIPModel.from_pretrained(clip).state_dict()
    del state["text_projection.weight"]
    save_file({name: value.clone() for name, value in state.items()}, clip / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"do not fit: text_projection.weight"):
        load_tower(str(clip))


def git(folder: Path) -> Any:
    """A tiny GIT with everything that its folder on the hub has."""
    vision = {**VISION, "num_channels": 3}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = GitConfig(vision_config=vision, vocab_size=len(WORDS), max_position_embeddings=64, **TEXT, **ends)
    model = GitForCausalLM(config).eval()
    GitProcessor(
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=SQUARE), bert_tokenizer(folder)
    ).save_pretrained(folder)
    return model


def blip(folder: Path) -> Any:
    """A tiny BLIP likewise."""
    ends = {"bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0, "encoder_hidden_size": 16}
    words = {**TEXT, "vocab_size": len(WORDS), "max_position_embeddings": 64, **ends}
    model = BlipForConditionalGeneration(BlipConfig(text_config=words, vision_config=VISION)).eval()
    BlipProcessor(BlipImageProcessor(size=SQUARE), bert_tokenizer(folder)).save_pretrained(folder)
    return model


@pytest.mark.parametrize("build", [git, blip])
def test_captions_are_those_of_the_model(tmp_path: Path, build: Any) -> None:
    torch.manual_seed(1)
    model = build(tmp_path)
    model.save_pretrained(tmp_path)
    images = torch.rand(10, 3, 16, 16)
    found = load_captioner(str(tmp_path))(images)
    mean, std = (
        torch.tensor(getattr(CLIPImageProcessor(), f"image_{name}"))[:, None, None] for name in ("mean", "std")
    )
    tokenizer = bert_tokenizer(tmp_path)
    for image, text in zip(images, found, strict=True):  # one by one
        with torch.no_grad():
            own = model.generate(pixel_values=((image - mean) / std)[None], max_new_tokens=30, do_sample=False)
        assert text == tokenizer.decode(own[0], skip_special_tokens=True).strip()
    assert any(found)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("microsoft/git-base-coco", "offline, give a local copy: --captioner DIR"),
        ("no such", "no folder and no hub id"),
        ("empty", "holds no config.json"),
        ("clip", "is of kind 'clip'"),
        ("bare", "cannot be loaded"),
    ],
)
def test_captioners_that_cannot_be_had_are_one_line(
    tmp_path: Path, clip: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"model_type": "git"}')
    with pytest.raises(UserError, match=said) as error:
        load_captioner(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["captioner", "tower"])
def test_an_absent_vocabulary_is_not_taken_for_a_short_one(tmp_path: Path, clip: Path, name: str) -> None:
    """Every caption would be empty, and every text of a tower the same."""
    folder = tmp_path / "git" if name == "captioner" else clip
    folder.mkdir(exist_ok=True)
    if name == "captioner":
        git(folder).save_pretrained(folder)
    for file in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(UserError, match="its tokenizer knows") as error:
        (load_captioner if name == "captioner" else load_tower)(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["captioner", "tower"])
def test_sizes_that_no_model_has_are_refused_before_memory_is_used(tmp_path: Path, clip: Path, kind: str) -> None:
    facts = json.loads((clip / "config.json").read_text(encoding="utf-8"))
    facts["vision_config"]["num_hidden_layers"] = 10**6
    (clip / "config.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(UserError, match=r"asks for num_hidden_layers 1e\+06; at most 256"):
        (load_captioner if kind == "captioner" else load_tower)(str(clip))


def test_a_captioner_of_damaged_weights_says_nothing(tmp_path: Path) -> None:
    git(tmp_path).save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**facts, "layer_norm_eps": float("nan")}), encoding="utf-8")
    with pytest.raises(UserError, match="computes NaN"):
        load_captioner(str(tmp_path))(torch.rand(2, 3, 16, 16))


def test_a_captioner_without_a_word_is_told(tmp_path: Path) -> None:
    model = git(tmp_path)
    torch.nn.init.zeros_(model.output.weight)
    model.output.bias.data = torch.arange(len(WORDS)) * -1.0 + 100 * (torch.arange(len(WORDS)) == 3)  # ends at once
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no word for any of 2 pictures"):
        load_captioner(str(tmp_path))(torch.rand(2, 3, 16, 16))


def test_a_tower_of_damaged_weights_embeds_nothing() -> None:
    fails = TextTower("x", lambda texts: torch.full((len(texts), 4), float("nan")), lambda images: images[:, 0, 0] / 0)
    for read in (lambda: fails.texts(["a"]), lambda: fails.pictures(torch.ones(1, 3, 4, 4))):
        with pytest.raises(UserError, match="text tower 'x' computes NaN"):
            read()
