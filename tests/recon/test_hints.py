"""Advice leads somewhere: every option, command and key that a message names exists where the message is printed.

Messages are read out of the source. A message without the name of a command is looked up by the place it stands in
(`HOMES`); options of other programs are left out (`FOREIGN`).
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import align
import recon
from align.config import Config, keys
from recon.cli import build_parser
from recon.config import PretrainConfig
from recon.evaluation.settings import EvaluatePairs

ROOTS = [Path(str(package.__file__)).parent for package in (align, recon)]
DRAW = ("generate", "tune-pictures")
OF_A_RUN = ("predict", "retrieve", "repeats", "evidence", "curves", "evaluate", "gallery", "score-votes", *DRAW)
CONFIGURED = ("targets", "train", "sweep", "pretrain", "timecourse", "encode", "reproduce")
HOMES: dict[str, tuple[str, ...]] = {  # the longest that fits; options only some commands have, where those alone print
    "align/adaptation": ("adapt",),
    "align/checkpoint": OF_A_RUN,
    "align/data/download": ("data download",),
    "align/data/importing": ("data import",),
    "align/data/places.py": ("sweep", "timecourse", "train"),
    "align/data/reading/convert.py": ("data convert",),
    "align/data/studies/folder": ("data import",),
    "align/fields/loading.py": CONFIGURED,
    "align/response_models": ("encode",),
    "align/sweep": ("sweep",),
    "align/train.py": ("train",),
    "align/files/together.py": ("train",),
    "align/training/run_folder.py": ("train",),
    "recon/adaptation": ("adapt",),
    "recon/analysis/picture_curves.py": ("curves",),
    "recon/encoding": ("encode",),
    "recon/evaluation/report.py": ("generate",),
    "recon/analysis/repeats.py": ("repeats",),
    "recon/analysis/timecourse.py": ("timecourse",),
    "recon/analysis/windows.py": ("timecourse",),
    "recon/audit": ("audit",),
    "recon/audit/inside.py": ("evaluate",),
    "recon/cli.py": ("evaluate",),
    "recon/commands/comparing.py": ("universality", "rsa"),
    "recon/comparison": ("universality",),
    "recon/comparison/areas.py": ("rsa",),
    "recon/comparison/rsa.py": ("rsa",),
    "recon/comparison/networks.py": ("encode", "rosetta"),
    "recon/comparison/maps.py": ("rosetta",),
    "recon/comparison/rosetta.py": ("rosetta",),
    "recon/commands/adapt.py": ("adapt",),
    "recon/commands/caption.py": ("caption",),
    "recon/commands/curves.py": ("curves",),
    "recon/commands/encode.py": ("encode",),
    "recon/commands/data.py": ("data check",),
    "recon/commands/publish.py": ("card",),
    "recon/commands/runs.py": ("retrieve",),
    "recon/commands/score_votes.py": ("score-votes",),
    "recon/commands/tune_pictures.py": ("tune-pictures",),
    "recon/commands/evaluate.py": ("retrieve",),
    "recon/commands/evaluate_images.py": ("evaluate-images",),
    **{f"recon/commands/{name}.py": (name,) for name in ("audit", "evidence", "gallery", "generate", "score", "sweep")},
    **{
        f"recon/commands/{name}.py": (name,)
        for name in ("table", "targets", "timecourse", "rsa", "rosetta", "universality", "train", "reproduce")
    },
    "recon/decoding": DRAW,
    "recon/decoding/halves.py": ("evidence",),
    "recon/commands/maximize.py": ("maximize",),
    "recon/commands/aligned_cut.py": ("aligned-cut",),
    "recon/driving": ("sheet", "maximize", "aligned-cut"),
    "recon/driving/aligned_cut.py": ("aligned-cut",),
    "recon/driving/clusters.py": ("sheet",),
    "recon/driving/maximize.py": ("maximize",),
    "recon/commands/sheet.py": ("sheet",),
    "recon/drawing/best_of.py": ("generate",),
    "recon/drawing/evidence.py": ("evidence",),
    "recon/drawing/generate.py": ("generate",),
    "recon/evaluation/complete.py": ("evaluate",),
    "recon/evaluation/pictures.py": ("evaluate",),
    "recon/evaluation/captions.py": ("caption",),
    "recon/evaluation/ensemble.py": ("retrieve",),
    "recon/evaluation/text_retrieval.py": ("retrieve", "caption"),
    "recon/generation": DRAW,
    "recon/metrics": ("evaluate-images",),
    "recon/publishing/push.py": ("push",),
    "recon/reproduce": ("reproduce",),
    "recon/scoring": ("score",),
    "recon/scoring/aggregate.py": ("table",),
    "recon/scoring/on_demand.py": ("table",),
    "recon/tuning": ("tune-pictures",),
    "recon/tuning/chosen.py": ("generate",),
    "recon/voting": ("gallery",),
    "recon/voting/ballots.py": ("score-votes",),
    "recon/voting/metric_choices.py": ("score-votes",),
    "recon/words": ("retrieve", "caption"),
    "recon/words/captioner.py": ("caption",),
    "recon/words/towers.py": ("retrieve", "caption", "generate"),
}
FOREIGN = {
    "align/training/launcher.py",  # accelerate
    "align/encoders/braindecode_nets.py",  # pip
    "align/encoders/libraries.py",  # pip
    "recon/evaluation/provenance.py",  # git
}
SCRIPTS = re.compile(r"(?:python -m align\.train|(?:accelerate launch )?(?:align|recon)/train\.py)[^;)`]*")  # not recon
COMMAND = re.compile(
    r"(?<!from )\brecon ([a-z][a-z-]*(?: (?:check|convert|import|download)\b)?)((?:[^;,().`]|\.\w|, --)*)"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
KEY = re.compile(r"(?<![\w./])((?:study|backbone|target|encoder|loss|train|preprocess|sweep|simulated|evaluate)\.\w+)=")


@cache
def grammar() -> dict[str, set[str]]:
    """Options of every command, "data import" among them."""

    def walk(parser: argparse.ArgumentParser, name: str) -> dict[str, set[str]]:
        found = {name: {option for action in parser._actions for option in action.option_strings}} if name else {}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for one, command in action.choices.items():
                    found |= walk(command, f"{name} {one}".strip())
        return found

    return walk(build_parser(), "")


def texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is no docstring; "{}" for what is filled in; lists of words as one line."""
    skip = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skip.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skip |= {id(part) for part in ast.walk(node)} - {id(node)}
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.List) and node.elts and getattr(node.elts[0], "value", None) == "recon":
            yield node.lineno, " ".join(str(getattr(word, "value", "{}")) for word in node.elts)


