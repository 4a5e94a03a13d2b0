"""The judges of a run: two networks of two families, and which of them is a relative of a network the run is made of.

The scores of the first judge bear plain names (``two_way``), those of the other one say whose they are:
``two_way(efficientnet_lite0)``. A relative shares the family of the backbone, or of a network that shaped the
generator: two nets of one family err alike, so its scores alone could be too kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from align.fields.syntax import network_names
from recon.evaluation.judge import READER, Judge, family, judge_name, load_judge, took_part
from recon.evaluation.settings import EvaluateConfig
from recon.metrics.feature_nets import WeightsMissing

# In order of preference for the second judge; the weights of the first two come with the extra `weights`.
_SECOND = ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "torchvision/squeezenet1_0")


@dataclass(frozen=True)
class Judges:
    """``names``: the first one, then the second where there is one. ``relatives``: by name, networks of its family.

    ``loaded``: what is appended to the names of a judge's scores ("" for the first) to the judge. ``skipped``: score to
    the reason why a judge could not be loaded, as in a report.
    """

    names: tuple[str, ...]
    relatives: dict[str, tuple[str, ...]]
    loaded: dict[str, Judge]
    skipped: dict[str, str]

    def facts(self) -> list[dict[str, Any]]:
        """The ``judges`` of a report, for those that were loaded."""
        return [
            {
                "name": judge.name,
                "weights": judge.source,
                "family": family(judge.name),
                "relatives": list(self.relatives.get(judge.name, ())),
                "score": f"two_way{ending}",
            }
            for ending, judge in self.loaded.items()
        ]


def open_judges(settings: EvaluateConfig, study: str, used: Iterable[str]) -> Judges:
    """Load the judges of a run of ``study`` that is made of the networks ``used`` (backbone, generator's networks).

    The first is ``settings.judge``, or the default of the study. The second is of another family, took no part, and is
    no relative where that can be had. Raises `UserError` for a first judge that is unknown or took part.
    """
    used = tuple(used)
    first = judge_name(settings, study, used)
    second = _second(first, used)
    names = (first,) if second is None else (first, second)
    loaded: dict[str, Judge] = {}
    skipped: dict[str, str] = {}
    for name in names:
        ending = "" if name == first else f"({short(name)})"
        try:
            loaded[ending] = load_judge(name, settings if name == first else replace(settings, judge_weights=None))
        except WeightsMissing as error:
            skipped[f"two_way{ending}"] = f"judge {name}: {error}"
    return Judges(names, {name: relatives(name, used) for name in names}, loaded, skipped)


def relatives(name: str, used: Iterable[str]) -> tuple[str, ...]:
    """The networks among ``used`` that share the judge's family."""
    return tuple(sorted({other for other in used if family(other) == family(name)}))


def short(name: str) -> str:
    """``efficientnet_lite0`` of ``timm/tf_efficientnet_lite0``."""
    return name.rpartition("/")[2].removeprefix("tf_")


def split_by_judge(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries of ``reconstruction`` by what is appended to their names: "" for metrics and the first judge, first."""
    entries = report["reconstruction"]
    endings = [one["score"].removeprefix("two_way") for one in report.get("judges", ())]
    found: dict[str, dict[str, Any]] = {"": {}, **{ending: {} for ending in endings}}
    for name, entry in entries.items():
        ending = next((ending for ending in endings if ending and name.endswith(ending)), "")
        found[ending][name] = entry
    return {ending: part for ending, part in found.items() if part}


def first_judge(report: dict[str, Any]) -> tuple[str, str]:
    """Name and weights (file and digest) of the judge whose scores have plain names; empty where none scored.

    A report from before there were two judges does not say the weights.
    """
    own = next((one for one in report.get("judges", ()) if one["score"] == "two_way"), None)
    if own is None:
        return (str(report.get("judge") or "") if "two_way" in report.get("reconstruction", {}) else "", "")
    return own["name"], own["weights"]


def described(report: dict[str, Any]) -> list[str]:
    """One phrase for each judge that scored: its name, and whether it is independent of the run's networks.

    A judge whose weights were missing is not named as one; where none scored, that is the phrase.
    """
    skipped = report.get("skipped", {})
    every = report.get("judges") or [{"name": report["judge"], "score": "two_way"}]
    scored = [one for one in every if one["score"] not in skipped]
    if not scored:
        return ["none (skipped, as the weights were missing)"]
    return [f"{one['name']} ({_standing(report, one)})" if "relatives" in one else one["name"] for one in scored]


def _standing(report: dict[str, Any], judge: dict[str, Any]) -> str:
    near = judge["relatives"]
    own = network_names(report["backbone"])
    if not near:
        return "independent of the run's networks" if judge["name"] != READER else "made for this simulation"
    return "same family as " + ", ".join(f"{name}{' (backbone)' * (name in own)}" for name in near)


def _second(first: str, used: tuple[str, ...]) -> str | None:
    free = [name for name in _SECOND if family(name) != family(first) and not took_part(name, used)]
    return min(free, key=lambda name: bool(relatives(name, used)), default=None)
