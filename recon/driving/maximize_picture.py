"""What `recon maximize` shows: each unit's best natural picture and the made one; the made ones as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from align.data.names import file_name
from align.files import atomic_path, make_folder

if TYPE_CHECKING:
    from PIL import Image

    from recon.driving.made import Made

_SIDE, _GAP, _LINE, _ACROSS = 96, 6, 15, 6  # px, and units side by side


def draw_made(one: Made, path: Path, folder: Path) -> None:
    """A sheet of all units, the best natural picture to the left of the made one; and each made picture as a PNG."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(11)
    width, height = 2 * _SIDE + 3 * _GAP, _SIDE + 3 * _LINE + 2 * _GAP
    lines = -(-len(one.rows) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * width, lines * height + _LINE + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    text = f"subject {one.subject}: best natural picture | made picture; what the judge predicts, in deviations"
    pen.text((_GAP, _GAP), text, fill="black", font=font)
    make_folder(folder)
    for k, row in enumerate(one.rows):
        left, top = k % _ACROSS * width + _GAP, k // _ACROSS * height + _LINE + _GAP
        for i, picture in enumerate((one.natural[k], one.made[k])):
            sheet.paste(_image(picture).resize((_SIDE, _SIDE)), (left + i * (_SIDE + _GAP), top))
        said = f"{row['unit']}\n{row['judge_of_start']:.2f} | {row['judge_made']:.2f}\n"
        pen.multiline_text(
            (left, top + _SIDE),
            f"{said}best of all: {row['judge_natural_best']:.2f}",
            fill="black",
            font=font,
            spacing=2,
        )
        with atomic_path(folder / f"{file_name(row['unit'])}.png") as temporary:
            _image(one.made[k]).save(temporary)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _image(picture: torch.Tensor) -> Image.Image:
    from PIL import Image

    return Image.fromarray((picture.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8))
