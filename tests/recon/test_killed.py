"""Commands that are killed and given again leave what they leave at once; `benchmarks/killed_commands.py` does it for
every command that writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import killed_commands

SHORT = ("import", "convert", "download", "train", "score")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts commands as copies of this process")
def test_killed_commands_go_on(tmp_path: Path) -> None:
    killed_commands.warm()
    writers = [writer for writer in killed_commands.WRITERS if writer.name in SHORT]
    assert len(writers) == len(SHORT)
    found = list(killed_commands.run(tmp_path, writers, moments=2))
    assert [line for one in found for line in one.wrong] == []
    assert sum(one.killed for one in found) > len(SHORT)


def test_what_is_lost_changed_or_left_over_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"seconds": 1, "inner": [{"seconds": 2, "x": 3}], "recon_checksum": "crc32:1"}')
    (tmp_path / "b").write_bytes(b"1")
    whole = killed_commands.snapshot(tmp_path)
    (tmp_path / "a.json").write_text('{"seconds": 5, "inner": [{"x": 3}], "recon_checksum": "crc32:2"}')
    assert killed_commands.differences(whole, killed_commands.snapshot(tmp_path)) == []
    (tmp_path / "a.json").write_text('{"inner": [{"x": 4}]}')
    (tmp_path / "b").unlink()
    (tmp_path / "new").mkdir()
    told = killed_commands.differences(whole, killed_commands.snapshot(tmp_path))
    assert told == ["differs: a.json", "left over: new", "missing: b"]
