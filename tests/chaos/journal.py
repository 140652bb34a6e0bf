"""What the traffic has done and been told: one JSON object a line, appended by several threads, on disk when it counts.

Kinds of lines, times in seconds since the epoch:

    intent    an operation is about to be tried:  n, op ("upsert" or "delete"), id, version, at
    ack       it was acknowledged:                n, at
    error     it failed:                          n, error, at
    search    a search and its answer:            query, limit, began, ended, release, model, and hits
              as [[id, title, similarity], ..]; or its error
    probe     a search for one object after the acknowledgement of its last operation: as search, id, expected (a
              version, or None after a deletion)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file; every line is one write, and complete."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def add(self, kind: str, *, durable: bool = False, **fields: Any) -> None:
        """Append a line; with `durable` it is on disk when this returns."""
        line = (json.dumps({"kind": kind, **fields}) + "\n").encode()
        with self._lock:
            os.write(self._file, line)
        if durable:
            os.fsync(self._file)


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines; a last one that was cut off by a kill is left out."""
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
