"""A log in indexes of OpenSearch: read in order of time, through failures, and never with the password told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from estudio_core.clickstream.importing import import_log
from estudio_core.clickstream.opensearch import OpenSearchLog
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.errors import ConfigurationError, DataError, UnavailableError
from tests.clickstream.test_importing import connection, log
from tests.clickstream.test_logs import installation, url

__all__ = ["connection", "installation", "url"]


class Engine(ThreadingHTTPServer):
    """What of OpenSearch's HTTP interface a reader of whole indexes meets: count, search with a scroll, scroll."""

    def __init__(self) -> None:
        self.indexes: dict[str, list[dict[str, Any]]] = {"ubi_queries": [], "ubi_events": []}
        self.page, self.scrolls, self.closed = 4, dict[str, list[dict[str, Any]]](), 0
        self.asked: list[tuple[str, str]] = []
        self.drop_after: int | None = None
        self.status = 200
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        self._answer({"count": len(self.server.indexes[self.path.split("/")[1]])})

    def do_DELETE(self) -> None:
        self.server.closed += 1
        self._answer({"succeeded": True})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine = self.server
        if engine.drop_after is not None and len(engine.asked) >= engine.drop_after:
            engine.drop_after = None
            self.connection.close()
            return
        if self.path == "/_search/scroll":
            name = asked["scroll_id"]
        else:
            name = str(len(engine.scrolls))
            index = self.path.split("/")[1]
            since = asked["query"].get("range", {}).get("timestamp", {}).get("gte", 0)
            found = sorted(engine.indexes[index], key=lambda d: d["ms"])
            engine.scrolls[name] = [
                {
                    "_index": index,
                    "_id": str(n),
                    "_source": {k: v for k, v in d.items() if k != "ms"},
                    "sort": [d["ms"]],
                }
                for n, d in enumerate(found)
                if d["ms"] >= since
            ]
        page, engine.scrolls[name] = engine.scrolls[name][: engine.page], engine.scrolls[name][engine.page :]
        self._answer({"_scroll_id": name, "hits": {"total": {"value": 9}, "hits": page}})

    def _answer(self, content: dict[str, Any]) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        body = json.dumps(content).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for number, document in enumerate(log(6)):
            index = "ubi_events" if "action_name" in document else "ubi_queries"
            server.indexes[index].append({**document, "ms": number})
        yield server
        server.shutdown()


def test_indexes_are_read_whole_and_their_scrolls_closed(engine: Engine, connection: psycopg.Connection) -> None:
    found = import_log(connection, f"opensearch://reader:s3%20cret@127.0.0.1:{engine.server_port}")
    assert (found.queries.inserted, found.queries.merged, found.events.inserted) == (4, 4, 12)
    assert "s3" not in found.source
    assert engine.closed == 2
    assert {header for _, header in engine.asked} == {"Basic cmVhZGVyOnMzIGNyZXQ="}
    assert len(list(ClickstreamStore(connection).sessions("app0"))) == 3


def test_a_connection_that_is_lost_is_taken_up_where_it_was(engine: Engine, connection: psycopg.Connection) -> None:
    engine.drop_after = 5
    found = import_log(connection, f"opensearch://127.0.0.1:{engine.server_port}/ubi_queries,ubi_events")
    assert engine.drop_after is None
    assert (found.queries.inserted, found.events.inserted) == (4, 12)


def test_what_is_wrong_with_a_server_is_told_without_its_password(
    engine: Engine, connection: psycopg.Connection
) -> None:
    place = f"127.0.0.1:{engine.server_port}"
    for status, error in ((401, DataError), (404, DataError), (503, UnavailableError)):
        engine.status = status
        with pytest.raises(error, match=str(status)) as caught:
            import_log(connection, f"opensearch://reader:s3cret@{place}")
        assert "s3cret" not in str(caught.value)
    with pytest.raises(UnavailableError, match="does not answer"):
        import_log(connection, "opensearch://127.0.0.1:1/ubi_events")
    with pytest.raises(UnavailableError, match="does not answer"):
        import_log(connection, f"opensearch://{place}/ubi_events?tls=on")
    with pytest.raises(ConfigurationError, match="names no host"):
        OpenSearchLog("opensearch:///ubi_events")
