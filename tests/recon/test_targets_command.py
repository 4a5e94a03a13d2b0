"""`recon targets --costs`: the table, its JSON, its mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from align.vision.costs import markdown, measure
from align.vision.known import KNOWN
from recon import cli


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["targets", "--costs", "backbone.name=torchvision/squeezenet1_1", "--pictures", "640"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "| torchvision/squeezenet1_1 | by the file's hash | 14 layers features.0 to classifier" in out
    assert out.splitlines()[0].endswith("| mean, 640 | grid:4, 640 | tokens, 640 |")
    assert cli.main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["backbones"]
    assert rows[0]["layers"]["features.12"]["width"] == 512 and list(rows[0]["cache_bytes"]) == ["640"]
    assert np.isfinite(rows[0]["gflop"]) and rows[0]["backbone"] == "torchvision/squeezenet1_1"
    names = ["timm/test_vit", "open_clip/RN101-quickgelu:openai"]
    assert cli.main(["targets", "--costs", "--backbones", *names]) == 0
    out = capsys.readouterr().out
    assert "| timm/test_vit | not pinned |" in out and "| not pinned: could not be verified |" in out


def test_mistakes_of_the_command_end_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["--costs", "--pictures", "0"], "a number of pictures is 1 or more"),
        (["--pictures", "5"], "belong to --costs"),
        (["--costs", "--backbones", "mini"], "is embedded"),
        (["--costs", "backbone.name=timm/test_vitt"], "did you mean timm/test_vit"),
        (["--costs", "backbone.name=torchvision/squeezenet1_2"], "did you mean torchvision/squeezenet1_1"),
        (["--costs", "backbone.name=open_clip/ViT-B-17"], "did you mean open_clip/ViT-B-16"),
        (["--costs", "backbone.name=open_clip/RN50:nowhere"], "known: openai"),
        (["--costs", "backbone.name=transformers/x/y"], "need its configuration from the hub"),
        (["--costs", "backbone.name=nothing/x"], "Families: mini"),
    ):
        assert cli.main(["targets", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_without_names_the_table_has_every_known_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    from align.vision import costs
    from recon.commands import targets

    row = measure("timm/test_vit", [1])
    monkeypatch.setattr(costs, "measure", lambda name, pictures: {**row, "backbone": name})
    found = targets.run(cli.parse(["targets", "--costs"]))["backbones"]
    assert [facts["backbone"] for facts in found] == list(KNOWN)
    assert len(markdown(found).splitlines()) == 2 + len(KNOWN)
