"""Blocks network sockets in the interpreter that imports it; local (AF_UNIX) sockets stay open.

A process that a test starts also keeps to what the suite runs under: one thread (`one_thread`), no flushes
(`no_flush`), no POSIX (`hide_posix`).

The suite's conftest imports it for the test process and puts this folder on PYTHONPATH, where Python imports
`sitecustomize` by itself, for every process that a test starts.
"""

import os
import socket
from typing import Any

_FREE = {getattr(socket, "AF_UNIX", None)}


class NetworkBlockedError(OSError):
    """A test tried to reach the network."""


def _guard(name: str) -> None:
    original = getattr(socket.socket, name)

    def guarded(self: socket.socket, address: Any, *args: Any) -> Any:
        if self.family in _FREE:
            return original(self, address, *args)
        raise NetworkBlockedError(f"the suite runs offline: {name} to {address!r} refused")

    setattr(socket.socket, name, guarded)


def _no_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
    raise NetworkBlockedError(f"the suite runs offline: look-up of {host!r} refused")


if not getattr(socket, "blocked_by_the_suite", False):
    _guard("connect")
    _guard("connect_ex")
    socket.getaddrinfo = _no_lookup
    socket.blocked_by_the_suite = True  # type: ignore[attr-defined]

if __name__ == "sitecustomize":  # in a process that a test starts; the suite's own calls them by itself
    import hide_posix
    import no_flush
    import one_thread

    one_thread.share_cores()
    no_flush.leave_to_the_system()
    if hide_posix.FLAG in os.environ:
        hide_posix.hide()
