"""An own conditioner trained from pictures alone, and a ControlNet or T2I-Adapter beside it, in one command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Place:
    """A run, and by family ("sd", "sdxl") the folder of a generator that a conditioner was trained for."""

    run: Run
    home: Path
    generators: dict[str, Path]

    def conditioner(self, family: str) -> Path:
        """Found as `recon generate` finds it."""
        return find_conditioner(*LAYER, self.home, str(self.generators[family]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("home")
    run = make_run(home, 4)
    made = {"sd": tiny_generator(home / "sd")[0], "sdxl": build_generator("sdxl", home / "sdxl")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_HOME", str(home))
        patch.setattr(train, "use_all_cores", lambda: None)  # would hold for the tests that follow, too
        for generator in made.values():
            train_on_pictures(run, generator, home)
        yield Place(run, home, made)


@pytest.fixture(autouse=True)
def at_home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(place.home))


def train_on_pictures(run: Run, generator: Path, home: Path) -> None:
    """What `accelerate launch recon/train.py` does, with a few pictures, to the place where it is looked for."""
    words = [f"generator={generator}", f"backbone.name={LAYER[0]}", f"layer={LAYER[1]}", f"pooling={LAYER[2]}"]
    words += [f"backbone.weights={run.config.backbone.weights}", "pictures.rendered=6", f"cache_dir={home / 'cache'}"]
    words += ["train.steps=3", "train.batch_size=2", "sketch.steps=3", "sketch.batch_size=2"]
    assert train.main(words) == 0


@pytest.mark.parametrize(
    ("family", "kind", "control"),
    [
        ("sd", "net", ["--control", "sketch", "--control-scale", "0.5"]),
        pytest.param("sdxl", "t2i", ["--control", "sketch"], marks=pytest.mark.long),
        pytest.param("sdxl", "net", [], marks=pytest.mark.long),
    ],
)
def test_tokens_sketch_and_control_in_one_command(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    family: str,
    kind: str,
    control: list[str],
) -> None:
    generator, path = place.generators[family], place.conditioner(family)
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
    words = ["generate", "--subject", "01", "--run", str(place.run.path), "--generator", str(generator), "--json"]
    words += ["--steps", "3", "--limit", "3", "--strength", "1", "--controlnet", str(net), *control]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    told = json.loads(capsys.readouterr().out)
    reads = "sketch" if control else "edges"
    scale = 0.5 if "--control-scale" in control else 1.0
    assert told["controlnet"] == {"name": str(net), "reads": reads, "scale": scale}
    assert told["low_level"] == "tokens" and told["sampled"] == 12
    ending = {"edges": "", "sketch": "-sketch"}[reads] + ("-0.5" if scale == 0.5 else "")
    assert told["generator"] == f"{family}_controlnet-net{ending}"
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
    place: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    generator = place.generators["sd"]
    net = build_controlnet(place.generators["sdxl"], tmp_path / "net")
    capsys.readouterr()
    given = [word.format(generator=generator, net=net) for word in words]
    known = ["--run", str(place.run.path), "--generator", str(generator)]
    assert main(["generate", "--subject", "01", *known, "--out", str(tmp_path / "out"), *given]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("recon generate: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out").exists()
