"""`recon aligned-cut`: patches of pictures in groups, in the space of a subject's units; what each group drives.

One part of the pictures fits the map of channels to units and finds the groups. The other part is painted and scored;
it also makes a map and groups of its own, and both are compared.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from align.comparison.clusters import adjusted_rand
from align.comparison.cuts import NormalisedCut
from align.comparison.null import q_values
from align.comparison.predictability import column_correlation
from align.data.names import subject_name
from align.data.places import claim
from align.data.signals import Stimuli
from align.data.splits import grouped_folds
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from align.response_models.aligned import ChannelMapper
from align.seeding import derive
from recon.comparison.files import csv_text
from recon.driving.places import side_of
from recon.driving.units import driven
from recon.encoding.features import FeatureSet, feature_sets, read_spaces, space_name
from recon.encoding.subjects import read_subject

if TYPE_CHECKING:
    from pathlib import Path

    from align.config import Config
    from align.data.studies.base import Study
    from align.vision.taps import Backbone

RESULT, STEM = "aligned_cut.json", "aligned_cut"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CutSettings:
    """``units``, ``regions``: names. ``sample``: patches whose eigenvectors are computed. ``shuffles``: of responses.

    ``test``: training pictures are the first part and test pictures the second; else two halves of training pictures.
    """

    units: tuple[str, ...]
    regions: tuple[str, ...] = ()
    clusters: int = 8
    sample: int = 1000
    shuffles: int = 50
    test: bool = False
    width: float | None = None
    n_perm: int = 1000


@dataclass(frozen=True)
class Cut:
    """Groups of the patches of the second part, by what the first part found.

    ``labels``: layer to (n, N); ``drive``: layer to (n, N, U), deviations; ``share``: layer to (n, K), of a picture's
    patches. ``r``: layer to mean over units of the correlation of the map's prediction with responses. ``agreement``:
    adjusted Rand index with the groups that the second part makes of itself.
    """

    labels: dict[str, np.ndarray]
    drive: dict[str, np.ndarray]
    share: dict[str, np.ndarray]
    r: dict[str, float]
    agreement: float


@dataclass(frozen=True)
class Painted:
    """Everything about one subject. ``rows`` (n,): pictures of ``stimuli``; ``table``: see `cut_rows`."""

    subject: str
    units: tuple[str, ...]
    stimuli: Stimuli
    rows: np.ndarray
    cut: Cut
    shuffled: list[Cut]
    table: list[dict[str, Any]]

    @property
    def p(self) -> float | None:
        """Of the agreement: shuffles that agree as well, 1 added above and below."""
        if not self.shuffled:
            return None
        at_least = sum(one.agreement >= self.cut.agreement - 1e-12 for one in self.shuffled)
        return (1 + at_least) / (1 + len(self.shuffled))


def run(
    config: Config, network: str, layer: str, settings: CutSettings, folder: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a table and a picture for each subject and `RESULT` into ``folder``; returns the content of `RESULT`.

    Raises
    ------
    UserError
        Unknown subject, unit, region or layer; layers without a square grid of places, or with different ones; fewer
        patches than clusters; results of another configuration in the folder.
    """
    from align.data.studies import open_study
    from recon.comparison.networks import described, load_networks
    from recon.driving.aligned_cut_picture import draw_cut

    config.check()
    study = open_study(config)
    names = list(dict.fromkeys(config.subjects or study.default_subjects))
    for name in names:
        study.require_subject(name)
    networks = load_networks([network], config)
    (part,) = feature_sets(networks, [layer], None, together=False)
    asked = {**asdict(settings), "backbone": network, "layer": part.label}
    with locked(folder / f".{STEM}.lock", f"writing into {str(folder)!r}", wait=None, keep=False):
        claim(folder, RESULT, config, "Choose another folder (--out FOLDER)", asked, overwrite)
        found = [_look(config, study, networks, part, settings, name) for name in names]
        for one in found:
            name = subject_name(one.subject)
            write_atomic(folder / f"{STEM}_{name}.csv", csv_text(one.table))
            title = f"{config.study.name}, {network}, {part.label}; subject {one.subject}"
            draw_cut(one, title, folder / f"{STEM}_{name}.png")
        result = {
            "schema": 1,
            "direction": "pictures -> responses",
            "study": config.study.name,
            "split": "test" if settings.test else "train",
            "backbones": described(networks),
            "layer": part.label,
            "pooling": config.target.pooling,
            "root": config.target.root,
            "seed": config.seed,
            "settings": asdict(settings),
            "subjects": {one.subject: facts(one) for one in found},
        }
        write_sealed(folder / RESULT, result)
    return {**result, "folder": str(folder)}


