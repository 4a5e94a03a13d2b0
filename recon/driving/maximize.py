"""`recon maximize`: a picture that drives a unit more than any natural one, as another encoder judges.

Training pictures are cut in half by scenes. The encoder that steers is fitted to one half; the one that judges reads
another network and is fitted to the other half. The judge chooses nothing: it scores what the steering encoder made,
and natural pictures. Test pictures are not read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from align.comparison.predictability import column_correlation
from align.data.names import refuse_links, subject_name
from align.data.places import Claim
from align.errors import UserError
from align.fields.syntax import network_names
from align.files import locked, write_atomic, write_sealed
from align.response_models.contract import take_rows
from recon.comparison.files import csv_text
from recon.comparison.pictures import digest, divided, pictures_of
from recon.driving.encoder import PictureEncoder, fit_encoder, of_pictures, picture_tokens, predictions
from recon.driving.frame import Frame
from recon.driving.made import Made
from recon.driving.search import Search, climb, draw, put_together
from recon.driving.units import Driven, driven
from recon.encoding.ceiling import RELIABLE
from recon.encoding.responses import ceiling_of
from recon.encoding.subjects import read_subject

if TYPE_CHECKING:
    from align.config import Config
    from align.data.signals import Stimuli
    from align.data.studies.base import Study
    from align.vision.taps import Backbone
    from recon.generation.pipeline import Generator

RESULT, STEM = "maximize.json", "maximize"
FORMER = (f"{STEM}_sub-*.csv", f"{STEM}_sub-*.png", "pictures_sub-*/*.png")
PICTURES = "pictures_{}"
STEADY = 10.0  # times the penalty of ridge that predicts best, for the encoder that steers: a gradient exploits less
_MIXED = 8  # of the natural pictures of a unit, those whose tokens are mixed in
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaximizeSettings:
    """``judge``: network and layer. ``pictures``: natural ones of a folder or zip, ``most`` at most. ``starts``: of
    these, the best of each unit, that pictures are made from. ``frame``: show all as the study shows its own."""

    units: tuple[str, ...]
    regions: tuple[str, ...]
    judge: tuple[str, str]
    pictures: Path
    most: int = 2000
    starts: int = 64
    width: float | None = None
    frame: bool = True
    search: Search = field(default_factory=Search)


def run(
    config: Config, network: str, layer: str, settings: MaximizeSettings, folder: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a table, a figure and the pictures of each subject and `RESULT` into ``folder``; returns its content.

    Raises
    ------
    UserError
        Unknown names; steering and judging by the same network; too few training pictures to cut in half.
    """
    from align.data.studies import open_study
    from recon.comparison.networks import described, load_networks
    from recon.driving.maximize_picture import draw_made

    config.check()
    study = open_study(config)
    names = list(dict.fromkeys(config.subjects or study.default_subjects))
    for name in names:
        study.require_subject(name)
    judging, judging_layer = settings.judge
    networks = load_networks([network, judging], config)
    asked = {**asdict(settings), "pictures": str(settings.pictures), "backbone": network, "layer": layer}
    asked |= {"subjects": names}
    claim = Claim(folder, RESULT, config, "Choose another folder (--out FOLDER)", asked, overwrite, FORMER)
    with locked(folder / ".maximize.lock", f"pictures into {str(folder)!r}", wait=None, keep=False):
        claim.check()
        for name in names:
            refuse_links(folder, folder / PICTURES.format(subject_name(name)))
        natural = pictures_of(settings.pictures, settings.most, config.seed)
        work = _Work(config, study, [(networks[network], layer), (networks[judging], judging_layer)], natural, settings)
        found = [work.make(name) for name in names]
        claim.take()
        for one in found:
            name = subject_name(one.subject)
            write_atomic(folder / f"{STEM}_{name}.csv", csv_text(one.rows))
            draw_made(one, folder / f"{STEM}_{name}.png", folder / PICTURES.format(name))
        result = {
            "schema": 1,
            "study": config.study.name,
            "rule": (
                "steering encoder fitted to one half of the training pictures, judge (another network) to the other "
                "half; the judge chooses nothing; test pictures not read"
            ),
            "unit": "deviations of the training responses",
            "backbones": described(networks),
            "steering": {"network": network, "layer": layer},
            "judge": {"network": judging, "layer": judging_layer},
            "pooling": config.target.pooling,
            "search": asdict(settings.search),
            "pictures": {"count": len(natural), "sha256": digest(natural)},
            "seed": config.seed,
            "subjects": {one.subject: {**one.facts, "units": one.rows} for one in found},
        }
        write_sealed(folder / RESULT, result)
    return {**result, "folder": str(folder)}


