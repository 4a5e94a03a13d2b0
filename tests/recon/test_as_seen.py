"""One rule for every reader of picture files: turned as EXIF says, refused where transparent."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from align.data.importing.arrays import as_picture
from align.data.reading import safe_load
from align.data.reading.picture_files import PictureFiles
from align.data.reading.safe_load import decode_image, read_image_zip
from recon.audit.files import read_pictures
from recon.drawing.folders import DIGEST, file_digest
from recon.drawing.folders import read_pictures as drawn_pictures
from recon.scoring.opening import open_pictures
from tests.align.fixture_studies import picture
from tests.one_line import fails

PLAIN = picture(3, 24)


def zipped(path: Path) -> np.ndarray:
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        file.write(path, path.name)
    return read_image_zip(archive)[0][1]


def drawn(path: Path) -> np.ndarray:
    row = {"file": path.name, DIGEST: file_digest(path)}
    return (drawn_pictures(path.parent, {"a": row}, ["a"])[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def scored(path: Path) -> np.ndarray:
    (path.parent / f"another{path.suffix}").write_bytes(path.read_bytes())
    return open_pictures(path.parent).bytes8([1])[0]


def audited(path: Path) -> str:
    return read_pictures(path.parent).hashes[0]


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "study": decode_image,
    "bytes": lambda path: decode_image(path.read_bytes()),
    "zip": zipped,
    "library": lambda path: PictureFiles(path.parent).load(0),
    "evaluate-images": scored,
    "evaluate": drawn,
    "opened by pillow": lambda path: np.asarray(as_picture(Image.open(path), "images 0")),
}


def turned(path: Path, orientation: int) -> Path:
    """``PLAIN`` as a camera of that orientation stores it."""
    stored = {
        2: PLAIN.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: PLAIN.rotate(180),
        4: PLAIN.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: PLAIN.transpose(Image.Transpose.TRANSPOSE),
        6: PLAIN.rotate(90, expand=True),
        7: PLAIN.transpose(Image.Transpose.TRANSVERSE),
        8: PLAIN.rotate(-90, expand=True),
    }.get(orientation, PLAIN)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_image(turned(tmp_path / "a.png", orientation)), np.asarray(PLAIN))


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_turns_and_refuses_alike(reader: str, tmp_path: Path) -> None:
    read = READERS[reader]
    np.testing.assert_array_equal(read(turned(tmp_path / "a.png", 6)), np.asarray(PLAIN))
    opaque = PLAIN.convert("RGBA")
    opaque.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.asarray(PLAIN))
    opaque.putpixel((0, 0), (255, 0, 0, 0))
    opaque.save(tmp_path / "a.png")
    fails("alpha channel", lambda: read(tmp_path / "a.png"))


def test_an_audit_finds_a_copy_that_is_stored_turned(tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    (tmp_path / "upright").mkdir()
    turned(tmp_path / "camera" / "a.png", 6)
    PLAIN.save(tmp_path / "upright" / "a.png")
    assert audited(tmp_path / "camera" / "a.png") == audited(tmp_path / "upright" / "a.png")


def half_clear() -> Image.Image:
    image = PLAIN.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def one_colour_clear(mode: str) -> Image.Image:
    image = PLAIN.convert(mode)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (half_clear(), "a.png"),
        (half_clear().convert("LA"), "a.png"),
        (half_clear(), "a.webp"),
        (half_clear(), "a.tif"),
        (half_clear().quantize(), "a.png"),
        (one_colour_clear("P"), "a.png"),
        (one_colour_clear("L"), "a.png"),
        (one_colour_clear("RGB"), "a.png"),
    ],
)
def test_transparency_of_any_kind_is_refused(image: Image.Image, name: str, tmp_path: Path) -> None:
    image.save(
        tmp_path / name, **({"transparency": image.info["transparency"]} if "transparency" in image.info else {})
    )
    fails("alpha channel", lambda: decode_image(tmp_path / name))


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.tif"])
def test_other_formats_are_turned_too(name: str, tmp_path: Path) -> None:
    wide = PLAIN.crop((0, 0, 24, 16))
    exif = Image.Exif()
    exif[0x0112] = 8
    wide.rotate(-90, expand=True).save(tmp_path / name, exif=exif, quality=95)
    found = decode_image(tmp_path / name)
    assert found.shape == (16, 24, 3) and np.corrcoef(found.ravel(), np.asarray(wide).ravel())[0, 1] > 0.98


def test_odd_orientations_leave_the_picture_as_it_is(tmp_path: Path) -> None:
    for value in (0, 9, 300):
        exif = Image.Exif()
        exif[0x0112] = value
        PLAIN.save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), np.asarray(PLAIN))
    PLAIN.save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken")
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), np.asarray(ImageOps.exif_transpose(PLAIN)))


def test_turning_is_said_once_per_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    safe_load._TURNED.clear()
    with caplog.at_level(logging.INFO):
        for name in ("a.png", "b.png"):
            decode_image(turned(tmp_path / name, 6))
    assert caplog.text.count("EXIF orientation") == 1
