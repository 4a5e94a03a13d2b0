"""Runs, generators and options from somebody who means harm: refused in one line, and nothing of them is run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.checkpoint import load_run, require_numbers
from align.config import load_config
from align.errors import UserError
from align.files import read_json, read_tensors, save_tensors, write_json
from recon import cli
from recon.audit.collect import from_folder
from recon.config import places_in
from recon.drawing.record import read_asked
from recon.evaluation.settings import EvaluatePairs
from recon.evaluation.stored import read_report, read_stimuli, require_agreement
from recon.generation.foreign import require_known_parts, require_no_code
from recon.generation.loading import load_pipeline
from recon.generation.places import mini_folder
from recon.generation.runtime import Runtime
from recon.scoring import table_formats
from tests.recon import mutated

COUNTS_OF_DAMAGE = [80, pytest.param(200, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return mutated.build(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.mark.parametrize("count", COUNTS_OF_DAMAGE)
def test_damaged_runs(run: Path, tmp_path: Path, count: int) -> None:
    cases = list(mutated.fuzz(run, tmp_path, count, seed=1))
    wrong = [case for case in cases if case.wrong]
    assert not wrong, "\n".join(map(str, wrong))
    assert sum(case.code == 2 for case in cases) > count / 3  # the damage is seen


def spoil(folder: Path, **changes: Any) -> None:
    """Change tensors (by function) and metadata of a model."""
    tensors, metadata = read_tensors(folder / "model.safetensors")
    tensors = {name: changes.get("tensor", lambda n, v: v)(name, value) for name, value in tensors.items()}
    for key in ("meta", "config"):
        if key in changes:
            content = json.loads(metadata[key])
            changes[key](content)
            metadata[key] = json.dumps(content)
    save_tensors(folder / "model.safetensors", tensors, metadata)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tensor": lambda n, v: v * float("nan")}, "not finite"),
        ({"tensor": lambda n, v: v.double()}, "of type torch.float64"),
        ({"tensor": lambda n, v: v.half()}, "of type torch.float16"),
        ({"tensor": lambda n, v: v.to(torch.complex64)}, "of type torch.complex64"),
        ({"tensor": lambda n, v: v.long()}, "of type torch.int64"),
        ({"meta": lambda m: m.pop("study")}, "study is missing"),
        ({"meta": lambda m: m.update(subjects=[])}, "subjects is empty"),
        ({"meta": lambda m: m.update(subject=["01"])}, "subject is a list"),
        ({"meta": lambda m: m.update(in_shape=[10**6, 10**6])}, "has shape"),
        ({"meta": lambda m: m.update(in_shape=[-1])}, "has shape"),
        ({"meta": lambda m: m.update(components=10**12)}, "has shape"),
        ({"meta": lambda m: m.update(token_shape=[1])}, "not two numbers"),
        ({"meta": lambda m: m.update(token_shape=["x", 1])}, "token_shape"),
        ({"meta": lambda m: m.update(signal_components=10**9)}, "has shape"),
        ({"meta": lambda m: m.update(n_subjects=10**15)}, "n_subjects"),
        ({"config": lambda c: c["encoder"].update(width=10**12)}, "encoder.width"),
        ({"config": lambda c: c["encoder"].update(blocks=10**9)}, "encoder.blocks"),
        ({"config": lambda c: c["encoder"].update(name="mlp", width=2000)}, "tensors in the saved model|shape"),
        ({"config": lambda c: c["encoder"].update(dropout=7)}, "dropout"),
        ({"config": lambda c: c.update(study=[])}, "study is a section"),
        ({"config": lambda c: c.update(seed=10**400)}, "a whole number of 401 digits"),
        ({"config": lambda c: c.update({"x\x1b": 1})}, "unknown key"),
    ],
)
def test_weights_and_their_facts(copied: Path, changes: dict[str, Any], said: str) -> None:
    spoil(copied, **changes)
    with pytest.raises(UserError, match=said) as raised:
        load_run(copied)
    assert "model.safetensors" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["embeds", "tokens", "zero_tokens"])
@pytest.mark.parametrize("command", ["generate", "retrieve"])
def test_stored_predictions_that_are_not_finite(copied: Path, key: str, command: str, capsys: Any) -> None:
    path = copied / "predictions" / "sub-01_test.safetensors"
    tensors, metadata = read_tensors(path)
    save_tensors(path, {**tensors, key: tensors[key] * float("inf")}, metadata)
    assert cli.main(mutated.COMMANDS[command](copied)) == 2
    assert f"tensor {key!r} holds values that are not finite" in capsys.readouterr().err


def test_a_value_of_every_kind_of_float_is_looked_at() -> None:
    for kind in (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        require_numbers({"x": torch.ones(2).to(kind)}, "it")
        with pytest.raises(UserError):
            require_numbers({"x": torch.tensor([1.0, float("nan")]).to(kind)}, "it")


def test_a_score_that_its_stimuli_do_not_have(copied: Path) -> None:
    report, stimuli = copied / "report_sub-01.json", copied / "stimuli_sub-01.json"
    require_agreement(read_report(report), read_stimuli(stimuli), report)
    for change in (
        lambda r: r["reconstruction"]["PixCorr"].update(value=0.99),
        lambda r: r["retrieval"]["brain_to_image"].update(top1=0.123),
    ):
        content = read_json(report)
        change(content)
        write_json(copied / "other.json", content)
        with pytest.raises(UserError, match="the mean over its stimuli is"):
            require_agreement(read_report(copied / "other.json"), read_stimuli(stimuli), report)


@pytest.mark.parametrize("seed", ["x", "", "1.5", "²", "9" * 5000, "\x1b[2J", "0x1"])
def test_a_seed_that_is_no_number(seed: str, tmp_path: Path) -> None:
    """The seeds of settings.json are the names of its entries, which no shape of JSON looks at."""
    write_json(tmp_path / "settings.json", {"asked": {"run": "a", "seeds": {seed: 1}}})
    assert read_asked(tmp_path, "of another training") == {}
    with pytest.raises(UserError, match="is damaged or of another program") as raised:
        read_asked(tmp_path, "a")
    assert "\n" not in str(raised.value) and "\x1b" not in str(raised.value)


def test_places_named_by_a_run_are_said(
    copied: Path, capsys: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    config = load_run(copied).config
    said = places_in(config, ["cache_dir=elsewhere"])
    assert said is not None and "study.root=" in said and "cache_dir=/" not in said.replace("cache_dir=...", "")
    config.study.images = "/etc"
    assert "study.images=/etc" in str(places_in(config))
    assert cli.main(mutated.COMMANDS["retrieve"](copied)) == 0
    assert "places named by the run itself: study.root=" in capsys.readouterr().err
    with caplog.at_level("INFO", "recon.audit.collect"):
        from_folder(copied, ["cache_dir=elsewhere"])
    assert "places named by the run itself: study.root=" in caplog.text


EVIL = "raise SystemExit('code of a stranger ran')\n"


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    return Path(shutil.copytree(mini_folder(), tmp_path / "gen"))


def index_with(**parts: Any) -> dict[str, Any]:
    return {**read_json(mini_folder() / "model_index.json"), **parts}


@pytest.mark.parametrize(
    "name",
    ["None.py", "unet/evil.py", "pipeline.py", "deep/er/x.PY", "vae/x.pyc", "unet/x.so", "tokenizer/x.pkl"],
)
def test_programs_in_a_generator(generator: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (generator / name).parent.mkdir(parents=True, exist_ok=True)
    (generator / name).write_text(EVIL)
    refuses(generator, "a program or pickle", monkeypatch)


def test_programs_behind_a_link(generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "x.py").write_text(EVIL)
    (generator / "more").symlink_to(tmp_path / "away", target_is_directory=True)
    (tmp_path / "away" / "round").symlink_to(generator, target_is_directory=True)
    refuses(generator, "a program or pickle", monkeypatch)


@pytest.mark.parametrize(
    "parts",
    [
        {"unet": ["evil", "Evil"]},
        {"unet": ["os", "system"]},
        {"unet": ["diffusers", "Evil"]},
        {"unet": ["diffusers.models", "UNet2DConditionModel"]},
        {"unet": ["diffusers", "logging"]},
        {"unet": [None, "UNet2DConditionModel"]},
        {"unet": ["diffusers"]},
        {"unet": {"a": 1}},
        {"unet": ["diffusers", ["UNet2DConditionModel"]]},
        {"../unet": ["diffusers", "UNet2DConditionModel"]},
        {"extra": ["numpy", "Evil"]},
        {"_class_name": ["pipeline", "Evil"]},
        {"_class_name": None},
        {"_class_name": "DiffusionPipeline"},
    ],
)
def test_parts_of_others_in_a_generator(
    generator: Path, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (generator / "model_index.json").write_text(json.dumps(index_with(**parts)))
    refuses(generator, "known|_class_name|leaves the folder|an object", monkeypatch)


@pytest.mark.parametrize("key", ["auto_map", "custom_pipelines", "trust_remote_code"])
@pytest.mark.parametrize("file", ["text_encoder/config.json", "unet/config.json", "tokenizer/tokenizer_config.json"])
def test_files_that_ask_for_code(generator: Path, file: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_json(generator / file, finite=False)
    (generator / file).write_text(json.dumps({**content, key: {"AutoModel": "x.Evil"}}))
    refuses(generator, "asks for code of its maker", monkeypatch)


def test_a_class_that_only_the_part_names(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_json(generator / "unet/config.json")
    (generator / "unet/config.json").write_text(json.dumps({**content, "_class_name": "Evil"}))
    refuses(generator, "which diffusers does not have", monkeypatch)


def test_the_own_generator_passes() -> None:
    require_no_code(mini_folder(), "it")
    require_known_parts(mini_folder(), index_with(safety_checker=[None, None]), "it")


def refuses(folder: Path, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline is refused, and no library was asked to read the folder."""
    import diffusers

    def asked(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", asked)
    with pytest.raises(UserError, match=said):
        load_pipeline(folder, Runtime())


SEEDS = [("score", "--resampling-seed"), ("score", "--seed"), ("evaluate-images", "--seed"), ("table", "--seed")]
SEEDS += [("generate", "--seed"), ("generate", "--seeds"), ("evidence", "--seed"), ("curves", "--seed")]
SEEDS += [("repeats", "--seed"), ("tune-pictures", "--seed"), ("gallery", "--seed"), ("demo", "--seed")]
COUNTS = [("score", "--n-boot"), ("score", "--n-perm"), ("timecourse", "--permutations"), ("repeats", "--draws")]
COUNTS += [("evidence", "--nulls"), ("generate", "--best-of"), ("generate", "--steps"), ("gallery", "--count")]
NEEDED = {
    "score": ["--scores", "x.npy"],
    "evaluate-images": ["--reconstructions", "a", "--targets", "b"],
    "score-votes": ["votes.csv"],
    "table": ["x"],
    **{name: ["--subject", "01"] for name in ("generate", "evidence", "curves", "repeats", "tune-pictures")},
}


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *[(command, option, "-1") for command, option in SEEDS],
        *[(command, option, str(2**32)) for command, option in SEEDS],
        *[(command, option, "1000000000000") for command, option in COUNTS],
        ("generate", "--strength", "nan"),
        ("generate", "--scale", "inf"),
        *[(command, "--out", ".") for command in ("score", "evaluate-images", "audit", "gallery", "score-votes")],
        ("score", "--out", "a\0b"),
        ("generate", "--out", __file__),
        ("demo", "--out", __file__),
    ],
)
def test_values_no_command_can_use(command: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse([command, *NEEDED.get(command, []), f"{option}={value}"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1 and option in said


@pytest.mark.parametrize(
    "settings", [{"seed": -1}, {"n_boot": 10**12}, {"n_perm": 10**12}, {"seed": 2**32}, {"n_boot": -1}]
)
def test_values_python_refuses(settings: dict[str, int]) -> None:
    import recon

    x = np.random.default_rng(0).normal(size=(9, 4))
    with pytest.raises(UserError, match=next(iter(settings))):
        recon.score(x, x, **settings)
    with pytest.raises(UserError):
        load_config(EvaluatePairs, None, [f"evaluate.{key}={value}" for key, value in settings.items()])


ROW = {
    **{"method": "x", "subject": "", "seed": "", "subjects": 1, "seeds": 1, "n": 3, "candidates": None},
    **{
        "metrics": {"top1": {"value": 0.5, "ci95": None, "better": "higher", "n": 3, "subjects": 1}},
        "interval_over": "none",
    },
}


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(1)", "\t=1"])
def test_no_formula_in_a_table(name: str) -> None:
    line = table_formats.comma_separated([{**ROW, "method": name}]).split("\n", 1)[1]
    assert line.lstrip('"').startswith("'")


@pytest.mark.parametrize("name", [r"a\input{/etc/passwd}", "$x$", "a~b^c", "100% & more #1_{}", "x\ny", "<|>"])
def test_no_command_in_latex(name: str) -> None:
    text = table_formats.latex([{**ROW, "method": name}])
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip("\n")
    assert "\n" not in body and r"\input" not in body
    bare = body
    for escaped in (r"\%", r"\_", r"\&", r"\#", r"\$", r"\{", r"\}"):
        bare = bare.replace(escaped, "")
    assert not set("%#~^$") & set(bare)


@pytest.mark.parametrize(
    "name", ["x\ny", "a|b", "<img src=x onerror=1>", "[a](javascript:1)", "`x`", "![a](b)", "\x1b[2J"]
)
def test_no_markup_in_markdown(name: str) -> None:
    lines = table_formats.markdown([{**ROW, "method": name}]).split("\n")
    assert len(lines) == 3 and "<" not in lines[2] and "\x1b" not in lines[2]
    assert lines[2].replace(r"\|", "").count("|") == lines[0].count("|")
    assert "](" not in lines[2].replace(r"\](", "")


def test_info_prints_no_escape(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = {"x": "\x1b[2J\x1b]0;owned\x07\rverified: yes\nverified: yes", "\x1bk": "v"}
    save_tensors(tmp_path / "x.safetensors", {"a\x1b[1m": torch.zeros(1)}, facts)
    assert cli.main(["info", str(tmp_path / "x.safetensors")]) == 0
    out = capfd.readouterr().out
    assert "\x1b" not in out and "\r" not in out and not any(line.startswith("verified") for line in out.splitlines())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs fifos")
def test_a_pipe_in_a_run_is_not_waited_for(copied: Path, capsys: Any) -> None:
    for name in ("report_sub-01.json", "split.json", "stimuli_sub-01.json"):
        (copied / name).unlink()
        os.mkfifo(copied / name)
    assert cli.main(mutated.COMMANDS["table"](copied)) == 2
    assert cli.main(mutated.COMMANDS["gallery"](copied)) == 2
    assert cli.main(mutated.COMMANDS["info"](copied)) == 0


def test_pictures_of_nan_are_not_written(tmp_path: Path) -> None:
    from recon.drawing.folders import write_png

    with pytest.raises(UserError, match="NaN"):
        write_png(tmp_path / "x.png", np.full((3, 2, 2), np.nan))
    assert list(tmp_path.iterdir()) == []
