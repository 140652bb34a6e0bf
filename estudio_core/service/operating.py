"""What operators and clients ask about the service itself: is it alive, ready, what has it counted, what is it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import anyio.to_thread
from starlette.responses import Response

from estudio_core.readiness import readiness
from estudio_core.service import metrics
from estudio_core.service.endpoints import Call, Endpoint
from estudio_core.service.refusals import json_response


async def root(call: Call) -> Response:
    """Say what this is, in the form in which OpenSearch's clients ask."""
    return json_response(
        {
            "name": "estudio",
            "cluster_name": "estudio",
            "version": {"distribution": "estudio", "number": _version()},
            "tagline": "Semantic search that learns from its users",
        }
    )


async def healthz(call: Call) -> Response:
    """Say that the process answers."""
    return json_response({"status": "alive"})


async def readyz(call: Call) -> Response:
    """Say whether searches would be answered rightly: pointer, collection and golden inference of all that is live."""

    async def look() -> dict[str, Any]:
        return (await anyio.to_thread.run_sync(readiness)).told()  # in a thread of its own

    found = await call.state.ready.get("", look)
    return json_response(found, 200 if found["status"] == "ready" else 503)


async def metric_page(call: Call) -> Response:
    """Give the counts of all worker processes of this host."""

    async def look() -> tuple[bytes, str]:
        return await anyio.to_thread.run_sync(metrics.exposition)

    content, media = await call.state.counts.get("", look)
    return Response(content, media_type=media)


def _version() -> str:
    try:
        return version("estudio")
    except PackageNotFoundError:
        return "0"


ENDPOINTS = (
    Endpoint("/", ("GET",), root, "What this is"),
    Endpoint("/healthz", ("GET",), healthz, "Whether the process answers"),
    Endpoint(
        "/readyz", ("GET",), readyz, "Whether searches would be answered: pointer, collection, golden inference",
        statuses=(503,),
    ),
    Endpoint("/metrics", ("GET",), metric_page, "Counts, in Prometheus' text form"),
)  # fmt: skip