class _Work:
    """What all subjects share."""

    def __init__(
        self,
        config: Config,
        study: Study,
        readers: list[tuple[Backbone, str]],
        natural: Stimuli,
        settings: MaximizeSettings,
    ) -> None:
        self.config, self.study, self.readers = config, study, readers
        self.natural, self.settings = natural, settings
        self.generator, self.tokens = _generator()

    def make(self, name: str) -> Made:
        """The pictures of one subject's units, with what both encoders say of them."""
        settings, config = self.settings, self.config
        subject = read_subject(self.study, config, name, 2, False, settings.width)
        recording = subject.recording
        chosen = driven(subject.layout, settings.units, settings.regions, subject.responses)
        responses = chosen.of(subject.responses)
        halves = divided(subject.groups, config.seed)
        frame = Frame.of(recording.stimuli, subject.stimulus) if settings.frame else Frame()
        shown = frame.shown(self.natural)
        encoders, values, scores = [], [], []
        sides = zip(self.readers, halves, halves[::-1], (STEADY, 1.0), strict=True)
        for (backbone, layer), rows, others, penalty in sides:
            tokens = picture_tokens(backbone, layer, recording.stimuli, subject.stimulus, config)
            encoder = fit_encoder(backbone, tokens, responses, rows, config, penalty)
            scores.append(column_correlation(responses[others], predictions(encoder, take_rows(tokens, others))))
            encoders.append(encoder)
            own = picture_tokens(backbone, layer, shown, np.arange(len(shown)), config)
            values.append(predictions(encoder, own))
        log.info("maximize: subject %s, %d units or regions", name, len(chosen))
        steering, judge = encoders
        order = np.argsort(-values[0], axis=0, kind="stable")[: settings.starts].T
        stages = self._search(steering, frame, order)
        ceiling = ceiling_of(
            recording, self.study, chosen, recording.train, np.unique(recording.train.stimulus), config.seed
        )
        reliability = None if ceiling is None else ceiling.reliability
        rows_ = _rows(chosen, stages, values, scores, (steering, judge), frame, self.natural, order, reliability)
        facts = {"frame": frame.described(), "halves": [len(rows) for rows in halves], **_shares(rows_)}
        starts = frame(_pictures(self.natural, order[:, 0], self.generator.size))
        return Made(name, chosen, starts, frame(stages["made"]), rows_, facts)

    def _search(self, steering: PictureEncoder, frame: Frame, order: np.ndarray) -> dict[str, torch.Tensor]:
        """Pictures (K, 3, H, W) after patches, after drawing, and after the gradient."""
        search, size = self.settings.search, self.generator.size
        starts = _pictures(self.natural, order.ravel(), size).unflatten(0, order.shape)

        def predict(images: torch.Tensor) -> torch.Tensor:
            return steering(frame(images))

        found = {"patched": put_together(predict, starts, search)}
        found["drawn"] = found["patched"]
        if search.rounds:
            some = starts[:, :_MIXED]
            with torch.no_grad():
                found["drawn"] = draw(self.generator, self.tokens, predict, found["patched"], some, search)
        found["made"] = climb(self.generator, predict, found["drawn"], search) if search.steps else found["drawn"]
        return found


def _generator() -> tuple[Generator, Callable[[torch.Tensor], torch.Tensor]]:
    """The embedded generator with the tokens of its own vision model, which needs no weights from elsewhere."""
    from align.config import BackboneConfig
    from align.vision.backbones import load_backbone
    from recon.generation.pipeline import Generator, own_conditioners
    from recon.generation.places import mini_folder

    path, info = next(iter(own_conditioners("mini", mini_folder()).items()))
    backbone = load_backbone(BackboneConfig(name="mini"))

    def tokens(images: torch.Tensor) -> torch.Tensor:
        return backbone.tokens(images, [info.layer], info.pooling)[info.layer]

    return Generator.load("mini", path), tokens


