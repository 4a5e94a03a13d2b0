"""`recon universality`: dimensions of networks that other networks, and a brain, have too."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from align.comparison.components import Components, fit_components
from align.comparison.null import p_values, q_values
from align.comparison.predictability import Regression
from align.comparison.universality import (
    BrainSimilarity,
    Universality,
    brain_similarity,
    corrected,
    reliability,
    universality,
)
from align.config import Config
from align.data.places import Claim
from align.data.signals import Stimuli
from align.data.splits import grouped_folds
from align.errors import UserError
from align.files import locked
from align.seeding import derive
from recon.comparison.association import against_shuffled, association
from recon.comparison.brains import Brain, read_brain, shuffled_similarity, when
from recon.comparison.files import RESULT, write_universality
from recon.comparison.networks import Gallery, depth_of, described, joined, load_networks
from recon.comparison.pictures import LEAST, digest, divided, pictures_of, pictures_shown, subset

SAMPLE = 2000  # dimensions at most that stand for all where brains are shuffled
log = logging.getLogger(__name__)
Bases = dict[str, dict[str, Components]]  # network -> layer -> components


@dataclass(frozen=True)
class Settings:
    """``pooling`` of every layer; ``components`` of a layer at most; ``zscore``: of channels, before components.

    ``n_null``: shuffled dimensions of each network; ``shuffles``: of the brain's pictures; ``width``, ``step``: of
    windows, s; ``most``: pictures at most of either place; ``test``: brains by their test pictures.
    """

    pooling: str = "max"
    regression: Regression = field(default_factory=Regression)
    zscore: bool = False
    components: int | None = None
    folds: int = 5
    n_null: int = 1000
    shuffles: int = 100
    width: float = 0.1
    step: float = 0.05
    most: int | None = None
    test: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Dimensions:
    """All dimensions of all networks in one list: (T,) each."""

    network: np.ndarray
    layer: np.ndarray
    component: np.ndarray
    variance: np.ndarray
    explained: np.ndarray

    @classmethod
    def of(cls, bases: Bases) -> Dimensions:
        """In order of networks, layers and variance."""
        rows = [
            (network, layer, k, one.variance[k], one.explained[k])
            for network, layers in bases.items()
            for layer, one in layers.items()
            for k in range(len(one.axes))
        ]
        network, layer, component, variance, explained = (np.array(column) for column in zip(*rows, strict=True))
        return cls(network, layer, component, variance, explained)


def run(
    config: Config,
    entries: Sequence[str],
    images: Path | None,
    fit_images: Path | None,
    with_brain: bool,
    settings: Settings,
    out: Path,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Everything, written into ``out``; returns the content of universality.json.

    ``images``: a folder or zip of pictures to score; without, the training pictures of the study. ``fit_images``:
    pictures for the components; without, half of the pictures fits and the other half is scored.

    Raises
    ------
    UserError
        Fewer than two networks, neither pictures nor a study, too few pictures, faults in any of them, a folder with
        results of another configuration.
    """
    if len(entries) < 2:
        raise UserError("universality needs two networks or more: --backbones A,B,C")
    if images is None and not with_brain:
        raise UserError("no pictures: pass --images FOLDER_OR_ZIP, or a study (--study NAME)")
    asked = {"backbones": list(entries), "images": str(images), "fit_images": str(fit_images), "brain": with_brain}
    asked |= {"subjects": list(config.subjects), **asdict(settings)}
    claim = Claim(out, RESULT, config, "Choose another --out FOLDER", asked, overwrite)
    with locked(out / ".universality.lock", f"writing into {str(out)!r}", wait=None, keep=False):
        claim.check()
        networks = load_networks(entries, config)
        brains = _brains(config, settings) if with_brain else []
        fitted, scored, gallery = _pictures(images, fit_images, brains, settings)
        seen = set(fitted.hashes)
        brains = [brain.without(seen) for brain in brains]
        measured = _dimensions(networks, gallery, fitted, scored, brains, settings, config.cache_dir)
        result, table = _measure(networks, measured, scored, brains, settings)
        facts = {
            "study": config.study.name if with_brain else None,
            "networks": described(networks),
            "pictures": {
                "fitted": {"n": len(fitted), "sha256": digest(fitted)},
                "scored": {"n": len(scored), "sha256": digest(scored)},
                "brain": {brain.subject: {"n": len(brain.trials), "sha256": digest(brain.stimuli)} for brain in brains},
            },
            "settings": asdict(settings),
        }
        result = {**facts, **result}
        claim.take()
        write_universality(out, result, table, measured.bases, scored, measured.scores)
    return {**result, "folder": str(out)}


