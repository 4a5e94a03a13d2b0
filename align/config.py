"""The configuration tree: the only place for defaults. YAML files and ``key=value`` pairs are laid over it.

Values are coerced from their raw text by the declared type of the field, so ``subjects=[01,02,010]`` stays text
(YAML alone would read numbers) and ``train.lr=1e-4`` is a float (YAML alone would read text).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from align.errors import UserError

C = TypeVar("C")


@dataclass
class StudyConfig:
    """Which recordings. ``root`` is the folder the study describes; the simulated study makes its own."""

    name: str = "simulated"
    root: str | None = None
    variant: str | None = None  # which of the layouts in circulation; None = recognised from the files
    images: str | None = None  # folder of the pictures where it is not inside root
    roi: list[str] = field(default_factory=list)  # regions the study declares, joined; empty = all it holds
    channels: str | None = None  # names with commas, or an expression to search in names ('^(O|P)'); None = all
    window: str | None = None  # FROM:TO in s after onset, such as 0.05:0.35; None = all that is recorded


@dataclass
class SimulatedConfig:
    """Which code the simulated brain carries: ``mixed``, ``late_only`` or ``no_signal``."""

    code: str = "mixed"


@dataclass
class PreprocessConfig:
    """What is done to the stored signals, in this order; every statistic comes from training rows."""

    channels: list[str] = field(default_factory=list)  # names, or expressions for whole names ('O.*'); empty = all
    baseline: list[float] = field(default_factory=list)  # [from, to] in s: its mean is subtracted; empty = off
    tmin: float | None = None  # s, first sample kept
    tmax: float | None = None  # s, first sample no longer kept
    sfreq: float | None = None  # Hz to resample to
    mvnn: bool = False  # multivariate noise normalisation, per recording session
    scale: str = "none"  # none | zscore | robust (median and quartiles) per channel or voxel
    clamp: float | None = None  # largest absolute value after scaling


@dataclass
class BackboneConfig:
    """The frozen vision model, ``family/model`` (or ``mini``), and where its weights are (hub name if None)."""

    name: str = "mini"
    weights: str | None = None
    image_size: int | None = None  # px; None = the model's own
    revision: str | None = None  # commit on the hub; None = the known one (`recon targets --costs`), else the newest


@dataclass
class TargetConfig:
    """Which tokens are predicted: layer (index or module name), pooling, principal components kept."""

    layer: str = "1"  # several are joined by +, such as features.6+features.9
    pooling: str = "grid:4"  # tokens | mean | cls | grid:n
    components: int = 400  # of the flattened standardised tokens, fitted on training pictures; same for every layer
    root: bool = False  # root of every token value, its sign kept, before standardising
    whiten: float = 0.0  # exponent for the image side: 0 = components keep their variance, 1 = all equal
    views: list[str] = field(default_factory=list)  # of every picture, their tokens averaged: [original,blur:15,...]
    candidate_views: bool = True  # the same views for the candidates of retrieval; false = the pictures as they are
    uncertain_views: list[str] = field(default_factory=list)  # weak, medium, strong: [foveal:45,foveal:51,foveal:57]
    uncertain_alpha: float = 0.05  # pairs outside the interval of 1 - this get the weak or the strong view (UBP: .05)
    uncertain_gamma: float = 0.3  # weight of the present similarity in a pair's memory (UBP: .3)
    router: bool = False  # joined layers: components for each layer, a learned weight for each on the image side
    spread: float = 1.0  # 1 = predicted tokens get the training spread back (costs one more fit), 0 = left alone
    chosen_on: str = "set by hand"  # how the layer was chosen; `recon sweep` writes it into best.yaml


@dataclass
class EncoderConfig:
    """The brain side, an entry of `align.encoders.ENCODERS`. Sample counts are those published at 250 Hz."""

    name: str = "mlp"
    width: int = 512  # E, also the embedding width
    dropout: float = 0.3
    blocks: int = 1  # mlp, residual_mlp: residual blocks
    block_dropout: float = 0.15  # residual_mlp: inside the blocks
    components: int | None = None  # mlp, ridge: signals' principal components they read; None = all that rows span
    filters: int = 40  # tsconv and atm, in the order of the data flow
    kernel: int = 25  # tsconv and atm, samples
    pool: int = 51  # tsconv and atm, samples
    stride: int = 5  # tsconv and atm, samples
    layers: int = 1  # atm: transformer layers over channel tokens, and their sizes
    heads: int = 4  # atm
    feedforward: int = 256  # atm
    attention_dropout: float = 0.25  # atm
    alphas: list[float] = field(  # ridge, banded_ridge: penalties tried
        default_factory=lambda: [10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6]
    )
    bands: list[str] = field(default_factory=list)  # banded_ridge: sizes in signal order, or channel; empty = one band
    band_draws: int = 20  # banded_ridge: random weightings of the bands tried beside the equal one
    options: list[str] = field(default_factory=list)  # braindecode's models: [name=value], as its class calls them
    pretrained: str | None = None  # labram, cbramod, reve: file, folder or hub name[@revision]; None = untrained
    frozen: bool = False  # labram, cbramod, reve: train the last layer only


@dataclass
class LossConfig:
    """Weights of the named parts of the loss; the kinds of the parts; normalisation of the contrastive sides.

    Only the ratio of the weights matters: the mix of Benchetrit et al. (arXiv 2310.19812) with share l is
    ``contrastive`` l and ``regression`` 1 - l. Sources of the kinds are in `align.losses`.
    """

    contrastive: float = 1.0
    regression: float = 1.0
    mmd: float = 0.0  # distance between the sets of brain and image embeds, beside the contrastive part
    mmd_end: float | None = None  # its weight at the last step, reached linearly (SAMGA: .9 to .5); None = constant
    kind: str = "infonce"  # infonce | siglip (pairs by themselves, learned bias) | softclip (answers by likeness)
    siglip_bias: float = -10.0  # siglip: start of the bias (published with temperature 0.1 and both sides normalised)
    soft_temperature: float = 0.1  # softclip: of the cosine between pictures; lower = only the own picture counts
    regression_kind: str = "mse"  # mse | cosine (length left free)
    normalize_image: bool = True
    normalize_brain: bool = False
    temperature: float = 1.0  # start of logit_scale; with both sides normalised take CLIP's 0.07
    learn_temperature: bool = True
    label_smoothing: float = 0.0


@dataclass
class TrainConfig:
    """The optimiser, and augmentations that are at work in training only (`align.augment`).

    ``mixup`` mixes pictures along with signals: a mixed pair is one more pair, its answer the mixed picture, with one
    share for a whole batch. ``mixco`` mixes signals of one subject alone, each with its own share; the pictures stay
    whole, and both are answers by their shares.
    """

    epochs: int = 50
    batch_size: int = 256
    lr: float = 1e-3  # the highest of the schedule
    schedule: str = "onecycle"  # onecycle | cosine | constant
    weight_decay: float = 1e-2  # AdamW, on weight matrices only
    ema: float = 0.0  # decay of the running average of the weights that is kept in the end; 0 = the last weights
    noise: float = 0.3  # standard deviation added to standardised signals
    image_dropout: float = 0.5  # on the principal components of the image side
    mixup: float = 0.0  # a of Beta(a, a): pairs are mixed with other pairs, signals and components alike; 0 = off
    mixco: float = 0.0  # a of Beta(a, a): signals alone are mixed, both pictures are answers (MindEye: .15); 0 = off
    mixco_share: float = 0.5  # of the rows that are mixed
    smooth: float = 0.0  # probability that a trial is smoothed along time (SAMGA: .3)
    smooth_kernel: int = 5  # samples, odd
    channel_dropout: float = 0.0  # probability that a channel or voxel of a trial is set to its mean
    average_repetitions: bool = True
    average_up_to: int = 1  # with average_repetitions=false: every draw averages 1 to this many trials of its picture
    checkpoint_every: int = 200  # steps
    precision: str = "fp32"  # of encoder and heads in training: fp32 | bf16 | fp16 (GPU); losses and weights stay fp32
    compile: bool = False  # the encoder by torch.compile: half a minute first, for long runs; needs a C++ compiler
    share: str = "batches"  # what several processes share: batches of one encoder | encoders (each its own)


@dataclass
class SweepConfig:
    """What `recon sweep` walks over and how it chooses."""

    layers: list[str] = field(default_factory=list)  # index, name, relative depth (0.5), joined (2+5); empty = all
    encoders: list[str] = field(default_factory=list)  # empty = encoder.name
    backbones: list[str] = field(default_factory=list)  # NAME or NAME@WEIGHTS_FILE; empty = backbone.name
    seeds: int = 3
    folds: int = 3  # grouped cross-validation over training rows
    rotate: bool = False  # seed i is scored on fold i alone: with as many seeds as folds every row once, in less time


@dataclass
class Config:
    """Everything one alignment run depends on."""

    study: StudyConfig = field(default_factory=StudyConfig)
    simulated: SimulatedConfig = field(default_factory=SimulatedConfig)
    subjects: list[str] = field(default_factory=list)  # empty = all subjects of the study
    protocol: str = "intra"  # intra: an encoder each | pooled: one for all | loso: each tested on what it never saw
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    run_dir: str | None = None  # None = runs/align/<study>_sub-<subject>_<encoder>_<layer>_seed-<seed>
    cache_dir: str = "cache"
    tracker: str = "none"  # none | tensorboard | wandb | any other of accelerate, beside metrics.jsonl
    seed: int = 0


def load_config(
    cls: type[C],
    path: str | Path | Sequence[str | Path] | None = None,
    overrides: list[str] | tuple[str, ...] = (),
) -> C:
    """Lay YAML files, one over the other in their order, and then ``key=value`` pairs over the defaults of ``cls``.

    The ``paper`` block of a recipe (configs/papers) is no configuration: a `Config` is read without it.

    Raises
    ------
    UserError
        Missing or broken YAML, unknown key (with the nearest valid one), value of the wrong type.
    """
    config = cls()
    paths = [path] if isinstance(path, str | Path) else path or []
    for one in paths:
        tree = _read_yaml(Path(one))
        if cls is Config and isinstance(tree.get("paper"), dict):
            del tree["paper"]
        for key, value in flatten(tree):
            set_key(config, key, value)
    for pair in overrides:
        key, sep, text = pair.partition("=")
        if not sep:
            raise UserError(f"override {pair!r} is not key=value; write for example seed=1")
        set_key(config, key.strip(), text.strip())
    return config


def add_config_option(parser: argparse.ArgumentParser, text: str = "YAML file laid over the defaults") -> None:
    """``--config FILE``, any number of times; a list of paths for `load_config`, or None."""
    text += "; given again, the later file lies over the earlier ones"
    parser.add_argument("--config", type=Path, action="append", metavar="FILE", help=text)


def to_dict(config: Any) -> dict[str, Any]:
    """The tree as plain containers, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def dump_yaml(config: Any) -> str:
    """The tree as YAML text that `load_config` reads back to an equal tree."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def set_key(config: Any, key: str, value: Any) -> None:
    """Set dotted ``key``; text values are coerced to the declared type of the field."""
    owner, names = config, key.split(".")
    for name in names[:-1]:
        owner = getattr(owner, name, None)
        if not dataclasses.is_dataclass(owner):
            raise _unknown(config, key)
    hints = typing.get_type_hints(type(owner))
    if names[-1] not in hints:
        raise _unknown(config, key)
    section = getattr(owner, names[-1])
    if dataclasses.is_dataclass(section):
        if value is None:  # a YAML section with every line commented out
            return
        raise UserError(f"{key} is a section, not a value; its keys: {', '.join(keys(section, key + '.'))}")
    setattr(owner, names[-1], _coerce(value, hints[names[-1]], key))


def keys(config: Any, prefix: str = "") -> list[str]:
    """Every dotted leaf key of the tree."""
    found = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        name = prefix + item.name
        found += keys(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return found


def _unknown(config: Any, key: str) -> UserError:
    valid = keys(config)
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    near = near or [name for name in valid if name.split(".")[-1] == key.split(".")[-1]]
    hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(valid)}"
    return UserError(f"unknown key {key!r}{hint}")


class _TextLoader(yaml.SafeLoader):
    """A safe loader that leaves every scalar as its raw text, null aside."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in rules if tag == "tag:yaml.org,2002:null"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _as_text(loader: yaml.SafeLoader, node: Any) -> Any:
    return loader.construct_scalar(node)