def messages() -> list[tuple[str, int, str]]:
    """Place, line and text of every string of both packages."""
    found = []
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root.parent).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [(place, line, text) for line, text in texts(tree)]
    return found


def dead(place: str, text: str) -> list[str]:
    """What the message names and nobody has."""
    known, found = grammar(), []
    for name, rest in COMMAND.findall(text):
        options = OPTION.findall(rest)
        if name not in known and (options or name.split()[0] not in {one.split()[0] for one in known}):
            found.append(f"no command recon {name}")
        found += [f"recon {name} has no {option}" for option in options if option not in known.get(name, {option})]
    bare = OPTION.findall(COMMAND.sub("", SCRIPTS.sub("", text)))
    if place in FOREIGN or not bare or re.fullmatch(r"--[a-z][\w-]*", text):  # the grammar itself
        return found
    homes = [home for home in HOMES if place == home or place.startswith(f"{home}/")]
    if not homes:
        return [*found, f"{place} offers {bare[0]}: name the command that prints it in HOMES"]
    for command in HOMES[max(homes, key=len)]:
        found += [f"recon {command} has no {option}" for option in bare if option not in known[command]]
    return found


def test_options_and_commands_that_messages_name_exist() -> None:
    found = [f"{place}:{line}: {fault}" for place, line, text in messages() for fault in dead(place, text)]
    assert found == []


def test_keys_that_messages_name_exist() -> None:
    known = {*keys(Config()), *keys(EvaluatePairs()), *keys(PretrainConfig())}
    named = [(place, line, key) for place, line, text in messages() for key in KEY.findall(text)]
    assert [one for one in named if one[2] not in known] == [] and len(named) > 20


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("recon/scoring/embeddings.py", "give --image-id"),
        ("recon/drawing/evidence.py", "pass --match spread"),
        ("recon/scoring/aggregate.py", "score them again (recon evaluates --run {})"),
        ("recon/scoring/aggregate.py", "score them again (recon evaluate --subject {} --runs {}), or remove it"),
        ("align/data/check.py", "recon data convert --inplace"),
        ("align/nowhere.py", "pass --run"),
    ],
)
def test_dead_hints_are_found(place: str, text: str) -> None:
    assert dead(place, text)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (
            "align/checkpoint/finding.py",
            "make one (recon train --subject {} with the --config of its study), or give --run FOLDER",
        ),
        ("recon/evaluation/complete.py", "run recon generate again, or score what is there with --partial"),
        ("recon/scoring/aggregate.py", "label them (recon score --name, --subject, --seed)"),
        ("align/training/launcher.py", "pass --mixed_precision no"),
    ],
)
def test_good_hints_pass(place: str, text: str) -> None:
    assert dead(place, text) == []