def _brains(config: Config, settings: Settings) -> list[Brain]:
    from align.data.studies import open_study

    study = open_study(config)
    subjects = list(dict.fromkeys(config.subjects or study.default_subjects))
    for subject in subjects:
        study.require_subject(subject)
    return [read_brain(study.recording(subject), settings.test, config.cache_dir) for subject in subjects]


def _pictures(
    images: Path | None, fit_images: Path | None, brains: Sequence[Brain], settings: Settings
) -> tuple[Stimuli, Stimuli, Gallery]:
    """Pictures to fit components on, pictures apart from them that are scored, and where all are found."""
    shown = [brain.recording.stimuli for brain in brains]
    if images is not None:
        whole = pictures_of(images, settings.most, settings.seed)
    else:
        recordings = [brain.recording for brain in brains]
        whole = pictures_shown(recordings, [brain.trials.stimulus for brain in brains])
    if fit_images is None:
        one, other = divided(np.asarray(whole.groups), settings.seed)
        return subset(whole, one), subset(whole, other), Gallery(shown if images is None else [whole, *shown])
    apart = pictures_of(fit_images, settings.most, settings.seed)
    known = set(whole.hashes)
    rows = np.array([i for i, value in enumerate(apart.hashes) if value not in known], dtype=np.int64)
    if min(len(rows), len(whole)) < LEAST:
        raise UserError(f"{len(rows)} pictures to fit on and {len(whole)} to score; {LEAST} of each are needed")
    if len(rows) < len(apart):
        log.info("%d pictures to fit on are left out: they are scored", len(apart) - len(rows))
    return subset(apart, rows), whole, Gallery([apart, *([] if images is None else [whole]), *shown])


@dataclass(frozen=True)
class Measured:
    """``scores``: network to (n, T) of the scored pictures; ``features``: to (n, P) there; ``shown``: (n, T) of all
    networks for the pictures of every subject."""

    bases: Bases
    scores: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    shown: list[np.ndarray]


def _dimensions(
    networks: Mapping[str, Any],
    gallery: Gallery,
    fitted: Stimuli,
    scored: Stimuli,
    brains: Sequence[Brain],
    settings: Settings,
    cache_dir: str,
) -> Measured:
    """Components of every layer, fitted on one set of pictures and read on the others."""
    there, here = gallery.rows(fitted), gallery.rows(scored)
    shown = [gallery.rows(brain.stimuli) for brain in brains]
    found = Measured({}, {}, {}, [])
    parts: list[list[np.ndarray]] = [[] for _ in brains]
    for entry, backbone in networks.items():
        log.info("universality: features of %s", entry)
        whole = gallery.features(backbone, settings.pooling, cache_dir)
        basis = {
            layer: fit_components(part[there], settings.components, settings.zscore) for layer, part in whole.items()
        }
        found.bases[entry] = basis
        found.features[entry] = joined({layer: part[here] for layer, part in whole.items()})
        found.scores[entry] = scores_of(basis, whole, here)
        for part, rows in zip(parts, shown, strict=True):
            part.append(scores_of(basis, whole, rows))
    found.shown.extend(np.concatenate(part, axis=1) for part in parts)
    return found


