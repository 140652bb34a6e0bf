"""The service as an ASGI application: `create_app` for uvicorn, or for any other server of its kind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from estudio_core.errors import EstudioError
from estudio_core.inference.released import released_models
from estudio_core.searching import aclose, prepare
from estudio_core.service import (
    algolia,
    collecting,
    experiments,
    installing,
    items,
    openapi,
    operating,
    page_files,
    people,
    search,
    watching,
    webhooks,
)
from estudio_core.service.access import admit, identify, origin_allowed
from estudio_core.service.caller import Caller
from estudio_core.service.edge import Edge
from estudio_core.service.endpoints import Call, Endpoint, plugin_of
from estudio_core.service.refusals import Refused, refusal_of, refusal_response
from estudio_core.service.state import State
from estudio_core.settings import Settings, get_settings

logger = logging.getLogger(__name__)

ENDPOINTS: tuple[Endpoint, ...] = (
    *operating.ENDPOINTS,
    *openapi.ENDPOINTS,
    *page_files.ENDPOINTS,
    *collecting.ENDPOINTS,
    *algolia.ENDPOINTS,
    *search.ENDPOINTS,
    *items.ENDPOINTS,
    *installing.ENDPOINTS,
    *experiments.ENDPOINTS,
    *people.ENDPOINTS,
    *webhooks.ENDPOINTS,
)
"""Everything that the service answers."""
WARM_UP_S = 30.0
"""How long a process that begins opens models before it listens."""
END_S = 30.0
"""How long a process that ends writes what it has collected."""
DRAIN_VARIABLE = "ESTUDIO_SERVICE_DRAIN_S"
"""How long a process that is told to end goes on; `server.run` sets it."""


def create_app(settings: Settings | None = None, *, at_end: Callable[[], None] | None = None) -> Starlette:
    """Return the service. Its connections and threads begin with its event loop and end with it.

    Args:
        settings: Those of the process, unless others are given.
        at_end: Called in a thread once all answers are given.
    """
    settings = settings or get_settings()
    app = Starlette(
        routes=[Route(each.path, _answering(each), methods=list(each.methods)) for each in ENDPOINTS],
        middleware=[Middleware(Edge, log_queries=settings.service_log_queries)],
        exception_handlers={HTTPException: _no_route, Exception: _failed},
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False
    app.state.settings = settings
    app.state.at_end = at_end
    app.state.openapi = openapi.document(ENDPOINTS, operating._version())
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    state = State.of(app.state.settings)
    app.state.service = state
    _drain_first(state)
    with suppress(TimeoutError):
        async with asyncio.timeout(WARM_UP_S):
            await anyio.to_thread.run_sync(_warm_up, abandon_on_cancel=True)
    looking = asyncio.create_task(watching.watch())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await state.typing.close()
                await state.collector.close()
        await aclose()
        if app.state.at_end is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await anyio.to_thread.run_sync(app.state.at_end, abandon_on_cancel=True)


def _warm_up() -> None:
    """Open the models of live releases before the first search comes; what cannot be opened is told by /readyz."""
    for plugin in released_models():
        try:
            prepare(plugin)
        except EstudioError as error:
            logger.warning("Searches of %s are not prepared: %s", plugin, error)


def _drain_first(state: State) -> None:
    """Have the process go on for a moment once it is told to end, and close each connection with its next answer.

    Else a request that a client sends on a connection while it is being closed would be lost.
    """
    seconds = float(os.environ.get(DRAIN_VARIABLE, 0))
    if not seconds or threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    ends = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: Any) -> None:
        if state.draining or not callable(ends):
            if callable(ends):
                ends(number, frame)
            return
        state.draining = True
        loop.call_soon_threadsafe(loop.call_later, seconds, ends, number, frame)

    signal.signal(signal.SIGTERM, drain)


def _answering(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers requests for an endpoint: lets them in, hands them to its handler, and says why not."""

    async def answer(request: Request) -> Response:
        state: State = request.app.state.service
        told = request.scope["estudio"]
        told["endpoint"] = endpoint.path
        told["draining"] = state.draining
        request_id = str(told["request_id"])
        caller: Caller | None = None
        try:
            async with asyncio.timeout(endpoint.most_s):
                told["plugin"] = plugin_of(request)
                caller = await identify(request, endpoint, state)
                told["key"] = caller.name
                await admit(request, endpoint, caller, state)
                call = Call(request, endpoint, caller, state, request_id)
                response = await endpoint.handler(call)
        except TimeoutError:
            late = Refused(504, f"There was no answer within {endpoint.most_s:g} s. Ask for less at once.")
            response = refusal_response(late, endpoint.form)
        except Exception as error:
            response = refusal_response(refusal_of(error, request_id), endpoint.form)
        _share_with_page(request, caller, endpoint, response)
        return response

    answer.__name__ = endpoint.handler.__name__
    return answer


def _share_with_page(request: Request, caller: Caller | None, endpoint: Endpoint, response: Response) -> None:
    """Let the page that asked read the answer, where it may use the key."""
    if endpoint.scope is None or not request.headers.get("origin"):
        return
    response.headers["Vary"] = "Origin"
    if caller is not None and origin_allowed(request, caller):
        response.headers["Access-Control-Allow-Origin"] = request.headers["origin"]
        response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-Id"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "There is nothing at this address; /openapi.json lists what there is.", 405: "Not by this method."}
    refused = Refused(error.status_code, reasons.get(error.status_code, "Refused."), headers=error.headers)
    return refusal_response(refused, "opensearch")


async def _failed(request: Request, error: Exception) -> Response:
    request_id = str(request.scope.get("estudio", {}).get("request_id", "-"))
    return refusal_response(refusal_of(error, request_id), "opensearch")
