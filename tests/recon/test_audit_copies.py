"""Reconstructions that are the seen picture, and tables that lead out of a run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from recon.audit.copies import NEAR_R, Likeness, compared, likeness, seen_pictures
from recon.audit.inside import outside_run, places
from recon.drawing.folders import DIGEST, INDEX_COLUMNS, file_digest, write_index
from tests.recon.clean_material import blend, random_pictures


def photograph(seed: int) -> np.ndarray:
    """Like one: energy falls with frequency, uint8 (128, 128, 3)."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None]) + 1 / 128
    noise = rng.normal(size=(128, 128, 1)) + 0.3 * rng.normal(size=(128, 128, 3))
    x = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) / f[..., None], axes=(0, 1)).real
    return np.clip(128 + 50 * x / x.std(), 0, 255).astype(np.uint8)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "half the size": lambda image: image.resize((64, 64), Image.Resampling.BILINEAR),
    "twice the size": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC),
    "jpeg": lambda image: jpeg(image, 30),
    "one pixel off": lambda image: Image.fromarray(np.asarray(image) ^ np.uint8(1)),
    "darker": lambda image: Image.eval(image, lambda v: v // 2),
    "small and jpeg": lambda image: jpeg(image.resize((96, 96)), 60),
}


@pytest.mark.parametrize("how", COPIES)
def test_an_altered_copy_is_near(how: str) -> None:
    for seed in range(4):
        seen = photograph(seed)
        equal, r = likeness(np.asarray(COPIES[how](Image.fromarray(seen))), seen)
        assert not equal and r > NEAR_R


def test_honest_pictures_are_not_near() -> None:
    rng = np.random.default_rng(0)
    test, other = random_pictures(rng, 50), random_pictures(rng, 50)
    for share in (0.0, 0.4, 0.7):
        assert max(likeness(a, b)[1] for a, b in zip(blend(test, other, share), test, strict=True)) < NEAR_R
    mirrored = np.asarray(ImageOps.mirror(Image.fromarray(photograph(0))))
    assert likeness(mirrored, photograph(0))[1] < NEAR_R and np.isnan(likeness(test[0] * 0, test[0])[1])


def test_what_each_finding_is_called() -> None:
    ids = [str(i) for i in range(100)]
    clear = compared(ids, [[(False, 0.5)]] * 100)
    assert seen_pictures(clear).verdict == "clear"
    assert seen_pictures(compared(ids, [[(True, 1.0)], *[[(False, 0.5)]] * 99])).verdict == "leak"
    assert seen_pictures(compared(ids, [[(False, 0.99)], *[[(False, 0.5)]] * 99])).verdict == "suspect"
    many = compared(ids, [*[[(False, 0.5), (False, 0.99)]] * 20, *[[(False, 0.5), (False, 0.2)]] * 80])
    assert seen_pictures(many).verdict == "leak" and "20" in seen_pictures(many).evidence
    assert seen_pictures(replace(many, oracle=np.full(100, 0.99))).verdict == "suspect"
    assert seen_pictures(replace(clear, oracle=np.full(100, 0.999))).verdict == "clear"
    flat = Likeness(tuple(ids), np.zeros((100, 1), bool), np.full((100, 1), np.nan))
    assert seen_pictures(flat).verdict == "clear"


def drawn(run: Path, file: str) -> Path:
    folder = run / "reconstructions" / "mini" / "sub-01"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    right = {"file": file, DIGEST: file_digest(folder / "a.png")}
    write_index(folder, [dict.fromkeys((*INDEX_COLUMNS, DIGEST), "0") | right])
    return folder


def verdict_of(run: Path) -> tuple[str, str]:
    found = outside_run(*places(SimpleNamespace(path=run, subject="01")))  # type: ignore[arg-type]
    return found.verdict, found.evidence


@pytest.mark.parametrize("file", ["../../../secret.png", "/etc/hostname", "C:\\x.png", "..", "\\\\host\\x.png"])
def test_rows_that_leave_the_run(tmp_path: Path, file: str) -> None:
    drawn(tmp_path, file)
    verdict, evidence = verdict_of(tmp_path)
    assert verdict == "leak" and "row 1" in evidence


@pytest.mark.parametrize("kind", ["reconstructions", "controls", "low_level"])
def test_a_picture_put_in_the_place_of_a_drawn_one(kind: str, tmp_path: Path) -> None:
    """The seen picture, copied over the reconstruction, was an input that the audit lacked: no sign of a leak."""
    folder = drawn(tmp_path, "a.png")
    assert verdict_of(tmp_path)[0] == "clear"
    if kind != "reconstructions":
        (tmp_path / "reconstructions").rename(tmp_path / kind)
    (tmp_path / kind / folder.relative_to(tmp_path / "reconstructions") / "a.png").write_bytes(b"seen")
    verdict, evidence = verdict_of(tmp_path)
    assert verdict == "leak" and f"{kind}/mini/sub-01/a.png was changed" in evidence


def test_links_that_leave_the_run(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "run", "a.png")
    assert verdict_of(tmp_path / "run")[0] == "clear"
    (tmp_path / "run" / "stimuli_sub-01.json").write_text(f'{{"images": "{(tmp_path / "other").as_posix()}"}}')
    assert verdict_of(tmp_path / "run")[0] == "suspect"
    (tmp_path / "secret.png").write_bytes(b"s")
    (folder / "b.png").symlink_to(tmp_path / "secret.png")
    assert verdict_of(tmp_path / "run")[0] == "leak"
    (folder / "b.png").unlink()
    (tmp_path / "run" / "controls").symlink_to(tmp_path)
    assert verdict_of(tmp_path / "run")[0] == "leak"
