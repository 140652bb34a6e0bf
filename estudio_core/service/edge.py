"""What holds for every request, whatever it is for: headers, preflights, counts, and the line in the log."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from estudio_core.service import metrics, tracing

access_log = logging.getLogger("estudio.access")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
}
"""Of every answer; a page of the service has a policy of its own."""
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "authorization, content-type, content-encoding, x-request-id, x-algolia-api-key,"
    " x-algolia-application-id, x-algolia-agent, x-opaque-id",
    "Access-Control-Max-Age": "600",
}
UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked for every few seconds, by no user."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Edge:
    """ASGI middleware around the whole service.

    Of a request it tells `scope["estudio"]` its `request_id`; whoever answers adds `endpoint`, `plugin`, `key` and
    `release` for the log. Query texts stand there only where `log_queries` says so.
    """

    def __init__(self, app: ASGIApp, *, log_queries: bool) -> None:
        self._app = app
        self._log_queries = log_queries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        told: dict[str, object] = {"request_id": request_id}
        scope["estudio"] = told
        begun = time.perf_counter()
        status, size = 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = message["headers"] = list(message.get("headers", ()))
                given = {name.lower() for name, _ in answered}
                answered += [header for header in _RAW_HEADERS if header[0] not in given]
                answered.append((b"x-request-id", request_id.encode()))
                if told.get("draining"):
                    answered.append((b"connection", b"close"))
            else:
                size += len(message.get("body", b""))
            await send(message)

        async def answering() -> None:
            if scope["method"] == "OPTIONS":
                await _preflight(headers, sending)
            else:
                await self._app(scope, receive, sending)

        metrics.IN_FLIGHT.inc()
        method = scope["method"] if scope["method"] in _METHODS else "other"
        given_trace = _TRACE.fullmatch(headers.get("traceparent", ""))
        trace_id = None if given_trace is None else given_trace[1]
        try:
            if scope["path"] in UNTRACED:
                await answering()
            else:
                with tracing.request(method, headers, scope["scheme"]) as span:
                    trace_id = span.trace_id or trace_id
                    try:
                        await answering()
                    finally:
                        tracing.tell(span, method, told, status)
        finally:
            metrics.IN_FLIGHT.dec()
            seconds = time.perf_counter() - begun
            endpoint = str(told.get("endpoint", "none"))
            metrics.REQUESTS.labels(endpoint, method, str(status or 499)).inc()
            metrics.SECONDS.labels(endpoint).observe(seconds)
            if access_log.isEnabledFor(logging.INFO):
                access_log.info(self._line(scope, told, status, seconds, size, trace_id))

    def _line(
        self, scope: Scope, told: dict[str, object], status: int, seconds: float, size: int, trace_id: str | None
    ) -> str:
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": scope["method"][:10],
            "endpoint": told.get("endpoint"),
            "plugin": told.get("plugin"),
            "status": status or 499,  # the client has gone
            "ms": round(seconds * 1000, 1),
            "bytes": size,
            "key": told.get("key"),
            "release": told.get("release"),
            "request_id": told["request_id"],
            "trace_id": trace_id,
            "query": told.get("query") if self._log_queries else None,
        }
        return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=True)


_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


async def _preflight(headers: Headers, send: Send) -> None:
    """Let a browser ask: whether the page may is said when its key is there, which preflights do not carry."""
    answered = MutableHeaders()
    origin = headers.get("origin")
    if origin and "access-control-request-method" in headers:
        answered["Access-Control-Allow-Origin"] = origin.encode("ascii", "ignore").decode()
        answered["Vary"] = "Origin"
        for name, value in PREFLIGHT.items():
            answered[name] = value
    else:
        answered["Allow"] = PREFLIGHT["Access-Control-Allow-Methods"]
    await send({"type": "http.response.start", "status": 204, "headers": answered.raw})
    await send({"type": "http.response.body", "body": b""})
