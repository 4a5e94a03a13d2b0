"""Numbers that cannot be are refused before anything is done, also by what only lists: dry runs and cells."""

from __future__ import annotations

import pytest

from recon import cli

DRY = ["generate", "--dry-run"]
LIST = ["sweep", "--list"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*DRY, "--limit", "0"], "--limit 0 should be 2 or more"),
        ([*DRY, "--limit", "-1"], "--limit -1 should be 2 or more"),
        ([*DRY, "--steps", "0"], "--steps 0 should be 1 or more"),
        ([*DRY, "--batch-size", "0"], "--batch-size 0 should be 1 or more"),
        ([*DRY, "--best-of", "0"], "--best-of 0 should be 1 or more"),
        ([*DRY, "--strength", "1.5"], "--strength 1.5 should be from 0"),
        ([*DRY, "--seeds", "1", "1"], "--seeds 1 1: give different whole numbers"),
        ([*DRY, "--guide", "encoding", "--strength", "0"], "guide"),
        ([*DRY, "--choose-by", "PixCorr"], "PixCorr"),
        ([*LIST, "--processes", "0"], "--processes 0 should be 1 or more"),
        (["sweep", "--cell", "0", "--processes", "-2"], "--processes -2 should be 1 or more"),
        ([*LIST, "--jobs", "0"], "--jobs 0 should be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_where_nothing_is_drawn(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and out == ""


def test_a_dry_run_of_the_embedded_generator_still_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*DRY, "--limit", "2", "--steps", "1"]) == 0
    assert "mini" in capsys.readouterr().out
