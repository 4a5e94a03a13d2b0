"""Pictures of one colour and arrays of any form: counted and named, or taken as a plain copy is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_matrix

from align.data.importing.arrays import as_signals
from recon import cli
from recon.metrics import copies
from recon.metrics.flat import notes_of, one_colour
from recon.scoring.images import evaluate_images
from recon.scoring.opening import open_pictures
from recon.scoring.retrieval import score, score_matrix
from tests.align.fixture_studies import picture
from tests.one_line import fails

N = 6
TRUTH = np.stack([np.asarray(picture(i, 32)) for i in range(N)])


def level(told: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A metric that costs nothing."""
    return -np.abs(told - truth).mean(axis=(1, 2, 3))


QUICK: dict[str, Any] = {"metrics": [level], "n_boot": 20, "n_perm": 20}


def spoilt(value: object, rows: tuple[int, ...] = (1, 4)) -> np.ndarray:
    told = TRUTH.copy()
    told[list(rows)] = value
    return told


def noisy_black() -> np.ndarray:
    told = TRUTH.copy()
    told[1] = np.random.default_rng(0).integers(0, 2, told[1].shape)
    return told


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (spoilt(0), "2 of 6 reconstructions are flat, of one colour, 2 of them black: 1, 4;"),
        (spoilt(255), "2 of 6 reconstructions are flat, of one colour: 1, 4;"),
        (spoilt((10, 200, 30)), "2 of 6 reconstructions are flat, of one colour: 1, 4;"),
        (spoilt(0, tuple(range(N))), "6 of 6 reconstructions are flat, of one colour, 6 of them black"),
        (noisy_black(), "1 of 6 reconstructions are flat, of one colour, 1 of them black: 1;"),
        (spoilt(0).astype(np.float32) / 255, "2 of 6 reconstructions are flat, of one colour, 2 of them black"),
        (np.stack([TRUTH, spoilt(0)], axis=1), "2 of 12 reconstructions .* black: 1 .sample 1., 4 .sample 1.;"),
    ],
)
def test_flat_reconstructions_are_counted_and_named(
    told: np.ndarray, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    frame = evaluate_images(told, TRUTH, **QUICK)
    note, *others = frame.attrs["notes"]
    assert len(others) == (told.ndim == 5)  # equal samples of a stimulus are copies, too
    assert re.match(words, note), note
    assert note in caplog.text


def test_flat_targets_are_named_and_sound_pictures_are_not() -> None:
    (note,) = evaluate_images(TRUTH, spoilt(128), **QUICK).attrs["notes"]
    assert note.startswith("2 of 6 targets are flat, of one colour: 1, 4;")
    assert evaluate_images(TRUTH[::-1], TRUTH, **QUICK).attrs["notes"] == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([0, 0, 0, 0, 0, 0], "6 of 6 reconstructions are one and the same picture: 0 = 1 and 4 more;"),
        ([0, 1, 1, 1, 0, 0], "6 of 6 reconstructions are only 2 different pictures: 0 = 4 and 1 more;"),
        ([0, 1, 2, 3, 4, 0], "6 of 6 reconstructions are only 5 different pictures: 0 = 5;"),
    ],
)
def test_reconstructions_that_are_copies_are_counted_and_named(rows: list[int], words: str) -> None:
    (note,) = evaluate_images(TRUTH[rows], TRUTH, **QUICK).attrs["notes"]
    assert note.startswith(words)
    images = torch.from_numpy(TRUTH[rows]).permute(0, 3, 1, 2) / 255
    assert copies.notes_of(images, [str(i) for i in range(N)], "reconstructions") == [note]
    both = evaluate_images(TRUTH, TRUTH[rows], **QUICK).attrs["notes"]
    assert both == [note.replace("reconstructions", "targets")]


def test_the_command_prints_and_stores_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, images in (("seen", TRUTH), ("told", spoilt(0))):
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / name / f"p{i}.png")
    words = ["evaluate-images", "--reconstructions", str(tmp_path / "told"), "--targets", str(tmp_path / "seen")]
    assert cli.main([*words, "--metrics", "PixCorr", "--out", str(tmp_path / "x.json")]) == 0
    assert "note: 2 of 6 reconstructions are flat, of one colour, 2 of them black: p1, p4" in capsys.readouterr().out
    assert "p1, p4" in json.loads((tmp_path / "x.json").read_text())["notes"][0]


