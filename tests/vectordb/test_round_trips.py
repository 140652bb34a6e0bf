"""A page takes one round trip to the database, whatever it asks for: counted on the wire, by a relay in between."""

from __future__ import annotations

import selectors
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from estudio_core import database
from estudio_core.settings import get_settings
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import FieldKind, IndexedField, SearchIndexInfo
from estudio_core.vectordb.search import search
from estudio_core.vectordb.search_session import search_connection
from tests.vectordb.test_search_session import EAST, item

PAGES: dict[str, dict[str, Any]] = {
    "bare": {},
    "filter": {"filter": {"term": {"colour": "red"}}},
    "range": {"filter": {"range": {"n": {"lt": 60}}}},
    "sorted": {"sort_by": "n"},
    "personal": {"user_id": "ann"},
    "words and vectors": {"text": "lamp"},
    "words and vectors, filtered": {"text": "lamp", "filter": {"term": {"colour": "blue"}}},
}


class Relay:
    """Hands on what a client and a PostgreSQL tell each other, and counts how often the client speaks anew."""

    def __init__(self, folder: Path, server: str) -> None:
        self.turns = 0
        self._server = server
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no further connections."""
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready:
            server.connect(f"{self._server}/.s.PGSQL.5432")
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            answered = True
            while True:
                for key, _ in ready.select():
                    said = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not said:
                        return
                    if key.fileobj is client:
                        self.turns += answered
                    answered = key.fileobj is server
                    key.data.sendall(said)


@pytest.fixture
def relay(estudio_home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    where = conninfo_to_dict(database_url)["host"]
    with tempfile.TemporaryDirectory() as folder:
        made = Relay(Path(folder), str(where))
        monkeypatch.setenv("ESTUDIO_DATABASE_URL", database_url.replace(str(where), folder))
        get_settings.cache_clear()
        yield made
        database.forget_pools()
        made.close()


@pytest.fixture
def collection(conn: psycopg.Connection) -> Collection:
    made = Collection("shop_1", SearchIndexInfo(dimensions=6, fields=(IndexedField(name="n", kind=FieldKind.NUMBER),)))
    made.create(conn)
    made.copy_objects(conn, [item(number) for number in range(120)])
    build_index(conn, made)
    return made


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_one_round_trip(collection: Collection, relay: Relay, page: str) -> None:
    with search_connection() as session:
        for _ in range(2):  # statements are prepared, breadths known
            expected = search(session, collection, EAST, **PAGES[page])
        before = relay.turns
        found = search(session, collection, EAST, **PAGES[page])
        turns = relay.turns - before
    assert found == expected
    assert found
    assert turns == 1
