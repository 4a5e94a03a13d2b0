"""Writers of tiny studies on disk: the V4 repository's layout, and a `folder` study."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter


def picture(seed: int, size: int = 20) -> Image.Image:
    """A smooth random picture, unlike every other seed's (thumbnail r far below .97)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)


def blurred(image: Image.Image) -> Image.Image:
    """The same scene with other pixels: no hash sees it, a thumbnail does."""
    return image.filter(ImageFilter.GaussianBlur(0.6))


def png(image: Image.Image) -> bytes:
    """Encoded without loss."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def write_v4_session(root: Path, session: str, images: Sequence[Image.Image], units: int = 3) -> np.ndarray:
    """One session below ``root/data_V4_responses``; response of unit u to image i is ``1000 u + i``.

    The zip holds a folder and is not in sorted order, as some of the public ones.
    """
    folder = root / "data_V4_responses"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "responses_repeat_averaged").mkdir(exist_ok=True)
    order = np.random.default_rng(0).permutation(len(images))
    with zipfile.ZipFile(folder / "images" / f"images_{session}.zip", "w") as archive:
        archive.writestr("stimuli/", "")
        archive.writestr("__MACOSX/stimuli/._image0001.png", b"not a picture")
        for i in order:
            archive.writestr(f"{'z' if i % 2 else 'a'}/image{i + 1:04d}.png", png(images[i]))
    responses = 1000.0 * np.arange(units)[:, None] + np.arange(len(images))[None]
    np.save(folder / "responses_repeat_averaged" / f"responses_{session}.npy", responses)
    return responses


def write_folder(
    root: Path, signals: np.ndarray | None = None, rows: Sequence[dict[str, object]] | None = None
) -> None:
    """A folder study: 2 subjects, 6 training pictures shown twice, 3 test pictures once; value of row r is r."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    rows = default_rows() if rows is None else rows
    for name in {str(row["image"]) for row in rows}:
        if not (root / "images" / name).exists():
            (root / "images" / name).write_bytes(png(picture(int(name[3:6]))))
    if signals is None:
        signals = np.zeros((len(rows), 4, 5), np.float32) + np.arange(len(rows), dtype=np.float32)[:, None, None]
    np.save(root / "signals.npy", signals)
    with (root / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def default_rows() -> list[dict[str, object]]:
    """The lines that `write_folder` writes; rows of the signals are in reverse order of the lines."""
    lines: list[tuple[str, str, str]] = []
    for subject in ("01", "08"):
        lines += [(f"pic{i:03d}.png", "train", subject) for i in (0, 1, 2, 3, 4, 5) for _ in range(2)]
        lines += [(f"pic{i:03d}.png", "test", subject) for i in (6, 7, 8)]
    last = len(lines) - 1
    return [
        {"row": last - n, "image": image, "split": split, "subject": subject, "concept": f"c{int(image[3:6]) // 2}"}
        for n, (image, split, subject) in enumerate(lines)
    ]
