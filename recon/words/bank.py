"""Captions of a study's pictures and banks of further texts: where they come from, and equal texts counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.reading.convert import open_container
from align.data.reading.stored_array import StoredArray
from align.errors import UserError
from align.files import no_file, text_of
from align.files.labels import is_missing, present, tidy
from align.files.table import text_rows

if TYPE_CHECKING:
    from align.data.signals import Stimuli

CAPTIONS, CONCEPTS = "captions", "concepts"
COLUMNS = ("id", "caption")
_STORED = (".pt", ".pth", ".npy", ".pkl")


@dataclass(frozen=True)
class Captions:
    """``of``: the text of every picture of the study, "" where there is none. ``further``: texts of no picture of it.

    ``source``: `CAPTIONS` or `CONCEPTS` of the study, the name of a file, or both.
    """

    of: tuple[str, ...]
    further: tuple[str, ...] = ()
    source: str = CAPTIONS

    @property
    def stand_in(self) -> bool:
        """Whether names of concepts stand for captions."""
        return self.source.startswith(CONCEPTS)

    def rows(self, among: np.ndarray) -> np.ndarray:
        """Those of the rows ``among`` that have a text."""
        return np.array([row for row in among if self.of[row]], dtype=np.int64)


@dataclass(frozen=True)
class Candidates:
    """Different ``texts``, and for each text that was given its place among them, ``index`` (n,)."""

    texts: tuple[str, ...]
    index: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str]) -> Candidates:
        """Texts that differ only in blanks, capitals or the Unicode form of accents are one candidate, the first."""
        first: dict[str, int] = {}
        kept: list[str] = []
        index = []
        for text in texts:
            key = alike(text)
            if key not in first:
                first[key] = len(kept)
                kept.append(text)
            index.append(first[key])
        return cls(tuple(kept), np.array(index, dtype=np.int64))


def alike(text: str) -> str:
    """What equal texts share."""
    return " ".join(tidy(text).casefold().split())


def study_captions(stimuli: Stimuli) -> Captions:
    """The study's captions; names of concepts where it has none. Raises `UserError` where it has neither."""
    if any(stimuli.captions):
        return Captions(tuple(present(text) for text in stimuli.captions))
    names = tuple(concept_name(name) for name in stimuli.concepts)
    if not any(names):
        raise UserError("the study has neither captions nor concepts; pass --bank FILE.csv with the columns id,caption")
    return Captions(names, source=CONCEPTS)


def concept_name(concept: str) -> str:
    """A concept in words: "ice cream" of ice_cream, "bat" of bat2 (THINGS numbers the meanings of a word)."""
    return present(" ".join(concept.replace("_", " ").replace("-", " ").split()).rstrip("0123456789 ") or concept)


def with_bank(stimuli: Stimuli, path: Path | None) -> Captions:
    """The study's captions with the bank at ``path`` laid over them (None: as they are).

    A row with the id of a picture gives the picture this text; all other texts are further candidates. Raises
    `UserError` for a bank that cannot be read, and for ids none of which is a picture of the study.
    """
    if path is None:
        return study_captions(stimuli)
    bank = read_bank(path)
    row = {tidy(name): i for i, name in enumerate(stimuli.ids)}
    named = [name for name, _ in bank if name]
    known = {row[name]: text for name, text in bank if name in row}
    if named and not known:
        raise UserError(f"bank {str(path)!r}: none of its {len(named)} ids is a picture of the study ({named[0]!r})")
    further = tuple(text for name, text in bank if name not in row)
    try:
        own = study_captions(stimuli)
    except UserError:
        own = Captions(("",) * len(stimuli), source="")
    source = path.name if not own.source or len(known) == len(stimuli) else f"{own.source}, {path.name}"
    return Captions(tuple(known.get(i, text) for i, text in enumerate(own.of)), further, source)


def read_bank(path: str | Path) -> list[tuple[str, str]]:
    """(id, text) of a bank; the id is "" where the file has none.

    ``.csv``: columns id and caption. ``.pt``, ``.npy``, ``.pkl``: a list of texts, such as MindEye2's
    ``all_captions.pt``, read without running its code. Anything else: one text a line. Raises `UserError` for a missing
    file, other content, and a bank without any text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"bank {str(path)!r} {no_file(path)}")
    suffix = path.suffix.lower()
    rows = _table(path) if suffix == ".csv" else [("", text) for text in _plain(path, suffix)]
    found = [(name, tidy(text)) for name, text in rows if not is_missing(text)]
    if not found:
        raise UserError(f"bank {str(path)!r} holds no text; one text a line, or a CSV with the columns id,caption")
    return found


def _table(path: Path) -> list[tuple[str, str]]:
    rows, header = text_rows(path, "bank")
    lacking = [name for name in COLUMNS if name not in header]
    if lacking:
        raise UserError(f"bank {str(path)!r} has no column {lacking[0]!r}; its columns are id and caption")
    ids = [row["id"] for row in rows if row["id"]]
    twice = next((name for name, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"bank {str(path)!r} has two rows with id {twice!r}; keep one")
    return [(row["id"], row["caption"]) for row in rows]


def _plain(path: Path, suffix: str) -> list[str]:
    if suffix not in _STORED:
        return text_of(path).splitlines()
    texts = _texts(open_container(path))
    if texts is None:
        raise UserError(f"bank {str(path)!r} holds no list of texts")
    return texts


def _texts(content: Any) -> list[str] | None:
    """A list of texts, or an array of one axis with them."""
    if isinstance(content, StoredArray):
        content = content.open()
    if isinstance(content, np.ndarray):
        content = content.tolist() if content.ndim == 1 else None
    if not isinstance(content, list | tuple) or not all(isinstance(text, str) for text in content):
        return None
    return list(content)
