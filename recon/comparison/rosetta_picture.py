"""Heat maps of the strongest matches on the pictures that drive them most, as one PNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align.comparison.rosetta import Rosetta
from align.data.signals import Stimuli
from align.files import atomic_path
from recon.analysis.painted import painted
from recon.comparison.maps import Maps
from recon.comparison.networks import short_name

EACH, SHOWN = 7, 10  # pictures of a match, matches
_SIDE, _GAP, _TEXT, _LINE = 84, 4, 270, 17  # px


@dataclass(frozen=True)
class Shown:
    """A match: network to its channel; ``said``: its numbers."""

    channels: dict[str, int]
    said: str


def strongest(found: Rosetta, maps: Mapping[str, Maps]) -> list[Shown]:
    """`SHOWN` matches at most: of all networks where these have some in common, else of pairs; one of each layer of
    the first network, so that they differ. The highest r above that of shuffled pictures comes first. Where nothing
    survives, the same is shown, and that is said."""
    names = list(maps)
    taken: dict[tuple[str, str], Shown] = {}
    for one in [*_of_all(found, names), *_of_pairs(found)]:
        first = next(iter(one.channels))
        taken.setdefault((first, str(maps[first].layer[one.channels[first]])), one)
    return list(taken.values())[:SHOWN]


def _of_all(found: Rosetta, names: list[str]) -> Iterator[Shown]:
    if len(names) > 2:
        for row in found.common.tolist():
            yield Shown(dict(zip(names, row, strict=True)), f"matched in all {len(names)}")


def _of_pairs(found: Rosetta) -> Iterator[Shown]:
    every = [(pair, k) for pair, one in found.pairs.items() for k in range(len(one.r))]
    every.sort(key=lambda at: (not found.pairs[at[0]].kept[at[1]], -found.pairs[at[0]].above[at[1]]))
    for (a, b), k in every:
        one = found.pairs[a, b]
        chance = "" if one.kept[k] else ", not above chance"
        channels = {a: int(one.first[k]), b: int(one.second[k])}
        yield Shown(channels, f"r {one.r[k]:.3f}, shuffled {one.r_shuffled[k]:.3f}, q {one.q[k]:.2g}{chance}")


def draw_matches(
    found: Rosetta, maps: Mapping[str, Maps], values: Mapping[str, np.ndarray], stimuli: Stimuli, path: Path
) -> None:
    """``values``: network to `unit_maps` (n, N, P) of the pictures ``stimuli``, which did not find the matches.

    A block for each match: pictures on which its channels rise highest (mean over networks), then a line for each
    network with its map, red above the channel's mean and blue below.
    """
    from PIL import Image, ImageDraw, ImageFont

    shown = strongest(found, maps)
    heights = [_LINE + (1 + len(one.channels)) * (_SIDE + _GAP) + 2 * _GAP for one in shown]
    sheet = Image.new("RGB", (_TEXT + EACH * (_SIDE + _GAP) + _GAP, 2 * _LINE + sum(heights)), "white")
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(13), 2 * _LINE
    text = "channels that match across networks, on pictures that were not used to find them"
    pen.text((_GAP, _GAP), text, fill="black", font=font)
    for one, height in zip(shown, heights, strict=True):
        pen.line((_GAP, top, sheet.width - _GAP, top), fill=(200, 200, 200))
        pen.text((_GAP, top + _GAP), one.said, fill="black", font=font)
        cells = {entry: _scaled(values[entry][:, :, channel]) for entry, channel in one.channels.items()}
        peaks = np.mean([part.max(axis=1) for part in cells.values()], axis=0)
        best = np.argsort(-peaks, kind="stable")[:EACH]
        small = [Image.fromarray(stimuli.load(int(i))).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC) for i in best]
        at = top + _LINE
        for k, picture in enumerate(small):
            sheet.paste(picture, (_TEXT + k * (_SIDE + _GAP), at))
        for entry, part in cells.items():
            at += _SIDE + _GAP
            layer, channel = maps[entry].layer[one.channels[entry]], maps[entry].channel[one.channels[entry]]
            label = f"{short_name(entry)}\nlayer {layer}, channel {channel}"
            pen.multiline_text((_GAP, at + _GAP), label, fill="black", font=font, spacing=3)
            for k, (picture, i) in enumerate(zip(small, best, strict=True)):
                sheet.paste(painted(picture, part[i]), (_TEXT + k * (_SIDE + _GAP), at))
        top += height
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _scaled(values: np.ndarray) -> np.ndarray:
    """Maps (n, N) with their highest value at 1."""
    return values / max(float(values.max()), 1e-12)
