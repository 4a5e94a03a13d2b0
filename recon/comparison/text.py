"""Results of a comparison as lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon.analysis.timecourse_text import before_stimulus, moment_text


def universality_text(result: Mapping[str, Any]) -> str:
    """A line per network, then the brain."""
    pictures, head = result["pictures"], "mean of dimensions"
    lines = [
        f"{result['n_dimensions']} dimensions, fitted on {pictures['fitted']['n']} pictures, scored on "
        f"{pictures['scored']['n']} others",
        f"{'network':<42}{'dimensions':>12}{head:>20}{'by variance':>13}{'shuffled':>10}{'q <= .05':>10}",
    ]
    for name, one in result["by_network"].items():
        null = "-" if one["null_mean"] is None else f"{one['null_mean']:.3f}"
        lines.append(
            f"{name:<42}{one['n_dimensions']:>12}{one['mean']:>20.3f}{one['weighted_by_variance']:>13.3f}{null:>10}"
            f"{100 * one['significant']:>8.0f} %"
        )
    if "brain" in result:
        lines += _brain_lines(result)
    return "\n".join([*lines, f"written: {result['folder']}"])


def _brain_lines(result: Mapping[str, Any]) -> list[str]:
    brain, shuffled = result["brain"], result["shuffled"]
    chance = f", shuffled brain {shuffled['mean_r']:.3f}" if "mean_r" in shuffled else ""
    lines = [
        f"brain similarity ({brain['direction']}): mean {brain['mean']:.3f}{chance}, q <= .05 in "
        f"{100 * brain['significant']:.0f} %"
    ]
    for name, title in (("plain", "universality and brain"), ("given_variance", "the same given variance")):
        one = result["association"][name]
        low, high = one["ci95_layers"]
        line = f"{title}: rank correlation {one['rho']:.3f} (over layers [{low:.3f}, {high:.3f}]"
        if one["t95_subjects"]:
            line += ", over subjects [{:.3f}, {:.3f}]".format(*one["t95_subjects"])
        lines.append(f"{line}), p {shuffled[name]['p']:.3g} against {shuffled['shuffles']} shuffled brains")
    if result["when"]:
        titles = {f"{side} universal dimensions": side for side in ("most", "least")}
        for title, side in {**titles, "rank correlation with universality": "association"}.items():
            one = result["when"][side]
            onset = "no onset" if one["onset"] is None else f"onset {1000 * one['onset']:.0f} ms"
            lines.append(f"{title}: {onset}, peak {1000 * one['peak']:.0f} ms")
    return lines


def rsa_text(result: Mapping[str, Any]) -> str:
    """Per area its ceiling, then a line per network: the chosen layer with its score, peak, late minus early."""
    lines = []
    for entry in result["areas"]:
        ceiling = entry["ceiling"]
        bounds = [f"{value:.3f}" for value in (ceiling["lower"], ceiling["upper"]) if value is not None]
        said = f"noise ceiling {' to '.join(bounds)}" if bounds else "no noise ceiling (one subject)"
        lines.append(f"{entry['area']}: {len(entry['subjects'])} subjects, {entry['n_pictures']} pictures, {said}")
        for name, one in entry["networks"].items():
            late, peak = one["late_minus_early"], one["peak"]
            lines.append(f"  {name}: peak at depth {_interval(peak, 2)}, late minus early layers {_interval(late)}")
            lines += [
                f"    {kind}: layer {chosen['layer']} chosen on half of the pictures, on the others {_interval(chosen)}"
                for kind, chosen in one["chosen"].items()
            ]
        if "when" in entry:
            lines += _when_lines(entry["when"])
    lines += [
        f"{name}: the peak of {one['to']} lies {_interval(one, 2)} deeper than that of {one['from']}"
        for name, one in result["areas_apart"].items()
    ]
    return "\n".join([*lines, f"written: {result['folder']}"])


def _when_lines(when: Mapping[str, Any]) -> list[str]:
    """Per network the layer that is most alike over time, and whether deeper layers come later."""
    lines = []
    for name, one in when["networks"].items():
        layer = max(one["layers"], key=lambda name: one["layers"][name]["peak"]["similarity"])
        curve = one["layers"][layer]
        onset = "no onset" if curve["onset"] is None else f"onset {moment_text(curve['onset'])}"
        line = f"  {name} in windows: layer {layer} is most alike, {curve['peak']['similarity']:.3f} at "
        line += f"{moment_text(curve['peak'])}, {onset}{before_stimulus(curve)}"
        rest = curve["before_stimulus"]
        if rest is not None:
            line += "; before the stimulus {:.3f} [{:.3f}, {:.3f}]".format(rest["similarity"], *rest["ci95"])
        lines.append(line)
        if one["peak_with_depth"] is not None:
            lines.append(f"    rank correlation of depth and time of the peak {_interval(one['peak_with_depth'], 2)}")
    return lines


def _interval(one: Mapping[str, Any], digits: int = 3) -> str:
    low, high = one["ci95"]
    return f"{one['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