def _look(
    config: Config,
    study: Study,
    networks: dict[str, Backbone],
    part: FeatureSet,
    settings: CutSettings,
    name: str,
) -> Painted:
    subject = read_subject(study, config, name, 2, settings.test, settings.width)
    chosen = driven(subject.layout, settings.units, settings.regions, subject.responses[subject.train])
    responses, stimuli = chosen.of(subject.responses), subject.recording.stimuli
    spaces = read_spaces(networks, [part], stimuli, subject.stimulus, config, None)
    tokens = {space[1]: np.asarray(spaces[space_name(space)]) for space in part.spaces}
    if side_of(tokens) is None:
        raise UserError(f"target.pooling={config.target.pooling} gives no square grid of places; take grid:n")
    halves = subject.folds if settings.test else grouped_folds(subject.groups, 2, config.seed)
    first, second = halves[0]
    patches = min(len(first), len(second)) * next(iter(tokens.values())).shape[1] * len(tokens)
    if patches < 2 * settings.clusters:
        raise UserError(f"--clusters {settings.clusters}: {patches} patches are too few; take fewer")
    log.info("aligned cut: subject %s, %d units or regions, %d patches", name, len(chosen), patches)
    work = _Work(tokens, first, second, settings, config.target.root, config.seed)
    real = work.cut(responses[first], responses[second])
    rng = np.random.default_rng(derive(config.seed, "aligned cut", name))
    shuffled = []
    for _ in range(settings.shuffles):
        orders = (rng.permutation(first), rng.permutation(second))
        shuffled.append(work.cut(responses[orders[0]], responses[orders[1]]))
    table = cut_rows(name, chosen.names, real, responses[second], settings, config.seed)
    return Painted(name, chosen.names, stimuli, subject.stimulus[second], real, shuffled, table)


class _Work:
    """What does not depend on responses: the tokens of both parts, their decompositions, which patches are sampled."""

    def __init__(
        self,
        tokens: Mapping[str, np.ndarray],
        first: np.ndarray,
        second: np.ndarray,
        settings: CutSettings,
        root: bool,
        seed: int,
    ) -> None:
        self.parts = [{layer: part[rows] for layer, part in tokens.items()} for rows in (first, second)]
        self.mappers = [{layer: ChannelMapper(x, root) for layer, x in part.items()} for part in self.parts]
        self.settings = settings
        rng = np.random.default_rng(derive(seed, "patches"))
        counts = [sum(x.shape[0] * x.shape[1] for x in part.values()) for part in self.parts]
        self.sampled = [np.sort(rng.choice(n, min(n, settings.sample), replace=False)) for n in counts]

    def cut(self, first: np.ndarray, second: np.ndarray) -> Cut:
        """Of responses (n, U), (m, U) to the two parts."""
        ways = [
            {layer: mapper.fit(y) for layer, mapper in mappers.items()}
            for mappers, y in zip(self.mappers, (first, second), strict=True)
        ]
        own = [
            {layer: way[layer].places(x) for layer, x in part.items()}
            for way, part in zip(ways, self.parts, strict=True)
        ]
        cuts = [
            NormalisedCut.of(_patches(found)[rows], self.settings.clusters)
            for found, rows in zip(own, self.sampled, strict=True)
        ]
        drive = {layer: ways[0][layer].places(x) for layer, x in self.parts[1].items()}
        labels, again = cuts[0].labels(_patches(drive)), cuts[1].labels(_patches(own[1]))
        n, places = next(iter(drive.values())).shape[:2]
        by_layer = dict(zip(drive, labels.reshape(len(drive), n, places), strict=True))
        kinds = np.arange(self.settings.clusters)
        share = {layer: (part[:, :, None] == kinds).mean(axis=1) for layer, part in by_layer.items()}
        r = {
            layer: float(column_correlation(second, ways[0][layer].predict(x)).mean())
            for layer, x in self.parts[1].items()
        }
        return Cut(by_layer, drive, share, r, adjusted_rand(labels, again))