def _pictures(stimuli: Stimuli, rows: np.ndarray, size: int) -> torch.Tensor:
    """(n, 3, size, size) in [0, 1]."""
    from PIL import Image

    found = [
        np.asarray(Image.fromarray(stimuli.load(int(i))).resize((size, size), Image.Resampling.BICUBIC)) for i in rows
    ]
    return torch.from_numpy(np.stack(found).transpose(0, 3, 1, 2)).float() / 255


def _rows(
    chosen: Driven,
    stages: dict[str, torch.Tensor],
    natural: list[np.ndarray],
    scores: list[np.ndarray],
    encoders: tuple[PictureEncoder, PictureEncoder],
    frame: Frame,
    pictures: Stimuli,
    order: np.ndarray,
    reliability: np.ndarray | None,
) -> list[dict[str, Any]]:
    """For each unit what both encoders predict: of the best natural pictures, of the drawn one, of the last one."""
    units = np.arange(len(chosen))
    table: dict[str, np.ndarray] = {}
    for name, encoder, values in zip(("steering", "judge"), encoders, natural, strict=True):
        table[f"{name}_natural_best"] = values.max(axis=0)
        table[f"{name}_of_start"] = values[order[:, 0], units]
        for stage, images in stages.items():
            table[f"{name}_{stage}"] = of_pictures(encoder, frame(images))[units, units]
    found = []
    for k, name in enumerate(chosen.names):
        row: dict[str, Any] = {"unit": name, "units": len(chosen.columns[k])}
        row |= {"steering_r": float(scores[0][k]), "judge_r": float(scores[1][k])}
        row["reliability"] = "" if reliability is None else float(reliability[k])
        row |= {key: float(value[k]) for key, value in table.items()}
        row["start"] = pictures.ids[int(order[k, 0])]
        row["above_natural"] = bool(row["judge_made"] >= row["judge_natural_best"])
        found.append(row)
    return found


def _shares(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """In how many units the judge's prediction of the made picture reaches that of its best natural picture."""
    reliable = [row for row in rows if row["reliability"] == "" or row["reliability"] >= RELIABLE]

    def share(part: list[dict[str, Any]], best: str) -> float | None:
        return float(np.mean([row["judge_made"] >= row[best] for row in part])) if part else None

    return {
        "reliable_units": len(reliable),
        "above_judges_best": share(reliable, "judge_natural_best"),
        "above_start": share(reliable, "judge_of_start"),
    }


def told(result: dict[str, Any]) -> str:
    """What the command prints."""
    pictures = result["pictures"]["count"]
    lines = [f"{result['study']}: {result['rule']}"]
    for subject, entry in result["subjects"].items():
        means = {
            name: float(np.mean([row[f"judge_{name}"] for row in entry["units"]]))
            for name in ("of_start", "natural_best", "patched", "drawn", "made")
        }
        lines.append(
            f"  subject {subject}: judge's prediction, mean over units: best natural picture of the steering encoder "
            f"{means['of_start']:.2f}, its own best of {pictures} {means['natural_best']:.2f}, put "
            f"together {means['patched']:.2f}, drawn {means['drawn']:.2f}, made {means['made']:.2f}"
        )
        if not entry["reliable_units"]:
            lines.append(f"  no unit has a reliability of {RELIABLE:g}, so there is no share of units to tell")
            continue
        lines.append(
            f"  made at or above the judge's best natural picture in {100 * entry['above_judges_best']:.0f} %, above "
            f"the steering encoder's in {100 * entry['above_start']:.0f} % of {entry['reliable_units']} reliable units"
        )
    return "\n".join(lines)


def require_other(network: str, judge: str) -> None:
    """Raise `UserError` where the judge reads a network that steers."""
    if set(network_names(network.partition("@")[0])) & set(network_names(judge.partition("@")[0])):
        raise UserError(f"--judge {judge!r} reads a network that steers ({network}); name another one")
