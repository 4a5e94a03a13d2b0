"""The figures of a sweep, and the correlation with the size of the backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from align.sweep import plots
from align.sweep.points import scaling
from align.sweep.report import summarise
from tests.align.fixture_sweep import toy_config

LAYERS = ("a.1", "a.2", "b.3")
SIZES = {"tiny": 10**4, "timm/small": 10**5, "big": 3 * 10**6, "huge": 10**8}


def _hits(subject: int, top: float, rng: np.random.Generator) -> dict[str, Any]:
    """Of 30 pictures that each subject saw alone."""
    hits = (rng.random((2, 30)) < [[top], [top + 0.1]]).astype(float).tolist()
    return {"pictures": str(subject), "picture": hits[0], "concept": hits[1]}


def _cells(backbones: list[str], encoders: tuple[str, ...] = ("mlp",)) -> list[dict[str, Any]]:
    """Two subjects and two seeds each; accuracy is highest at layer ``a.2`` and grows with the backbone."""
    rng, cells = np.random.default_rng(0), []
    for backbone in backbones:
        for encoder in encoders:
            for place, layer in enumerate(LAYERS):
                for run in range(4):
                    top = 0.2 + 0.1 * (place == 1) + 0.03 * backbones.index(backbone) + 0.02 * rng.normal()
                    score = {"top1": top, "n": 30, "candidates": 30, "chance_top1": 1 / 30, "ci95_top1": [0.1, 0.3]}
                    loss = {"train": 2 - place, "validation": 3 - place + 0.1 * rng.normal()}
                    cells.append(
                        {"backbone": backbone, "encoder": encoder, "layer": layer, "subject": f"0{run // 2}"}
                        | {"seed": run % 2, "fold": "0", "split": "validation"}
                        | {"scores": {"brain_to_image": score}, "loss": loss}
                        | {"hits": _hits(run // 2, top, rng)}
                        | {"concept": {"kind": "concept", "top1": top + 0.1, "chance_top1": 0.1, "candidates": 10}}
                    )
    return cells


def _summary(backbones: list[str], encoders: tuple[str, ...] = ("mlp",)) -> dict[str, Any]:
    depth = {layer: place / 2 for place, layer in enumerate(LAYERS)}
    facts = {name: {"parameters": SIZES[name], "layers": 3, "depth": depth} for name in backbones}
    curves = [
        {"backbone": name, "encoder": encoder, "chosen": "a.2", "last": "b.3"}
        for name in backbones
        for encoder in encoders
    ]
    chosen = {"backbone": backbones[0], "encoder": encoders[0], "layer": "a.2"}
    choice = {"chosen": chosen, "curves": curves, "earlier": []}
    return summarise(toy_config(), _cells(backbones, encoders), [], choice, facts)


@pytest.mark.parametrize(
    ("count", "names"),
    [(1, ["layers", "concepts", "losses"]), pytest.param(4, [..., "scaling"], marks=pytest.mark.long)],
)
def test_figures_are_drawn(tmp_path: Path, count: int, names: list[Any]) -> None:
    summary = _summary(list(SIZES)[:count], ("mlp", "tsconv") if count == 1 else ("mlp",))
    written = [path.stem for path in plots.draw(summary, tmp_path)]
    assert written == (names if names[0] is not ... else ["layers", "concepts", "losses", "scaling"])
    for name in written:
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.std() > 10 and min(pixels.shape[:2]) > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.png" for name in written)


def test_what_a_panel_shows() -> None:
    summary = _summary(["tiny", "timm/small"])
    figure = plots._over_depth(summary, "y", plots._layers)
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_xlabel() for axes in panels] == ["layer of tiny (depth →)", "layer of timm/small (depth →)"]
    for axes, curve in zip(panels, summary["curves"], strict=True):
        assert [text.get_text() for text in axes.get_xticklabels()] == list(LAYERS)
        line = axes.lines[0]
        assert list(line.get_ydata()) == pytest.approx([100 * point["top1"] for point in curve["points"]])
        ring = next(line for line in axes.lines if "chosen" in str(line.get_label()))
        assert list(ring.get_xdata()) == [1]
    assert panels[0].get_ylim() == panels[1].get_ylim(), "panels can be compared"
    highest = max(100 * point["ci95"][1] for curve in summary["curves"] for point in curve["points"])
    assert panels[0].get_ylim()[0] == 0 and panels[0].get_ylim()[1] > highest, "no band is cut off"
    assert "test not read" in figure.get_suptitle()


def test_scaling_is_pearson_with_the_logarithm() -> None:
    found = _summary(list(SIZES))["scaling"]["mlp"]
    tops = [point["top1"] for point in found["points"]]
    r, p = stats.pearsonr(np.log10(list(SIZES.values())), tops)
    assert found["pearson"]["top1"] == {"r": pytest.approx(r), "p": pytest.approx(p)}
    assert r > 0.8
    assert found["pearson"]["depth"] is None, "all best layers are equally deep: no correlation"
    assert _summary(list(SIZES)[:2])["scaling"]["mlp"]["pearson"]["top1"] is None
    assert scaling([], {}) == {}


def test_joined_layers_leave_room_for_the_panel() -> None:
    text = json.dumps(_summary(["tiny"])).replace('"b.3"', json.dumps("+".join(f"features.{k}" for k in range(9))))
    figure = plots._over_depth(json.loads(text), "top-1", plots._layers)
    figure.draw_without_rendering()
    panel = figure.axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["a.1", "a.2", "features.0 … features.8 (9)"]
    assert panel.get_position().width > 0.6 and panel.get_position().height > 0.3
