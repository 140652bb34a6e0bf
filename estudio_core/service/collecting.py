"""Collection of what users did: `ubi_queries` and `ubi_events`, User Behavior Insights 1.3 as a whole."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from starlette.responses import Response

from estudio_core import exact_json
from estudio_core.clickstream.log_rows import FIELDS, KEPT_OF_SEARCH, RowReader
from estudio_core.clickstream.log_values import Unusable, field_name
from estudio_core.clickstream.pages import EXPERIMENT
from estudio_core.clickstream.ubi import UbiQuery
from estudio_core.errors import DataError
from estudio_core.service import metrics
from estudio_core.service.caller import Caller
from estudio_core.service.collector import Row
from estudio_core.service.endpoints import EVENTS_BYTES, Call, Endpoint, as_document
from estudio_core.service.refusals import Refused, json_response, refuse

logger = logging.getLogger(__name__)

Kind = Literal["query", "event"]
MOST_ROWS = 10_000
"""Documents of one request."""
MOST_NAMED = 100
"""Rows of one answer whose mistake is told; the others are counted."""
MOST_LOGGED = 5
"""Plugins of one request that its line in the log names."""
UNREADABLE = "it cannot be read"
NO_SEARCH = "none-"
"""Begins the query id of an event that belongs to no search, such as a page that was opened: UBI asks for none."""

_NAMES = {name for names in FIELDS.values() for name in names} | set(KEPT_OF_SEARCH) | {"importance", "object_ids"}
_NAMES |= {"event_type", "event_subtype", "event_name", "positions", "object_data"}
_ACTION_LINES = ("index", "create")


@dataclass(frozen=True)
class Given:
    """A document of a request, or why it cannot be read."""

    document: Mapping[str, Any] | None
    problem: str | None = None


async def queries(call: Call) -> Response:
    """Store searches."""
    return await _collect(call, "query")


async def events(call: Call) -> Response:
    """Store events."""
    return await _collect(call, "event")


async def _collect(call: Call, kind: Kind) -> Response:
    _ = call.parameters
    given = list(documents(await call.body()))
    if not given:
        raise refuse("The body is empty: a JSON object, a list of them, or one a line.", "parsing_exception")
    answer = await store(call, given, kind)
    return json_response(answer, 400 if not answer["stored"] else 200)


def documents(content: bytes) -> Iterator[Given]:
    """Yield what a body holds, whatever its media type says: one object, a list, or objects a line.

    Raises:
        Refused: it is no JSON at all, or holds too many.
    """
    stripped = content.strip()
    if not stripped:
        return
    found: Iterable[Given]
    if stripped.startswith(b"["):
        listed = as_document(stripped)
        found = [_given(each) for each in listed]
    else:
        try:
            found = [_given(as_document(stripped))]
        except Refused:
            lines = [line for line in stripped.split(b"\n") if line.strip()]
            if len(lines) == 1:
                raise
            found = list(_of_lines(lines))
    for number, each in enumerate(found):
        if number >= MOST_ROWS:
            raise Refused(413, f"A request has at most {MOST_ROWS:,} rows. Send them in pieces.")
        yield each


def _given(value: Any) -> Given:
    return Given(value) if isinstance(value, dict) else Given(None, "it is no JSON object")


def _of_lines(lines: Sequence[bytes]) -> Iterator[Given]:
    for line in lines:
        try:
            value = as_document(line)
        except Refused:
            yield Given(None, "it is no JSON")
            continue
        if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _ACTION_LINES:
            continue  # of OpenSearch's bulk form
        yield _given(value)


async def store(call: Call, given: Sequence[Given], kind: Kind) -> dict[str, Any]:
    """Store documents; return how many were stored, and which were not, by their places.

    Raises:
        DatabaseUnavailableError: the database does not take them now. Sending all of them again harms nothing.
    """
    reader = RowReader(application=None if call.caller.key is None else call.caller.key.only_plugin)
    rows: list[Row] = []
    places: list[int] = []
    problems: dict[int, str] = {}
    for place, each in enumerate(given):
        if each.document is None:
            problems[place] = each.problem or "it is no row"
            continue
        try:
            made = _rows(reader, each.document, kind, call.caller)
        except Unusable as problem:
            problems[place] = problem.reason
        except Exception as error:  # of one row, whatever it is: its neighbours are stored
            if UNREADABLE not in problems.values() and not isinstance(error, DataError):
                logger.warning("request %s: a row cannot be read", call.request_id, exc_info=error)
            problems[place] = UNREADABLE
        else:
            rows += made
            places += [place] * len(made)
    metrics.ROWS.labels(kind, "refused").inc(len(problems))
    call.tell_log(plugin=sorted({row.application for row in rows})[:MOST_LOGGED])
    for number, why in (await call.state.collector.store(rows)).items():
        problems.setdefault(places[number], why)
    answer: dict[str, Any] = {"stored": len(given) - len(problems), "refused": len(problems)}
    named = sorted(problems.items())[:MOST_NAMED]
    answer["errors"] = [{"row": place, "reason": why} for place, why in named]
    if reader.notes:
        answer["notes"] = dict(reader.notes)
    return answer


def _rows(reader: RowReader, document: Mapping[str, Any], kind: Kind, caller: Caller) -> list[Row]:
    """Return the rows of a document, all its fields kept.

    Raises:
        Unusable: it is none of this kind, or of a plugin that the key is not for.
    """
    rows = reader.rows(_whole(document, kind))
    made = {"UbiQuery": "query", "UbiEvent": "event"}
    for row in rows:
        if made[type(row).__name__] != kind:
            raise Unusable("it is no event" if kind == "event" else "it is no search")
        if caller.key is None or not caller.key.is_for(row.application):
            raise Unusable("its application is no plugin of this key")
    return [_without_part(row) for row in rows]


def _without_part(row: Row) -> Row:
    """Leave out what a row says of experiments: which side showed a result is the service's own word."""
    if not isinstance(row, UbiQuery) or EXPERIMENT not in row.query_attributes:
        return row
    kept = {name: value for name, value in row.query_attributes.items() if name != EXPERIMENT}
    return replace(row, query_attributes=kept)


