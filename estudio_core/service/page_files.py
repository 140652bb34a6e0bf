"""The search page at `/ui/{plugin}`: three files that a browser takes as they are, from this service alone."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.responses import Response

from estudio_core.service.endpoints import Call, Endpoint
from estudio_core.service.refusals import Refused

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' https: data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The page runs its own script and asks its own service; pictures of items may be anywhere. Nobody frames it."""
_MEDIA = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


async def page(call: Call) -> Response:
    """Give the page; what it shows it asks for itself, with the key of whoever looks at it."""
    _ = call.plugin
    return _file("index.html", {"Permissions-Policy": "camera=(), microphone=(), geolocation=()"})


async def asset(call: Call) -> Response:
    """Give a file of the page."""
    name = call.request.path_params["name"]
    if name not in _MEDIA or name == "index.html":
        raise Refused(404, "There is no such file.")
    return _file(name, {})


def _file(name: str, headers: dict[str, str]) -> Response:
    told = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", **headers}
    return Response(_content(name), headers=told, media_type=_MEDIA[name])


@cache
def _content(name: str) -> bytes:
    return (files("estudio_core.service") / "page" / name).read_bytes()


ENDPOINTS = (
    Endpoint("/ui/assets/{name}", ("GET",), asset, "A file of the search page"),
    Endpoint("/ui/{plugin}", ("GET",), page, "The search page"),
)
