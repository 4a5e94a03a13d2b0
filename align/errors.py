"""Mistakes a user can mend, damaged files, what a terminal is shown, and how a command ends."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_PLAIN = {"→": "->", "↓": "v", "↑": "^", "–": "-", "−": "-", "×": "x", "±": "+-", "≤": "<=", "≥": ">=", "…": "..."}
_LONGEST = 3000  # characters of one message
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, limit of a file
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (direction of writing among them), surrogate, line ends
_SHOWN = {"\n", "\t", "\u00ad", "\u200c", "\u200d", "\ufeff"}  # of these: lines, columns, joiners inside words
_BAR = "\x1b[A"  # how a progress bar goes back to its line


class UserError(ValueError):
    """Bad input: one line that says what, which value, and what to do. Commands print it and exit with 2."""


def counted(n: int, noun: str) -> str:
    """ "1 channel", "2 channels": a number and what it counts."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


class Damaged(UserError):
    """A file of ours whose content is not what was written. A cache is made anew; a result is refused."""


class Unread(BrokenPipeError):
    """Whoever read the pipe that a command writes to has left it."""


class Stopped(KeyboardInterrupt):
    """The system asked the command to end; ``number`` of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_command(name: str, work: Callable[[], int], debug: bool = False, go_on: str = "") -> int:
    """The exit code of ``work``, or one line on standard error and the code of what went wrong.

    2: a mistake of the user, a file that cannot be read or written, memory that cannot be had. 130, 143, 129:
    interrupted, SIGTERM, SIGHUP; ``go_on`` then says what to do. 141: whoever read the output has closed it; nothing
    is said. ``debug`` shows the trace instead.
    """
    print_anywhere()
    try:
        with _asked_to_end():
            code = work()
            with _printing():
                if sys.stdout is not None:  # None where it was closed before we began
                    sys.stdout.flush()
            return code
    except BrokenPipeError as error:
        if debug or not (isinstance(error, Unread) or _closed()):
            raise
        return _end(name, error, 141)
    except (UserError, OSError, MemoryError) as error:
        if debug:
            raise
        return _end(name, error, 2)
    except KeyboardInterrupt as error:
        if debug:
            raise
        said = f"stopped by {error}" if isinstance(error, Stopped) else "interrupted"
        number = error.number if isinstance(error, Stopped) else signal.SIGINT
        return _end(name, UserError(f"{said}; {go_on}" if go_on else said), 128 + number)


def one_line(error: BaseException) -> str:
    """What the error says, on one line of bounded length; errors of the system name the file."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        text = f"not enough memory{f' ({text})' if text else ''}; ask for less at once"
    elif isinstance(error, OSError) and error.strerror:
        place = "a file could not be written" if error.errno in _FULL else ""
        place = place if error.filename is None else repr(error.filename)
        text = f"{place}: {error.strerror}" if place else text
        text += "; make room or write elsewhere" if error.errno in _FULL else ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def printable(text: str) -> str:
    """``text`` with everything written out that moves the cursor, changes a terminal or hides letters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if sign in _SHOWN or not _hidden(sign) else _written(sign) for sign in text)


def print_anywhere() -> None:
    """Let standard output and error take every text: signs that their encoding lacks become plain letters or are
    written out (``\\xe9``), and so is what a terminal would obey (control characters of somebody's file, ``\\x1b``).

    A carriage return passes on standard error alone, where progress bars need it.
    """
    codecs.register_error("plain", _spelled)
    for stream, kept in ((sys.stdout, ()), (sys.stderr, ("\r", _BAR))):
        if isinstance(stream, io.TextIOWrapper):  # notebooks have streams of their own, which take every sign
            stream.reconfigure(errors="plain")
            if "write" not in vars(stream):
                vars(stream)["write"] = _escaping(stream.write, kept)


def _escaping(write: Callable[[str], int], kept: tuple[str, ...]) -> Callable[[str], int]:
    def escaped(text: str) -> int:
        parts = [text]
        for sign in kept:  # left as they are, what stands between them is escaped
            parts = [piece for part in parts for piece in _split(part, sign)]
        with _printing():
            write("".join(part if part in kept else printable(part) for part in parts))
        return len(text)

    return escaped


@contextmanager
def _printing() -> Iterator[None]:
    """Let an error of the system in the block say where it came from: whoever prints names no file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, "standard output") from error


def _split(text: str, sign: str) -> list[str]:
    pieces = text.split(sign)
    return [part for piece in pieces for part in (piece, sign)][:-1]


def _hidden(sign: str) -> bool:
    return unicodedata.category(sign) in _HIDDEN


def _written(sign: str) -> str:
    return sign.encode("unicode_escape", "backslashreplace").decode("ascii")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """What `codecs.register_error` asks for: the text in place of the signs, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign) or _written(sign) for sign in error.object[error.start : error.end]), error.end


def _end(name: str, error: BaseException, code: int) -> int:
    """Say the error unless nobody listens, and keep the interpreter from failing over what is left in the streams."""
    with suppress(OSError, ValueError):
        if code != 141:
            print(f"{name}: {printable(one_line(error))}", file=sys.stderr, flush=True)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _closed() -> bool:
    """Whether nobody reads standard output or error any more."""
    if not hasattr(select, "poll"):
        return True
    with suppress(OSError, ValueError):
        watched = select.poll()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            watched.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in watched.poll(0))
    return True


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """Raise `Stopped` in this process for SIGTERM and SIGHUP; one that is ignored already (nohup) stays so."""
    owner, before = os.getpid(), {}

    def ask(number: int, frame: FrameType | None) -> Any:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != owner:  # a child that was forked inside the block ends as it would without us
            os.kill(os.getpid(), number)
            return
        raise Stopped(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        with suppress(ValueError):  # only the main thread may ask
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
