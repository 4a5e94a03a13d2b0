"""The configuration tree: coercion by declared type, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from align.config import Config, SimulatedConfig, dump_yaml, keys, load_config, set_key, to_dict
from align.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "align"
BACKBONES, PAPERS = CONFIGS.parent / "backbones", CONFIGS.parent / "papers"


def load(text: str | bytes, tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(Config, path, list(overrides))


def test_subjects_stay_text_where_yaml_would_read_numbers(tmp_path: Path) -> None:
    text = "subjects: [01, 08, 010, 1_0, yes, 1e3]"
    assert yaml.safe_load(text)["subjects"] != ["01", "08", "010", "1_0", "yes", "1e3"]  # the trap is real
    assert load(text, tmp_path).subjects == ["01", "08", "010", "1_0", "yes", "1e3"]
    for pair in ("subjects=[01,08,010]", "subjects=01,08,010", 'subjects=[ "01" , 08, 010 ]'):
        assert load_config(Config, None, [pair]).subjects == ["01", "08", "010"]
    assert load_config(Config, None, ["subjects=[]"]).subjects == []


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("train.lr=1e-4", "train.lr", 1e-4),  # YAML alone reads text
        ("seed=7", "seed", 7),
        ("target.layer=6", "target.layer", "6"),
        ("run_dir=a=b", "run_dir", "a=b"),
        ("loss.normalize_image=false", "loss.normalize_image", False),
        ("loss.normalize_brain=ON", "loss.normalize_brain", True),
        ("backbone.image_size=224", "backbone.image_size", 224),
        ("backbone.image_size=null", "backbone.image_size", None),
        ("study.root=", "study.root", None),  # an unset shell variable is not the working folder
        ("encoder.alphas=[1,1e3]", "encoder.alphas", [1.0, 1000.0]),
    ],
)
def test_override_is_coerced_by_the_declared_type(pair: str, key: str, value: object) -> None:
    found: object = load_config(Config, None, [pair])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_file_lies_over_defaults_and_overrides_over_the_file(tmp_path: Path) -> None:
    config = load("seed: 3\ntrain:\n  epochs: 7\n", tmp_path, "train.epochs=9")
    assert (config.seed, config.train.epochs) == (3, 9)
    assert config.train.lr == Config().train.lr


@pytest.mark.parametrize("text", ["", "train:\n", "train:\n  # epochs: 3\n", "train: {}", "study: {root: ~}"])
def test_empty_parts_leave_the_defaults(text: str, tmp_path: Path) -> None:
    assert load(text, tmp_path) == Config()


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    pairs = ["subjects=[01,010]", "train.lr=1e-7", "run_dir=/a b/ü", "loss.normalize_brain=yes", "encoder.alphas=[1]"]
    config = load_config(Config, None, pairs)
    assert load(dump_yaml(config), tmp_path) == config
    assert load_config(Config) != config
    assert yaml.safe_load(dump_yaml(config)) == to_dict(config)


@pytest.mark.parametrize("key", keys(Config()))
def test_every_key_can_be_set_to_its_default(key: str) -> None:
    value: object = Config()
    for name in key.split("."):
        value = getattr(value, name)
    config = Config()
    set_key(
        config,
        key,
        "null" if value is None else f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value),
    )
    assert config == Config()


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("train.epohcs=3", ["'train.epohcs'", "did you mean 'train.epochs'"]),
        ("lr=1", ["did you mean 'train.lr'"]),
        ("zzzzzzzz=1", ["unknown key", "known keys", "seed"]),
        ("study=x", ["section", "study.root"]),
        ("__class__.seed=1", ["unknown key"]),
        ("seed", ["not key=value"]),
        ("seed=one", ["seed='one'", "whole number"]),
        ("seed=1.5", ["whole number"]),
        ("seed=true", ["whole number"]),
        ("train.lr=fast", ["train.lr='fast'", "not a number"]),
        ("train.lr=nan", ["not a number"]),
        ("train.lr=1e999", ["not a number"]),
        ("train.average_repetitions=maybe", ["true or false"]),
        ("subjects=[01", ["not valid YAML"]),
        ("subjects=[[01]]", ["not text"]),
        ("encoder.alphas=[1,a]", ["not a number"]),
    ],
)
def test_bad_override_is_one_clear_line(pair: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_config(Config, None, [pair])
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: [1", ["not valid YAML at line 1"]),
        ("a: 1\n b: 2\n", ["not valid YAML at line 2"]),
        ("seed: \x00", ["not valid YAML"]),
        (b"\xff\xfe\x00", ["not text"]),
        ("- a", ["no keys"]),
        ("train: 5", ["section", "train.epochs"]),
        ("train:\n  lr: !!float abc", ["train.lr='abc'", "not a number"]),
        ("seed: !!int ''", ["whole number"]),
        ('seed: !!python/object/apply:os.system ["true"]', ["not valid YAML"]),
    ],
)
def test_bad_file_is_one_clear_line(text: str | bytes, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(text, tmp_path)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_missing_file_names_itself() -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml.*does not exist"):
        load_config(Config, "nowhere.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load(path: Path) -> None:
    config = load_config(Config, path)
    assert config.study.root is None
    assert all(isinstance(subject, str) for subject in config.subjects)


def test_later_files_lie_over_earlier_ones_and_overrides_over_all(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seed: 3\ntrain: {epochs: 7, lr: 0.5}\nsubjects: [01]\n")
    (tmp_path / "b.yaml").write_text("train: {epochs: 8, noise: 0}\n")
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    config = load_config(Config, [a, str(b)], ["train.noise=2"])
    assert (config.seed, config.train.epochs, config.train.lr, config.subjects) == (3, 8, 0.5, ["01"])
    assert config.train.noise == 2
    assert load_config(Config, [b, a]).train.epochs == 7
    assert load_config(Config, []) == Config()
    with pytest.raises(UserError, match=r"nowhere\.yaml.*does not exist"):
        load_config(Config, [a, tmp_path / "nowhere.yaml"])


@pytest.mark.parametrize("path", sorted(BACKBONES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_backbone_lies_over_any_study_and_nothing_stays_of_the_earlier_one(path: Path, tmp_path: Path) -> None:
    worst = tmp_path / "worst.yaml"
    worst.write_text(
        "backbone: {name: timm/y, weights: y.pth, image_size: 112, revision: abc}\ntarget: {chosen_on: 3 folds}\n"
    )
    for study in (*CONFIGS.glob("*.yaml"), worst):
        base, both = (load_config(Config, paths, check=False) for paths in (study, [study, path]))
        assert both.backbone == load_config(Config, path).backbone
        assert both.target.chosen_on == Config().target.chosen_on, "what was chosen was the layer of another backbone"
        assert both.target.layer != base.target.layer and both.target.pooling == base.target.pooling
        assert (both.study, both.train, both.encoder) == (base.study, base.train, base.encoder)


@pytest.mark.parametrize("path", sorted(PAPERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_trains_without_its_facts(path: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    assert "title" in tree.pop("paper")
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(tree))
    assert load_config(Config, path) == load_config(Config, tmp_path / "bare.yaml") != Config()


def test_facts_of_a_paper_are_no_keys_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown key 'paper'"):
        load("paper: 3", tmp_path)
    with pytest.raises(UserError, match=r"unknown key 'papers\.title'"):
        load("papers: {title: x}", tmp_path)
    with pytest.raises(UserError, match=r"unknown key 'paper\.title'"):
        load_config(Config, None, ["paper.title=x"])
    (tmp_path / "paper.yaml").write_text("paper: {title: x}")
    with pytest.raises(UserError, match=r"unknown key 'paper\.title'"):
        load_config(SimulatedConfig, tmp_path / "paper.yaml")


def test_a_choice_on_other_data_says_that_it_was_carried_over(tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_text(
        "study: {name: folder, root: /a}\nsubjects: ['01', '02']\ntarget: {chosen_on: cross-validation, layer: '1'}\n"
    )
    over = "; carried over to "
    for pairs, told in (
        ([], ""),
        (["subjects=[02]"], ""),  # one of those it was chosen on
        (["subjects=[03]"], f"{over}other subjects"),
        (["subjects=[]"], f"{over}other subjects"),  # all of them
        (["study.root=/b"], f"{over}another study.root"),
        (["study.root=/b", "subjects=[01,03]"], f"{over}another study.root, other subjects"),
        (["study.name=nsd"], f"{over}another study"),
        (["subjects=[03]", "target.chosen_on=a pilot"], None),
        (["subjects=[03]", "target.layer=2"], None),
    ):
        said = load_config(Config, best, pairs, check=False).target.chosen_on
        by_hand = "a pilot" if "target.chosen_on=a pilot" in pairs else "set by hand"
        assert said == (by_hand if told is None else f"cross-validation{told}"), pairs
    (tmp_path / "over.yaml").write_text("subjects: ['03']\n")
    twice = load_config(Config, [best, tmp_path / "over.yaml"], ["subjects=[04]", "study.root=/b"], check=False)
    assert twice.target.chosen_on == f"cross-validation{over}other subjects, another study.root"
    best.write_text("target: {chosen_on: cross-validation, layer: '1'}\n")  # names no data: they are given here
    assert load_config(Config, best, ["study.root=/b", "subjects=[03]"]).target.chosen_on == "cross-validation"


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (["target.layer=8"], "set by hand"),
        (["backbone.name=torchvision/squeezenet1_1"], "set by hand"),
        (["target.layer=8", "target.chosen_on=a pilot"], "a pilot"),
        (["target.layer=1"], "cross-validation"),
        (["seed=3"], "cross-validation"),
        ([], "cross-validation"),
    ],
)
def test_another_layer_by_hand_was_not_chosen_as_the_file_says(tmp_path: Path, pairs: list[str], told: str) -> None:
    best = tmp_path / "best.yaml"
    best.write_text("target: {chosen_on: cross-validation, layer: '1'}\n")
    assert load_config(Config, best, pairs).target.chosen_on == told
    (tmp_path / "over.yaml").write_text("target: {layer: '2'}\n")
    assert load_config(Config, [best, tmp_path / "over.yaml"]).target.chosen_on == "set by hand"
