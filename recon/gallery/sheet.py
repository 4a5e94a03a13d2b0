"""The contact sheet: best, median and worst stimuli by rule with all their controls, then every pair, as one PNG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from align.data.preparing.selection import in_words
from recon.gallery.content import Content, Item, choose, ordered

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

PAPER, INK, MUTED, LINE, RIGHT = "#ffffff", "#17181c", "#6b7280", "#e2e4e9", "#0f8a5f"
MARGIN, GAP, SMALL_GAP = 40, 22, 6
LARGE, SMALL, PAIR = 104, 72, 60  # px
TEXT_WIDTH = 224
ROWS_EACH = 4
LABELS = {
    "nearest_training_image": "nearest\ntraining",
    "likeliest_library_image": "likeliest\nin library",
    "random_training_image": "random\ntraining",
    "zero_brain": "zero\nbrain",
    "pixel_ridge": "pixel\nridge",
    "mean_image": "mean\nimage",
    "blurred_target": "blurred\nseen",
}


def draw_sheet(content: Content) -> Image.Image:
    """The sheet as a PIL picture."""
    from PIL import Image, ImageDraw

    layout = _Layout(content)
    image = Image.new("RGB", (layout.width, layout.height), PAPER)
    pen = _Pen(image, ImageDraw.Draw(image))
    top = _heading(pen, content)
    for name, items in layout.chosen.items():
        top = _section(pen, layout, name, items, top)
    _pairs(pen, layout, top)
    return image


@dataclass
class _Layout:
    content: Content
    chosen: dict[str, list[Item]] = field(init=False)
    top_count: int = field(init=False)

    def __post_init__(self) -> None:
        self.chosen = choose(self.content, ROWS_EACH)
        self.top_count = max(len(item.retrieved) for item in self.content.items)

    @property
    def controls_left(self) -> int:
        return MARGIN + TEXT_WIDTH + 2 * (LARGE + SMALL_GAP) + GAP

    @property
    def retrieved_left(self) -> int:
        return self.controls_left + len(self.content.controls) * (SMALL + SMALL_GAP) + GAP

    @property
    def width(self) -> int:
        return self.retrieved_left + self.top_count * (SMALL + SMALL_GAP) + MARGIN

    @property
    def pairs_per_line(self) -> int:
        return (self.width - 2 * MARGIN + 14) // (2 * PAIR + 2 + 14)

    @property
    def height(self) -> int:
        sections = sum(78 + len(items) * (LARGE + 14) for items in self.chosen.values())
        lines = -(-len(self.content.items) // self.pairs_per_line)
        return 150 + sections + 74 + lines * (PAIR + 12) + MARGIN


@dataclass
class _Pen:
    image: Image.Image
    draw: ImageDraw.ImageDraw

    def text(self, x: int, y: int, text: str, size: int = 14, colour: str = INK, bold: bool = False) -> None:
        font = _font(size)
        self.draw.multiline_text((x, y), text, fill=colour, font=font, spacing=3, stroke_width=0.4 if bold else 0)

    def fitted(self, x: int, y: int, text: str, width: int, lines: int, size: int, colour: str) -> None:
        """Text broken into at most ``lines`` lines of ``width`` px, the rest cut."""
        font, rows = _font(size), [""]
        for word in text.split():
            longer = f"{rows[-1]} {word}".strip()
            if rows[-1] and font.getlength(longer) > width:
                rows.append(word)
            else:
                rows[-1] = longer
        if len(rows) > lines:
            rows = [*rows[: lines - 1], rows[lines - 1] + " ..."]
        for k, row in enumerate(rows):
            while font.getlength(row) > width and len(row) > 4:
                row = row[:-5] + " ..."
            self.text(x, y + k * (size + 4), row, size, colour)

    def picture(self, x: int, y: int, pixels: np.ndarray, size: int, frame: str | None = None) -> None:
        from PIL import Image

        picture = Image.fromarray(pixels)
        smaller = picture.width >= size
        picture = picture.resize((size, size), Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC)
        self.image.paste(picture, (x, y))
        if frame:
            self.draw.rectangle((x - 3, y - 3, x + size + 2, y + size + 2), outline=frame, width=3)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _heading(pen: _Pen, content: Content) -> int:
    report = content.report
    pen.text(MARGIN, 34, "Seen and reconstructed", 30, bold=True)
    tokens = f"tokens {report['tokens']}   " if "tokens" in report else ""
    signals = f"{in_words(report['selection'])}   " if report.get("selection") else ""
    facts = (
        f"{report['study']}   subject {report['subject']}   {signals}layer {report['layer']} of {report['backbone']}   "
        f"generator {report['generator']}   {tokens}{report['n_stimuli']} test stimuli   seed {report['seed']}"
    )
    pen.text(MARGIN, 78, facts, 15, MUTED)
    parts = []
    for name in list(dict.fromkeys((*content.headline, *report["reconstruction"])))[:4]:
        entry = report["reconstruction"][name]
        shuffled = report["controls"].get("shuffled", {}).get(name)
        beside = f" (shuffled {shuffled['value']:.3f})" if shuffled else ""
        parts.append(f"{name} {entry['value']:.3f}{beside}")
    if "retrieval" in report:
        part = report["retrieval"]["brain_to_image"]
        parts.append(f"top-1 {part['top1']:.1%} of {part['candidates']} (chance {part['chance_top1']:.1%})")
    pen.text(MARGIN, 102, "     ".join(parts), 15)
    return 150


def _section(pen: _Pen, layout: _Layout, name: str, items: list[Item], top: int) -> int:
    content = layout.content
    pen.draw.line((MARGIN, top, layout.width - MARGIN, top), fill=LINE, width=1)
    pen.text(MARGIN, top + 14, name.capitalize(), 20, bold=True)
    pen.text(MARGIN, top + 42, f"{len(items)} of {len(content.items)} by {', then '.join(content.rule)}", 13, MUTED)
    left = MARGIN + TEXT_WIDTH
    labels = [("seen", left), ("reconstructed", left + LARGE + SMALL_GAP)]
    labels += [
        (LABELS.get(c, c), layout.controls_left + k * (SMALL + SMALL_GAP)) for k, c in enumerate(content.controls)
    ]
    labels += [(f"top {k + 1}", layout.retrieved_left + k * (SMALL + SMALL_GAP)) for k in range(layout.top_count)]
    for label, x in labels:
        pen.text(x, top + (44 if "\n" not in label else 28), label, 13, INK if x < layout.controls_left else MUTED)
    top += 70
    for item in items:
        _row(pen, layout, item, top)
        top += LARGE + 14
    return top + 8


def _row(pen: _Pen, layout: _Layout, item: Item, top: int) -> None:
    content, left = layout.content, MARGIN + TEXT_WIDTH
    pen.fitted(MARGIN, top + 2, item.caption or item.stimulus_id, TEXT_WIDTH - 20, 3, 14, INK)
    values = "   ".join(f"{name} {item.scores[name]:.2f}" for name in content.rule)
    pen.text(MARGIN, top + LARGE - 40, values, 13, MUTED)
    candidates = content.report["retrieval"]["brain_to_image"]["candidates"]
    pen.text(MARGIN, top + LARGE - 20, f"rank {item.rank:g} of {candidates}", 13, MUTED)
    pen.picture(left, top, content.seen[item.stimulus_id], LARGE)
    pen.picture(left + LARGE + SMALL_GAP, top, item.reconstructed, LARGE)
    down = top + (LARGE - SMALL) // 2
    for k, control in enumerate(content.controls):
        pen.picture(layout.controls_left + k * (SMALL + SMALL_GAP), down, item.controls[control], SMALL)
    for k, other in enumerate(item.retrieved):
        frame = RIGHT if other == item.stimulus_id else None
        pen.picture(layout.retrieved_left + k * (SMALL + SMALL_GAP), down, content.seen[other], SMALL, frame)


def _pairs(pen: _Pen, layout: _Layout, top: int) -> None:
    content = layout.content
    pen.draw.line((MARGIN, top, layout.width - MARGIN, top), fill=LINE, width=1)
    pen.text(MARGIN, top + 14, f"All {len(content.items)}", 20, bold=True)
    pen.text(MARGIN, top + 42, f"seen | reconstructed, best first by {', then '.join(content.rule)}", 13, MUTED)
    top += 74
    for k, item in enumerate(ordered(content)):
        line, place = divmod(k, layout.pairs_per_line)
        x, y = MARGIN + place * (2 * PAIR + 2 + 14), top + line * (PAIR + 12)
        pen.picture(x, y, content.seen[item.stimulus_id], PAIR)
        pen.picture(x + PAIR + 2, y, item.reconstructed, PAIR)
