"""The sessions of a fine-tuning run: where its window ends, and the file that its steps hand on."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.sessions import SessionWithEvents

SESSIONS_FILE = "sessions.jsonl"


def window_end(store: ArtifactStore, plugin_name: str, run_id: str) -> datetime:
    """Return the end of the window of a run, which the first call fixes."""
    uri = store.uri(plugin_name, run_id, "window")
    if not store.exists(uri):
        with store.publish(plugin_name, run_id, "window") as folder:
            (folder / "window.json").write_text(json.dumps({"until": datetime.now(UTC).isoformat()}))
    with store.fetch(uri) as folder:
        return datetime.fromisoformat(json.loads((folder / "window.json").read_text())["until"])


def read_sessions(store: ArtifactStore, uri: str) -> list[SessionWithEvents]:
    """Read what `extract` stored."""
    with store.fetch(uri) as folder, (folder / SESSIONS_FILE).open(encoding="utf-8") as file:
        return [SessionWithEvents.model_validate_json(line) for line in file]
