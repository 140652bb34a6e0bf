"""What the service counts, in Prometheus' form, beside what its searches and writes do (`telemetry`).

Several worker processes of one host add up.
"""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from estudio_core import telemetry

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client keeps what worker processes count; `server.run` sets it before they start."""

_registry = telemetry.registry()
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter(
    "estudio_http_requests", "Requests by endpoint and status.", ["endpoint", "method", "status"], registry=_registry
)
SECONDS = Histogram(
    "estudio_http_request_seconds", "Seconds until an answer.", ["endpoint"], buckets=_SECONDS, registry=_registry
)
IN_FLIGHT = Gauge(
    "estudio_http_requests_in_flight",
    "Requests that are being answered.",
    registry=_registry,
    multiprocess_mode="livesum",
)
SEARCHES = Counter(
    "estudio_searches", "Searches that were answered, by whether they found something.", ["plugin", "found"],
    registry=_registry,
)  # fmt: skip
ROWS = Counter(
    "estudio_collected_rows", "Rows of the clickstream by what became of them.", ["kind", "outcome"], registry=_registry
)
WAITING = Gauge(
    "estudio_collector_waiting_rows",
    "Rows that wait for the database.",
    registry=_registry,
    multiprocess_mode="livesum",
)
LEFT_OUT = Counter(
    "estudio_experiment_searches_left_out",
    "Searches that the champion answered alone, because the challenger did not in time, or could not.",
    ["plugin", "why"],
    registry=_registry,
)
REFUSED = Counter("estudio_refused_requests", "Requests that were not let in, by reason.", ["why"], registry=_registry)


def count_search(plugin: str, *, found: bool) -> None:
    """Count a search by a text: its first page, for what lies behind that is the same search."""
    SEARCHES.labels(plugin, "yes" if found else "no").inc()


def count_left_out(plugin: str, why: str) -> None:
    """Count a search that was to have a part in an experiment, and has none."""
    LEFT_OUT.labels(plugin, why).inc()


def exposition() -> tuple[bytes, str]:
    """Return all counts of all worker processes, and their media type."""
    registry = _registry
    if os.environ.get(FOLDER_VARIABLE):
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