def _whole(document: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Return a document with what UBI lets out filled in, and what Estudio has no column for among its attributes."""
    names = {field_name(name): name for name in document}
    whole = dict(document)
    attributes_name = f"{kind}_attributes"
    attributes = whole.get(names.get(attributes_name, attributes_name))
    further = {
        name: whole.pop(given)
        for name, given in names.items()
        if name not in _NAMES and "." not in name and whole[given] is not None and name != "_index"
    }
    if further and (attributes is None or isinstance(attributes, Mapping)):
        whole[names.get(attributes_name, attributes_name)] = {**further, **(attributes or {})}
    has_id = any(document.get(names[name]) not in (None, "") for name in FIELDS["query_id"] if name in names)
    has_time = any(document.get(names[name]) is not None for name in FIELDS["timestamp"] if name in names)
    if kind == "query":
        if not has_id:
            whole["query_id"] = _digest(document) if has_time else str(uuid.uuid4())
        if not has_time:
            whole["timestamp"] = datetime.now(UTC).isoformat()
    elif not has_id and not _names_search(document, names):
        whole["query_id"] = NO_SEARCH + _digest(document)
    return whole


def _names_search(document: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    """Return whether a session and a text say which search an event belongs to."""
    return all(
        any(document.get(names[name]) not in (None, "") for name in FIELDS[what] if name in names)
        for what in ("session_id", "user_query")
    )


def _digest(document: Mapping[str, Any]) -> str:
    try:
        content = json.dumps(document, sort_keys=True, default=str)
    except (TypeError, ValueError):
        content = exact_json.dumps(document)
    return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:32]


_QUERY_SCHEMA = {
    "type": "object",
    "required": ["user_query"],
    "properties": {
        "user_query": {"type": "string"},
        "application": {"type": "string"},
        "query_id": {"type": "string"},
        "client_id": {"type": "string"},
        "session_id": {"type": "string"},
        "user_id": {"type": "string"},
        "object_id_field": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "query_attributes": {"type": "object"},
        "query_response_id": {"type": "string"},
        "query_response_hit_ids": {"type": "array", "items": {"type": "string"}},
    },
}
_EVENT_SCHEMA = {
    "type": "object",
    "required": ["action_name", "timestamp"],
    "properties": {
        "action_name": {"type": "string"},
        "timestamp": {"type": "string", "format": "date-time"},
        "application": {"type": "string"},
        "query_id": {"type": "string"},
        "session_id": {"type": "string"},
        "client_id": {"type": "string"},
        "user_id": {"type": "string"},
        "message_type": {"type": "string"},
        "message": {"type": "string"},
        "user_query": {"type": "string"},
        "event_attributes": {
            "type": "object",
            "properties": {"object": {"type": "object"}, "position": {"type": "object"}},
        },
    },
}
_MEDIA = ("application/json", "application/x-ndjson", "text/plain")


def _one_or_many(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "array", "items": schema}]}


ENDPOINTS = (
    Endpoint(
        "/ubi_queries", ("POST",), queries, "Store searches", "events", _one_or_many(_QUERY_SCHEMA), _MEDIA,
        most_bytes=EVENTS_BYTES, key_in_address=True,
    ),
    Endpoint(
        "/ubi_events", ("POST",), events, "Store events", "events", _one_or_many(_EVENT_SCHEMA), _MEDIA,
        most_bytes=EVENTS_BYTES, key_in_address=True,
    ),
    Endpoint(
        "/ubi_queries/_doc", ("POST",), queries, "Store a search", "events", _QUERY_SCHEMA, _MEDIA,
        most_bytes=EVENTS_BYTES,
    ),
    Endpoint(
        "/ubi_events/_doc", ("POST",), events, "Store an event", "events", _EVENT_SCHEMA, _MEDIA,
        most_bytes=EVENTS_BYTES,
    ),
)  # fmt: skip
