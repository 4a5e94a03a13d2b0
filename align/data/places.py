"""Where results lie: folders named by what was asked for, and the refusal to replace those of another configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.names import file_name, refuse_links
from align.errors import UserError
from align.fields.loading import flatten, to_dict
from align.files import locked, read_json, write_sealed

if TYPE_CHECKING:
    from align.config import Config

MADE_WITH = "made_with.json"  # in a folder of results: the configuration they were made with
# Of a configuration, what changes no result, or is compared otherwise.
ELSEWHERE = (
    *("cache_dir", "run_dir", "tracker", "subjects", "target.chosen_on"),
    *("train.checkpoint_every", "train.share", "sweep."),
)
_PATHS = ("study.root", "study.images", "backbone.weights")
_TOLD = (  # of a configuration, what reports say beside the recipe
    *("study.name", "study.roi", "study.channels", "study.window", "preprocess.channels", "seed"),
    *("backbone.name", "encoder.name", "encoder.pretrained", "target.layer", "preprocess.tmin", "preprocess.tmax"),
)
_SHAPE = {
    "results?": str,
    "beside?": {str: dict},
}  # what that file is about, and other results there
_NAMED = 4  # differences that are spelled out
_REFUSED = (
    "{} holds {}; nothing was changed. {}, or replace it with --overwrite (Python: overwrite=True)"  # folder, what
)


def study_labels(config: Config) -> list[str]:
    """Names for a default folder: of the study, of its variant, and of the folder that a study of one's own lies in."""
    study = config.study
    own = Path(study.root).expanduser().resolve().name if study.root and study.name == "folder" else ""
    return [file_name(name) for name in (study.name, study.variant or "", own) if name]


