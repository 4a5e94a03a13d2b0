"""`recon rsa`: layers of networks beside areas of brains, by depth; with few dimensions; what subjects share."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.comparison.rdm import RankedRdm, dissimilarities, geotopological
from align.comparison.rsa import (
    Resamples,
    between_subjects,
    halves,
    noise_ceiling,
    resampled,
    restricted,
    similarities,
)
from align.config import Config
from align.data.places import Claim
from align.errors import UserError
from align.files import locked
from align.seeding import derive
from recon.comparison.areas import Area, measured_areas, study_areas
from recon.comparison.files import StoredDimensions, read_universality
from recon.comparison.networks import Gallery, depth_of, described, load_networks
from recon.comparison.pictures import digest, pictures_of
from recon.comparison.rsa_files import FORMER, RESULT, write_rsa
from recon.comparison.rsa_time import over_time

ALL = "all"
log = logging.getLogger(__name__)
Layers = dict[str, np.ndarray]  # layer -> dissimilarities (pairs,)


@dataclass(frozen=True)
class Settings:
    """``pooling`` None: max, or that of the stored dimensions; ``top``: numbers of dimensions kept; ``most``: pictures.

    ``quantiles``: of the geotopological transform of every matrix, or None; ``boot``: resamples. ``width``, ``step``:
    of sliding windows, s (no width: none); ``n_perm``: orders of the pictures that are chance there.
    """

    pooling: str | None = None
    distance: str = "correlation"
    quantiles: tuple[float, float] | None = None
    top: tuple[int, ...] = ()
    most: int = 400
    boot: int = 1000
    test: bool = False
    seed: int = 0
    width: float | None = None
    step: float = 0.02
    n_perm: int = 1000

    def transformed(self, rdm: np.ndarray) -> np.ndarray:
        """With the geotopological transform, where it is asked for."""
        return rdm if self.quantiles is None else geotopological(rdm, *self.quantiles)


def run(
    config: Config,
    entries: Sequence[str],
    with_study: bool,
    areas: Sequence[str],
    images: Path | None,
    measured: Sequence[str],
    universality: Path | None,
    settings: Settings,
    out: Path,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Everything, written into ``out``: rsa.json (returned), rsa.csv, rsa.png; of windows rsa_when.csv and .png.

    Raises `UserError` for no brain, two kinds of brain at once, faults in what is read, results of another
    configuration.
    """
    if bool(measured) == with_study or bool(measured) != (images is not None):
        raise UserError("pass a study (--study NAME), or --images PLACE with --rdm NAME=FILE")
    if measured and settings.width is not None:
        raise UserError(
            "--width cuts the recordings of a study into windows, and --rdm has none; leave one of them out"
        )
    if areas and measured:
        raise UserError("--areas are regions of a study; name measured areas with --rdm NAME=FILE")
    asked = {"backbones": list(entries), "areas": list(areas), "images": str(images), "rdm": list(measured)}
    asked |= {"universality": str(universality), "subjects": list(config.subjects), **asdict(settings)}
    claim = Claim(out, RESULT, config, "Choose another --out FOLDER", asked, overwrite, FORMER)
    with locked(out / ".rsa.lock", f"writing into {str(out)!r}", wait=None, keep=False):
        claim.check()
        stored = None if universality is None else read_universality(universality)
        networks = load_networks(entries, config)
        pooling = _pooling(settings, stored, networks)
        if images is not None:
            brains = measured_areas(measured, pictures_of(images, None, settings.seed), settings.most, settings.seed)
        else:
            walk = None if settings.width is None else (settings.width, settings.step)
            brains = study_areas(config, areas, settings.distance, settings.most, settings.test, walk)
        found = [_area(area, networks, stored, pooling, settings, config.cache_dir) for area in brains]
        result = {
            "study": config.study.name if with_study else None,
            "networks": described(networks),
            "pooling": pooling,
            "universality": None if stored is None else str(stored.folder),
            "settings": asdict(settings),
            "areas": [entry for entry, _ in found],
            "areas_apart": _apart([peaks for _, peaks in found], brains),
        }
        claim.take()
        write_rsa(out, result)
    return {**result, "folder": str(out)}


