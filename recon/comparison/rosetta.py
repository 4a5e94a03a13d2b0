"""`recon rosetta`: channels of networks that are each other's best match over pictures and places, against chance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.comparison.rosetta import LEVEL, Rosetta, pair_correlations, rosetta, unit_maps
from align.config import Config
from align.data.places import Claim
from align.data.signals import Stimuli
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from align.seeding import derive
from recon.comparison.files import csv_text
from recon.comparison.maps import Maps, read_maps
from recon.comparison.networks import described, layers_of, load_networks
from recon.comparison.pictures import digest, divided, pictures_of, subset

RESULT, TABLE, COUNTS, PICTURES = "rosetta.json", "matches.csv", "counts.png", "matches.png"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RosettaSettings:
    """``layers``: as `recon encode` takes them; ``side``: cells along the grid; ``most``: pictures at most."""

    layers: tuple[str, ...] = ("all",)
    side: int = 7
    shuffles: int = 100
    most: int = 500
    seed: int = 0


def run(
    config: Config,
    entries: Sequence[str],
    images: Path,
    settings: RosettaSettings,
    out: Path,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes `TABLE`, `COUNTS`, `PICTURES` and `RESULT` into ``out``; returns the content of `RESULT`.

    One half of the pictures finds the matches and their chance; the other half gives ``r_left_out`` and is shown.

    Raises
    ------
    UserError
        Fewer than two networks, an unknown one, layers without places, too few pictures, networks of which no channel
        varies, results of another configuration in the folder.
    """
    from recon.analysis.figures import save
    from recon.comparison.rosetta_figure import draw_counts
    from recon.comparison.rosetta_picture import draw_matches

    if len(entries) < 2:
        raise UserError("rosetta needs two networks or more: --backbones A,B")
    asked = {"backbones": list(entries), "images": str(images), **asdict(settings)}
    claim = Claim(out, RESULT, config, "Choose another --out FOLDER", asked, overwrite)
    with locked(out / ".rosetta.lock", f"writing into {str(out)!r}", wait=None, keep=False):
        claim.check()
        networks = load_networks(entries, config)
        stimuli = pictures_of(images, settings.most, settings.seed)
        chosen_on, left_out = divided(np.asarray(stimuli.groups), settings.seed)
        maps = {entry: _maps(one, stimuli, settings, config.cache_dir) for entry, one in networks.items()}
        found, shown = _measure(maps, chosen_on, left_out, settings)
        rows = match_rows(found, maps, shown)
        if not rows:
            raise UserError("no channel of these networks varies over the pictures; nothing can match")
        result = {
            "schema": 1,
            "networks": described(networks),
            "channels": {entry: len(one.layer) for entry, one in maps.items()},
            "layers_without_places": {entry: list(one.without) for entry, one in maps.items()},
            "pictures": {
                "chosen_on": {"n": len(chosen_on), "sha256": digest(subset(stimuli, chosen_on))},
                "left_out": {"n": len(left_out), "sha256": digest(subset(stimuli, left_out))},
            },
            "settings": asdict(settings),
            **summary(found, rows),
        }
        claim.take()
        write_atomic(out / TABLE, csv_text(rows))
        save(draw_counts(result, found, maps), out / COUNTS)
        draw_matches(found, maps, shown, subset(stimuli, left_out), out / PICTURES)
        write_sealed(out / RESULT, result)
    return {**result, "folder": str(out)}


def _maps(backbone: Any, stimuli: Stimuli, settings: RosettaSettings, cache_dir: str) -> Maps:
    return read_maps(backbone, stimuli, layers_of(backbone, settings.layers), settings.side, cache_dir)


def _measure(
    maps: Mapping[str, Maps], chosen_on: np.ndarray, left_out: np.ndarray, settings: RosettaSettings
) -> tuple[Rosetta, dict[str, np.ndarray]]:
    """The matches, and the `unit_maps` of the pictures that were left out, by network."""
    log.info("rosetta: %s", ", ".join(f"{len(one.layer)} channels of {entry}" for entry, one in maps.items()))
    rng = np.random.default_rng(derive(settings.seed, "rosetta"))
    found = rosetta({entry: unit_maps(one.values[chosen_on]) for entry, one in maps.items()}, settings.shuffles, rng)
    return found, {entry: unit_maps(one.values[left_out]) for entry, one in maps.items()}


