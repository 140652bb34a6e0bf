"""After the database was restarted, pooled connections are broken: nobody who asks the service next is told of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.service.conftest import Service, service, small_entry, small_model_folder

__all__ = ["service", "small_entry", "small_model_folder"]

CLICK = {"action_name": "click", "query_id": "q", "timestamp": datetime.now(UTC).isoformat(), "object_id": "7"}
REQUESTS: list[tuple[str, str, Any]] = [
    ("POST", "/shop/_search", {"query": "lamp"}),
    ("POST", "/shop/_search", {"query": "lamp", "aggs": {"kinds": {"terms": {"field": "kind"}}}}),
    ("POST", "/shop/_count", {}),
    ("PUT", "/shop/_doc/7", {"data": "a red lamp", "payload": {"title": "a red lamp"}}),
    ("GET", "/shop/_doc/7", None),
    ("DELETE", "/shop/_doc/8", None),
    ("POST", "/shop/_bulk", '{"index": {"_id": "9"}}\n{"data": "a kettle", "payload": {}}\n'),
    ("POST", "/ubi_events", CLICK),
    ("POST", "/ubi_queries", {"query_id": "q", "user_query": "lamp"}),
    ("GET", "/shop/_fields", None),
    ("GET", "/shop/_releases", None),
    ("POST", "/shop/_compare", {"query": "lamp", "sides": [{}, {"mode": "words"}]}),
    ("PUT", "/shop/_judgments", {"query": "lamp", "object_id": "7", "grade": 2, "judge": "me"}),
    ("GET", "/shop/_judgments", None),
    ("GET", "/_experiments", None),
    ("POST", "/1/indexes/shop/query", {"query": "lamp"}),
    ("GET", "/readyz", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS, ids=[f"{each[0]} {each[1]}" for each in REQUESTS])
def test_who_asks_after_a_restart_is_answered(service: Service, method: str, path: str, body: Any) -> None:
    content = body if isinstance(body, str) or body is None else json.dumps(body)
    with service.client("search", "events", "items", "admin") as client:
        for _ in range(3):  # so that there are connections to break
            assert client.request(method, path, content=content).status_code < 500
        service.sql(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database() AND backend_type = 'client backend'"
        )
        answer = client.request(method, path, content=content)
        assert answer.status_code < 500, answer.text
