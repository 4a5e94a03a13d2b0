"""Every field of a configuration says what it may hold, and a value that cannot be costs one line and no time."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import align
import recon
from align.config import (
    Config,
    LossConfig,
    StudyConfig,
    TrainConfig,
    load_config,
)
from align.errors import UserError
from align.fields.checks import Anything, Checked, Count, OneOf, Place, Text, Within, hints_of, is_declared
from align.fields.syntax import FAMILIES, VIEWS
from align.known_names import ENCODERS, STUDIES, TRACKERS, VARIANTS
from align.train import main as align_train
from recon.cli import main as recon_command
from recon.config import STAGES
from recon.evaluation.settings import JUDGES
from recon.train import main as recon_train
from tests.one_line import fails
from tests.test_layout import HEAVY

COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "align/train.py": (align_train, []),
    "recon/train.py": (recon_train, []),
    "targets": (recon_command, ["targets"]),
    "sweep": (recon_command, ["sweep", "--no-test"]),
    "timecourse": (recon_command, ["timecourse"]),
    "reproduce": (recon_command, ["reproduce", "nice", "--adapt"]),
    "pretrain": (recon_command, ["pretrain"]),
    "data check": (recon_command, ["data", "check", "things_eeg2", "--root", "."]),
    "data convert": (recon_command, ["data", "convert", "things_eeg2", "--root", "."]),
    "evaluate": (recon_command, ["evaluate", "--subject", "01"]),
    "retrieve": (recon_command, ["retrieve", "--subject", "01"]),
    "curves": (recon_command, ["curves", "--subject", "01"]),
}
MISTAKES: list[tuple[str, str, str]] = [  # command, pairs that cannot be, what the line says
    ("align/train.py", "study.name=simulatd", "study.name='simulatd' is not known; did you mean 'simulated'? Known: "),
    ("align/train.py", "study.window=0.3:0.1", "study.window='0.3:0.1'"),
    ("align/train.py", "simulated.code=mixd", "did you mean 'mixed'? Known: mixed, late_only, no_signal"),
    ("align/train.py", "protocol=pool", "did you mean 'pooled'? Known: intra, pooled, loso"),
    ("align/train.py", "preprocess.scale=zcore", "did you mean 'zscore'? Known: none, zscore, robust"),
    ("align/train.py", "preprocess.sfreq=0", "preprocess.sfreq=0 should be above 0"),
    ("align/train.py", "preprocess.clamp=-2", "preprocess.clamp=-2 should be above 0"),
    ("align/train.py", "preprocess.baseline=[0,-0.2]", "preprocess.baseline=[0.0, -0.2] is not [from, to] in s"),
    ("align/train.py", "preprocess.tmin=1 preprocess.tmax=0.5", "tmin=1 should be below preprocess.tmax=0.5"),
    ("align/train.py", "preprocess.channels=[O(]", "preprocess.channels='O('"),
    ("align/train.py", "backbone.name=torchvison/alexnet", "did you mean 'torchvision/MODEL'? Families: mini, "),
    ("align/train.py", "backbone.weights=nowhere.pth", "backbone.weights='nowhere.pth' does not exist"),
    ("align/train.py", "backbone.image_size=0", "backbone.image_size=0 should be 1 or more"),
    ("align/train.py", "target.pooling=grid", "use tokens, mean, max, cls or grid:n"),
    ("align/train.py", "target.layer=1++3", "target.layer='1++3' is not a layer"),
    ("align/train.py", "target.components=0", "target.components=0 should be 1 or more"),
    ("align/train.py", "target.views=[original,blurr:15]", "target.views='blurr:15'"),
    ("align/train.py", "target.views=[blur:1]", "a strength of 3 to 223"),
    ("align/train.py", "target.uncertain_views=[foveal:45,foveal:51]", "three different views"),
    ("align/train.py", "target.whiten=2", "target.whiten=2 should be 0 or more and at most 1"),
    ("align/train.py", "target.router=true encoder.name=ridge", "target.router is trained by the contrastive part"),
    ("align/train.py", "encoder.name=tscov", "did you mean 'tsconv'? Known: ridge, "),
    ("align/train.py", "encoder.dropout=1", "encoder.dropout=1 should be 0 or more and below 1"),
    ("align/train.py", "encoder.alphas=[1,-1]", "encoder.alphas=-1 should be above 0"),
    ("align/train.py", "encoder.bands=[2,V1]", "encoder.bands=[2,V1] holds sizes beside names"),
    ("align/train.py", "encoder.options=[pool]", "encoder.options='pool' is not name=value"),
    ("align/train.py", "encoder.frozen=true encoder.name=labram", "encoder.frozen=true without weights"),
    ("align/train.py", "loss.kind=infonc", "did you mean 'infonce'? Known: infonce, siglip, softclip"),
    ("align/train.py", "loss.regression_kind=mae", "Known: mse, cosine"),
    ("align/train.py", "loss.temperature=0", "loss.temperature=0 should be above 0"),
    ("align/train.py", "loss.mmd_end=0.5", "loss.mmd_end is where loss.mmd decays to"),
    ("align/train.py", "loss.contrastive=0 loss.regression=0", "are both 0"),
    ("align/train.py", "train.schedule=onecylce", "did you mean 'onecycle'? Known: onecycle, cosine, constant"),
    ("align/train.py", "train.precision=fp61", "did you mean 'fp16'? Known: fp32, bf16, fp16"),
    ("align/train.py", "train.share=batch", "did you mean 'batches'? Known: batches, encoders"),
    ("align/train.py", "train.lr=-0.001", "train.lr=-0.001 should be above 0"),
    ("align/train.py", "train.smooth_kernel=4", "train.smooth_kernel=4 should be odd"),
    ("align/train.py", "train.ema=1", "train.ema=1 should be 0 or more and below 1"),
    ("align/train.py", "tracker=tensorbord", "did you mean 'tensorboard'? Known: none, tensorboard, "),
    ("align/train.py", "seed=-1", "seed=-1 should be 0 or more"),
    ("recon/train.py", "backbone.name=mni", "did you mean 'mini'?"),
    ("recon/train.py", "pooling=gird:4", "pooling='gird:4'"),
    ("recon/train.py", "layer=1+3", "layer='1+3' is not a layer, such as 3 or features.6; layers cannot be joined"),
    ("recon/train.py", "device=gpu", "device='gpu' is not auto, cpu or cuda"),
    ("recon/train.py", "train.batch_size=0", "train.batch_size=0 should be 1 or more"),
    ("recon/train.py", "pictures.photographs=[nowhere.zip]", "pictures.photographs='nowhere.zip' does not exist"),
    ("recon/train.py", "squeezenet_weights=nowhere.pth", "squeezenet_weights='nowhere.pth' does not exist"),
    ("targets", "target.pooling=grid:0", "target.pooling='grid:0'"),
    ("targets", "backbone.name=tim/vit", "did you mean 'timm/MODEL'?"),
    ("sweep", "sweep.folds=1", "sweep.folds=1 should be 2 or more"),
    ("sweep", "sweep.seeds=0", "sweep.seeds=0 should be 1 or more"),
    ("sweep", "sweep.encoders=[mlp,rigde]", "sweep.encoders='rigde' is not known; did you mean 'ridge'?"),
    ("sweep", "sweep.backbones=[mini,timmm/x@y]", "did you mean 'timm/MODEL'?"),
    ("sweep", "sweep.encoders=[mlp,ridge] train.precision=bf16", "encoder 'ridge' is solved, not trained"),
    ("sweep", "--encoders mlp rigde", "did you mean 'ridge'?"),
    ("sweep", "protocol=pooled", "a sweep compares encoders of one subject each"),
    ("timecourse", "target.pooling=meen", "target.pooling='meen'"),
    ("timecourse", "study.window=0.1", "study.window='0.1'"),
    ("reproduce", "train.schedule=linear", "Known: onecycle, cosine, constant"),
    ("reproduce", "encoder.kernel=0", "encoder.kernel=0 should be 1 or more"),
    ("reproduce", "protocol=loso", "protocol='loso': recon reproduce trains within subjects only"),
    ("pretrain", "stages=[clip,vea]", "stages='vea' is not known; did you mean 'vae'? Known: clip, reader, vae, "),
    ("pretrain", "precision=fp16", "Known: bf16, fp32"),
    ("pretrain", "device=gpu", "device='gpu' is not cpu or cuda"),
    ("pretrain", "pictures.share_photographs=1.5", "should be 0 or more and at most 1"),
    ("pretrain", "unet.lr=0", "unet.lr=0 should be above 0"),
    ("data check", "study.variant=offical", "did you mean 'official'? Known: official, nice, ubp, neurobridge, raw"),
    ("data convert", "study.variant=offical", "did you mean 'official'?"),
    ("evaluate", "evaluate.n_boot=0", "evaluate.n_boot=0 should be 1 or more"),
    ("evaluate", "evaluate.judge=readr", "evaluate.judge='readr' is not known; did you mean 'reader'? Known: reader, "),
    ("evaluate", "evaluate.weights_dir=nowhere", "evaluate.weights_dir='nowhere' does not exist"),
    ("retrieve", "evaluate.n_perm=-1", "evaluate.n_perm=-1 should be 1 or more"),
    ("curves", "evaluate.jugde=reader", "did you mean 'evaluate.judge'"),
]


def every_section() -> list[type[Checked]]:
    """Every dataclass of both packages whose values come from a file or a command line."""
    for package in (align, recon):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found, todo = [], [Checked]
    while todo:
        children = todo.pop().__subclasses__()
        found += [child for child in children if child.__module__.split(".")[0] in ("align", "recon")]
        todo += children
    return found


def test_every_field_of_every_configuration_says_what_it_may_hold() -> None:
    sections = every_section()
    names = {section.__name__ for section in sections}
    assert {"Config", "StudyConfig", "PretrainConfig", "StageConfig", "ConditionerConfig", "EvaluateConfig"} <= names
    assert all(is_dataclass(section) for section in sections)
    silent = [
        f"{section.__name__}.{name}"
        for section in sections
        for name, hint in hints_of(section).items()
        if not is_declared(hint)
    ]
    assert silent == []
    assert sum(len(fields(section)) for section in sections) > 120


def test_nothing_is_read_into_a_configuration_that_is_not_checked() -> None:
    """A section that inherits nothing would be a hole in the walk above."""
    for section in every_section():
        for name, hint in hints_of(section).items():
            inner = hint if isinstance(hint, type) else None
            assert not (is_dataclass(inner) and not issubclass(inner, Checked)), f"{section.__name__}.{name}"


@dataclass
class _Loose(Checked):
    plain: int = 1
    text: str = ""
    items: list[str] | None = None
    marked: Text = ""
    counted: list[Count] | None = None
    switch: bool = False
    both: Annotated[list[str], Within(1)] | None = None


def test_a_field_that_says_nothing_is_found() -> None:
    silent = [name for name, hint in hints_of(_Loose).items() if not is_declared(hint)]
    assert silent == ["plain", "text", "items", "both"]


def test_defaults_can_be() -> None:
    for section in every_section():
        if section.__name__ not in ("StageConfig",):
            section().check()


def choices(section: type[Checked], name: str) -> tuple[str, ...]:
    """The names that a field may hold."""
    hint: Any = hints_of(section)[name]
    (check,) = [one for one in hint.__metadata__ if isinstance(one, OneOf)]
    return check.choices


def test_names_are_those_of_their_tables() -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from align import encoders
    from align.data import studies
    from align.data.studies import nsd
    from align.data.studies.simulated import brain
    from align.data.studies.things import eeg2, meg
    from align.training import precision, protocols, schedule
    from align.vision import backbones, views
    from align.vision.known import KNOWN
    from recon.evaluation import judge
    from recon.pretraining import pretrain

    assert tuple(studies.STUDIES) == STUDIES == choices(StudyConfig, "name")
    assert tuple(encoders.ENCODERS) == ENCODERS
    assert tuple(backbones.BACKBONES) == FAMILIES
    assert tuple(views.DRAWN) == tuple(VIEWS)
    assert {name.partition("/")[0] for name in KNOWN} <= set(FAMILIES)
    assert choices(TrainConfig, "schedule") == tuple(schedule.SCHEDULES)
    assert choices(TrainConfig, "precision") == tuple(precision.DTYPES)
    assert choices(Config, "protocol") == tuple(protocols.PROTOCOLS)
    assert choices(type(Config().simulated), "code") == tuple(brain.GAINS)
    assert set(VARIANTS["things_eeg2"]) == set(eeg2.LAYOUTS)
    assert set(VARIANTS["things_meg"]) == {*meg.LAYOUTS, meg.OPENNEURO}
    assert VARIANTS["nsd"] == (*nsd.VARIANTS, *nsd.LAYOUTS)
    assert set(TRACKERS) >= set(LOGGER_TYPE_TO_CLASS)
    assert tuple(pretrain.STAGES) == STAGES
    assert set(JUDGES) == {judge.READER, *judge._NETWORKS}


def told(name: str, words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr with which a command refuses, exit code 2."""
    main, fixed = COMMANDS[name]
    assert main([*fixed, *words.split(" ")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.endswith("\n"), err
    return err


def test_enough_mistakes_over_all_commands() -> None:
    assert len(MISTAKES) >= 40
    assert {name for name, _, _ in MISTAKES} == set(COMMANDS)


@pytest.mark.parametrize(("name", "words", "line"), MISTAKES, ids=[f"{name} {words}" for name, words, _ in MISTAKES])
def test_a_value_that_cannot_be_is_one_line_before_anything_is_done(
    name: str,
    words: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert line in told(name, words, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("align/train.py", "train.schedule=onecylce"),
        ("recon/train.py", "pooling=gird:4"),
        ("targets", "target.views=[blurr:15]"),
        ("sweep", "sweep.encoders=[rigde]"),
        ("timecourse", "study.window=3"),
        ("reproduce", "encoder.kernel=0"),
        ("pretrain", "stages=[vea]"),
        ("data check", "study.variant=offical"),
        ("evaluate", "evaluate.n_boot=0"),
    ],
)
def test_a_mistake_costs_no_heavy_import(name: str, words: str, tmp_path: Path) -> None:
    main, fixed = COMMANDS[name]
    code = (
        f"import sys, json; from {main.__module__} import main; code = main({[*fixed, words]!r})\n"
        f"print(json.dumps([code, sorted(set({HEAVY!r}) & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [2, []], done.stderr


def test_files_are_looked_for_when_a_configuration_is_loaded_and_not_when_it_is_used_again() -> None:
    config = load_config(Config, None, ["backbone.weights=nowhere.pth"], check=False)
    config.check()
    fails("backbone.weights='nowhere.pth' does not exist", lambda: config.check(files=True))


def test_a_stored_configuration_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("encoder: {name: an_encoder_of_later}\n", encoding="utf-8")
    assert load_config(Config, path, check=False).encoder.name == "an_encoder_of_later"
    with pytest.raises(UserError, match="an_encoder_of_later"):
        load_config(Config, path)


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf"), None])
def test_what_is_no_number_is_refused_where_python_passes_it(value: Any) -> None:
    config = Config(loss=LossConfig(temperature=value))
    fails(r"loss\.temperature=.* is not a number", config.check)


def test_anything_goes_where_it_is_said_so() -> None:
    assert Anything().fault("x") is None
    assert is_declared(Place) and is_declared(Text) and not is_declared(str)
