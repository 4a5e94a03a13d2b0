"""An own conditioner trained from pictures alone, and a ControlNet or T2I-Adapter beside it, in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from align.checkpoint import Run
from recon import train
from recon.cli import main
from recon.generation.adapters import load_adapter
from recon.generation.control import Control
from recon.generation.pipeline import Generator, find_conditioner
from recon.generation.sketch import load_sketch
from tests.recon.tiny import tiny_generator
from tests.recon.tiny_family import build_controlnet, build_generator, build_t2i_adapter
from tests.recon.tiny_run import make_run

LAYER = ("torchvision/squeezenet1_1", "features.3", "grid:2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), 4)


def conditioner(run: Run, generator: Path, home: Path) -> Path:
    """What `accelerate launch recon/train.py` makes of a few pictures, in the place where it is looked for."""
    words = [f"generator={generator}", f"backbone.name={LAYER[0]}", f"layer={LAYER[1]}", f"pooling={LAYER[2]}"]
    words += [f"backbone.weights={run.config.backbone.weights}", "pictures.rendered=6", f"cache_dir={home / 'cache'}"]
    words += ["train.steps=3", "train.batch_size=2", "sketch.steps=3", "sketch.batch_size=2"]
    assert train.main(words) == 0
    return find_conditioner(*LAYER, home, str(generator))


@pytest.mark.parametrize(
    ("family", "kind", "control"),
    [
        ("sd", "net", ["--control", "sketch", "--control-scale", "0.5"]),
        ("sdxl", "t2i", ["--control", "sketch"]),
        ("sdxl", "net", []),
    ],
)
def test_tokens_sketch_and_control_in_one_command(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    family: str,
    kind: str,
    control: list[str],
) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    generator = tiny_generator(tmp_path / "g")[0] if family == "sd" else build_generator("sdxl", tmp_path / "g")
    path = conditioner(run, generator, tmp_path)
    adapter = load_adapter(path)
    assert adapter.info is not None and adapter.info.n_tokens == 4 and "proj.0.weight" in adapter.state["image_proj"]
    assert load_sketch(path) is not None
    net = (
        build_controlnet(generator, tmp_path / "net") if kind == "net" else build_t2i_adapter(family, tmp_path / "net")
    )
    capsys.readouterr()
    seen: list[dict[str, Any]] = []
    draw = Generator.generate

    def watched(self: Generator, tokens: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        pictures = draw(self, tokens, *args, **options)
        plain = draw(self, tokens, *args, **{**options, "control": torch.zeros_like(options["control"])})
        seen.append({**options, "change": (pictures - plain).abs().amax((1, 2, 3)).min()})
        return pictures

    monkeypatch.setattr(Generator, "generate", watched)
    words = ["generate", "--subject", "01", "--run", str(run.path), "--generator", str(generator), "--steps", "3"]
    words += ["--limit", "3", "--strength", "1", "--controlnet", str(net), *control]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    reads = "sketch" if control else "edges"
    scale = 0.5 if "--control-scale" in control else 1.0
    assert told["controlnet"] == {"name": str(net), "reads": reads, "scale": scale}
    assert told["low_level"] == "tokens" and told["sampled"] == 12
    label = {"net": {"edges": "g_controlnet-net", "sketch": "g_controlnet-net-sketch-0.5"}, "t2i": {}}
    assert told["generator"] == label[kind].get(reads, "g_controlnet-net-sketch")
    assert len(seen) == 4  # reconstructions, shuffled, zero_brain, oracle
    for given in seen:
        assert torch.equal(given["control"], Control("x", reads).picture(given["start"]))
        assert given["change"] > 1e-4
    assert not torch.equal(seen[0]["control"], seen[1]["control"])
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["sampled"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--controlnet", "{generator}/unet"], "holds a UNet2DConditionModel"),
        (["--controlnet", "{net}"], "is of another generator: width 32, not 16"),
        (["--controlnet", "{net}", "--low-level", "none"], "reads the edges of the coarse picture, and there is none"),
        (["--control", "sketch"], "pass --controlnet too"),
        (["--controlnet", "{net}", "--control-scale", "-1"], "--control-scale -1.0 should be 0 or more"),
    ],
)
def test_bad_words_end_in_one_line_and_write_nothing(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    generator = tiny_generator(tmp_path / "g")[0]
    path = conditioner(run, generator, tmp_path)
    net = build_controlnet(build_generator("sdxl", tmp_path / "xl"), tmp_path / "net")
    capsys.readouterr()
    given = [word.format(generator=generator, net=net) for word in words]
    place = ["--run", str(run.path), "--generator", str(generator), "--adapter", str(path)]
    assert main(["generate", "--subject", "01", *place, "--out", str(tmp_path / "out"), *given]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()
