"""`recon sheet`: what drives a unit: its best and worst pictures, its score, the nearest texts, and where it looks.

Without ``test`` nothing but training pictures is read: a picture's prediction is made by a fit that left its scene out.
With ``test`` the model is fitted to all training pictures, and test pictures are shown and scored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import subject_name
from align.data.places import Claim
from align.data.splits import grouped_folds
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from align.response_models.contract import take_rows
from align.response_models.cross_validation import Material, held_out_predictions
from align.response_models.methods import methods_of
from align.response_models.ridge import RidgeFit
from align.response_models.scaling import Scaling
from align.response_models.scores import unit_scores
from recon.comparison.files import csv_text
from recon.comparison.pictures import digest
from recon.driving.clusters import Clusters, found_clusters, require_units
from recon.driving.clusters_files import cluster_facts, told_clusters, write_clusters
from recon.driving.extremes import Ends
from recon.driving.frame import Frame
from recon.driving.looked import Looked
from recon.driving.places import drive_by_place, side_of
from recon.driving.texts import Texts, nearest_texts
from recon.driving.units import Driven, driven
from recon.encoding.features import FeatureSet, feature_sets, read_spaces, space_name
from recon.encoding.responses import ceiling_of
from recon.encoding.subjects import Subject, read_subject

if TYPE_CHECKING:
    from align.config import Config
    from align.data.signals import Stimuli
    from align.data.studies.base import Study
    from align.vision.taps import Backbone
    from recon.words.captioner import Captioner
    from recon.words.text_tower import TextTower

RESULT, STEM = "sheet.json", "sheet"
FORMER = (f"{STEM}_sub-*.csv", f"{STEM}_pictures_sub-*.csv", f"{STEM}_sub-*.png", "clusters_*.csv", "clusters_*.png")
SIZE = 224  # px, of pictures that a text tower or a captioner reads
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SheetSettings:
    """``units``, ``regions``: names. ``pictures``: natural pictures of a folder or zip, ``most`` of them at most.

    ``frame``: show these as the study shows its own. ``bank``: of texts, else the study's captions. ``tower``: text
    tower, ``captioner``: or None. ``clusters``: of units, how many or ``auto``; None for none.
    """

    units: tuple[str, ...]
    regions: tuple[str, ...] = ()
    method: str = "ridge"
    folds: int = 5
    test: bool = False
    width: float | None = None
    pictures: Path | None = None
    most: int = 2000
    bank: Path | None = None
    tower: str = "mini"
    captioner: str | None = None
    frame: bool = True
    clusters: int | str | None = None
    n_perm: int = 1000


def run(
    config: Config, network: str, layer: str, settings: SheetSettings, folder: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a picture, two tables for each subject and `RESULT` into ``folder``; returns the content of `RESULT`.

    Raises
    ------
    UserError
        Unknown subject, unit, region, layer, method; a bank or pictures that cannot be read; results of another
        configuration in the folder.
    """
    from align.data.studies import open_study
    from recon.comparison.networks import described, load_networks
    from recon.driving.sheet_picture import draw_sheet

    config.check()
    study = open_study(config)
    names = list(dict.fromkeys(config.subjects or study.default_subjects))
    for name in names:
        study.require_subject(name)
    (method,) = methods_of([settings.method])
    if method.from_others:
        raise UserError(f"method {method.name} learns from other subjects; recon sheet takes those that do not")
    networks = load_networks([network], config)
    (part,) = feature_sets(networks, [layer], None, together=False)
    asked = {**asdict(settings), "pictures": _said(settings.pictures), "bank": _said(settings.bank)}
    asked |= {"backbone": network, "layer": part.label, "subjects": names}
    claim = Claim(folder, RESULT, config, "Choose another folder (--out FOLDER)", asked, overwrite, FORMER)
    with locked(folder / ".sheet.lock", f"sheets into {str(folder)!r}", wait=None, keep=False):
        claim.check()
        work = _Work(config, study, networks, part, settings)
        found = [work.look(name) for name in names]
        claim.take()
        for one in found:
            name = subject_name(one.subject)
            write_atomic(folder / f"{STEM}_{name}.csv", csv_text(unit_rows(one)))
            write_atomic(folder / f"{STEM}_pictures_{name}.csv", csv_text(picture_rows(one)))
            title = f"{config.study.name}, {network}, {part.label}"
            draw_sheet(one, title, folder / f"{STEM}_{name}.png")
            write_clusters(one.subject, one.clusters, title, folder)
        result = {
            "schema": 1,
            "direction": "pictures -> responses",
            "study": config.study.name,
            "split": "test" if settings.test else "train",
            "rule": (
                "fitted to training pictures, test pictures scored once"
                if settings.test
                else f"grouped {settings.folds}-fold cross-validation on training pictures; test pictures not scored"
            ),
            "backbones": described(networks),
            "layer": part.label,
            "pooling": config.target.pooling,
            "root": config.target.root,
            "method": method.name,
            "seed": config.seed,
            "texts": None if found[0].texts is None else {"tower": settings.tower, "bank": _said(settings.bank)},
            "pictures": work.natural and {"count": len(work.natural), "sha256": digest(work.natural)},
            "subjects": {
                one.subject: {
                    "frame": None if one.frame is None else one.frame.described(),
                    "units": unit_rows(one),
                    "pictures": picture_rows(one),
                    "clusters": None if one.clusters is None else cluster_facts(one.subject, one.clusters),
                }
                for one in found
            },
        }
        write_sealed(folder / RESULT, result)
    return {**result, "folder": str(folder)}


