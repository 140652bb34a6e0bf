"""What Prometheus is told of searches and writes, in the process that does them and by the service's page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import httpx
import prometheus_client
import pytest

from estudio_core import telemetry
from estudio_core.deadline import Deadline
from estudio_core.errors import NothingLiveError, OverloadedError, SearchTimeoutError
from estudio_core.searching import search
from estudio_core.service import metrics
from estudio_core.vectordb.lanes import MOST_WAITING, lane
from estudio_core.vectordb.search_session import search_connection
from estudio_core.writing import delete
from tests.service.conftest import Service

Change = Callable[..., float]


@pytest.fixture
def change(service: Service) -> Change:
    """Returns by how much a value has grown since the test began."""
    search("shop", "warm up")  # what this process remembers may be another test's shop
    before = samples()

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return samples().get(key, 0.0) - before.get(key, 0.0)

    return grown


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in telemetry.registry().collect()
        for sample in family.samples
    }


def test_a_search_is_counted_with_each_of_its_parts(change: Change) -> None:
    release = search("shop", "a lamp to count by").release_id
    for _ in range(2):
        search("shop", "a lamp to count by")
    assert change("estudio_search_seconds_count", plugin="shop") == 3
    assert change("estudio_query_vectors_total", plugin="shop", cache="miss") == 1
    assert change("estudio_query_vectors_total", plugin="shop", cache="hit") == 2
    assert change("estudio_encode_seconds_count", plugin="shop") == 1
    assert change("estudio_query_vector_seconds_count", plugin="shop") == 3
    assert change("estudio_sql_seconds_count", plugin="shop") == 3
    assert change("estudio_pool_wait_seconds_count", lane="cheap") >= 3
    whole = change("estudio_search_seconds_sum", plugin="shop")
    assert 0 < change("estudio_encode_seconds_sum", plugin="shop") < whole
    assert 0 < change("estudio_sql_seconds_sum", plugin="shop") < whole
    now = samples()
    assert now["estudio_live_release", (("plugin", "shop"),)] == release
    assert now["estudio_search_connections", (("lane", "cheap"),)] == lane("cheap").size
    assert now["estudio_search_connections_in_use", (("lane", "cheap"),)] == 0


def test_connections_that_are_lent_are_in_use(change: Change) -> None:
    with search_connection("costly"):
        assert change("estudio_search_connections_in_use", lane="costly") == 1
    assert change("estudio_search_connections_in_use", lane="costly") == 0


def test_failures_are_counted_by_type_and_a_name_of_nothing_makes_no_series(change: Change) -> None:
    with pytest.raises(SearchTimeoutError):
        search("shop", "far too late", deadline_s=1e-6)
    assert change("estudio_search_failures_total", plugin="shop", error="SearchTimeoutError") == 1
    for number in range(3):
        with pytest.raises(NothingLiveError):
            search(f"nothing{number}", "words")
        with pytest.raises(NothingLiveError):
            delete(f"nothing{number}", ["1"])
    assert change("estudio_search_failures_total", plugin="", error="NothingLiveError") == 3
    assert change("estudio_write_failures_total", plugin="", operation="delete", error="NothingLiveError") == 3
    assert not [key for key in samples() if any(value.startswith("nothing") for _, value in key[1])]


def test_searches_that_are_sent_away_are_counted(change: Change) -> None:
    at = lane("costly")
    with ExitStack() as others:
        for _ in range(at.size * (MOST_WAITING + 1)):
            others.enter_context(at.admitted(Deadline.after(60)))
        with pytest.raises(OverloadedError):
            search("shop", "one too many", exact=True)
    assert change("estudio_search_failures_total", plugin="shop", error="OverloadedError") == 1


def test_the_services_page_has_them_beside_its_own_and_so_has_the_default_registry(
    service: Service, client: httpx.Client
) -> None:
    client.get("/shop/_search", params={"q": "red chair"}).raise_for_status()
    page = metrics.exposition()[0].decode()
    for name in ("estudio_http_requests_total{", 'estudio_search_seconds_bucket{le="0.0005",plugin="shop"}'):
        assert name in page
    assert 'estudio_search_seconds_count{plugin="shop"}' in prometheus_client.generate_latest().decode()
