"""Traces of requests, and where a process that `estudio serve` starts sends them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from estudio_core.telemetry import PLUGIN, RELEASE_ID, REQUEST, Value, measured

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from starlette.datastructures import Headers

logger = logging.getLogger(__name__)

EXPORTERS, OFF = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""OpenTelemetry's own variables; it reads further ones itself: of the sampler, of batches, of headers."""
SERVICE_NAME = "estudio"
"""Unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES name it."""
_BY_PROTOCOL = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def request(method: str, headers: Headers, scheme: str) -> measured:
    """Return what measures a request; it goes on with the trace of its caller, if the headers name one."""
    attributes: dict[str, Value] = {"http.request.method": method if method != "other" else "_OTHER"}
    attributes["url.scheme"] = scheme
    return _Request(attributes, headers)


class _Request(measured):
    __slots__ = ("_headers",)

    def __init__(self, attributes: dict[str, Value], headers: Headers) -> None:
        super().__init__(REQUEST, attributes, name=str(attributes["http.request.method"]))
        self._headers = headers

    def _begin(self, tracer: Any) -> None:
        from opentelemetry.propagate import extract

        self._context = extract(dict(self._headers))
        super()._begin(tracer)


def tell(span: measured, method: str, told: dict[str, Any], status: int) -> None:
    """Add what is known once a request is answered: its route and status, and what it was about."""
    route = told.get("endpoint")
    if route is not None:
        span.rename(f"{method} {route}")
        span.tell("http.route", route)
    for attribute, value in ((PLUGIN, told.get("plugin")), (RELEASE_ID, told.get("release"))):
        if value is not None:
            span.tell(attribute, value)
    span.tell("estudio.request_id", str(told["request_id"]))
    if status:
        span.tell("http.response.status_code", status)
    if status >= 500:
        span.fail(str(status))


def wanted() -> list[str]:
    """Return the exporters that OpenTelemetry's variables ask for; none unless one of them says so."""
    if os.environ.get(OFF, "").strip().lower() == "true":
        return []
    given = os.environ.get(EXPORTERS, "").strip()
    if not given:
        given = "otlp" if any(os.environ.get(name, "").strip() for name in ENDPOINTS) else "none"
    names = [name.strip() for name in given.split(",")]
    protocol = next((found for name in PROTOCOLS if (found := os.environ.get(name, "").strip())), "http/protobuf")
    return [
        _BY_PROTOCOL.get(protocol, protocol) if name == "otlp" else name for name in names if name not in ("", "none")
    ]


def lacking() -> str | None:
    """Return a line about what has to be installed for the traces that are asked for; None where nothing has."""
    names = wanted()
    try:
        import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError:
        missing = bool(names)
    else:
        known = entry_points(group="opentelemetry_traces_exporter").names
        missing = not set(names) <= set(known)
        unknown = sorted(set(names) - set(known) - set(_BY_PROTOCOL.values()))
        if unknown:
            return (
                f"No traces are sent: {EXPORTERS} names {unknown[0]!r}, and installed are {', '.join(sorted(known))}."
            )
    if not missing:
        return None
    package = "opentelemetry-exporter-otlp-proto-grpc" if "otlp_proto_grpc" in names else "estudio[traces]"
    return f"No traces are sent: OpenTelemetry's variables ask for them. Run: pip install '{package}'"


def set_up() -> Callable[[], None] | None:
    """Set up OpenTelemetry's SDK in this process as its variables say; return what sends the last spans.

    None where no traces are asked for, or what sends them is not installed, or somebody has set up an SDK already, as
    `opentelemetry-instrument` does.
    """
    if not wanted() or lacking() is not None:
        return None
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    provider = _provider()
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _provider() -> TracerProvider:
    from opentelemetry.sdk.resources import SERVICE_NAME as NAME
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get(NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({NAME: SERVICE_NAME}))
    provider = TracerProvider(resource=resource)
    for name in wanted():
        [exporter] = entry_points(group="opentelemetry_traces_exporter", name=name)
        provider.add_span_processor(BatchSpanProcessor(exporter.load()()))
    return provider
