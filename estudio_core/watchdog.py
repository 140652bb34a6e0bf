"""Ends searches whose server does not answer at all: `statement_timeout` is kept by a server that still runs.

A thread looks a few times a second whether a connection is in use beyond its deadline, and shuts its socket; whoever
waits there gets an error at once. The connection is not used again.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg

    Watched = psycopg.Connection | psycopg.AsyncConnection

LOOK_S = 0.1
GRACE_S = 0.25
"""Beyond the deadline: the server, which stops a statement in time, is to have the first word."""
_IDLE_S = 30.0

_watched: dict[Watched, float] = {}
_lock = threading.Lock()
_thread: threading.Thread | None = None


def watch(connection: Watched, until: float) -> None:
    """Shut the connection's socket unless `let_go` comes before `until`, by `time.monotonic()`, or a little later."""
    global _thread
    with _lock:
        _watched[connection] = until + GRACE_S
        if _thread is None:
            _thread = threading.Thread(target=_look, name="estudio-deadlines", daemon=True)
            _thread.start()


def let_go(connection: Watched) -> bool:
    """Watch it no longer; return whether its socket was shut."""
    with _lock:
        return _watched.pop(connection, None) is None


def _look() -> None:
    import psycopg

    global _thread
    idle_since = time.monotonic()
    while True:
        time.sleep(LOOK_S)
        now = time.monotonic()
        with _lock:
            if _watched:
                idle_since = now
            elif now - idle_since > _IDLE_S:
                _thread = None
                return
            for connection in [each for each, until in _watched.items() if until < now]:
                del _watched[connection]
                with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as shared:
                    shared.shutdown(socket.SHUT_RDWR)


def _after_fork() -> None:
    global _thread, _lock
    _watched.clear()
    _thread, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
