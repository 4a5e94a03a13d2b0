"""Files are not flushed to the disk: a test may kill a process, but no machine loses its power in between.

A flush takes 3 to 5 ms, and longer on a slow disk. That files are flushed before they get their name is asked by
`tests/align/test_flushed.py`, which puts a recorder in the place of `os.fsync`.
"""

import os


def _at_once(file: object) -> None:
    """In the place of `os.fsync`."""


def leave_to_the_system() -> None:
    """In this process, from here on."""
    os.fsync = _at_once
