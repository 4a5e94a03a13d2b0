"""The exception for mistakes a user can mend, and output that no terminal refuses."""

from __future__ import annotations

import codecs
import io
import sys

_PLAIN = {"→": "->", "↓": "v", "↑": "^", "–": "-", "−": "-", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "…": "..."}


class UserError(ValueError):
    """Bad input: one line that says what, which value, and what to do. Commands print it and exit with 2."""


class Damaged(UserError):
    """A file of ours whose content is not what was written. A cache is made anew; a result is refused."""


def print_anywhere() -> None:
    """Let standard output and error spell signs that their encoding lacks with plain letters, instead of failing."""
    codecs.register_error("plain", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # notebooks have streams of their own, which take every sign
            stream.reconfigure(errors="plain")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """What `codecs.register_error` asks for: the text in place of the signs, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end
