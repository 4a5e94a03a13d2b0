"""A recipe: what a paper published (the ``paper`` block of its YAML file), and its training in our keys."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align.config import Config, flatten, load_config, set_key, shipped
from align.errors import UserError
from align.fields.yaml_text import parse_yaml

FOLDER = Path("configs") / "papers"
LAYER_RULES = ("fixed", "test")
EPOCH_RULES = ("last", "test_top1", "test_loss")
_PLACES = ("study.", "subjects", "run_dir", "cache_dir", "backbone.weights")  # of which the table says nothing
_TEXTS = ("title", "venue", "arxiv", "code", "status", "depth")


@dataclass(frozen=True)
class Published:
    """One published number: top-1 and top-5 in %, mean over subjects; ``subjects`` = top-1 of each, where printed.

    ``in_source``: read in the paper or its code; False = only cited by others, or not found.
    """

    study: str
    protocol: str
    top1: float
    top5: float
    in_source: bool
    source: str
    subjects: dict[str, float]


@dataclass(frozen=True)
class Paper:
    """What a paper published, how it chose layer and epoch, and what our trainer does otherwise.

    ``studies``: those whose pictures its backbone is meant for, the first also fixing channels and window. ``depth``:
    the layer where another backbone stands in.
    """

    title: str
    venue: str
    arxiv: str
    code: str
    status: str
    depth: str
    studies: tuple[str, ...]
    layer_rule: str
    epoch_rule: str
    rule_note: str
    published: tuple[Published, ...]
    differences: tuple[str, ...]

    def number(self, study: str) -> Published:
        """The first within-subject number on ``study``; where the paper has none, that on its own study."""
        intra = [one for one in self.published if one.protocol == "intra"]
        return next((one for one in intra if one.study == study), intra[0])


@dataclass(frozen=True)
class Recipe:
    """A recipe on one study: ``config`` is complete; ``stand_ins`` says what had to differ from the paper."""

    name: str
    paper: Paper
    config: Config
    stand_ins: tuple[str, ...]


def load_recipe(name: str, study_file: Path | Sequence[Path] | None, pairs: list[str]) -> Recipe:
    """Recipe ``name`` (of configs/papers, or a YAML file) for the study of ``study_file`` and ``pairs``.

    Of the study file only the place of the data, subjects and folds are taken; on a study that the paper did not use
    also its backbone, pooling, components, preprocessing and number of seeds. ``pairs`` are laid over the result.

    Raises
    ------
    UserError
        Unknown recipe or key, broken file, a value that cannot be, a protocol other than intra.
    """
    path = find_recipe(name)
    tree = _read(path)
    paper = _paper(tree.pop("paper", None), path)
    config = Config()
    for key, value in flatten(tree):
        set_key(config, key, value)
    config, stand_ins = _on_study(config, paper, load_config(Config, study_file, pairs, check=False))
    for pair in pairs:
        key, _, value = pair.partition("=")
        set_key(config, key.strip(), value.strip())
        if not key.strip().startswith(_PLACES):
            stand_ins.append(f"set by hand: {pair.strip()}")
    config.check(files=True)
    if config.protocol != "intra":
        raise UserError(f"protocol={config.protocol!r}: recon reproduce trains within subjects only; protocol=intra")
    return Recipe(path.stem, paper, config, tuple(stand_ins))


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path to a YAML file, or a name in configs/papers of this folder or of the package."""
    if name.endswith((".yaml", ".yml")):
        if not shipped(name).is_file():
            raise UserError(f"recipe {name!r} does not exist; pass a YAML file with a paper block")
        return shipped(name)
    known = {path.stem: path for path in sorted(shipped(FOLDER).glob("*.yaml"))}
    if name.lower() not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"recipe {name!r} is not known; {hint}Known: {', '.join(sorted(known))}")
    return known[name.lower()]


def _on_study(recipe: Config, paper: Paper, here: Config) -> tuple[Config, list[str]]:
    name = here.study.name
    at_home = name in paper.studies
    layers = here.sweep.layers or (recipe.sweep.layers if at_home else [])
    seeds = (recipe if at_home else here).sweep.seeds
    config = replace(
        recipe,
        study=here.study,
        simulated=here.simulated,
        subjects=here.subjects,
        sweep=replace(here.sweep, layers=layers, seeds=seeds),
        run_dir=here.run_dir,
        cache_dir=here.cache_dir,
        seed=here.seed,
    )
    if name == paper.studies[0]:
        return config, []
    said = [f"study: {name} instead of {paper.studies[0]}"]
    preprocess = here.preprocess
    if _is_eeg(name) and not preprocess.channels and recipe.preprocess.channels:
        preprocess = replace(preprocess, channels=recipe.preprocess.channels)
    config = replace(config, preprocess=preprocess)
    if at_home:
        return config, said
    target = replace(
        recipe.target, layer=paper.depth, pooling=here.target.pooling, components=here.target.components, root=False
    )
    said.append(
        f"backbone: {here.backbone.name} at depth {paper.depth} with pooling {target.pooling} and "
        f"{target.components} components instead of {recipe.backbone.name} layer {recipe.target.layer}"
    )
    return replace(config, backbone=here.backbone, target=target), said


def _is_eeg(study: str) -> bool:
    """Channels have the names of the 10-10 system there."""
    return study in ("simulated", "things_eeg2")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), repr(str(path)), typed=True)
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{str(path)!r} is not readable YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{str(path)!r} holds no keys; a recipe has a paper block and keys of the configuration")
    return tree


def _paper(block: Any, path: Path) -> Paper:
    try:
        rule, texts = block["rule"], {name: str(block[name]) for name in _TEXTS}
        paper = Paper(
            **texts,
            studies=tuple(map(str, block["studies"])),
            layer_rule=str(rule["layer"]),
            epoch_rule=str(rule["epoch"]),
            rule_note=str(rule["note"]),
            published=tuple(_published(entry) for entry in block["published"]),
            differences=tuple(map(str, block["differences"])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else f"{error}"
        raise UserError(
            f"{str(path)!r}: its paper block is not whole ({reason}); see configs/papers/nice.yaml"
        ) from error
    for what, value, known in (("layer", paper.layer_rule, LAYER_RULES), ("epoch", paper.epoch_rule, EPOCH_RULES)):
        if value not in known:
            raise UserError(f"{str(path)!r}: paper.rule.{what} {value!r} is not one of {', '.join(known)}")
    if not paper.studies:
        raise UserError(f"{str(path)!r}: paper.studies is empty; name the study the recipe was published on")
    if not any(one.protocol == "intra" for one in paper.published):
        raise UserError(f"{str(path)!r}: paper.published has no number with protocol intra")
    return paper


def _published(entry: dict[str, Any]) -> Published:
    if not isinstance(entry["in_source"], bool):
        raise ValueError(f"in_source {entry['in_source']!r} is not true or false")
    return Published(
        study=str(entry["study"]),
        protocol=str(entry["protocol"]),
        top1=float(entry["top1"]),
        top5=float(entry["top5"]),
        in_source=entry["in_source"],
        source=str(entry["source"]),
        subjects={str(name): float(value) for name, value in entry.get("subjects", {}).items()},
    )