def scores_of(layers: Mapping[str, Components], features: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(n, T) of the pictures ``rows`` on the components of all layers."""
    return np.concatenate([one.scores(features[layer][rows]) for layer, one in layers.items()], axis=1)


def _measure(
    networks: Mapping[str, Any], measured: Measured, scored: Stimuli, brains: Sequence[Brain], settings: Settings
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the JSON says, and the columns of the table."""
    dims = Dimensions.of(measured.bases)
    folds = grouped_folds(np.asarray(scored.groups), settings.folds, settings.seed)
    rng = np.random.default_rng(derive(settings.seed, "universality"))
    log.info("universality: %d dimensions, %d pictures", len(dims.network), len(scored))
    shared = universality(measured.scores, measured.features, folds, settings.regression, settings.n_null, rng)
    universal = np.concatenate([shared[name].median for name in networks])
    p = np.concatenate([p_values(shared[name].median, shared[name].null) for name in networks])
    depth = [depth_of(networks[n].layers, k) for n, k in zip(dims.network, dims.layer, strict=True)]
    table = {**vars(dims), "depth": np.array(depth), "universality": universal, "p": p, "q": q_values(p)}
    result: dict[str, Any] = {"n_dimensions": len(universal), "by_network": _by_network(shared, table)}
    if brains:
        result |= _with_brains(brains, measured.shown, table, settings)
    return result, table


def _by_network(shared: Mapping[str, Universality], table: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = {}
    for name, part in shared.items():
        rows = table["network"] == name
        found[name] = {
            "n_dimensions": int(rows.sum()),
            "predicted_by": {
                other: float(r.mean()) for other, r in zip(part.predictors, part.by_predictor, strict=True)
            },
            "mean": float(part.median.mean()),
            "weighted_by_variance": float(np.average(part.median, weights=table["variance"][rows])),
            "null_mean": float(part.null.mean()) if len(part.null) else None,
            "null_95": float(np.quantile(part.null, 0.95)) if len(part.null) else None,
            "significant": float((table["q"][rows] <= 0.05).mean()),
        }
    return found


def _with_brains(
    brains: Sequence[Brain], dimensions: Sequence[np.ndarray], table: dict[str, np.ndarray], settings: Settings
) -> dict[str, Any]:
    """Adds the columns of the brain to ``table``; returns the parts of the JSON about it."""
    found: dict[str, BrainSimilarity] = {}
    for brain, part in zip(brains, dimensions, strict=True):
        log.info("universality: brain of subject %s, %d pictures", brain.subject, len(brain.trials))
        rng = np.random.default_rng(derive(settings.seed, "brain", brain.subject))
        folds = brain.folds(settings.folds, settings.seed)
        found[brain.subject] = brain_similarity(brain.signals, part, folds, settings.regression, settings.n_null, rng)
    similarity = np.mean([one.r for one in found.values()], axis=0)
    null = np.mean([one.null for one in found.values()], axis=0)
    table["brain_similarity"], table["brain_p"] = similarity, p_values(similarity, null)
    table["brain_q"] = q_values(table["brain_p"])
    for subject, one in found.items():
        table[f"brain_similarity_{subject}"] = one.r
    reliable = reliability(
        {subject: one.estimates for subject, one in found.items()},
        {brain.subject: brain.stimuli.hashes for brain in brains},
    )
    if reliable is not None:
        table["reliability"], table["brain_corrected"] = reliable, corrected(similarity, reliable)
    by_subject = {subject: one.r for subject, one in found.items()}
    universal, explained = table["universality"], table["explained"]
    linked = association(universal, by_subject, explained, table["network"], table["layer"], settings.seed)
    drawn = _drawn(len(universal), settings.seed)
    shuffled = np.zeros((settings.shuffles, len(drawn)))
    for brain, part in zip(brains, dimensions, strict=True):
        rng = np.random.default_rng(derive(settings.seed, "shuffled", brain.subject))
        folds = brain.folds(settings.folds, settings.seed)
        shuffled += shuffled_similarity(brain, part[:, drawn], folds, settings.regression, settings.shuffles, rng)
    shuffled /= len(brains)
    course = when(brains, [part[:, drawn] for part in dimensions], universal[drawn], settings.regression, settings)
    return {
        "brain": {
            "direction": "brain to dimension",
            "mean": float(similarity.mean()),
            "significant": float((table["brain_q"] <= 0.05).mean()),
            "null_mean": float(null.mean()) if len(null) else None,
            "reliability_mean": None if reliable is None else float(reliable.mean()),
        },
        "association": linked,
        "shuffled": against_shuffled(universal[drawn], similarity[drawn], explained[drawn], shuffled),
        "when": course,
    }


def _drawn(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(derive(seed, "sample"))
    return np.sort(rng.choice(count, min(count, SAMPLE), replace=False))