def _pooling(settings: Settings, stored: StoredDimensions | None, networks: Mapping[str, Any]) -> str:
    if stored is None:
        return settings.pooling or "max"
    for name, one in networks.items():
        stored.require(name, one.weights_hash)
    own = str(stored.facts["settings"]["pooling"])
    if settings.pooling not in (None, own):
        raise UserError(f"--pool {settings.pooling}: the dimensions of {str(stored.folder)!r} are of pooling {own!r}")
    return own


def _area(
    area: Area,
    networks: Mapping[str, Any],
    stored: StoredDimensions | None,
    pooling: str,
    settings: Settings,
    cache_dir: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The entry of one area, and for every network the depth (B,) of the peak of every resample."""
    log.info("rsa: %s, %d subjects, %d pictures", area.name, len(area.subjects), len(area.stimuli))
    rdms = np.stack([settings.transformed(rdm) for rdm in area.rdms])
    _require_structure(area, rdms, settings)
    subjects = [RankedRdm(rdm) for rdm in rdms]
    lower, upper = noise_ceiling(rdms)
    entry: dict[str, Any] = {
        "area": area.name,
        "subjects": list(area.subjects),
        "n_pictures": len(area.stimuli),
        "pictures_sha256": digest(area.stimuli),
        "ceiling": {"lower": lower, "upper": upper if len(subjects) > 1 else None},
        "between_subjects": between_subjects(subjects),
        "networks": {},
    }
    rng = np.random.default_rng(derive(settings.seed, "rsa", "draws"))  # the same draws for every area of as many
    drawn = Resamples.draw(len(area.stimuli), len(subjects), settings.boot, rng)
    gallery, peaks = Gallery([area.source]), {}
    layered: dict[str, dict[str, RankedRdm]] = {}
    rows = gallery.rows(area.stimuli)
    for name, backbone in networks.items():
        features = {layer: part[rows] for layer, part in gallery.features(backbone, pooling, cache_dir).items()}
        kinds = _kinds(name, features, stored, settings)
        layers = list(kinds[ALL])
        depths = np.array([depth_of(layers, layer) for layer in layers])
        models = layered[name] = {layer: RankedRdm(rdm) for layer, rdm in kinds[ALL].items()}
        draws = resampled(list(models.values()), subjects, drawn)
        peaks[name] = depths[draws.argmax(axis=1)]
        by_layer = similarities(list(models.values()), subjects)
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        points = [
            {
                "layer": layer,
                "depth": float(depths[k]),
                "similarity": float(by_layer[k].mean()),
                "ci95": [float(low[k]), float(high[k])],
                "by_subject": by_layer[k].tolist(),
                "between_subjects_given": between_subjects(subjects, models[layer]),
            }
            for k, layer in enumerate(layers)
        ]
        entry["networks"][name] = {
            "points": points,
            "peak": _with_interval(depths[by_layer.mean(axis=1).argmax()], peaks[name]),
            "late_minus_early": _with_interval(_late(by_layer.mean(axis=1)), np.array([_late(row) for row in draws])),
            "chosen": {kind: _chosen(own, rdms, len(area.stimuli), settings) for kind, own in kinds.items()},
        }
    if area.timed is not None:
        timed = np.apply_along_axis(settings.transformed, -1, area.timed)
        rng = np.random.default_rng(derive(settings.seed, "rsa", "shuffled"))
        entry["when"] = over_time(layered, timed, area.windows, drawn, settings.n_perm, rng)
    for name in networks:
        for point in entry["networks"][name]["points"]:
            point["between_networks"] = _between_networks(name, point["layer"], layered)
    return entry, peaks


def _require_structure(area: Area, rdms: np.ndarray, settings: Settings) -> None:
    """Raise `UserError` for a subject in whom all pictures are equally far apart: nothing could be like that."""
    for name, before, rdm in zip(area.subjects, area.rdms, rdms, strict=True):
        if np.ptp(rdm) > 0:
            continue
        if np.ptp(before) > 0:
            why = "by --geotopological alone; give other quantiles"
        elif area.recorded and settings.distance == "correlation":
            why = "mend or leave out responses that are all the same; one channel alone needs --distance euclidean"
        else:
            why = "mend or leave out what is the same for all pictures"
        raise UserError(
            f"{area.name}, subject {name}: all pictures are equally far apart, so there is nothing to compare: {why}"
        )


def _kinds(
    network: str, features: Mapping[str, np.ndarray], stored: StoredDimensions | None, settings: Settings
) -> dict[str, Layers]:
    """Dissimilarities of every layer: of all channels, and of its n most universal dimensions or n of most variance."""

    def rdm(x: np.ndarray) -> np.ndarray:
        return settings.transformed(dissimilarities(x, settings.distance))

    kinds: dict[str, Layers] = {ALL: {layer: rdm(part) for layer, part in features.items()}}
    if stored is None:
        return kinds
    for layer, part in features.items():
        if (network, layer) not in stored.universal:
            continue  # the same for all pictures that it was fitted on
        components = stored.components(network, layer, part.shape[1])
        scores, order = components.scores(part), np.argsort(-stored.universal[network, layer], kind="stable")
        for count in settings.top:
            for kind, rows in (("universal", order[:count]), ("variance", np.arange(min(count, len(order))))):
                kinds.setdefault(f"{kind} {count}", {})[layer] = rdm(components.kept(scores, rows))
    return kinds


def _chosen(layers: Layers, subjects: np.ndarray, n_pictures: int, settings: Settings) -> dict[str, Any]:
    """The layer that is best on pictures of even number, and its similarity on the others with its interval."""
    even, odd = halves(n_pictures)
    there, here = (
        (
            [RankedRdm(restricted(rdm, n_pictures, side)) for rdm in layers.values()],
            [RankedRdm(restricted(rdm, n_pictures, side)) for rdm in subjects],
        )
        for side in (even, odd)
    )
    best = int(similarities(*there).mean(axis=1).argmax())
    model = [here[0][best]]
    rng = np.random.default_rng(derive(settings.seed, "rsa", "odd"))
    draws = resampled(model, here[1], Resamples.draw(len(odd), len(here[1]), settings.boot, rng))[:, 0]
    return {"layer": list(layers)[best], **_with_interval(float(similarities(model, here[1]).mean()), draws)}


def _with_interval(value: float, draws: np.ndarray) -> dict[str, Any]:
    return {"value": float(value), "ci95": [float(end) for end in np.percentile(draws, [2.5, 97.5])]}


def _late(curve: np.ndarray) -> float:
    """Mean of the last third of layers minus that of the first third."""
    third = max(1, len(curve) // 3)
    return float(curve[-third:].mean() - curve[:third].mean())


def _between_networks(name: str, layer: str, layered: Mapping[str, Mapping[str, RankedRdm]]) -> float | None:
    """Mean similarity of a layer with those of the nearest relative depth in all other networks."""
    depth, others = depth_of(list(layered[name]), layer), []
    for other, layers in layered.items():
        if other != name:
            known = list(layers)
            others.append(layers[min(known, key=lambda one: abs(depth_of(known, one) - depth))])
    return float(similarities([layered[name][layer]], others).mean()) if others else None


def _apart(peaks: Sequence[Mapping[str, np.ndarray]], areas: Sequence[Area]) -> dict[str, Any]:
    """How much deeper the peak of the last area lies than that of the first, where both saw the same pictures."""
    if len(areas) < 2 or areas[0].stimuli.hashes != areas[-1].stimuli.hashes:
        return {}
    return {
        name: {
            "from": areas[0].name,
            "to": areas[-1].name,
            **_with_interval(float(np.mean(peaks[-1][name] - early)), peaks[-1][name] - early),
        }
        for name, early in peaks[0].items()
    }
