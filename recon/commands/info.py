"""`recon info`: says what a run folder or a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.data.names import labelled
from align.errors import UserError
from align.files import no_file, read_json, require_openable
from align.files.json_text import require

_SHOWN = 12  # tensors listed by name


def describe(path: str | Path) -> dict[str, Any]:
    """Facts about a run folder, a .safetensors file, a report or another JSON file, or a YAML configuration.

    Raises `UserError` when the path does not exist or is none of these.
    """
    path = Path(path)
    if path.is_dir():
        return _describe_folder(path)
    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}; pass a run folder or a file")
    readers = {".safetensors": _describe_tensors, ".json": _describe_json, ".yaml": _describe_yaml}
    if path.suffix not in readers:
        raise UserError(f"{str(path)!r} is neither a run folder nor one of {', '.join(readers)}")
    return {"path": str(path), **readers[path.suffix](path)}


def _describe_folder(path: Path) -> dict[str, Any]:
    if (path / "model.safetensors").is_file() and (path / "config.yaml").is_file():
        return _describe_run(path)
    for name in ("ip_adapter.safetensors", "model_index.json"):
        if (path / name).is_file():
            return describe(path / name)
    runs = sorted(str(found.parent) for found in path.glob("*/model.safetensors"))
    if runs:
        return {"path": str(path), "kind": "folder of runs", "runs": runs}
    if (path / "stimuli.csv").is_file():
        raise UserError(f"{str(path)!r} is a study, no run; recon data check folder --root FOLDER describes it")
    raise UserError(f"{str(path)!r} holds no run (model.safetensors and config.yaml); pass a folder that train made")


def _describe_run(path: Path) -> dict[str, Any]:
    from align.checkpoint import load_run
    from recon.decoding.predict import run_id

    run = load_run(path)
    config = run.config
    facts = {
        "path": str(path),
        "kind": "alignment run",
        "run": run_id(run),
        "study": run.study,
        "subject": run.subject,
        "encoder": config.encoder.name,
        "backbone": config.backbone.name,
        "layer": config.target.layer,
        "pooling": config.target.pooling,
        "components": run.aligner.targets.components,
        "seed": config.seed,
    }
    facts |= {name: value for name, value in run.meta.items() if name not in facts}
    report = labelled(path, "report_sub-{}.json", run.subject)
    if report.is_file():
        facts["report"] = _describe_report(report)
    stored = sorted(found.relative_to(path).as_posix() for found in path.glob("predictions/*.safetensors"))
    return {**facts, "predictions": stored}


def _describe_report(path: Path) -> dict[str, Any]:
    """The report of a run; in place of scores that are not of the weights and pictures beside it, why they are not."""
    from recon.evaluation.sources import require_sources
    from recon.evaluation.stored import read_report, read_stimuli

    stimuli = path.with_name(path.name.replace("report_", "stimuli_", 1))
    try:
        report, stored = read_report(path), read_stimuli(stimuli) if stimuli.is_file() else {}
        require_sources(path, report, stored if stored.get("run") == report["run"] else {})
    except UserError as error:
        return {"kind": "report", "refused": str(error)}
    return _describe_json(path)


def _describe_tensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    require_openable(path)
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = dict(file.metadata() or {})
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            shapes = {name: list(piece.get_shape()) for name, piece in slices.items()}
    except SafetensorError as error:
        raise UserError(f"{str(path)!r} is not a whole safetensors file: {error}") from error
    names = set(shapes)
    if "embeds" in names and "ids" in metadata:
        kind = "predictions"
    elif any(name.startswith("image_proj.") for name in names) and any(n.startswith("ip_adapter.") for n in names):
        kind = "conditioner (IP-Adapter layout)"
    else:
        kind = "tensors"
    sizes = [_product(shape) for shape in shapes.values()]
    shown = {name: shapes[name] for name in sorted(shapes)[:_SHOWN]}
    brief = {
        key: value if len(value) < 200 else f"{value[:200]}... ({len(value)} characters)"
        for key, value in metadata.items()
    }
    return {"kind": kind, "tensors": len(shapes), "parameters": sum(sizes), "metadata": brief, "shapes": shown}


def _describe_json(path: Path) -> dict[str, Any]:
    content = read_json(path, finite=False)
    if isinstance(content, dict) and "schema" in content and "study" in content:
        keys = (
            "schema",
            "study",
            "subject",
            "split",
            "n_stimuli",
            "backbone",
            "layer",
            "layer_chosen_on",
            "judge",
            "judges",
            "commit",
        )
        require(content, {"retrieval?": {str: {}}, "reconstruction?": {str: {"value": float}}}, repr(str(path)))
        scores = {name: part.get("top1") for name, part in content.get("retrieval", {}).items() if "top1" in part}
        pictures = {name: part.get("value") for name, part in content.get("reconstruction", {}).items()}
        facts = {key: content[key] for key in keys if key in content}
        return {"kind": "report", **facts, "top1": scores, "reconstruction": pictures}
    if isinstance(content, dict) and "_class_name" in content:
        return {"kind": f"diffusers {content['_class_name']}", "components": sorted(k for k in content if k[:1] != "_")}
    if isinstance(content, dict):
        return {"kind": "JSON", "keys": sorted(content)}
    return {"kind": "JSON", "content": f"list of {len(content)}" if isinstance(content, list) else str(content)[:200]}


def _describe_yaml(path: Path) -> dict[str, Any]:
    from align.config import Config, load_config, to_dict
    from recon.config import ConditionerConfig, PretrainConfig

    kinds = {"alignment": Config, "pretraining": PretrainConfig, "conditioner": ConditionerConfig}
    errors = []
    for kind, tree in kinds.items():
        try:
            return {"kind": f"{kind} configuration", "config": to_dict(load_config(tree, path, check=False))}
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _product(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
