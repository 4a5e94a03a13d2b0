"""Caches: read where they are whole, made where they are absent or damaged, by one process at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from align.errors import Damaged
from align.files import beside, locked, remove_unheld

T = TypeVar("T")
logger = logging.getLogger(__name__)


def made_once(path: str | Path, read: Callable[[], T], make: Callable[[], object], what: str) -> T:
    """What ``read`` gives, after ``make`` where nothing is at ``path`` or what is there is `Damaged`.

    A damaged file is said once in the log. Other processes that want the same wait, then read it. Where the file is
    whole, nothing is written, so a cache that one may only read is enough; a lock that a killed process left goes.

    Parameters
    ----------
    path
        The file that is there when all is made (the last one written).
    what
        What is made, for the log and for those who wait: "targets of ...".
    """
    path = Path(path)
    lock = beside(path, "lock")
    if path.is_file():
        try:
            found = read()
        except Damaged:
            pass  # said below, by the one who makes it again
        else:
            remove_unheld(lock)
            return found
    with locked(lock, f"making {what}", wait=None, keep=False):
        if path.is_file():
            try:
                return read()
            except Damaged as error:
                logger.warning("%s; it is made again", error)
        make()
        return read()
