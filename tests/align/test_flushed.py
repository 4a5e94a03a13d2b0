"""A power cut leaves the old file or the new one: bytes are on the disk before the file has its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.data.download.part import Part
from align.files import save_tensors, write_atomic, write_json


@pytest.fixture()
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What happens from here on: ("flushed" or "named", number of the file in its file system)."""
    done: list[tuple[str, int]] = []
    replace = os.replace

    def named(source: Any, target: Any) -> None:
        done.append(("named", Path(source).stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda file: done.append(("flushed", os.fstat(file).st_ino)))
    monkeypatch.setattr(os, "replace", named)
    return done


def _download(path: Path) -> None:
    part = Part("https://example.org/a", path.with_name("a.part"), path.with_name("a.part").open("w+b", 0), False)
    part.append(b"bytes")
    part.become(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_atomic(path, "text"),
        lambda path: write_json(path, {"a": 1}),
        lambda path: save_tensors(path, {"a": torch.zeros(2)}),
        _download,
    ],
    ids=["text", "json", "tensors", "download"],
)
def test_bytes_come_before_the_name(
    tmp_path: Path, steps: list[tuple[str, int]], write: Callable[[Path], None]
) -> None:
    path = tmp_path / "file"
    write(path)
    own = path.stat().st_ino
    assert [what for what, number in steps if number == own][-2:] == ["flushed", "named"]


def test_pictures_are_not_waited_for(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    write_atomic(tmp_path / "picture.png", np.zeros(3, np.uint8).tobytes(), flush=False)
    assert [what for what, _ in steps] == ["named"]