def test_pictures_of_a_run() -> None:
    images = torch.rand(3, 3, 16, 16)
    images[2] = 0.25
    assert one_colour(images)[0].tolist() == [False, False, True]
    assert notes_of(images[:2], ["a", "b"], "reconstructions") == []
    assert notes_of(images, ["a", "b", "c"], "reconstructions")[0].startswith("1 of 3 reconstructions are flat")


@pytest.mark.parametrize("rows", [(0,), (1, 4), tuple(range(N))])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_values_are_counted_and_named(rows: tuple[int, ...], value: float) -> None:
    told = TRUTH.astype(np.float32) / 255
    for row in rows:
        told[row, 3, 4, 0] = value
    listed = ", ".join(map(str, rows))
    fails(rf"NaN or infinity in {len(rows)} of 6 rows \({listed}\)", lambda: open_pictures(told, name="told"))


ADVICE = [
    (-0.03, 1.03, r"clip to \[0, 1\]"),
    (-0.2, 0.9, r"clip to \[0, 1\]"),
    (0.0, 1.2, r"clip to \[0, 1\]"),
    (-1.0, 1.0, r"\(\(x \+ 1\) / 2\)"),
    (-1.1, 1.08, r"\(\(x \+ 1\) / 2\)"),
    (0.0, 255.0, "by 255"),
    (-3.0, 258.0, "by 255"),
    (-2.1, 2.6, "neither .* x \\* std \\+ mean"),
    (-0.5, 0.5, "neither"),
    (0.0, 2.0, "neither"),
    (-128.0, 127.0, "neither"),
]


@pytest.mark.parametrize(("low", "high", "words"), ADVICE)
def test_advice_on_a_range_leads_to_right_numbers(low: float, high: float, words: str) -> None:
    x = np.linspace(low, high, N * 16 * 16 * 3, dtype=np.float32).reshape(N, 16, 16, 3)
    line = fails(words, lambda: open_pictures(x, name="told"))
    assert ("/ 2" in line) == (low <= -0.9 and high < 1.5)


E = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "flipped": lambda x: x[::-1].copy()[::-1],
    "columns first": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "double": lambda x: x.astype(np.float64) if x.dtype.kind == "f" else x,
    "tensor": lambda x: torch.tensor(np.ascontiguousarray(x)),
    "tensor that requires grad": lambda x: torch.tensor(x.astype(np.float32), requires_grad=True),
    "list": lambda x: x.tolist(),
    "list of arrays": list,
    "masked, nothing masked": lambda x: np.ma.masked_array(x),
    "matrix": lambda x: x.view(type("Own", (np.ndarray,), {})),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_any_form_are_scored_alike(form: str) -> None:
    quick: dict[str, Any] = {"n_boot": 5, "n_perm": 5, "transductive": False}
    right = score(E, E[::-1], **quick)
    found = score(FORMS[form](E), FORMS[form](np.ascontiguousarray(E[::-1])), **quick)
    assert found["brain_to_image"]["median_rank"] == right["brain_to_image"]["median_rank"]
    np.testing.assert_allclose(np.asarray(as_signals(FORMS[form](E)), dtype=np.float32), E)


@pytest.mark.parametrize("form", [name for name in FORMS if name not in ("list",)])
def test_pictures_of_any_form_are_opened_alike(form: str) -> None:
    stack = TRUTH.astype(np.float32) / 255
    np.testing.assert_allclose(open_pictures(FORMS[form](stack)).read(range(N), 0), stack)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ma.masked_less(E, 0), "masked values"),
        ([[1.0, 2.0], [3.0]], "no array of numbers"),
        ([["a", "b"]], "numbers"),
        (E.astype(complex), "numbers|complex"),
        (csr_matrix(E), "sparse"),
        ([[None, 1.0]], "numbers|object"),
        (np.zeros((0, 3)), "shape|numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_one_line(x: Any, words: str) -> None:
    fails(words, lambda: score_matrix(x))
    if not (isinstance(x, np.ndarray) and x.shape == (0, 3)):  # no trial is no mistake
        fails(words, lambda: as_signals(x))
    fails("pass a path|pictures|masked|holds|shape", lambda: open_pictures(x))
