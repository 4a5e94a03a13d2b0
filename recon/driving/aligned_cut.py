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

from align.data.names import subject_name
from align.data.places import Claim
from align.data.splits import grouped_folds
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from align.seeding import derive
from recon.comparison.files import csv_text
from recon.driving.groups import Painted, Work, cut_rows
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
FORMER = (f"{STEM}_sub-*.csv", f"{STEM}_sub-*.png")  # of subjects that a replaced result may have had
LEAST = 8  # pictures of either part
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


def run(
    config: Config, network: str, layer: str, settings: CutSettings, folder: Path, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a table and a picture for each subject and `RESULT` into ``folder``; returns the content of `RESULT`.

    Raises
    ------
    UserError
        Unknown subject, unit, region or layer; layers without a square grid of places, or with different ones; too few
        pictures; fewer patches than clusters; results of another configuration in the folder.
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
    asked = {**asdict(settings), "backbone": network, "layer": part.label, "subjects": names}
    claim = Claim(folder, RESULT, config, "Choose another folder (--out FOLDER)", asked, overwrite, FORMER)
    with locked(folder / f".{STEM}.lock", f"writing into {str(folder)!r}", wait=None, keep=False):
        claim.check()
        found = [_look(config, study, networks, part, settings, name) for name in names]
        claim.take()
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
    if min(len(first), len(second)) < LEAST:
        raise UserError(
            f"subject {name}: {len(first)} pictures for the map and {len(second)} to paint; {LEAST} of each are needed"
        )
    patches = min(len(first), len(second)) * next(iter(tokens.values())).shape[1] * len(tokens)
    if patches < 2 * settings.clusters:
        raise UserError(f"--clusters {settings.clusters}: {patches} patches are too few; take fewer")
    log.info("aligned cut: subject %s, %d units or regions, %d patches", name, len(chosen), patches)
    work = Work(tokens, first, second, settings.clusters, settings.sample, config.target.root, config.seed)
    real = work.cut(responses[first], responses[second])
    rng = np.random.default_rng(derive(config.seed, "aligned cut", name))
    shuffled = []
    for _ in range(settings.shuffles):
        orders = (rng.permutation(first), rng.permutation(second))
        shuffled.append(work.cut(responses[orders[0]], responses[orders[1]]))
    table = cut_rows(name, chosen.names, real, responses[second], settings.n_perm, config.seed)
    return Painted(name, chosen.names, stimuli, subject.stimulus[second], real, shuffled, table)


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
