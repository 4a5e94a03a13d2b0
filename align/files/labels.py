"""Labels as people and programs write them: blanks, missing values, accents in two forms, one person twice."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from align.errors import UserError

_MISSING = frozenset({"", "n/a", "#n/a", "na", "<na>", "nan", "-nan", "nat", "none", "null"})  # BIDS, pandas, R, Excel
_PREFIX = re.compile(r"^(sub(ject)?|ses(sion)?)[-_ ]?(?=\w)")


def tidy(text: str | None) -> str:
    """``text`` without blanks around it, accents composed (Unicode NFC), which those of a Mac are not."""
    return unicodedata.normalize("NFC", (text or "").strip())


def is_missing(text: str | None) -> bool:
    """Whether a cell says that there is no value: empty, or n/a, NaN, None, null and the like in any case."""
    return tidy(text).lower() in _MISSING


def present(text: str | None) -> str:
    """`tidy`, and "" for a missing value."""
    return "" if is_missing(text) else tidy(text)


def whole(text: str) -> str:
    """A count as it is written without decimals: pandas makes 3.0 of 3 where the column has gaps."""
    return re.sub(r"(\d)\.0+", r"\1", text) if re.fullmatch(r"\d+\.0+", text) else text


def alike(label: str) -> str:
    """What two labels of one person share: ``01``, ``1``, ``1.0``, ``sub-01`` and ``Sub-1`` have one."""
    plain = whole(tidy(label).casefold())
    return re.sub(r"(?<![\d.])0+(?=\d)", "", _PREFIX.sub("", plain) if _PREFIX.match(plain) else plain)


def refuse_alike(labels: Iterable[str], what: str, where: str) -> None:
    """Raise `UserError` where two different labels are likely to mean one person or session."""
    first: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        other = first.setdefault(alike(label), label)
        if other != label:
            raise UserError(
                f"{where}: {what} {other!r} and {label!r} are set apart, but may be one (leading zeros, capitals, "
                "prefix); write one of them throughout, or other labels"
            )


def found_file(candidates: Sequence[Path]) -> Path | None:
    """The first of the paths that is a file, its name in whichever Unicode form it is stored.

    Raises `UserError` where two different files have that name in two Unicode forms: tables cannot tell them apart.
    """
    for path in candidates:
        if path.is_file():
            _refuse_two_forms(path)
            return path
    for path in candidates:
        if str(path).isascii():
            continue
        for form in ("NFC", "NFD"):
            other = Path(unicodedata.normalize(form, str(path)))
            if other.is_file():
                return other
        mixed = _in_any_form(path)
        if mixed is not None:
            return mixed
    return None


def _refuse_two_forms(path: Path) -> None:
    if path.name.isascii():
        return
    forms = {path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD")}
    if any(other.is_file() and not other.samefile(path) for other in forms):
        raise UserError(
            f"{str(path)!r} stands there twice, its accents composed and decomposed (two forms of Unicode); rename one"
        )


def _in_any_form(path: Path) -> Path | None:
    """The file whose name, part by part from the first that is not there, has the same letters."""
    parents = [path, *path.parents]
    home = next((parent for parent in parents if parent.is_dir()), None)
    if home is None:
        return None
    for part in path.relative_to(home).parts:
        wanted = tidy(part)
        same = [entry for entry in home.iterdir() if tidy(entry.name) == wanted] if home.is_dir() else []
        if len(same) != 1:
            return None
        home = same[0]
    return home if home.is_file() else None