def part_labels(config: Config) -> tuple[list[str], list[Any] | None]:
    """Names for a default folder of the regions, channels and window that are looked at; none where it is all.

    The second value is for `align.data.names.joined_name`: not None where the names alone could mean two things.
    """
    study = config.study
    chosen = [part for part in (*study.roi, study.channels, study.window) if part]
    told = [list(study.roi), study.channels, study.window, study.held_out]
    return [file_name(part) for part in chosen], told if chosen or study.held_out else None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two trees of settings say differently, as "key=old instead of new"; a key that one of them lacks is none."""
    old, new = dict(flatten(dict(before))), dict(flatten(dict(now)))
    both = [key for key in new if key in old and not key.startswith(ELSEWHERE)]
    return [
        f"{key}={_said(old[key])} instead of {_said(new[key])}"
        for key in both
        if _compared(key, old[key]) != _compared(key, new[key])
    ]


def recipe(config: Config) -> dict[str, Any]:
    """What a report tells of the settings that make runs comparable: those that are not the defaults, no paths.

    Left out is what a report says otherwise: study, selection, backbone, encoder, layer, seed.
    """
    usual = dict(flatten(to_dict(type(config)())))
    own = {key: value for key, value in flatten(to_dict(config)) if not key.startswith((*ELSEWHERE, *_PATHS, *_TOLD))}
    found = {key: value for key, value in own.items() if value != usual[key]}
    root = config.study.root if config.study.name == "folder" else None
    return found | ({"study": Path(root).expanduser().resolve().name} if root else {})


def refuse_others(
    folder: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any], instead: str, overwrite: bool = False
) -> None:
    """Raise `UserError` where ``folder`` holds ``what`` of another configuration, unless it may be replaced.

    ``instead``: how to choose another place.
    """
    found = [] if overwrite else differences(before, now)
    if found:
        rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        held = f"{what} of another configuration ({', '.join(found[:_NAMED])}{rest})"
        raise UserError(_REFUSED.format(repr(str(folder)), held, instead))


def claim(
    folder: Path, results: str, config: Config, instead: str, more: Mapping[str, Any], overwrite: bool = False
) -> bool:
    """Write into ``folder`` with what its results are made; True where those of another configuration are replaced.

    ``results``: the file that is there when there are results. ``more``: what was asked for beside the configuration.
    Raises `UserError` as `refuse_others` does, and where nothing says what results there were made with.
    """
    former = _Former.of(folder, results, config, more)
    former.refuse(instead, overwrite)
    if former.before != former.now:
        _tell(folder, results, former.now)
    return former.other


@dataclass(frozen=True)
class Claim:
    """A folder for results that are all written at the end: `check` before the work, `take` before the first of them.

    In between the folder stays as it is, so that work that fails leaves the former results and what they were made
    with. ``former``: patterns of what earlier results of `claim` may have left there; other entries as of `claim`.
    """

    folder: Path
    results: str
    config: Config
    instead: str
    more: Mapping[str, Any]
    overwrite: bool = False
    former: Sequence[str] = ()

    @property
    def replaces(self) -> bool:
        """Whether results of another configuration are there."""
        return _Former.of(self.folder, self.results, self.config, self.more).other

    def check(self) -> None:
        """Raise `UserError` where the folder holds results of another configuration and they are not to be replaced."""
        _Former.of(self.folder, self.results, self.config, self.more).refuse(self.instead, self.overwrite)

    def take(self) -> None:
        """`claim`; the results of another configuration go, the file that stands for them first."""
        self.check()
        if self.replaces:
            (self.folder / self.results).unlink(missing_ok=True)
            for found in (path for part in self.former for path in self.folder.glob(part)):
                refuse_links(self.folder, found.parent)
                found.unlink(missing_ok=True)
        self.tell()

    def tell(self) -> None:
        """`claim`: write what the results are made with, and leave all else there as it is."""
        claim(self.folder, self.results, self.config, self.instead, self.more, self.overwrite)


@dataclass(frozen=True)
class _Former:
    """What results in a folder were made with: {} where there are none, None where nothing says so; and what is asked
    for now."""

    folder: Path
    results: str
    before: dict[str, Any] | None
    now: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, results: str, config: Config, more: Mapping[str, Any]) -> _Former:
        """Read from the folder."""
        now = {**to_dict(config), "asked": dict(more)}
        for key in _PATHS:
            section, name = key.split(".")
            now[section] = {**now[section], name: _compared(key, now[section][name])}
        return cls(folder, results, _told(folder, results, now) if (folder / results).is_file() else {}, now)

    @property
    def other(self) -> bool:
        """Whether there are results, and they are not of what is asked for now."""
        return self.before is None or bool(differences(self.before, self.now))

    def refuse(self, instead: str, overwrite: bool) -> None:
        """Raise `UserError` where the results are others, or nobody knows, unless they may be replaced; and where a
        folder has their name."""
        if (self.folder / self.results).is_dir():
            raise UserError(f"{str(self.folder / self.results)!r} is a folder; move it away. {instead}")
        if self.before is not None:
            refuse_others(self.folder, self.results, self.before, self.now, instead, overwrite)
        elif not overwrite:
            held = f"{self.results}, and no {MADE_WITH} that says what it was made with"
            raise UserError(_REFUSED.format(repr(str(self.folder)), held, instead))


def _told(folder: Path, results: str, now: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a folder says of its ``results``; None where that is absent, damaged or cannot be compared with ``now``."""
    stored = made_with(folder)
    found = stored.get(results, stored.get(""))
    return found if found is not None and _comparable(found, now) else None


def _tell(folder: Path, results: str, now: dict[str, Any]) -> None:
    """Write what ``results`` are made with, and keep what is said of results of other commands beside them."""
    path = folder / MADE_WITH
    with locked(folder / ".made_with.lock", f"writing {str(path)!r}", wait=None, keep=False):
        old = "" if (folder / results).is_file() else results  # of an earlier version, which is about these results
        beside = {name: told for name, told in made_with(folder).items() if name not in (results, old)}
        write_sealed(path, {**now, "results": results, **({"beside": beside} if beside else {})})


def made_with(folder: Path) -> dict[str, dict[str, Any]]:
    """What each file of results in a folder was made with; {} where nothing says so, or not in a readable way.

    Under "" stands what an earlier version wrote, which did not say which results it is about.
    """
    try:
        found: dict[str, Any] = read_json(folder / MADE_WITH, _SHAPE)
    except UserError:
        return {}
    beside: dict[str, dict[str, Any]] = found.pop("beside", {})
    return {**beside, found.pop("results", ""): found}


def _comparable(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two trees share a key, and nowhere one has a value where the other has a section."""
    old, new = ({key for key, _ in flatten(dict(tree))} for tree in (before, now))
    sections = [{key.rsplit(".", n)[0] for key in keys for n in range(1, key.count(".") + 1)} for keys in (old, new)]
    return bool(old & new) and not (old & sections[1] or new & sections[0])


def _compared(key: str, value: Any) -> Any:
    """Paths from the root of the file system, also in another working folder; sequences as lists."""
    if key in _PATHS and isinstance(value, str):
        return str(Path(value).expanduser().resolve())
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _said(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list | tuple) else str(value)
