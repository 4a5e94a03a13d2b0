"""The configuration tree: the only place for defaults. YAML files and ``key=value`` pairs are laid over it.

What a field may hold is declared in its type (`align.fields.checks`), what does not go together in ``faults`` of its
section or of the whole tree; all of it is checked when a configuration is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from align.errors import UserError
from align.fields.checks import (
    BelowOne,
    Checked,
    Count,
    Filled,
    Number,
    OneOf,
    Place,
    Positive,
    Share,
    Source,
    Text,
    Weight,
    Whole,
    Within,
)
from align.fields.kinds import BackboneName, Band, EncoderName, Layer, Names, Option, Pooling, View, Weighted, Window
from align.fields.loading import add_config_option, dump_yaml, flatten, keys, load_config, set_key, shipped, to_dict
from align.fields.syntax import parse_view
from align.known_names import CHANNEL, CLOSED_FORM, REST, STUDIES, TRACKERS, VARIANTS

__all__ = [
    "BackboneConfig",
    "Config",
    "EncoderConfig",
    "LossConfig",
    "PreprocessConfig",
    "SimulatedConfig",
    "StudyConfig",
    "SweepConfig",
    "TargetConfig",
    "TrainConfig",
    "add_config_option",
    "dump_yaml",
    "flatten",
    "keys",
    "load_config",
    "set_key",
    "shipped",
    "to_dict",
]


@dataclass
class StudyConfig(Checked):
    """Which recordings. ``root`` is the folder the study describes; the simulated study makes its own."""

    name: Annotated[str, OneOf(*STUDIES)] = "simulated"
    root: Place | None = None
    variant: Text | None = None  # which of the layouts in circulation; None = recognised from the files
    images: Source | None = None  # folder of the pictures where it is not inside root
    roi: list[Text] = field(default_factory=list)  # regions the study declares, joined; empty = all it holds
    channels: Text | None = None  # names with commas, or an expression to search in names ('^(O|P)'); None = all
    window: Window | None = None  # FROM:TO in s after onset, TO not included; None = all
    # this many training pictures, whole groups, stand in for the test pictures, which are left out; 0 = none
    held_out: Whole = 0
    held_out_seed: Whole = 0  # which ones

    def faults(self, at: str) -> Iterator[str]:
        known = VARIANTS.get(self.name, ())
        fault = OneOf(*known).fault(self.variant) if known and self.variant is not None else None
        if fault:
            yield f"{at}variant={self.variant!r} of {self.name} {fault}"


@dataclass
class SimulatedConfig(Checked):
    """Which code the simulated brain carries, and how well it is recorded."""

    code: Annotated[str, OneOf("mixed", "late_only", "no_signal")] = "mixed"
    noise: Annotated[str, OneOf("eeg", "low")] = "eeg"  # low = a twentieth of it, as arrays of many spiking units have


@dataclass
class PreprocessConfig(Checked):
    """What is done to the stored signals, in this order; every statistic comes from training rows."""

    channels: list[Names] = field(default_factory=list)  # names, or expressions for whole names ('O.*'); empty = all
    baseline: list[Number] = field(default_factory=list)  # [from, to] in s: its mean is subtracted; empty = off
    tmin: Number | None = None  # s, first sample kept
    tmax: Number | None = None  # s, first sample that is no longer kept
    sfreq: Positive | None = None  # Hz to resample to
    mvnn: bool = False  # multivariate noise normalisation, per recording session
    scale: Annotated[str, OneOf("none", "zscore", "robust")] = "none"  # per channel or voxel; robust = by quartiles
    clamp: Positive | None = None  # largest absolute value after scaling

    def faults(self, at: str) -> Iterator[str]:
        if self.baseline and (len(self.baseline) != 2 or not self.baseline[0] < self.baseline[1]):
            yield f"{at}baseline={self.baseline} is not [from, to] in s; write for example [-0.2,0]"
        if self.tmin is not None and self.tmax is not None and not self.tmin < self.tmax:
            yield f"{at}tmin={self.tmin:g} should be below {at}tmax={self.tmax:g}, both in s"


@dataclass
class BackboneConfig(Checked):
    """The frozen vision model, ``family/model`` (or ``mini``), and where its weights are (hub name if None)."""

    name: BackboneName = "mini"
    weights: Source | None = None
    image_size: Count | None = None  # px; None = the model's own
    revision: Text | None = None  # commit on the hub; None = the known one (`recon targets --costs`), else the newest
    # own = scaled and cropped as the model's makers do where that is more than a resize (DINOv2: shorter side 256,
    # centre 224); none = the whole picture
    crop: Annotated[str, OneOf("own", "none")] = "own"


@dataclass
class TargetConfig(Checked):
    """Which tokens are predicted: layer (index or module name), pooling, principal components kept."""

    layer: Layer = "1"  # several are joined by +, such as features.6+features.9
    pooling: Pooling = "grid:4"  # tokens | mean | max | cls | grid:n
    components: Count = 400  # of the flattened standardised tokens, fitted on training pictures; same for every layer
    root: bool = False  # root of every token value, its sign kept, before standardising
    whiten: Share = 0.0  # exponent for the image side: 0 = components keep their variance, 1 = all equal
    views: list[View] = field(default_factory=list)  # of every picture, their tokens averaged: [original,blur:15,...]
    candidate_views: bool = True  # the same views for the candidates of retrieval; false = the pictures as they are
    uncertain_views: list[View] = field(default_factory=list)  # weak, medium, strong: [foveal:45,foveal:51,foveal:57]
    # pairs outside the interval of 1 - alpha get the weak or the strong view; gamma = weight of the present similarity
    # in a pair's memory (UBP: .05 and .3)
    uncertain_alpha: Annotated[float, Within(above=0, below=1)] = 0.05
    uncertain_gamma: Annotated[float, Within(above=0, most=1)] = 0.3
    router: bool = False  # joined layers: components for each layer, a learned weight for each on the image side
    spread: Share = 1.0  # 1 = predicted tokens get the training spread back (costs one more fit), 0 = left alone
    chosen_on: Text = "set by hand"  # how the layer was chosen; `recon sweep` writes it into best.yaml

    def faults(self, at: str) -> Iterator[str]:
        views = self.uncertain_views
        text = f"{at}uncertain_views=[{','.join(views)}]"
        if views and (len(views) != 3 or len({parse_view(view) for view in views}) != 3):
            yield f"{text} should be three different views, weak to strong, as [foveal:45,foveal:51,foveal:57]"
        if views and self.views:
            yield f"{text} and {at}views both say what is seen of a picture; leave one of them empty"


@dataclass
class EncoderConfig(Checked):
    """The brain side, an entry of `align.encoders.ENCODERS`. Sample counts are those published at 250 Hz."""

    name: EncoderName = "mlp"
    width: Count = 512  # E, also the embedding width
    dropout: BelowOne = 0.3
    blocks: Whole = 1  # mlp, residual_mlp, skip_mlp, mindbridge, sttm: residual blocks
    block_dropout: BelowOne = 0.15  # residual_mlp, mindbridge: inside the blocks
    skip_rank: Count = 8  # skip_mlp: rank of every path from the trial to a layer (MindTuner)
    adapter: Count = 128  # mindbridge, sttm: width of the adapter that the signals go through first (MindBridge)
    pooled: Count | None = None  # mindbridge: values that signals are pooled to; None = 8192 (MindBridge), at most all
    # mlp, residual_mlp, skip_mlp, sttm, linear, ridge: principal components of signals they read; None = all there are
    components: Count | None = None
    filters: Count = 40  # tsconv and atm, in the order of the data flow
    kernel: Count = 25  # tsconv and atm, samples
    pool: Count = 51  # tsconv and atm, samples
    stride: Count = 5  # tsconv and atm, samples
    layers: Count = 1  # atm: transformer layers over channel tokens, and their sizes
    heads: Count = 4  # atm
    feedforward: Count = 256  # atm
    attention_dropout: BelowOne = 0.25  # atm
    alphas: Annotated[list[Positive], Filled()] = field(  # ridge, banded_ridge: penalties tried
        default_factory=lambda: [10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6]
    )
    # banded_ridge: sizes in signal order, regions of the study (and rest), or channel; empty = one band
    bands: list[Band] = field(default_factory=list)
    band_draws: Whole = 20  # banded_ridge: random weightings of the bands tried beside the equal one
    # encoding: length of a constant that signals and pictures both get as a further value, in lengths of what pictures
    # predict; 0 = none, the cosine of responses; 2 = nearly their likelihood (costs image_to_brain; 1 hardly does)
    constant: Annotated[float, Within(least=0)] = 0.0
    options: list[Option] = field(default_factory=list)  # braindecode's models: [name=value], as its class calls them
    pretrained: Text | None = None  # labram, cbramod, reve: file, folder or hub name[@revision]; None = untrained
    frozen: bool = False  # labram, cbramod, reve: train the last layer only

    @property
    def regions(self) -> list[str]:
        """Those of ``bands`` that are regions of the study by name."""
        return [band for band in self.bands if not (band.strip().isdigit() or band in (CHANNEL, REST))]

    def faults(self, at: str) -> Iterator[str]:
        text, numbers = f"{at}bands=[{','.join(self.bands)}]", [band for band in self.bands if band.strip().isdigit()]
        if CHANNEL in self.bands and len(self.bands) > 1:
            yield f"{text} holds 'channel' beside others; write [channel], or sizes alone"
        elif 0 < len(numbers) < len(self.bands):
            yield f"{text} holds sizes beside names; write sizes alone, or regions alone"
        elif self.bands == [REST]:
            yield f"{text} names no region; name one beside it, or leave it out"
        elif not numbers and len(set(self.bands)) < len(self.bands):
            yield f"{text} names a region twice; name each once"
        if self.constant and self.name != "encoding":
            yield f"{at}constant={self.constant:g} is of {at}name=encoding, not of {self.name}; leave it out"
        if self.frozen and self.pretrained is None:
            yield f"{at}frozen=true without weights: pass {at}pretrained=FILE"


@dataclass
class LossConfig(Checked):
    """Weights of the named parts of the loss; the kinds of the parts; normalisation of the contrastive sides.

    Only the ratio of the weights matters: the mix of Benchetrit et al. (arXiv 2310.19812) with share l is
    ``contrastive`` l and ``regression`` 1 - l. Sources of the kinds are in `align.model.losses`.
    """

    contrastive: Weight = 1.0
    regression: Weight = 1.0
    mmd: Weight = 0.0  # distance between the sets of brain and image embeds, beside the contrastive part
    mmd_end: Weight | None = None  # its weight at the last step, reached linearly (SAMGA: .9 to .5); None = constant
    # siglip: pairs by themselves, learned bias; softclip: answers by likeness
    kind: Annotated[str, OneOf("infonce", "siglip", "softclip")] = "infonce"
    siglip_bias: Number = -10.0  # siglip: start of the bias (published with temperature 0.1 and both sides normalised)
    soft_temperature: Positive = 0.1  # softclip: of the cosine between pictures; lower = only the own picture counts
    regression_kind: Annotated[str, OneOf("mse", "cosine")] = "mse"  # cosine leaves the length free
    normalize_image: bool = True
    normalize_brain: bool = False
    temperature: Positive = 1.0  # start of logit_scale; with both sides normalised take CLIP's 0.07
    learn_temperature: bool = True
    label_smoothing: Share = 0.0

    def faults(self, at: str) -> Iterator[str]:
        if not self.contrastive + self.regression:
            yield f"{at}contrastive and {at}regression are both 0; set one of them above 0"
        if self.mmd > 0 and self.contrastive == 0:
            yield f"{at}mmd compares embeds with the image side, which {at}contrastive=0 leaves untrained"
        if self.mmd_end is not None and self.mmd == 0:
            yield f"{at}mmd_end is where {at}mmd decays to; set {at}mmd above 0, or leave mmd_end out"
        if self.kind == "siglip" and self.label_smoothing > 0:
            yield f"{at}label_smoothing belongs to {at}kind=infonce and softclip; set it to 0 for siglip"


@dataclass
class TrainConfig(Checked):
    """The optimiser, and augmentations that are at work in training only (`align.training.augment`).

    ``mixup`` mixes pictures along with signals: a mixed pair is one more pair, its answer the mixed picture, with one
    share for a whole batch. ``mixco`` mixes signals of one subject alone, each with its own share; the pictures stay
    whole, and both are answers by their shares.
    """

    epochs: Count = 50
    batch_size: Count = 256
    lr: Positive = 1e-3  # the highest of the schedule
    schedule: Annotated[str, OneOf("onecycle", "cosine", "constant")] = "onecycle"
    weight_decay: Weight = 1e-2  # AdamW, on weight matrices only
    ema: BelowOne = 0.0  # decay of the running average of the weights that is kept in the end; 0 = the last weights
    noise: Weight = 0.3  # standard deviation added to standardised signals
    image_dropout: BelowOne = 0.5  # on the principal components of the image side
    mixup: Weight = 0.0  # a of Beta(a, a): pairs are mixed with other pairs, signals and components alike; 0 = off
    mixco: Weight = 0.0  # a of Beta(a, a): signals alone are mixed, both pictures are answers (MindEye: .15); 0 = off
    mixco_share: Share = 0.5  # of the rows that are mixed
    smooth: Share = 0.0  # probability that a trial is smoothed along time (SAMGA: .3)
    smooth_kernel: Annotated[int, Within(3)] = 5  # samples, odd
    # probability that a channel or voxel of a trial is set to its mean
    channel_dropout: Annotated[float, Within(0, 0.99)] = 0.0
    average_repetitions: bool = True
    average_up_to: Count = 1  # with average_repetitions=false: every draw averages 1 to this many trials of its picture
    checkpoint_every: Count = 200  # steps
    # of encoder and heads in training, fp16 on a GPU only; losses and weights stay fp32
    precision: Annotated[str, OneOf("fp32", "bf16", "fp16")] = "fp32"
    compile: bool = False  # the encoder by torch.compile: half a minute first, for long runs; needs a C++ compiler
    # what several processes share: the batches of one encoder, or the encoders (each its own)
    share: Annotated[str, OneOf("batches", "encoders")] = "batches"

    @property
    def reads_channels(self) -> bool:
        """True where signals must reach the network as channels (and samples), not as principal components."""
        return self.smooth > 0 or self.channel_dropout > 0

    def faults(self, at: str) -> Iterator[str]:
        if self.smooth_kernel % 2 == 0:
            yield f"{at}smooth_kernel={self.smooth_kernel} should be odd and 3 or more"
        if self.mixup > 0 and self.mixco > 0:
            yield f"{at}mixup and {at}mixco both mix signals; set one of them to 0"
        if self.average_up_to > 1 and self.average_repetitions:
            yield f"{at}average_up_to draws from single trials; set {at}average_repetitions=false"


@dataclass
class SweepConfig(Checked):
    """What `recon sweep` walks over and how it chooses."""

    layers: list[Layer] = field(default_factory=list)  # index, name, relative depth (0.5), joined (2+5); empty = all
    encoders: list[EncoderName] = field(default_factory=list)  # empty = encoder.name
    backbones: list[Weighted] = field(default_factory=list)  # NAME or NAME@WEIGHTS_FILE; empty = backbone.name
    seeds: Count = 3
    folds: Annotated[int, Within(2)] = 3  # grouped cross-validation over training rows
    rotate: bool = False  # seed i is scored on fold i alone: with as many seeds as folds every row once, in less time


@dataclass
class Config(Checked):
    """Everything one alignment run depends on."""

    notes: ClassVar[tuple[str, ...]] = ("paper",)  # what a recipe of configs/papers says about its source
    remarks: ClassVar[dict[str, tuple[str, ...]]] = {"target.chosen_on": ("target.layer", "backbone.name")}
    carried: ClassVar[dict[str, dict[str, str]]] = {
        "target.chosen_on": {
            "study.name": "another study",
            "study.root": "another study.root",
            "simulated.code": "another simulation",
            "subjects": "other subjects",
        }
    }

    study: StudyConfig = field(default_factory=StudyConfig)
    simulated: SimulatedConfig = field(default_factory=SimulatedConfig)
    subjects: list[Text] = field(default_factory=list)  # empty = all subjects of the study
    # intra: an encoder each; pooled: one for all; loso: each tested on what it never saw
    protocol: Annotated[str, OneOf("intra", "pooled", "loso")] = "intra"
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    run_dir: Place | None = None  # None = runs/align/<study>_sub-<subject>_[<part>_]<encoder>_<layer>_seed-<seed>
    cache_dir: Place = "cache"
    tracker: Annotated[str, OneOf("none", *TRACKERS)] = "none"  # beside metrics.jsonl
    seed: Whole = 0

    @property
    def changes_signals(self) -> bool:
        """Whether trials are used otherwise than they are stored."""
        study = self.study
        return self.preprocess != PreprocessConfig() or bool(study.roi or study.channels or study.window)

    def faults(self, at: str) -> Iterator[str]:
        yield from self.selection_faults()
        yield from self._contrastive_faults()
        train, name = self.train, self.encoder.name
        if train.reads_channels and self.encoder.components is not None:
            yield "train.smooth and train.channel_dropout need channels; leave encoder.components out"
        if name in CLOSED_FORM and train.reads_channels:
            yield f"encoder {name!r} is solved without batches; set train.smooth and such to 0"
        if name in CLOSED_FORM and (train.precision != "fp32" or train.compile):
            yield f"encoder {name!r} is solved, not trained; leave train.precision and train.compile out"

    def selection_faults(self) -> Iterator[str]:
        """The same thing said under ``study`` and under ``preprocess``."""
        study, steps = self.study, self.preprocess
        if steps.channels and (study.roi or study.channels):
            key = "study.roi" if study.roi else "study.channels"
            yield f"{key} and preprocess.channels both choose channels; give one of them"
        if study.window and (steps.tmin is not None or steps.tmax is not None):
            yield "study.window and preprocess.tmin or tmax both choose a window; give one of them"

    def _contrastive_faults(self) -> Iterator[str]:
        """What needs the contrastive part, or pairs that are not mixed."""
        untrained = self.encoder.name in CLOSED_FORM or self.loss.contrastive == 0
        if self.train.mixco > 0 and self.loss.contrastive == 0:
            yield "train.mixco changes the contrastive answers; set loss.contrastive above 0, or use train.mixup"
        if self.target.router and untrained:
            yield "target.router is trained by the contrastive part; take encoder.name=mlp, loss.contrastive=1"
        views = f"target.uncertain_views=[{','.join(self.target.uncertain_views)}]"
        if self.target.uncertain_views and untrained:
            yield f"{views} acts in the contrastive part; take encoder.name=mlp, loss.contrastive=1"
        if self.target.uncertain_views and (self.train.mixup > 0 or self.train.mixco > 0):
            yield f"{views} follows single pairs, which train.mixup and train.mixco mix; set both to 0"

    def of_each_encoder(self) -> list[Config]:
        """This configuration for every encoder of a sweep: ``sweep.encoders``, or ``encoder.name`` where it is empty.

        Raises `UserError` for another protocol than intra, and for an encoder that does not go with the rest.
        """
        if self.protocol != "intra":
            raise UserError(f"protocol={self.protocol!r}: a sweep compares encoders of one subject each; use intra")
        names = dict.fromkeys(self.sweep.encoders or [self.encoder.name])
        each = [replace(self, encoder=replace(self.encoder, name=name)) for name in names]
        for one in each:
            one.check()
        return each
