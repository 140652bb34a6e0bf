"""What is measured of searches and writes. A place in the code is told once; spans and metrics both come from that.

A `Moment` names what is measured; `with measured(MOMENT, {...}) as told:` measures it. It becomes

- an OpenTelemetry span, where the process that runs this has set up OpenTelemetry's SDK. Only a search, a write or a
  request begins a trace, or goes on with that of its caller; everything else is a part of these.
- an observation of a Prometheus histogram, where the process has imported `prometheus_client`, which counts from then
  on. `registry()` holds all of Estudio's metrics, and so does prometheus_client's own default registry.

Neither is imported here: who has not got them, or does not use them, pays for looking into `sys.modules`.

Spans and labels hold names, numbers and the types of errors; what people typed, items, and values of SQL statements
never stand there. A label has few values: plugins that are live, lanes, types of errors.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry

Value = str | bool | int | float
PLUGIN, RELEASE_ID, MODEL, LANE = "estudio.plugin", "estudio.release", "estudio.model", "estudio.lane"
ERROR = "error.type"
"""Attributes that several spans have; the others stand where they are told."""
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TRACER = "estudio"
_OURS = "estudio.measured"
"""Key of OpenTelemetry's context that says: what happens now is a part of something that is measured here."""


@dataclass(frozen=True)
class Moment:
    """What is measured.

    Attributes:
        span: Name of its span.
        seconds: Name of its histogram; empty: it has none.
        what: What the histogram says.
        labels: Of the histogram: attributes of the span, whose last parts name the labels.
        failures: Name of a counter of those that ended with an error, by `labels` and the error's type.
        root: Whether it may begin a trace.
        kind: As OpenTelemetry names it.
    """

    span: str
    seconds: str = ""
    what: str = ""
    labels: tuple[str, ...] = ()
    failures: str = ""
    root: bool = False
    kind: Literal["INTERNAL", "CLIENT", "SERVER"] = "INTERNAL"


SEARCH = Moment(
    "estudio.search", "estudio_search_seconds", "Seconds of a search, from its arguments to its hits.", (PLUGIN,),
    failures="estudio_search_failures", root=True,
)  # fmt: skip
RELEASE = Moment("estudio.release.read")
QUERY_VECTOR = Moment(
    "estudio.query.vector", "estudio_query_vector_seconds",
    "Seconds that a search waited for the vector of its query, kept or computed.", (PLUGIN,),
)  # fmt: skip
ENCODE = Moment(
    "estudio.query.encode", "estudio_encode_seconds",
    "Seconds in which a model encoded the queries that waited, together.", (PLUGIN,),
)  # fmt: skip
OPEN_MODEL = Moment("estudio.model.open")
POOL = Moment(
    "estudio.pool.wait", "estudio_pool_wait_seconds", "Seconds that a search waited for a connection.", (LANE,)
)
COLLECTION = Moment(
    "estudio.collection.search", "estudio_sql_seconds",
    "Seconds of the statements of a search, from having a connection to having the rows.", (PLUGIN,),
)  # fmt: skip
WRITE = Moment(
    "estudio.write", "estudio_write_seconds", "Seconds of a call that writes or deletes items.",
    (PLUGIN, "estudio.operation"), failures="estudio_write_failures", root=True,
)  # fmt: skip
ENCODE_ITEMS = Moment("estudio.items.encode")
STATEMENT = Moment("SQL", kind="CLIENT")
REQUEST = Moment("HTTP", root=True, kind="SERVER")

_COUNTED = (SEARCH, QUERY_VECTOR, ENCODE, POOL, COLLECTION, WRITE)


