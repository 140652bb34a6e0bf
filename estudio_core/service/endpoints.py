"""What an endpoint is, and what its handler is given.

One `Endpoint` says all of a route: path, who may ask, how much and how long, and what the documentation shows. The
table of all of them is in `app`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from estudio_core import exact_json
from estudio_core.service.refusals import Refused, named, refuse
from estudio_core.service.scopes import PLUGIN_NAME, Scope

if TYPE_CHECKING:
    from pydantic import BaseModel

    from estudio_core.service.caller import Caller
    from estudio_core.service.state import State

KIBI = 1024
SEARCH_BYTES, EVENTS_BYTES, ITEMS_BYTES = 256 * KIBI, 4 * KIBI * KIBI, 16 * KIBI * KIBI
"""Most bytes of a body. A filter of 500 conditions is a few KB, Algolia's events are 2 MB at most."""
SEARCH_S, WRITE_S = 30.0, 300.0
"""Until when an answer has to be there. Items are embedded while their writer waits."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the address, as the documentation shows it and as it is checked: what is not named is refused."""

    name: str
    what: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class Endpoint:
    """A route.

    Attributes:
        path: Its path; `{plugin}` is the plugin that is asked about.
        methods: Its methods.
        handler: Answers it.
        summary: One line for the documentation.
        scope: What a key must hold; None: open to everybody.
        body: What its body is, for the documentation; None: it has none.
        media: Media types of the body.
        parameters: Of the address; others are refused.
        most_bytes: Of the body.
        most_s: Seconds.
        form: In whose form it refuses.
        statuses: Further statuses beside 200 and those that every endpoint may answer.
        key_in_address: Whether the key may stand in the address: browsers send beacons without headers.
    """

    path: str
    methods: tuple[str, ...]
    handler: Callable[[Call], Awaitable[Response]]
    summary: str
    scope: Scope | None = None
    body: type[BaseModel] | dict[str, Any] | None = None
    media: tuple[str, ...] = ("application/json",)
    parameters: tuple[Parameter, ...] = ()
    most_bytes: int = SEARCH_BYTES
    most_s: float = SEARCH_S
    form: Literal["opensearch", "algolia"] = "opensearch"
    statuses: tuple[int, ...] = ()
    key_in_address: bool = False

    @property
    def group(self) -> str:
        """The heading of the documentation that it stands under: the module that answers it."""
        return self.handler.__module__.rpartition(".")[2]


@dataclass(frozen=True)
class Call:
    """A request that was let in.

    Attributes:
        request: As it came.
        endpoint: Which route it is for.
        caller: Who asks.
        state: What the process holds.
        request_id: Names it in the log.
    """

    request: Request
    endpoint: Endpoint
    caller: Caller
    state: State
    request_id: str

    @property
    def plugin(self) -> str:
        """The plugin of the path."""
        return plugin_of(self.request) or ""

    @property
    def parameters(self) -> dict[str, str]:
        """Parameters of the address, without those that carry the key.

        Raises:
            Refused: one is unknown, or stands twice.
        """
        return address_parameters(self.request, self.endpoint)

    def tell_log(self, **values: Any) -> None:
        """Note for the request's line in the log what it was about; of several searches each different value."""
        told = self.request.scope["estudio"]
        for name, value in values.items():
            given = value if isinstance(value, list) else [value]
            known = told.get(name)
            found = [] if known is None else known if isinstance(known, list) else [known]
            found = [*found, *(each for each in given if each is not None and each not in found)]
            told[name] = found[0] if len(found) == 1 else found or None

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            Refused: it is longer than the endpoint takes, or ended early.
        """
        return await read_body(self.request, self.endpoint.most_bytes)

    async def document(self, *, empty: Any = None) -> Any:
        """Return the body as JSON; `empty` where there is none.

        Raises:
            Refused: it is none.
        """
        content = await self.body()
        return empty if not content.strip() else as_document(content)


def plugin_of(request: Request) -> str | None:
    """Return the plugin that the path names; None where it names none.

    Raises:
        Refused: no plugin can be called so.
    """
    name: str | None = request.path_params.get("plugin")
    if name is not None and not PLUGIN_NAME.fullmatch(name):
        raise Refused(404, "No plugin is called so.", "index_not_found_exception")
    return name


def as_document(content: bytes) -> Any:
    """Return JSON as a value, numbers exactly.

    Raises:
        Refused: it is none, or PostgreSQL could not keep it.
    """
    try:
        value = exact_json.loads(content)
        exact_json.check(value)
    except UnicodeDecodeError:
        raise refuse("The body is not UTF-8.", "parsing_exception") from None
    except (ValueError, RecursionError) as error:
        raise refuse(f"The body is not JSON as it is taken here: {_told(error)}.", "parsing_exception") from None
    return value


def _told(error: Exception) -> str:
    """Return where JSON ends to be JSON, without its text."""
    place = getattr(error, "lineno", None)
    if place is None:
        return str(error) if not isinstance(error, RecursionError) else "it is nested too deeply"
    return f"{getattr(error, 'msg', 'unreadable')} in line {place}, column {getattr(error, 'colno', 0)}"


def address_parameters(request: Request, endpoint: Endpoint) -> dict[str, str]:
    """Return the parameters of the address that the endpoint knows. Raises: as `Call.parameters`."""
    legal = {parameter.name for parameter in endpoint.parameters}
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name.lower() in KEY_PARAMETERS or name.lower().startswith(SILENT_PARAMETERS):
            continue
        if name not in legal:
            listed = ", ".join(sorted(legal)) or "none"
            raise refuse(f"The parameter [{named(name)}] is not supported here. Supported: {listed}.")
        if name in found:
            raise refuse(f"The parameter [{name}] stands twice.")
        found[name] = value
    return found


KEY_PARAMETERS = {"key", "x-algolia-api-key"}
"""Parameters that carry a key, in small letters."""
SILENT_PARAMETERS = ("x-algolia-", "pretty")
"""How parameters begin that say something about the client, and nothing about what it wants."""


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Return the body of a request. Raises: as `Call.body`."""
    too_long = Refused(413, f"The body is longer than {most_bytes:,} bytes. Send it in pieces.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes:
        raise too_long
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip"):
        raise refuse("Content-Encoding is gzip, or none.")
    pieces, size = [], 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > most_bytes:
                raise too_long
            pieces.append(piece)
    except ClientDisconnect:
        raise refuse("The body ended early.") from None
    content = b"".join(pieces)
    return content if encoding != "gzip" else _unpacked(content, most_bytes, too_long)


def _unpacked(content: bytes, most_bytes: int, too_long: Refused) -> bytes:
    import zlib

    reader = zlib.decompressobj(wbits=31)
    try:
        unpacked = reader.decompress(content, most_bytes + 1)
    except zlib.error:
        raise refuse("The body is not gzip, though Content-Encoding says so.") from None
    if len(unpacked) > most_bytes:
        raise too_long
    if not reader.eof:
        raise refuse("The body ended early.")
    return unpacked
