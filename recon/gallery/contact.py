"""Contact sheets for papers: 7.2 in wide, PDF with text as text, PNG of the same; the caption says what was chosen how.

Every sheet shows whole columns (seen, reconstructed, further seeds, low level, evidence, and the shuffled control where
the run has it), so that nobody can show a reconstruction without what it should be compared with.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.spans import asked
from align.errors import UserError
from align.files import atomic_path, write_atomic
from recon.evaluation.provenance import choice_of_layer
from recon.gallery.content import Content, Item, choose, ordered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HIGHEST = 7.2, 10.2  # in
EDGE, LABEL, GAP = 0.2, 0.78, 0.04  # in
TITLE, SCORE, BETWEEN, LINE = 0.24, 0.15, 0.12, 0.135  # in
LETTERS = 150  # of a line of the caption
MUTED = "#5b6371"
SEEDS_SHOWN = 3  # further ones


@dataclass(frozen=True)
class Block:
    """Stimuli that stand side by side, under one title ("" continues the block before)."""

    title: str
    items: tuple[Item, ...]


def write_sheets(content: Content, stem: Path, which: str, count: int, seed: int) -> list[Path]:
    """``stem``.pdf (pages of at most `HIGHEST` in) and ``stem``.png (the pages below each other); returns both.

    ``which``: chosen, all or random; ``count`` stimuli side by side; ``seed`` of the random draw.
    """
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    blocks, rule = select(content, which, count, seed)
    rows = row_names(content, [item for block in blocks for item in block.items])
    lines = textwrap.wrap(caption(content, rule), LETTERS)
    pages = paginate(blocks, _block_height(len(rows), _tile(count)), len(lines) * LINE + 2 * EDGE + BETWEEN)
    dpi = 300 if sum(len(block.items) for block in blocks) <= 40 else 150
    style = {"pdf.fonttype": 42, "image.composite_image": False, "font.family": "DejaVu Sans"}
    pdf, png = (stem.with_name(f"{stem.name}.{kind}") for kind in ("pdf", "png"))
    with matplotlib.rc_context(style):
        figures = [_draw(content, page, rows, count, lines, dpi) for page in pages]
        with atomic_path(pdf) as temporary, PdfPages(temporary, metadata={"CreationDate": None}) as file:
            for figure in figures:
                file.savefig(figure)
        write_atomic(png, _stacked([_pixels(figure, dpi) for figure in figures]))
    return [pdf, png]


def select(content: Content, which: str, count: int, seed: int) -> tuple[list[Block], str]:
    """The blocks of a sheet and the rule of their choice in words. Raises `UserError` for an unknown ``which``."""
    by, n = ", then ".join(content.rule), len(content.items)
    if which == "chosen":
        chosen = choose(content, count)
        told = f"the {len(chosen['best'])} best, median and worst of {n} by {by}"
        return [Block(name, tuple(items)) for name, items in chosen.items()], told
    if which == "random":
        drawn = np.random.default_rng(seed).permutation(n)[:count]
        items = [content.items[i] for i in sorted(drawn)]
        return [Block("random", tuple(items))], f"{len(items)} of {n} drawn at random (seed {seed})"
    if which != "all":
        raise UserError(f"contact sheet {which!r} is not known; known: chosen, all, random")
    items = ordered(content)
    parts = [tuple(items[k : k + count]) for k in range(0, n, count)]
    return [Block("" if k else f"all {n}", part) for k, part in enumerate(parts)], f"all {n}, best first by {by}"


def row_names(content: Content, items: Sequence[Item]) -> list[str]:
    """The rows of a block, from top to bottom: those that one of the ``items`` has a picture for."""
    seeds = sorted({seed for item in items for seed in item.others})[:SEEDS_SHOWN]
    names = ["seen", f"seed {content.image_seed}", *(f"seed {seed}" for seed in seeds)]
    names += ["low level"] if any(item.low_level is not None for item in items) else []
    names += ["evidence"] if any(item.evidence is not None for item in items) else []
    return names + (["shuffled"] if "shuffled" in content.controls else [])


def picture_of(content: Content, item: Item, row: str) -> np.ndarray | None:
    """The picture of one row, None where the run has none."""
    if row.startswith("seed "):
        seed = int(row.removeprefix("seed "))
        return item.reconstructed if seed == content.image_seed else item.others.get(seed)
    if row == "seen":
        return content.seen[item.stimulus_id]
    return {"low level": item.low_level, "evidence": item.evidence, "shuffled": item.controls.get("shuffled")}[row]


def caption(content: Content, rule: str) -> str:
    """Who, how many, which layer and how it was chosen, which stimuli and how they were, seeds, means with controls."""
    report, means = content.report, []
    for name in content.headline:
        shuffled = report["controls"].get("shuffled", {}).get(name)
        beside = f" (shuffled {shuffled['value']:.3f})" if shuffled else ""
        means.append(f"{name} {report['reconstruction'][name]['value']:.3f}{beside}")
    parts = [
        f"{report['study']}, subject {report['subject']}, n = {report['n_stimuli']} test stimuli.",
        f"Layer {report['layer']} of {report['backbone']}, {choice_of_layer(report['layer_chosen_on'])}.",
        f"Input: {_input(report.get('selection') or {})}.",
        f"Encoder {report['encoder']}, training seed {report['seed']}; "
        f"generator {report['generator']}{_tokens(report)}, scored pictures of seed {content.image_seed}.",
        f"Shown: {rule}. Means over all {report['n_stimuli']}: {', '.join(means)}.",
    ]
    if any(item.evidence is not None for item in content.items):
        parts.append(f"Evidence, white = decided by the brain: {content.extras.rule or 'rule not stated'}.")
    if "shuffled" in content.controls:
        parts.append("Shuffled: the same generator given the tokens predicted for another stimulus.")
    return " ".join(parts)


def _tokens(report: dict[str, Any]) -> str:
    """Which tokens were drawn, where a report says so."""
    return f" (tokens: {report['tokens']})" if "tokens" in report else ""


def paginate(blocks: Sequence[Block], height: float, rest: float) -> list[list[Block]]:
    """Blocks of ``height`` in on pages that also hold ``rest`` in of margins and caption; at least one block each."""
    each = max(1, int((HIGHEST - rest) / height))
    return [list(blocks[k : k + each]) for k in range(0, len(blocks), each)]


def _input(selection: dict[str, Any]) -> str:
    size = selection.get("n_channels")
    parts = [f"{size} channels or voxels" if size else "not stated"]
    for name in ("roi", "channels", "window"):
        value = selection.get(name)
        if value and name == "window" and isinstance(value, list):
            parts.append(asked(value))
        elif value:
            parts.append(f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return ", ".join(parts)


def _tile(count: int) -> float:
    """Side of a picture in in; few stimuli are not blown up."""
    return min(1.0, (WIDTH - 2 * EDGE - LABEL - (count - 1) * GAP) / count)


def _block_height(rows: int, tile: float) -> float:
    return TITLE + rows * (tile + GAP) + SCORE + BETWEEN


def _draw(content: Content, page: list[Block], rows: list[str], count: int, lines: list[str], dpi: int) -> Figure:
    from matplotlib.figure import Figure

    tile = _tile(count)
    height = len(page) * _block_height(len(rows), tile) + len(lines) * LINE + 2 * EDGE + BETWEEN
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    top = EDGE
    for block in page:
        _draw_block(axes, content, block, rows, tile, top, dpi)
        top += _block_height(len(rows), tile)
    for k, line in enumerate(lines):
        axes.text(EDGE, top + BETWEEN + k * LINE, line, size=6.6, va="top", color="black")
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    return figure


def _draw_block(axes: Axes, content: Content, block: Block, rows: list[str], tile: float, top: float, dpi: int) -> None:
    axes.text(EDGE, top, block.title.capitalize(), size=9.5, va="top", weight="bold")
    for r, row in enumerate(rows):
        y = top + TITLE + r * (tile + GAP)
        scored = row == f"seed {content.image_seed}"
        axes.text(EDGE, y + tile / 2, f"reconstructed\n({row}, scored)" if scored else row, size=6.6, va="center")
        for k, item in enumerate(block.items):
            pixels = picture_of(content, item, row)
            if pixels is not None:
                x = EDGE + LABEL + k * (tile + GAP)
                shown = _at_most(pixels, round(tile * dpi))
                axes.imshow(shown, extent=(x, x + tile, y + tile, y), interpolation="none", aspect="auto")
    below = top + TITLE + len(rows) * (tile + GAP)
    for k, item in enumerate(block.items):
        score = content.rule[0]
        text = f"{score} {item.scores[score]:.2f}"
        axes.text(EDGE + LABEL + k * (tile + GAP), below, text, size=6, va="top", color=MUTED)


def _at_most(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _pixels(figure: Figure, dpi: int) -> np.ndarray:
    """The page as uint8 (H, W, 3), pictures smoothly enlarged."""
    from PIL import Image

    for shown in figure.axes[0].images:
        shown.set_interpolation("bicubic")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def _stacked(pages: list[np.ndarray]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(pages)).save(buffer, "PNG")
    return buffer.getvalue()
