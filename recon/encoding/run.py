"""`recon encode`: features, methods and subjects in turn; choices by cross-validation, test pictures once.

By default nothing but training pictures is read: grouped cross-validation. With ``test``, the best features of the
first method, mean over subjects, are fitted to all training pictures by every method; test pictures are scored once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.places import Claim
from align.errors import UserError
from align.files import locked
from align.response_models.contract import Method
from align.response_models.cross_validation import Learnt, Material, held_out_predictions, learn
from align.response_models.methods import methods_of
from align.response_models.scores import identification, unit_scores
from recon.encoding.features import FeatureSet, feature_sets, read_spaces, space_name
from recon.encoding.files import FORMER, RESULT, write_encoding
from recon.encoding.scored import Scored
from recon.encoding.subjects import Subject, known_rows, read_subject
from recon.encoding.summary import summarise

if TYPE_CHECKING:
    from align.config import Config
    from align.data.studies.base import Study
    from align.vision.taps import Backbone
    from recon.words.text_tower import TextTower

MOST_IDENTIFIED = 1000  # units: the covariance of what is left over is square in their number
LEAST_KNOWN = 10  # pictures of another subject, to learn from it
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """``pictures``: numbers to fit with, None = all. ``width``: of a window in s. ``captions``: a text tower or None.

    ``together``: one more set of all features. ``partition``: of the variance that it explains.
    """

    methods: tuple[str, ...] = ("ridge",)
    layers: tuple[str, ...] = ()
    pictures: tuple[int | None, ...] = (None,)
    folds: int = 5
    test: bool = False
    width: float | None = None
    captions: str | None = None
    together: bool = False
    partition: bool = False
    n_perm: int = 1000


def run(
    config: Config, backbones: Sequence[str], settings: Settings, folder: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the files of `recon.encoding.files` into ``folder``; returns the content of the JSON file.

    Raises
    ------
    UserError
        Unknown subject, network, layer or method; a method that learns from others where there is one subject; a folder
        with the results of another configuration.
    """
    from align.data.studies import open_study
    from recon.comparison.networks import described, load_networks
    from recon.words.towers import load_tower

    config.check()
    methods, study = methods_of(list(settings.methods)), open_study(config)
    names = list(dict.fromkeys(config.subjects or study.default_subjects))
    for name in names:
        study.require_subject(name)
    lonely = [method.name for method in methods if method.from_others]
    if lonely and len(names) < 2:
        raise UserError(f"method {lonely[0]} learns from other subjects; name two or more with subjects=[...]")
    networks = load_networks(backbones, config)
    tower = load_tower(settings.captions) if settings.captions else None
    sets = feature_sets(networks, settings.layers, settings.captions, settings.together)
    if settings.partition and not settings.together:
        raise UserError("--partition divides what several spaces explain; add --together")
    asked = {**asdict(settings), "backbones": list(backbones), "subjects": names}
    claim = Claim(folder, RESULT, config, "Choose another folder (--out FOLDER)", asked, overwrite, FORMER)
    with encoding_lock(folder):
        claim.check()
        work = _Work(config, study, networks, tower, settings)
        chosen, cross_validated = None, None
        if settings.test and len(sets) > 1:
            subjects = work.read(names, test=False)
            work.extract(subjects, sets)
            work.require_places(subjects[0], sets, methods[:1])
            trial = [one for part in sets for one in work.score(subjects, part, methods[:1], (None,))]
            cross_validated = summarise(trial, subjects, sets)
            chosen = best_label(cross_validated["mean"], methods[0].name)
            sets = [part for part in sets if part.label == chosen]
        subjects = work.read(names, settings.test)
        work.extract(subjects, sets)
        work.require_places(subjects[0], sets, methods)
        scored = [one for part in sets for one in work.score(subjects, part, methods, settings.pictures)]
        divided = work.divide(subjects, sets[-1]) if settings.partition else {}
        result = {
            **_facts(config, settings, methods, subjects),
            "backbones": described(networks),
            "sets": [asdict(part) for part in sets],
            "chosen": chosen,
            "cross_validation": cross_validated,
            **summarise(scored, subjects, sets, divided),
        }
        claim.take()
        write_encoding(folder, result, scored, subjects, divided)
    return {**result, "folder": str(folder)}


def encoding_lock(folder: Path) -> AbstractContextManager[None]:
    """One process at a time; the same thread may take it again."""
    return locked(folder / ".encode.lock", f"encoding into {str(folder)!r}", wait=None, keep=False)


def best_label(mean: Sequence[dict[str, Any]], method: str) -> str:
    """The set with the highest mean correlation of a method; of equal ones the first."""
    rows = [row for row in mean if row["method"] == method]
    return str(max(rows, key=lambda row: row["r"])["set"])