def _said(place: Path | None) -> str | None:
    return None if place is None else str(place)


class _Work:
    """What all subjects share, read once."""

    def __init__(
        self, config: Config, study: Study, networks: dict[str, Backbone], part: FeatureSet, settings: SheetSettings
    ) -> None:
        from recon.comparison.pictures import pictures_of
        from recon.words.bank import read_bank
        from recon.words.captioner import load_captioner
        from recon.words.towers import load_tower

        self.config, self.study, self.networks, self.part, self.settings = config, study, networks, part, settings
        self.bank = None if settings.bank is None else [text for _, text in read_bank(settings.bank)]
        self.natural: Stimuli | None = None
        if settings.pictures is not None:
            self.natural = pictures_of(settings.pictures, settings.most, config.seed)
        self.tower: TextTower = load_tower(settings.tower)
        self.captioner: Captioner | None = load_captioner(settings.captioner) if settings.captioner else None

    def look(self, name: str) -> Looked:
        """Everything about the chosen units of one subject."""
        settings, config = self.settings, self.config
        subject = read_subject(self.study, config, name, settings.folds, settings.test, settings.width)
        chosen = driven(subject.layout, settings.units, settings.regions, subject.responses[subject.train])
        log.info("sheet: subject %s, %d units or regions", name, len(chosen))
        responses = chosen.of(subject.responses)
        stimuli = subject.recording.stimuli
        tokens = self._tokens(stimuli, subject.stimulus)
        (method,) = methods_of([settings.method])
        material = Material(tokens, responses, subject.groups, config.target.root)
        estimates, _ = held_out_predictions(method, material, subject.folds)
        scored = [rows for _, rows in subject.folds]
        shown = subject.scored
        ends = [
            Ends(what, stimuli, subject.stimulus[shown], values[shown])
            for what, values in (("measured", responses), ("predicted", estimates))
        ]
        scaling = Scaling.of(take_rows(tokens, subject.train), config.target.root)
        fit = method.fit(material.take(subject.train).seen(scaling))
        frame, shown_natural = None, self.natural
        if shown_natural is not None:
            frame = Frame.of(stimuli, subject.stimulus[subject.train]) if settings.frame else Frame()
            shown_natural = frame.shown(shown_natural)
            rows = np.arange(len(shown_natural))
            ends.append(Ends("natural", shown_natural, rows, fit.predict(scaling(self._tokens(shown_natural, rows)))))
        maps = None
        if isinstance(fit, RidgeFit) and side_of(tokens):
            maps = drive_by_place(scaling(take_rows(tokens, shown)), fit.found.slopes()[0])
        trials = subject.recording.test if settings.test else subject.recording.train
        return Looked(
            name,
            chosen,
            unit_scores(responses, estimates, scored, config.seed, settings.n_perm),
            ceiling_of(subject.recording, self.study, chosen, trials, np.unique(trials.stimulus), config.seed),
            tuple(ends),
            self._texts(subject, responses, shown_natural),
            self._captions(ends[-1], len(chosen)),
            maps,
            frame,
            self._clusters(subject, chosen, material),
        )

    def _clusters(self, subject: Subject, chosen: Driven, material: Material) -> Clusters | None:
        """With ``test`` training pictures are the first part and test pictures the second; else halves of training
        pictures are, scenes kept together."""
        wanted, config = self.settings.clusters, self.config
        if wanted is None:
            return None
        require_units(wanted, len(chosen), subject.name)
        halves = subject.folds if self.settings.test else grouped_folds(subject.groups, 2, config.seed)
        first, second = halves[0]
        scaling = Scaling.of(take_rows(material.tokens, first), config.target.root)
        (method,) = methods_of([self.settings.method])
        fit = method.fit(material.take(first).seen(scaling))
        return found_clusters(
            chosen.names,
            wanted,
            (material.responses[first], subject.groups[first]),
            (material.responses[second], fit.predict(scaling(take_rows(material.tokens, second)))),
            subject.recording.stimuli,
            subject.stimulus[second],
            config.seed,
            self.settings.n_perm,
        )

    def _tokens(self, stimuli: Stimuli, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = read_spaces(self.networks, [self.part], stimuli, rows, self.config, None)
        return {space_name(space): found[space_name(space)] for space in self.part.spaces}

    def _texts(self, subject: Subject, responses: np.ndarray, shown: Stimuli | None) -> Texts | None:
        """None where there is no bank and the study has no captions, and for a tower without a picture side."""
        from recon.words.bank import Candidates, study_captions

        stimuli = subject.recording.stimuli
        texts = self.bank
        if texts is None:
            try:
                every = study_captions(stimuli).of
            except UserError:
                return None
            fitted = np.unique(subject.stimulus[subject.train])
            texts = [every[int(i)] for i in fitted if every[int(i)]]
        bank = Candidates.of(texts).texts
        seen = self.tower.pictures(_pixels(stimuli, subject.stimulus))
        natural = seen[subject.train] if shown is None else self.tower.pictures(_pixels(shown, np.arange(len(shown))))
        return nearest_texts(seen, responses, subject.folds, natural, bank, self.tower.texts(bank))

    def _captions(self, ends: Ends, units: int) -> tuple[tuple[str, ...], ...] | None:
        """A caption of each of the best pictures of every unit, by the captioner."""
        if self.captioner is None:
            return None
        best = [ends.best(unit) for unit in range(units)]
        places = np.unique(np.concatenate(best))
        said = dict(zip(places.tolist(), self.captioner(_pixels(ends.stimuli, ends.rows[places])), strict=True))
        return tuple(tuple(said[int(place)] for place in row) for row in best)


def _pixels(stimuli: Stimuli, rows: np.ndarray) -> Any:
    """(n, 3, `SIZE`, `SIZE`) in [0, 1]."""
    import torch
    from PIL import Image

    side = (SIZE, SIZE)
    found = [np.asarray(Image.fromarray(stimuli.load(int(i))).resize(side, Image.Resampling.BICUBIC)) for i in rows]
    return torch.from_numpy(np.stack(found).transpose(0, 3, 1, 2)).float() / 255


def unit_rows(one: Looked) -> list[dict[str, Any]]:
    """One row for each unit; empty where there is no ceiling or no text."""
    rows, shown = [], _texts_shown(one)
    for k, name in enumerate(one.driven.names):
        known = one.ceiling is not None
        row: dict[str, Any] = {
            "direction": "pictures -> responses",
            "subject": one.subject,
            "unit": name,
            "units": len(one.driven.columns[k]),
            "r": float(one.scores.r[k]),
            "p": float(one.scores.p[k]),
            "q": float(one.scores.q[k]),
            "reliability": float(one.ceiling.reliability[k]) if known and one.ceiling else "",
            "ceiling": float(one.ceiling.highest[k]) if known and one.ceiling else "",
            "texts_r": "" if one.texts is None else float(one.texts.r[k]),
        }
        for i in range(shown):
            text = one.texts is not None and i < len(one.texts.texts[k])
            row[f"text_{i + 1}"] = one.texts.texts[k][i] if text and one.texts else ""
            row[f"cosine_{i + 1}"] = one.texts.cosine[k][i] if text and one.texts else ""
        if one.captions is not None:
            row["captions"] = " | ".join(one.captions[k])
        if one.clusters is not None:
            row["cluster"] = int(one.clusters.of[k]) + 1
        rows.append(row)
    return rows


def _texts_shown(one: Looked) -> int:
    return 0 if one.texts is None else max(map(len, one.texts.texts))


def picture_rows(one: Looked) -> list[dict[str, Any]]:
    """One row for each unit, kind of value, end and picture."""
    return [
        {"subject": one.subject, **line}
        for k, name in enumerate(one.driven.names)
        for ends in one.ends
        for line in ends.lines(k, name)
    ]


def told(result: dict[str, Any], most: int = 12) -> str:
    """What the command prints: the units of the highest scores of every subject."""
    lines = [f"{result['study']}, {result['direction']}: {result['rule']}"]
    for subject, entry in result["subjects"].items():
        units: Sequence[dict[str, Any]] = sorted(entry["units"], key=lambda row: -row["r"])
        best = {
            row["unit"]: row["picture"]
            for row in entry["pictures"]
            if row["by"] == "predicted" and row["rank"] == 1 and row["end"] == "best"
        }
        lines.append(f"  subject {subject}")
        for row in units[:most]:
            ceiling = "" if row["ceiling"] == "" else f" of {row['ceiling']:.3f}"
            text = f", {row['text_1']!r}" if row.get("text_1") else ""
            lines.append(f"    {row['unit']:<12} r {row['r']:.3f}{ceiling}; best picture {best[row['unit']]}{text}")
        if len(units) > most:
            lines.append(f"    and {len(units) - most} more in the table")
        if entry["clusters"] is not None:
            lines += told_clusters(entry["clusters"])
    return "\n".join(lines)
