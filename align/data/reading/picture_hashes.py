"""Pixel hashes of picture files, kept on disk: decoding 16,740 photographs takes minutes, and they do not change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from align.data.reading.safe_load import decode_image
from align.data.signals import pixel_hash
from align.errors import UserError
from align.files import beside, locked, read_json, remove_unheld, write_sealed

logger = logging.getLogger(__name__)
_RULE = "as seen"  # what `decode_image` does; another text makes every hash anew


def picture_hashes(paths: Sequence[Path], cache_dir: str | Path) -> tuple[str, ...]:
    """`pixel_hash` of every picture file, decoded only where its path, size or time of change is new.

    What is known is kept in ``<cache_dir>/pictures.json``; a damaged file there is made anew. Raises `UserError` for a
    picture that cannot be read.
    """
    store = Path(cache_dir) / "pictures.json"
    lock = beside(store, "lock")
    known = _read(store)
    facts = {str(path.resolve()): path.stat() for path in paths if path.is_file()}
    marks = {name: f"{fact.st_size} {fact.st_mtime_ns} {_RULE}" for name, fact in facts.items()}
    names = [str(path.resolve()) for path in paths]
    new = [i for i, name in enumerate(names) if known.get(name, ("", ""))[0] != marks.get(name)]
    if new:
        logger.info("hashing the pixels of %d pictures, once", len(new))
        found = {names[i]: (marks.get(names[i], ""), pixel_hash(decode_image(paths[i]))) for i in new}
        known |= found
        with locked(lock, f"writing {str(store)!r}", wait=None, keep=False):
            write_sealed(store, _read(store) | found)  # with what others found meanwhile
    else:
        remove_unheld(lock)
    return tuple(known[name][1] for name in names)


def _read(store: Path) -> dict[str, tuple[str, str]]:
    try:
        return {name: (mark, digest) for name, (mark, digest) in read_json(store).items()}
    except (UserError, AttributeError, TypeError, ValueError):
        return {}
