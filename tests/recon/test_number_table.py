"""Tables of numbers as pandas, R, numpy and spreadsheets write them: the features come out, or a line says why not."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recon.scoring.embeddings import read_matrix
from tests.one_line import fails

X = np.random.default_rng(0).normal(size=(6, 4)).round(3)
IDS = [101, 205, 17, 44, 8, 99]


def written(path: Path, frame: pd.DataFrame, **how: object) -> Path:
    frame.to_csv(path, **how)
    return path


def with_column(values: list[object], name: str, at: int = 0, columns: str = "f") -> pd.DataFrame:
    frame = pd.DataFrame(X, columns=[f"{columns}{i}" for i in range(4)])
    frame.insert(at, name, values)
    return frame


READ = {
    "pandas as it is": lambda path: written(path, pd.DataFrame(X)),
    "pandas without index": lambda path: written(path, pd.DataFrame(X), index=False),
    "index read back": lambda path: written(path, with_column(list(range(6)), "Unnamed: 0"), index=False),
    "index called index": lambda path: written(path, pd.DataFrame(X).reset_index(), index=False),
    "names in a comment": lambda path: np.savetxt(path, X, delimiter=",", header="a,b,c,d"),
    "numbers alone": lambda path: np.savetxt(path, X, delimiter=","),
    "header from 1": lambda path: written(path, pd.DataFrame(X, columns=range(1, 5)), index=False),
    "header 0.0, 1.0": lambda path: written(path, pd.DataFrame(X, columns=np.arange(4.0)), index=False),
    "row names of R": lambda path: written(path, pd.DataFrame(X, index=range(1, 7), columns=["V1", "V2", "V3", "V4"])),
    "blanks and empty lines": lambda path: path.write_text(
        "\ufeff a , b,c ,d\n\n" + "\n".join(" , ".join(map(str, row)) for row in X) + "\n\n", encoding="utf-8"
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_the_features_alone_are_read(kind: str, tmp_path: Path) -> None:
    READ[kind](tmp_path / "x.csv")
    np.testing.assert_allclose(read_matrix(tmp_path / "x.csv"), X)


def test_a_dropped_index_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read_matrix(written(tmp_path / "x.csv", pd.DataFrame(X)))
    assert "left out column 1" in caplog.text


@pytest.mark.parametrize(
    ("frame", "how", "words"),
    [
        (with_column(IDS, "image_id"), {"index": False}, r"column 1 \('image_id'\)"),
        (with_column(IDS, "stim"), {"index": False}, r"column 1 \('stim'\)"),
        (with_column(IDS, "nsd"), {"index": False}, r"column 1 \('nsd'\)"),  # a name nobody thought of
        (with_column(IDS, "code", at=4, columns=""), {"index": False}, r"column 5 \('code'\)"),
        (with_column(list("abcdef"), "name"), {"index": False}, "column 'name' holds 'a'"),
        (with_column(list(range(1, 7)), "seen"), {"index": False}, r"column 1 \('seen'\)"),
        (pd.DataFrame(X, index=IDS), {}, r"column 1 \(''\)"),
        (pd.DataFrame(X, index=[f"im{i}" for i in IDS]), {}, "column '' holds 'im101'"),
        (with_column(list(range(6)), "x"), {"index": False, "header": False}, "column 1 counts the rows"),
        (with_column([3, 0, 5, 1, 4, 2], "x"), {"index": False, "header": False}, "column 1 seems to name the rows"),
        (with_column(IDS, "x", at=4), {"index": False, "header": False}, "column 5 seems to name the rows"),
        (with_column([7, 7, 8, 8, 9, 9], "x"), {"index": False, "header": False}, "column 1 seems to name the rows"),
        (pd.DataFrame(X, columns=[10, 20, 30, 40]), {"index": False}, "line 1"),
        (pd.DataFrame(X, columns=[0.1, 0.2, 0.3, 0.4]), {"index": False}, "line 1"),
        (pd.DataFrame(X, columns=[7, 3, 12, 5]), {"index": False}, "line 1"),
        (pd.DataFrame(X), {"sep": ";"}, "semicolons"),
        (pd.DataFrame(X), {"sep": "\t"}, "tabs"),
        (pd.DataFrame(X).mask(pd.DataFrame(X) < 0), {}, "holds ''"),
    ],
)
def test_what_may_be_no_feature_is_named(
    frame: pd.DataFrame, how: dict[str, object], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "x.csv", frame, **how)
    fails(words, lambda: read_matrix(path))


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12).reshape(4, 3)[::-1],  # counts of spikes
        np.eye(5),
        np.array([[0.5, 0.25], [1.5, 2.0]]),
        np.zeros((3, 4)),
        np.random.default_rng(1).integers(0, 5, (6, 4)),
        np.c_[np.zeros(6), X],  # a unit that is silent
        np.c_[[0, 1, 0, 1, 0, 1], X],  # a flag
        np.c_[X[:, :2], [9, 4, 7, 1, 2, 3], X[:, 2:]],  # a count between other features
    ],
)
def test_numbers_that_are_features_stay(x: np.ndarray, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    np.testing.assert_allclose(read_matrix(tmp_path / "x.csv"), x)
