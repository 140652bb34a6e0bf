"""The sessions of a fine-tuning run: where its window ends, and the file that its steps hand on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.session_files import StoredSessions

SESSIONS_FILE = "sessions.parquet"


def window_end(store: ArtifactStore, plugin_name: str, run_id: str) -> datetime:
    """Return the end of the window of a run, which the first call fixes."""
    uri = store.uri(plugin_name, run_id, "window")
    if not store.exists(uri):
        with store.publish(plugin_name, run_id, "window") as folder:
            (folder / "window.json").write_text(json.dumps({"until": datetime.now(UTC).isoformat()}))
    with store.fetch(uri) as folder:
        return datetime.fromisoformat(json.loads((folder / "window.json").read_text())["until"])


@contextmanager
def stored_sessions(store: ArtifactStore, uri: str) -> Iterator[StoredSessions]:
    """Yield what `extract` stored.

    Raises:
        DataError: nothing complete is published there, or it cannot be read.
    """
    with store.fetch(uri) as folder:
        yield StoredSessions(folder / SESSIONS_FILE)
