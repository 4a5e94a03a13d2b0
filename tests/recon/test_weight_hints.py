"""A line about missing weights offers what the command that prints it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recon.cli import parse
from recon.metrics.feature_nets import AS_OPTIONS, AS_PAIRS, FeatureNets, WeightsMissing

NETWORKS = ("squeezenet1_1", "clip", "squeezenet1_0")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("ways", [AS_PAIRS, AS_OPTIONS])
def test_what_is_offered_exists(ways: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing) as missing:
        FeatureNets(ways=ways).source(network)
    told = str(missing.value)
    options, pairs = re.findall(r"--[\w-]+", told), re.findall(r"evaluate\.\w+(?:=\w+)?", told)
    assert told.endswith(ways) and (len(options), len(pairs)) == ((2, 0) if ways == AS_OPTIONS else (0, 2))
    if ways == AS_OPTIONS:
        words = ["evaluate-images", "--reconstructions", "x", "--targets", "y", "--weights-dir", "FOLDER", "--download"]
        args = parse(words)
        assert args.download and str(args.weights_dir) == "FOLDER" and set(options) <= set(words)
    else:
        from recon.commands.runs import evaluate_settings

        args = parse(["evaluate", "--subject", "01", f"evaluate.weights_dir={tmp_path}", "evaluate.download=true"])
        assert evaluate_settings(args).download and "evaluate.download=true" in pairs