def match_rows(found: Rosetta, maps: Mapping[str, Maps], left_out: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each match of each pair of networks, from the highest r down."""
    names = list(maps)
    rows = []
    for (a, b), one in found.pairs.items():
        again = pair_correlations(left_out[a], left_out[b], one.first, one.second)
        common = set(map(tuple, found.common[:, [names.index(a), names.index(b)]].tolist()))
        for k, (i, j) in enumerate(zip(one.first.tolist(), one.second.tolist(), strict=True)):
            row: dict[str, Any] = {}
            for side, entry, at in (("a", a, i), ("b", b, j)):
                row |= {f"network_{side}": entry, f"layer_{side}": str(maps[entry].layer[at])}
                row[f"channel_{side}"] = int(maps[entry].channel[at])
            row |= {"r": float(one.r[k]), "r_shuffled": float(one.r_shuffled[k]), "r_left_out": float(again[k])}
            row |= {"p": float(one.p[k]), "q": float(one.q[k])}
            rows.append({**row, "kept": bool(one.kept[k]), "in_all_networks": (i, j) in common})
    return rows


def summary(found: Rosetta, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many matches there are and survive, next to shuffled pictures."""
    pairs = []
    for (a, b), one in found.pairs.items():
        mine = [row for row in rows if (row["network_a"], row["network_b"]) == (a, b)]
        kept = [row for row in mine if row["kept"]]
        pairs.append(
            {
                "networks": [a, b],
                "matches": len(mine),
                "matches_shuffled": _mean([len(r) for r in one.null_r]),
                "r_median": float(np.median(one.r)) if len(one.r) else None,
                "r_median_shuffled": _mean([float(np.median(r)) for r in one.null_r if len(r)]),
                "kept": len(kept),
                "kept_shuffled": _mean(one.null_kept.tolist()),
                "kept_shuffled_most": int(one.null_kept.max(initial=0)),
                "kept_r_mean": _mean([row["r"] for row in kept]),
                "kept_r_left_out_mean": _mean([row["r_left_out"] for row in kept]),
            }
        )
    common = {"kept": len(found.common), "kept_shuffled": _mean(found.null_common.tolist())}
    return {"level": LEVEL, "pairs": pairs, "in_all_networks": common}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def told(result: Mapping[str, Any]) -> str:
    """Lines for the terminal."""
    pictures, shuffles = result["pictures"], result["settings"]["shuffles"]
    lines = [
        f"matched on {pictures['chosen_on']['n']} pictures, checked on {pictures['left_out']['n']} others; "
        f"chance: {shuffles} orders of the pictures"
    ]
    for one in result["pairs"]:
        lines.append(f"{one['networks'][0]} and {one['networks'][1]}")
        shuffled = f"{one['matches_shuffled']:.0f}, median r {one['r_median_shuffled'] or 0:.3f}"
        lines.append(f"  best of each other: {one['matches']}, median r {one['r_median']:.3f} (shuffled {shuffled})")
        line = f"  q <= {result['level']:g}: {one['kept']} (shuffled {one['kept_shuffled']:.1f})"
        if one["kept"]:
            line += f", r {one['kept_r_mean']:.3f}, on pictures left out {one['kept_r_left_out_mean']:.3f}"
        else:
            line += f"; p is at least {1 / (1 + shuffles):.2g} here, more --shuffles may be needed"
        lines.append(line)
    if len(result["channels"]) > 2:
        one = result["in_all_networks"]
        lines.append(f"matched in all {len(result['channels'])}: {one['kept']} (shuffled {one['kept_shuffled']:.1f})")
    return "\n".join([*lines, f"written: {result['folder']}"])
