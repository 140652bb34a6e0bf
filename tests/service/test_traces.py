"""Traces of the searching path: a request's trace goes down to its statements, and says nothing of what was typed."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from estudio_core.errors import SearchTimeoutError
from estudio_core.local.ports import any_free_port
from estudio_core.searching import aclose, asearch, search
from estudio_core.service import tracing
from estudio_core.writing import ItemWrite, delete, upsert
from tests.service.conftest import Service

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SEARCHES = 40
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


@pytest.mark.parametrize(
    ("variables", "exporters"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_opentelemetrys_variables_say_where_traces_go(
    variables: dict[str, str], exporters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() == exporters
    assert tracing.lacking() is None


def test_an_exporter_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkon")
    assert "names 'zipkon', and installed are console, otlp" in (tracing.lacking() or "")
    assert tracing.set_up() is None


WITHOUT = """
import asyncio, importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("opentelemetry", "prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from estudio_core.searching import aclose, asearch, search
from estudio_core.service import tracing

async def awaited():
    try:
        return await asearch("shop", "a lamp")
    finally:
        await aclose()

assert search("shop", "a lamp").hits == asyncio.run(awaited()).hits
print(tracing.lacking(), tracing.set_up())
"""


def test_searching_needs_neither_opentelemetry_nor_prometheus(service: Service) -> None:
    wanted = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", WITHOUT], env=wanted, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "No traces are sent: OpenTelemetry's variables ask for them. Run: pip install 'estudio[traces]' None"
    )


class Collector(ThreadingHTTPServer):
    """Takes what is exported by OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: list[tuple[str, int, Span]] = []
        """Service's name, process and span."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            of = {each.key: each.value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [
                    (of["service.name"].string_value, of["process.pid"].int_value, span) for span in scope.spans
                ]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_each_worker_of_the_service_sends_its_traces_the_last_ones_when_it_ends(
    service: Service, collector: Collector
) -> None:
    port = any_free_port()
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_BSP_SCHEDULE_DELAY": "600000",  # nothing is sent but at the end
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process",
    }
    command = [sys.executable, "-m", "estudio_core", "serve", "--workers", "2", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _until_ready(address, process)
        headers = {"Authorization": f"Bearer {service.key('search')}", "traceparent": PARENT}
        for _ in range(SEARCHES):
            httpx.get(f"{address}/shop/_search", params={"q": "lamp"}, headers=headers).raise_for_status()
        counted = _samples(httpx.get(f"{address}/metrics").text)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert counted['estudio_search_seconds_count{plugin="shop"}'] == SEARCHES
    assert (
        counted['estudio_query_vectors_total{cache="miss",plugin="shop"}']
        == counted['estudio_encode_seconds_count{plugin="shop"}']
    )
    mine = [(name, pid, span) for name, pid, span in collector.spans if span.trace_id.hex() == TRACE]
    assert {name for name, *_ in mine} == {"estudio"}
    requests = [(pid, span) for _, pid, span in mine if span.name == "GET /{plugin}/_search"]
    assert len(requests) == SEARCHES
    assert {span.parent_span_id.hex() for _, span in requests} == {CALLER}
    assert len({pid for pid, _ in requests}) == counted['estudio_query_vectors_total{cache="miss",plugin="shop"}']


def _until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        assert process.poll() is None, "the service does not start"
        assert time.monotonic() < until, "the service does not start"
        try:
            if httpx.get(f"{address}/healthz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def _samples(page: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line[:1] != "#"}


def test_statements_of_nobodys_search_make_no_traces(traces: Traces) -> None:
    from estudio_core import database

    with database.connection() as connection:
        connection.execute("SELECT 1")
    assert traces.taken() == []
