"""The service as a login that was granted `estudio_writer` and nothing more: it searches, writes and collects."""

from __future__ import annotations

import httpx
import psycopg
import pytest

from estudio_core import database
from estudio_core.settings import get_settings
from estudio_core.vectordb.roles import set_up_roles
from tests.service.conftest import Service, running

LOGIN = "service_of_tests"


def test_a_login_that_owns_nothing_serves_everything(
    service: Service, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.connect() as connection:
        set_up_roles(connection)
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (LOGIN,)).fetchone() is None:
            connection.execute(f"CREATE ROLE {LOGIN} LOGIN".encode())
        connection.execute(f"GRANT estudio_writer TO {LOGIN}".encode())
    headers = {"Authorization": f"Bearer {service.key('search', 'items', 'events')}"}
    url = service.database_url.replace("postgres:@", f"{LOGIN}:@", 1)
    monkeypatch.setenv("ESTUDIO_DATABASE_URL", url)
    try:
        get_settings.cache_clear()
        database.forget_pools()
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM estudio.pointers")
        with running() as address, httpx.Client(base_url=address, headers=headers, timeout=30) as client:
            row = {"data": {"title": "blue sofa", "blurb": "for two"}, "payload": {"price": 5}}
            written = client.put("/shop/_doc/sofa/9", json=row)
            assert written.status_code == 201, written.text
            query = {"query": {"match": {"title": "blue sofa"}}, "size": 5}
            found = client.post("/shop/_search", json=query)
            assert found.is_success, found.text
            assert found.json()["hits"]["hits"][0]["_id"] == "sofa/9"
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ready")
            asked = {
                "application": "shop",
                "query_id": "least",
                "client_id": "c",
                "user_query": "sofa",
                "query_response_hit_ids": ["sofa/9"],
                "timestamp": "2026-01-01T00:00:00Z",
            }
            stored = client.post("/ubi_queries", json=asked)
            assert stored.json() == {"stored": 1, "refused": 0, "errors": []}, stored.text
            assert client.delete("/shop/_doc/sofa/9").json()["result"] == "deleted"
        assert service.sql("SELECT count(*) FROM estudio.ubi_queries WHERE query_id = 'least'") == [(1,)]
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()
        database.forget_pools()