@dataclass(frozen=True)
class _Work:
    config: Config
    study: Study
    networks: dict[str, Backbone]
    tower: TextTower | None
    settings: Settings

    def read(self, names: Sequence[str], test: bool) -> list[Subject]:
        return [
            read_subject(self.study, self.config, name, self.settings.folds, test, self.settings.width)
            for name in names
        ]

    def extract(self, subjects: Sequence[Subject], sets: Sequence[FeatureSet]) -> None:
        """All layers of a network by one pass over the pictures, into the cache; nothing is kept in memory."""
        for subject in subjects:
            read_spaces(self.networks, sets, subject.recording.stimuli, np.empty(0, dtype=np.int64), self.config, None)

    def material(self, subject: Subject, part: FeatureSet) -> Material:
        stimuli = subject.recording.stimuli
        tokens = read_spaces(self.networks, [part], stimuli, subject.stimulus, self.config, self.tower)
        wanted = {space_name(space): tokens[space_name(space)] for space in part.spaces}
        return Material(wanted, subject.responses, subject.groups, self.config.target.root)

    def score(
        self,
        subjects: Sequence[Subject],
        part: FeatureSet,
        methods: Sequence[Method],
        pictures: Sequence[int | None],
    ) -> list[Scored]:
        """Every subject, method and number of pictures with the features of one set."""
        found = []
        several = any(method.from_others for method in methods)
        kept = {subject.name: self.material(subject, part) for subject in subjects} if several else {}
        for subject in subjects:
            material = kept[subject.name] if several else self.material(subject, part)
            for method in methods:
                learnt = self._learnt(method, subject, subjects, kept)
                for count in pictures:
                    log.info(
                        "encode: subject %s, %s, %s, %s pictures", subject.name, part.label, method.name, count or "all"
                    )
                    found.append(self._one(subject, part.label, method, material, learnt, count))
        return found

    def _learnt(
        self, method: Method, new: Subject, subjects: Sequence[Subject], kept: dict[str, Material]
    ) -> Learnt | None:
        if not method.from_others:
            return None
        others = [other for other in subjects if other.name != new.name]
        rows = known_rows(new, others, self.study.kept_out())
        usable = [(other, part) for other, part in zip(others, rows, strict=True) if len(part) >= LEAST_KNOWN]
        if not usable:
            raise UserError(
                f"method {method.name}: other subjects saw nothing but scenes that are scored in {new.name}; "
                "leave it out"
            )
        return learn(method, [kept[other.name].take(part) for other, part in usable])

    def _one(
        self,
        subject: Subject,
        label: str,
        method: Method,
        material: Material,
        learnt: Learnt | None,
        count: int | None,
    ) -> Scored:
        folds = subject.folds_with(count, self.config.seed)
        estimates, found = held_out_predictions(method, material, folds, learnt)
        scored = [rows for _, rows in folds]
        units = unit_scores(subject.responses, estimates, scored, self.config.seed, self.settings.n_perm)
        named = None
        if 1 < subject.layout.count <= MOST_IDENTIFIED:
            named = identification(subject.responses, estimates, scored)
        fitted = round(float(np.mean([len(rows) for rows, _ in folds])))
        return Scored(subject.name, label, method.name, count, fitted, units, named, found)

    def require_places(self, subject: Subject, sets: Sequence[FeatureSet], methods: Sequence[Method]) -> None:
        """Before anything is fitted: `UserError` for a method that reads places where sets join several grids."""
        readers = [method.name for method in methods if method.places]
        for part in sets if readers else ():
            counts = {name: tokens.shape[1] for name, tokens in self.material(subject, part).tokens.items()}
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{name} {count}" for name, count in counts.items())
                raise UserError(
                    f"method {readers[0]} reads places, and these features have different numbers of them ({told}); "
                    "take ridge or banded"
                )

    def divide(self, subjects: Sequence[Subject], part: FeatureSet) -> dict[str, Any]:
        """`align.response_models.partition.Partition` of every subject."""
        from align.response_models.partition import partition

        return {subject.name: partition(self.material(subject, part), subject.folds) for subject in subjects}


def _facts(
    config: Config, settings: Settings, methods: Sequence[Method], subjects: Sequence[Subject]
) -> dict[str, Any]:
    from align.data.preparing.selection import described

    rule = f"grouped {settings.folds}-fold cross-validation on training pictures; test pictures not scored"
    if settings.test:
        rule = "fitted to training pictures, test pictures scored once"
    return {
        "schema": 1,
        "direction": "pictures -> responses",
        "study": config.study.name,
        "split": "test" if settings.test else "train",
        "rule": rule,
        "statistics": (
            "r: Pearson correlation over scored pictures, mean over folds; r2: 1 - squared error over squared distance "
            f"from the mean; p: one-sided, {settings.n_perm} shuffles of pictures within a fold, of several folds "
            "twice the mean of their p (Vovk & Wang 2020); q: false discovery rate over units (Benjamini & Hochberg "
            "1995); corrected: r over the root of the reliability of the mean response, mean over units that are "
            "reliable enough; t95: over subjects; identification: top-1 among the pictures of a fold by cosine of "
            "whitened responses"
        ),
        "selection": described(config, subjects[0].recording.train.x.shape[1:]),
        "pooling": config.target.pooling,
        "views": config.target.views,
        "root": config.target.root,
        "methods": {method.name: method.source for method in methods},
        "pictures": list(settings.pictures),
        "folds": 1 if settings.test else settings.folds,
        "permutations": settings.n_perm,
        "captions": settings.captions,
        "seed": config.seed,
    }
