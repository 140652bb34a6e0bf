"""Traces of the searching path: a request's trace goes down to its statements, and says nothing of what was typed."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from estudio_core.errors import SearchTimeoutError
from estudio_core.searching import aclose, asearch, search
from estudio_core.writing import ItemWrite, delete, upsert
from tests.service.conftest import Service

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"


class Traces:
    """The spans that have ended."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def taken(self) -> list[ReadableSpan]:
        """Return the spans since the last call, oldest first."""
        spans = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        self._exporter.clear()
        return spans

    def tree(self) -> list[tuple[str, str | None]]:
        """Return name and parent's name of each span since the last call."""
        spans = self.taken()
        names = {span.context.span_id: span.name for span in spans}
        return [(span.name, names.get(span.parent.span_id, "?") if span.parent else None) for span in spans]


@pytest.fixture
def traces(service: Service, monkeypatch: pytest.MonkeyPatch) -> Traces:
    """What this process traces, for one test; the SDK of a process is set up once, which a test has to undo."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return Traces(exporter)


def all_of(spans: list[ReadableSpan]) -> str:
    return "\n".join(span.to_json() for span in spans)


def without_statements(tree: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    return [each for each in tree if not each[0].startswith(("SELECT", "SET", "WITH"))]


SEARCHED = [
    ("estudio.search", None),
    ("estudio.query.vector", "estudio.search"),
    ("estudio.query.encode", "estudio.query.vector"),
    ("estudio.pool.wait", "estudio.search"),
    ("estudio.collection.search", "estudio.search"),
]


def test_a_blocking_search_is_one_trace(traces: Traces) -> None:
    search("shop", "warm it up")
    traces.taken()
    answer = search("shop", "an old lantern", limit=3)
    spans = traces.taken()
    assert "lantern" not in all_of(spans)
    [root] = [span for span in spans if span.parent is None]
    assert dict(root.attributes or {}) == {
        "estudio.mode": "hybrid",
        "estudio.limit": 3,
        "estudio.plugin": "shop",
        "estudio.release": answer.release_id,
        "estudio.model": "shop_v1",
        "estudio.hits": 3,
    }
    assert {span.context.trace_id for span in spans} == {root.context.trace_id}
    named = {span.name: span for span in spans}
    assert (named["estudio.query.encode"].attributes or {})["estudio.queries"] == 1
    statement = next(span for span in spans if span.kind is SpanKind.CLIENT)
    assert dict(statement.attributes or {}).keys() == {"db.system.name", "db.namespace", "db.operation.name"}
    assert statement.name.startswith("SELECT t_")


def test_blocking_and_awaited_searches_make_the_same_tree(traces: Traces) -> None:
    search("shop", "another warm up")
    traces.taken()
    search("shop", "a small tent for rain")
    blocking = traces.tree()

    async def awaited() -> list[tuple[str, str | None]]:
        await asearch("shop", "the first of this loop makes its pool")
        traces.taken()
        await asearch("shop", "a fine tent for snow")
        found = traces.tree()
        await aclose()
        return found

    assert without_statements(blocking) == SEARCHED
    assert without_statements(asyncio.run(awaited())) == SEARCHED
    assert ("SELECT", "estudio.collection.search") in [(name.split()[0], parent) for name, parent in blocking]


def test_a_query_that_comes_again_is_not_encoded_again(traces: Traces) -> None:
    hits = []
    for _ in range(2):
        search("shop", "a kettle that whistles")
        spans = {span.name: span for span in traces.taken()}
        hits.append(
            ((spans["estudio.query.vector"].attributes or {})["estudio.cache.hit"], "estudio.query.encode" in spans)
        )
    assert hits == [(False, True), (True, False)]


def test_queries_encoded_together_are_linked_with_each_search(traces: Traces) -> None:
    from estudio_core import telemetry
    from estudio_core.deadline import Deadline
    from estudio_core.inference.opening import open_search_embedder
    from estudio_core.inference.query_vectors import _Encoder, query_vectors

    encoder = _Encoder(query_vectors, "shop_v1")
    open_search_embedder("shop_v1")
    encoder._free = 1  # nobody works yet: both wait, and are taken at once
    jobs = []
    for text in ("a red radio", "an old radio"):
        with telemetry.measured(telemetry.SEARCH, {}):
            jobs.append(encoder.submit(text, Deadline.after(10)))
    encoder._encode(jobs)
    first, second, encoded = traces.taken()
    assert encoded.parent is not None
    assert encoded.parent.span_id == first.context.span_id
    assert [link.context.span_id for link in encoded.links] == [second.context.span_id]
    assert (encoded.attributes or {})["estudio.queries"] == 2


def test_a_deadline_that_passes_is_told_by_its_type(traces: Traces) -> None:
    with pytest.raises(SearchTimeoutError):
        search("shop", "too late for this", deadline_s=1e-6)
    spans = traces.taken()
    root = spans[0]
    assert root.status.status_code is StatusCode.ERROR
    assert (root.attributes or {})["error.type"] == "SearchTimeoutError"
    assert not root.events
    assert root.status.description is None
    assert "late for" not in all_of(spans)


def test_a_request_goes_on_with_the_trace_of_its_caller(traces: Traces, client: httpx.Client) -> None:
    body = {"query": {"match": {"_all": "a camera with film"}}, "size": 2}
    answered = client.post("/shop/_search", json=body, headers={"traceparent": PARENT})
    assert answered.status_code == 200
    spans = traces.taken()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    request = next(span for span in spans if span.kind is SpanKind.SERVER)
    assert request.name == "POST /{plugin}/_search"
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == CALLER
    attributes = dict(request.attributes or {})
    assert attributes.pop("estudio.request_id") == answered.headers["x-request-id"]
    assert attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "http.route": "/{plugin}/_search",
        "http.response.status_code": 200,
        "estudio.plugin": "shop",
        "estudio.release": answered.json()["ext"]["estudio"]["release"],
    }
    parents = {span.context.span_id: span for span in spans}
    lowest = [span for span in spans if span.kind is SpanKind.CLIENT]
    assert lowest
    for span in lowest:
        while span.parent is not None and span.parent.span_id in parents:
            span = parents[span.parent.span_id]
        assert span is request
    assert "film" not in all_of(spans)


def test_probes_make_no_traces_and_a_refusal_is_no_error_of_the_service(traces: Traces, service: Service) -> None:
    with service.client() as nobody:
        nobody.get("/healthz")
        nobody.get("/readyz")
        nobody.get("/metrics")
        assert traces.taken() == []
        assert nobody.get("/shop/_search", params={"q": "secret words"}).status_code == 401
    spans = traces.taken()
    request = next(span for span in spans if span.kind is SpanKind.SERVER)
    assert (request.attributes or {})["http.response.status_code"] == 401
    assert request.status.status_code is StatusCode.UNSET
    assert "secret" not in all_of(spans)


def test_writes_are_traced_down_to_their_statements(traces: Traces) -> None:
    upsert("shop", [ItemWrite("traced", {"title": "Unspeakable lamp", "blurb": "x"}, {"title": "Unspeakable lamp"})])
    delete("shop", ["traced"])
    spans = traces.taken()
    roots = [span for span in spans if span.parent is None]
    assert [(span.name, (span.attributes or {})["estudio.operation"]) for span in roots] == [
        ("estudio.write", "upsert"),
        ("estudio.write", "delete"),
    ]
    assert "estudio.items.encode" in {span.name for span in spans}
    assert {"INSERT", "DELETE", "SELECT"} <= {
        (span.attributes or {})["db.operation.name"] for span in spans if span.kind is SpanKind.CLIENT
    }
    assert "nspeakable" not in all_of(spans)


def test_statements_of_nobodys_search_make_no_traces(traces: Traces) -> None:
    from estudio_core import database

    with database.connection() as connection:
        connection.execute("SELECT 1")
    assert traces.taken() == []
