"""The numbers of a report as Markdown tables and as ``model-index``, the part of a card that the hub reads."""

from __future__ import annotations

from typing import Any

from recon.evaluation.judges import described

_TASKS = {
    "retrieval": ("image-retrieval", "retrieval of the seen picture from a recording"),
    "reconstruction": ("image-to-image", "reconstruction of the seen picture from a recording"),
}
_DIRECTIONS = ("brain_to_image", "image_to_brain")


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; numbers with four digits."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def scores_text(report: dict[str, Any], image_seed: int | None) -> str:
    """Every score of one subject beside its n, chance, interval, p and controls, and what was not scored and why."""
    parts = [f"### Subject {report['subject']}, {report['split']} split, {report['n_stimuli']} pictures"]
    if "retrieval" in report:
        parts += ["Retrieval among the test pictures:", _retrieval(report["retrieval"])]
    if "reconstruction" in report:
        sample = "" if image_seed is None else f", sample of seed {image_seed} of every picture, never the best of many"
        judge = f"judge {' and '.join(described(report))}"
        parts += [f"Reconstructions by generator {report['generator']} ({judge}{sample}):", _pictures(report)]
        parts += ["The same scores for the controls, with 95 % intervals:", _controls(report)]
        parts += ["p of the reconstructions being no better than a control:", _against(report)]
    if report.get("attributes"):
        parts += ["Attributes read back from the reconstructions:", _attributes(report["attributes"])]
    if report.get("skipped"):
        parts.append("Not scored: " + "; ".join(f"{name} ({why})" for name, why in report["skipped"].items()) + ".")
    return "\n\n".join(parts)


def model_index(name: str, reports: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """``model-index`` of the front matter: one entry per subject and kind of score, values as the reports hold them."""
    results = []
    for report in reports.values():
        dataset = {
            "type": report["study"],
            "name": f"{report['study']}, subject {report['subject']}",
            "split": report["split"],
        }
        for part, metrics in (("retrieval", _retrieval_metrics(report)), ("reconstruction", _picture_metrics(report))):
            if metrics:
                task = dict(zip(("type", "name"), _TASKS[part], strict=True))
                results.append({"task": task, "dataset": dict(dataset), "metrics": metrics})
    return [{"name": name, "results": results}]


def _retrieval(part: dict[str, Any]) -> str:
    rows = []
    named = {name: part[name] for name in _DIRECTIONS} | {"csls (sees all test rows at once)": _csls(part)}
    for name, scores in named.items():
        keys = ("top1", "ci95_top1", "chance_top1", "top5", "chance_top5", "median_rank", "n", "candidates")
        rows.append([name, *(scores[key] for key in keys), scores["p_permutation"]])
    header = ["", "top1", "95 %", "chance", "top5", "chance", "median rank", "n", "candidates", "p"]
    return markdown_table(header, rows)


def _csls(part: dict[str, Any]) -> dict[str, Any]:
    scores: dict[str, Any] = part["transductive"]["csls"]
    return scores


def _pictures(report: dict[str, Any]) -> str:
    rows = []
    for name, entry in report["reconstruction"].items():
        p = entry["p_vs_control"].get("shuffled", "-")
        values = [entry["value"], entry["ci95"], entry.get("chance", "-"), entry["n"], p, entry["better"]]
        rows.append([name, *values, entry["protocol"]])
    return markdown_table(["", "value", "95 %", "chance", "n", "p against shuffled", "better", "protocol"], rows)


def _controls(report: dict[str, Any]) -> str:
    names = list(report["reconstruction"])
    rows = []
    for control, scores in report["controls"].items():
        values = [
            " ".join(_cell(scores[name][key]) for key in ("value", "ci95") if key in scores[name]) for name in names
        ]
        rows.append([control, *values])
    return markdown_table(["control", *names], rows)


def _against(report: dict[str, Any]) -> str:
    entries = report["reconstruction"]
    controls = list(dict.fromkeys(name for entry in entries.values() for name in entry["p_vs_control"]))
    rows = [[name, *(entry["p_vs_control"].get(name, "-") for entry in entries.values())] for name in controls]
    return markdown_table(["control", *entries], rows)


def _attributes(attributes: dict[str, Any]) -> str:
    controls = list(dict.fromkeys(name for part in attributes.values() for name in part["controls"]))
    rows = []
    for name, part in attributes.items():
        own = [part[key] for key in ("accuracy", "ci95", "chance", "n", "p_permutation")]
        rows.append([name, *own, *(part["controls"].get(control, "-") for control in controls)])
    return markdown_table(["", "accuracy", "95 %", "chance", "n", "p", *controls], rows)


def _retrieval_metrics(report: dict[str, Any]) -> list[dict[str, Any]]:
    metrics = []
    for name in _DIRECTIONS:
        scores = report.get("retrieval", {}).get(name, {})
        for key in ("top1", "top5"):
            if key in scores:
                context = {"chance": scores[f"chance_{key}"], "n": scores["n"], "candidates": scores["candidates"]}
                if key == "top1":
                    context |= {"ci95": scores["ci95_top1"], "p_permutation": scores["p_permutation"]}
                metrics.append({"type": key, "name": f"{key}, {name}", "value": scores[key], "args": context})
    return metrics


def _picture_metrics(report: dict[str, Any]) -> list[dict[str, Any]]:
    kept = ("ci95", "n", "better", "chance", "p_vs_control", "protocol")
    return [
        {
            "type": name,
            "name": f"{name}, generator {report['generator']}",
            "value": entry["value"],
            "args": {key: entry[key] for key in kept if key in entry},
        }
        for name, entry in report.get("reconstruction", {}).items()
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)) and all(isinstance(item, (int, float)) for item in value):
        return "[" + ", ".join(_cell(item) for item in value) + "]"
    return " ".join(str(value).split()).replace("|", "\\|")