for _tag in ("bool", "int", "float", "binary", "timestamp"):  # explicit tags such as !!int
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _as_text)


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_TextLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{source} is not valid YAML{line}: {reason}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"config file {str(path)!r} does not exist; pass --config FILE")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"config file {str(path)!r} is not text; pass a YAML file") from error
    tree = _parse(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no keys; expected lines such as 'seed: 0'")
    return tree


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested sections as pairs of a dotted key and a value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs


def _coerce(value: Any, kind: Any, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or value in ("", "null", "none", "None", "~"):
            return None
        return _coerce(value, next(arg for arg in args if arg is not type(None)), key)
    if origin is list:
        if isinstance(value, str):
            value = _parse(value if value.startswith("[") else f"[{value}]", f"value of {key}")
        if not isinstance(value, list):
            raise UserError(f"{key}={value!r} is not a list; write '{key}=[a,b]'")
        return [_coerce(item, args[0], key) for item in value]
    if kind is bool:
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise UserError(f"{key}={value!r} is not true or false")
    if kind in (int, float):
        try:
            number = kind(str(value).replace("_", ""))
            if not math.isfinite(number):
                raise ValueError
            return number
        except ValueError:
            raise UserError(f"{key}={value!r} is not {'a whole number' if kind is int else 'a number'}") from None
    if value is None or isinstance(value, (list, dict)):
        raise UserError(f"{key}={value!r} is not text")
    return str(value)
