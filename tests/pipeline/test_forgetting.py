"""A client who is forgotten leaves nothing that is searched or learned from; old rows go with the daily watch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pyarrow import parquet as pq
from typer.testing import CliRunner

from estudio_core import ClickstreamStore, database
from estudio_core.artifacts import ArtifactStore
from estudio_core.cli import app
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.pipeline.extract import extract
from estudio_core.pipeline.measure import measure
from estudio_core.pipeline.training.sessions import SESSIONS_FILE
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.writing import ItemWrite, upsert
from tests.pipeline.conftest import Shop


def test_rows_and_personal_vectors_go_and_trainings_stay(indexed_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    upsert("shop", [ItemWrite("mine", "my lamp", None, user_id="ann@example.org", original_id="1")])
    now = datetime.now(UTC)
    with database.connect() as connection:
        store = ClickstreamStore(connection)
        for who in ("ann@example.org", "bob"):
            for age in (1, 50):
                at, name = now - timedelta(days=age), f"{who[0]} {age}"
                store.log_queries(
                    [
                        UbiQuery(
                            name,
                            "lamp",
                            at,
                            "shop",
                            ("1", "2"),
                            client_id=who,
                            query_attributes={"user_id": who, "page": 1, "mail": who},
                        )
                    ]
                )
                store.log_events([UbiEvent(name, "click", name, at, "shop", "1", client_id=who)])
    extracted = extract("shop", "run", {"min_sessions": 1})
    with ArtifactStore().fetch(extracted.uri) as folder:
        stored = (folder / SESSIONS_FILE).read_bytes()
        rows = pq.read_table(folder / SESSIONS_FILE).to_pylist()
    assert (sorted(row["user_id"] or row["client_id"] for row in rows), extracted.sessions) == (["1", "1", "2", "2"], 4)
    assert "ann@" not in repr(rows)

    answer = CliRunner().invoke(app, ["clickstream", "forget", "ann@example.org"])
    assert answer.exit_code == 0, answer.output
    assert "Deleted 2 searches, 2 events and 1 personal vectors." in answer.output
    assert not any(hit.personal for hit in search("shop", "my lamp", limit=100, user_id="ann@example.org").hits)
    with ArtifactStore().fetch(extracted.uri) as folder:
        assert (folder / SESSIONS_FILE).read_bytes() == stored
    again = CliRunner().invoke(app, ["clickstream", "forget", "ann@example.org"])
    assert "Deleted 0 searches, 0 events and 0 personal vectors." in again.output

    monkeypatch.setenv("ESTUDIO_CLICKSTREAM_DAYS", "30")
    get_settings.cache_clear()
    measure("shop", "watch", {})
    with database.connect() as connection:
        assert [session.session_id for session in ClickstreamStore(connection).sessions("shop")] == ["b 1"]
