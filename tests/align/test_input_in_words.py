"""What of a trial an encoder reads, on one line of text."""

from __future__ import annotations

from pathlib import Path

import pytest

from align.config import Config, load_config
from align.data.preparing.selection import described, in_words
from align.train import Trained


@pytest.mark.parametrize(
    ("pairs", "shape", "said"),
    [
        ([], (300,), "300 voxels or units"),
        (["study.roi=[V1,V4]"], (120,), "120 voxels or units, regions V1, V4"),
        (["study.channels=Oz"], (1, 250), "1 channels x 250 samples, channels Oz"),
    ],
)
def test_size_and_regions(pairs: list[str], shape: tuple[int, ...], said: str) -> None:
    assert in_words(described(load_config(Config, None, pairs), shape)) == said


def test_members_that_differ_and_older_reports() -> None:
    assert in_words({"n_channels": "differs", "n_times": None, "roi": "differs"}) == "trials of different sizes"
    assert in_words({}) == "size of trials not stated"


def test_the_line_of_a_training_says_it() -> None:
    line = str(Trained(Path("r"), "folder", "01", ("01",), "0" * 64, 40, 1.0, "60 voxels or units"))
    assert line.startswith("folder 01: 40 training rows of 60 voxels or units, 1.0 s")
