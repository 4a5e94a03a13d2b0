"""Figure of learning curves: top-1 over the number of pictures, adapted in full lines, from scratch in dashed ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recon.adaptation.curve import ADAPTED
from recon.analysis.figures import new_figure, save, tidy


def plot_curve(
    points: list[dict[str, Any]], zero_shot: dict[str, Any] | None, chance: float, title: str, path: Path
) -> None:
    """``points``: method, kind, trials (a number or "all"), place, top1 and, over subjects, t95."""
    figure = new_figure(7.4, 4.2)
    axes = figure.subplots()
    methods = list(dict.fromkeys(point["method"] for point in points))
    places = dict(sorted({point["place"]: str(point["trials"]) for point in points}.items()))
    for number, method in enumerate(methods):
        for kind, style in ((ADAPTED, "-"), ("scratch", "--")):
            own = sorted((p for p in points if (p["method"], p["kind"]) == (method, kind)), key=lambda p: p["place"])
            if not own:
                continue
            x, y, colour = [p["place"] for p in own], [p["top1"] for p in own], f"C{number % 10}"
            axes.plot(x, y, style, color=colour, marker="o", markersize=3, linewidth=1.4, label=f"{method}, {kind}")
            if kind == ADAPTED and all(p.get("t95") for p in own):
                axes.fill_between(
                    x, [p["t95"][0] for p in own], [p["t95"][1] for p in own], color=colour, alpha=0.1, linewidth=0
                )
    if zero_shot is not None:
        label = f"{zero_shot['method']}, zero-shot"
        axes.axhline(zero_shot["top1"], color="0.3", linestyle=":", linewidth=1.2, label=label)
    axes.axhline(chance, color="0.6", linewidth=0.8)
    axes.text(max(places, default=0), chance, " chance", va="bottom", ha="right", fontsize=7, color="0.4")
    axes.set_xticks(list(places), list(places.values()))
    axes.set_xlabel("pictures of the new subject")
    axes.set_ylabel("top-1 among test pictures")
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=9, loc="left")
    figure.legend(loc="outside right upper", fontsize=6.5, frameon=False)
    tidy(axes)
    save(figure, path)