def _patches(drive: Mapping[str, np.ndarray]) -> np.ndarray:
    """(sum of n * N, U), layer after layer."""
    return np.concatenate([part.reshape(-1, part.shape[2]) for part in drive.values()])


def cut_rows(
    subject: str, units: tuple[str, ...], cut: Cut, responses: np.ndarray, settings: CutSettings, seed: int
) -> list[dict[str, Any]]:
    """One row for each layer, cluster and unit.

    ``drive``: mean over the patches of the cluster, empty where it has none. ``r``: correlation over pictures of its
    share of the picture with the measured ``responses`` (n, U); p, two-sided, by shuffled pictures; q over the table.
    """
    rows, p = [], []
    for layer, labels in cut.labels.items():
        share = cut.share[layer]
        r, chance = _share_correlation(share, responses, settings.n_perm, derive(seed, "share", layer))
        for k in range(settings.clusters):
            inside = cut.drive[layer][labels == k]
            means = inside.mean(axis=0) if len(inside) else None
            for u, unit in enumerate(units):
                row = {"subject": subject, "layer": layer, "cluster": k + 1, "share": float(share[:, k].mean())}
                row |= {"unit": unit, "drive": "" if means is None else float(means[u]), "r": float(r[k, u])}
                rows.append(row)
                p.append(chance[k, u])
    q = q_values(np.array(p))
    return [{**row, "p": float(a), "q": float(b)} for row, a, b in zip(rows, p, q, strict=True)]


def _share_correlation(
    share: np.ndarray, responses: np.ndarray, permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """r and two-sided p (K, U) of shares (n, K) and responses (n, U). A share that never varies has r 0 and p 1."""
    a, b = _unit(share), _unit(responses)
    r = a.T @ b
    rng, at_least = np.random.default_rng(seed), np.ones(r.shape)
    for _ in range(permutations):
        at_least += np.abs(a[rng.permutation(len(a))].T @ b) >= np.abs(r) - 1e-9
    return r, at_least / (1 + permutations)


def _unit(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.asarray(centred / np.where(length > 1e-9, length, np.inf))


def facts(one: Painted) -> dict[str, Any]:
    """For the JSON file."""
    null = [cut.agreement for cut in one.shuffled]
    return {
        "n_pictures": len(one.rows),
        "r": one.cut.r,
        "r_shuffled": {layer: _mean([cut.r[layer] for cut in one.shuffled]) for layer in one.cut.r},
        "agreement": one.cut.agreement,
        "agreement_shuffled": _mean(null),
        "agreement_shuffled_most": max(null, default=None),
        "agreement_p": one.p,
        "significant": sum(row["q"] <= 0.05 for row in one.table),
        "table": one.table,
    }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def told(result: Mapping[str, Any]) -> str:
    """Lines for the terminal."""
    lines = []
    for subject, one in result["subjects"].items():
        lines.append(
            f"subject {subject}: {one['n_pictures']} pictures that neither fitted the map nor found the groups"
        )
        for layer, r in one["r"].items():
            chance = one["r_shuffled"][layer]
            lines.append(f"  {layer}: units predicted with r {r:.3f}" + _against(chance, "shuffled responses"))
        lines.append(
            f"  groups of both parts agree: adjusted Rand index {one['agreement']:.3f}"
            + _against(one["agreement_shuffled"], "shuffled responses: what the network alone gives")
            + ("" if one["agreement_p"] is None else f", p {one['agreement_p']:.2g}")
        )
        lines.append(
            f"  share of a group goes with a measured response in {one['significant']} of {len(one['table'])} pairs"
        )
    return "\n".join([*lines, f"folder: {result['folder']}"])


def _against(value: float | None, name: str) -> str:
    return "" if value is None else f" ({name} {value:.3f})"