class measured:  # noqa: N801 - used as the function that `contextmanager` would make, with less work for a search
    """Measures the block. An error that leaves it is told by its type.

    Args:
        moment: What it is.
        attributes: Of the span; `tell` adds what is known later.
        name: Of the span, where it depends on what is done.
        context: Context that it goes on from, as `here` returned it; None: what this thread or task does now.
        others: Further such contexts, to which the span is linked.
    """

    __slots__ = ("_attributes", "_began", "_context", "_moment", "_name", "_others", "_span", "_token")

    def __init__(
        self,
        moment: Moment,
        attributes: dict[str, Value],
        *,
        name: str = "",
        context: Context | None = None,
        others: Iterable[Context | None] = (),
    ) -> None:
        self._moment, self._attributes, self._name = moment, attributes, name
        self._context, self._others = context, others
        self._span: Any = None

    def __enter__(self) -> measured:
        tracer = _tracer()
        if tracer is not None and (self._moment.root or is_traced(self._context)):
            self._begin(tracer)
        self._began = time.perf_counter()
        return self

    def _begin(self, tracer: Tracer) -> None:
        from opentelemetry import context, trace

        links = []
        for other in self._others:
            if other is not None:
                links.append(trace.Link(trace.get_current_span(other).get_span_context()))
        self._span = tracer.start_span(
            self._name or self._moment.span,
            self._context,
            trace.SpanKind[self._moment.kind],
            self._attributes,
            links,
        )
        now = context.set_value(_OURS, True, trace.set_span_in_context(self._span, self._context))
        self._token = context.attach(now)

    def tell(self, name: str, value: Value) -> None:
        """Add an attribute."""
        self._attributes[name] = value
        if self._span is not None:
            self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Name the span by what is known by now."""
        if self._span is not None:
            self._span.update_name(name)

    def fail(self, error: str) -> None:
        """Say that it ended with an error of this type; an error that leaves the block need not be told."""
        self.tell(ERROR, error)
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)

    @property
    def trace_id(self) -> str | None:
        """Of the trace, as 32 hexadecimal digits; None where there is none."""
        return None if self._span is None else f"{self._span.get_span_context().trace_id:032x}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        seconds = time.perf_counter() - self._began
        if kind is not None and kind is not GeneratorExit:
            self.fail(kind.__name__)
        if self._span is not None:
            from opentelemetry import context

            context.detach(self._token)
            self._span.end()
        if self._moment.seconds and (counts := _counts()) is not None:
            counts.observe(self._moment, self._attributes, seconds)


def is_traced(context: Context | None = None) -> bool:
    """Return whether a span would be a part of one that is measured here: in `context`, or by what is done now."""
    if _tracer() is None:
        return False
    from opentelemetry.context import get_value

    return bool(get_value(_OURS, context))


def here() -> Context | None:
    """Return what `measured` goes on from in another thread; None where nothing is traced."""
    if not is_traced():
        return None
    from opentelemetry.context import get_current

    return get_current()


def note(name: str, value: Value) -> None:
    """Add an attribute to the innermost span that is measured now, if there is one."""
    if is_traced():
        from opentelemetry.trace import get_current_span

        get_current_span().set_attribute(name, value)


def registry() -> CollectorRegistry:
    """Return what holds all of Estudio's metrics, for `prometheus_client.generate_latest`.

    Raises:
        ModuleNotFoundError: prometheus_client is not installed.
    """
    import prometheus_client  # noqa: F401 - counted from here on

    counts = _counts()
    assert counts is not None
    return counts.registry


def count_query_vector(plugin: str, *, kept: bool) -> None:
    """Count a query whose vector was there, or being computed already (`kept`), or is computed for it."""
    if (counts := _counts()) is not None:
        counts.of(counts.query_vectors, (plugin, "hit" if kept else "miss")).inc()


def show_live(plugin: str, release_id: int) -> None:
    """Show which release answers searches of a plugin."""
    if (counts := _counts()) is not None and counts.live.get(plugin) != release_id:
        counts.live[plugin] = release_id
        counts.live_releases.labels(plugin).set(release_id)


def count_connection(lane: str, size: int, change: int) -> None:
    """Count a connection for searching that was lent (1) or came back (-1), of `size` that there may be."""
    if (counts := _counts()) is not None:
        if counts.sizes.get(lane) != size:
            counts.sizes[lane] = size
            counts.connections.labels(lane).set(size)
        counts.of(counts.lent, (lane,)).inc(change)


class _Counts:
    """Prometheus' side."""

    def __init__(self) -> None:
        from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

        self.registry = own = CollectorRegistry()
        self._series: dict[tuple[Any, tuple[str, ...]], Any] = {}
        self.seconds, self.failures = {}, {}
        for moment in _COUNTED:
            labels = [_label(name) for name in moment.labels]
            name = moment.seconds
            self.seconds[name] = Histogram(name, moment.what, labels, buckets=BUCKETS_S, registry=own)
            if moment.failures:
                what = "Those that ended with an error, by its type; they are in the seconds too."
                self.failures[moment.failures] = Counter(moment.failures, what, [*labels, "error"], registry=own)
        self.query_vectors = Counter(
            "estudio_query_vectors",
            "Queries whose vector was kept, or being computed for another search (hit), or was computed (miss).",
            ["plugin", "cache"],
            registry=own,
        )
        self.live_releases = Gauge(
            "estudio_live_release",
            "Number of the release that answered a plugin's last search.",
            ["plugin"],
            registry=own,
            multiprocess_mode="mostrecent",
        )
        self.live: dict[str, int] = {}
        self.connections = Gauge(
            "estudio_search_connections",
            "Connections for searching that there may be.",
            ["lane"],
            registry=own,
            multiprocess_mode="livesum",
        )
        self.sizes: dict[str, int] = {}
        self.lent = Gauge(
            "estudio_search_connections_in_use",
            "Connections for searching that a search has.",
            ["lane"],
            registry=own,
            multiprocess_mode="livesum",
        )
        REGISTRY.register(own)

    def observe(self, moment: Moment, attributes: dict[str, Value], seconds: float) -> None:
        labels = tuple([str(attributes.get(name, "")) for name in moment.labels])
        self.of(self.seconds[moment.seconds], labels).observe(seconds)
        if moment.failures and ERROR in attributes:
            self.of(self.failures[moment.failures], (*labels, str(attributes[ERROR]))).inc()

    def of(self, metric: Any, labels: tuple[str, ...]) -> Any:
        """Return the series of a metric with these labels; `labels` itself takes as long as counting does."""
        series = self._series.get((metric, labels))
        if series is None:
            series = self._series[metric, labels] = metric.labels(*labels)
        return series


def _label(attribute: str) -> str:
    return attribute.rpartition(".")[2]


_made: _Counts | None = None
_making = threading.Lock()


def _counts() -> _Counts | None:
    """Return the metrics, once somebody in this process has imported prometheus_client."""
    global _made
    if _made is None and sys.modules.get("prometheus_client") is not None:
        with _making:
            if _made is None:
                _made = _Counts()
    return _made


_known: tuple[Any, Tracer] | None = None
_provider: Callable[[], Any] | None = None


def _tracer() -> Tracer | None:
    """Return the tracer of the SDK that was set up in this process; None where none was."""
    global _known, _provider
    if _provider is None:
        if sys.modules.get("opentelemetry.trace") is None:
            return None
        from opentelemetry.trace import get_tracer_provider

        _provider = get_tracer_provider
    provider = _provider()
    if type(provider).__name__ == "ProxyTracerProvider":  # the API's own, which stands for an SDK to come
        return None
    if _known is None or _known[0] is not provider:
        _known = provider, provider.get_tracer(_TRACER)
    return _known[1]
