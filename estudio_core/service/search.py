"""Search in the form that OpenSearch's users know: `_search`, `_msearch`, `_count`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from estudio_core.service import finding, impressions
from estudio_core.service.access import charge, require_readable
from estudio_core.service.aggregations import read_aggregations
from estudio_core.service.answers import SHARDS, Source, told
from estudio_core.service.endpoints import SEARCH_BYTES, Call, Endpoint, Parameter, as_document
from estudio_core.service.finding import COUNTED, Wanted
from estudio_core.service.queries import payload_field, read_filter, read_query
from estudio_core.service.refusals import Refused, as_request, json_response, named, refusal_of, refuse
from estudio_core.service.schemas import DEEPEST, CountBody, SearchBody, UbiExtension, read
from estudio_core.service.scopes import PLUGIN_NAME
from estudio_core.vectordb.filters import all_of, parse_filter
from estudio_core.vectordb.ordering import SortBy

MOST_SEARCHES = 100
"""Searches of one `_msearch`; several are worked on at once."""
AT_ONCE = 4


@dataclass(frozen=True)
class Searching:
    """A search that was read: what is wanted, and how it is told."""

    wanted: Wanted
    source: Source
    explain: bool
    ubi: UbiExtension | None
    log: bool
    notes: tuple[str, ...]


async def search(call: Call) -> Response:
    """Answer a search."""
    body = await _search_body(call)
    return json_response(await _searched(call, call.plugin, body))


async def multi_search(call: Call) -> Response:
    """Answer several searches; one that is refused does not stop the others."""
    _ = call.parameters
    lines = [line for line in (await call.body()).split(b"\n") if line.strip()]
    if not lines or len(lines) % 2:
        raise refuse("[_msearch] is lines of JSON, a header and a search in turns.", "parsing_exception")
    if len(lines) > 2 * MOST_SEARCHES:
        raise refuse(f"[_msearch] takes at most {MOST_SEARCHES} searches.")
    charge(call.request, call.caller, call.state, len(lines) // 2 - 1)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(header: bytes, body: bytes) -> dict[str, Any]:
        try:
            async with slots:
                plugin = _header_plugin(as_document(header), call.plugin)
                await require_readable(call.caller, plugin, call.state)
                return {**await _searched(call, plugin, as_document(body)), "status": 200}
        except Exception as error:
            refused = refusal_of(error, call.request_id)
            cause = {"type": refused.kind, "reason": refused.reason}
            return {"error": {"root_cause": [cause], **cause}, "status": refused.status}

    answers = await asyncio.gather(*(one(*pair) for pair in zip(lines[::2], lines[1::2], strict=True)))
    return json_response({"took": max((each.get("took", 0) for each in answers), default=0), "responses": answers})


def _header_plugin(header: Any, default: str) -> str:
    if not isinstance(header, dict) or (unknown := sorted(set(header) - {"index"})):
        what = f" [{named(unknown[0])}] is not supported." if isinstance(header, dict) else ""
        raise refuse(f"A header of [_msearch] is {{}} or {{index: plugin}}.{what}", "parsing_exception")
    index = header.get("index", default)
    if isinstance(index, list) and len(index) == 1:
        [index] = index
    if not isinstance(index, str) or not PLUGIN_NAME.fullmatch(index):
        raise Refused(404, "A header of [_msearch] names one plugin.", "index_not_found_exception")
    return index


async def count(call: Call) -> Response:
    """Count what meets a filter."""
    _ = call.parameters
    body = read(CountBody, await call.document(empty={}), "A count")
    asked = read_query(body.query)
    if asked.text is not None:
        raise refuse("[_count] counts what meets a filter; with a text, ask for hits.total of a search of size 0.")
    condition = all_of(asked.filter, _own_filter(body.filter))
    number, _ = await finding.count(call.plugin, call.caller.within(condition), call.state)
    return json_response({"count": number, "_shards": SHARDS})


async def _searched(call: Call, plugin: str, document: Any) -> dict[str, Any]:
    body = read(SearchBody, document, "A search")
    searching = read_search(call, plugin, body)
    ubi = searching.ubi or UbiExtension()
    query_id = ubi.query_id or (None if searching.wanted.start else impressions.new_query_id())
    wanted = replace(searching.wanted, drafted_by=query_id, client=ubi.client_id or ubi.session_id)
    found = await finding.find(wanted, call.state)
    call.tell_log(plugin=plugin, release=found.release_id, query=searching.wanted.text)
    query_id = query_id or impressions.new_query_id()
    if searching.log:
        await impressions.keep(call.state, call.caller, searching.wanted, found, ubi, query_id)
    estudio: dict[str, Any] = {"release": found.release_id, "model_version": found.model_version}
    if found.part is not None:
        estudio["experiment"] = found.part.told()
    if searching.notes:
        estudio["notes"] = list(searching.notes)
    ext = {"ubi": {"query_id": query_id}, "estudio": estudio}
    return told(found, plugin, searching.source, ext, explain=searching.explain)


def read_search(call: Call, plugin: str, body: SearchBody) -> Searching:
    """Return a search as it is carried out for this caller.

    Raises:
        Refused: it asks for what is not supported, or not allowed.
    """
    asked = read_query(body.query)
    estudio = body.ext.estudio
    if body.start + body.size > DEEPEST:
        raise refuse(f"from + size is at most {DEEPEST:,}. Narrow the search down by a filter.")
    if body.aggs is not None and body.aggregations is not None:
        raise refuse("[aggs] and [aggregations] are one; give one of them.")
    condition = all_of(asked.filter, _own_filter(body.filter))
    total: int | None = COUNTED
    if body.track_total_hits is not None:
        limits: dict[bool, int | None] = {True: None, False: 0}
        given = body.track_total_hits
        total = limits[given] if isinstance(given, bool) else given
    if estudio.max_distance is not None and asked.text is None:
        raise refuse("[ext.estudio.max_distance] is a distance to a text; the search has none.")
    wanted = Wanted(
        plugin=plugin,
        text=asked.text,
        filter=call.caller.within(condition),
        hits_filter=None if body.post_filter is None else read_filter(body.post_filter),
        sort=_sort(body.sort),
        start=body.start,
        size=body.size,
        total=total,
        aggregations=read_aggregations(body.aggs if body.aggs is not None else body.aggregations),
        mode=estudio.mode,
        max_distance=estudio.max_distance,
        user_id=call.caller.searches_as(estudio.user_id),
        exact=estudio.exact,
    )
    return Searching(wanted, Source(body.source), body.explain, body.ext.ubi, estudio.log, asked.notes)


def _own_filter(given: dict[str, Any] | None) -> dict[str, Any] | None:
    if given is not None:
        with as_request():
            parse_filter(given)
    return given


def _sort(given: Any) -> SortBy | None:
    """Return the field that hits are ordered by; None: by their score."""
    listed = given if isinstance(given, list) else [] if given is None else [given]
    if len(listed) > 1:
        raise refuse("[sort] takes one field, or _score; ties are in the order of ids.")
    if not listed:
        return None
    [each] = listed
    if isinstance(each, str):
        name, _, direction = each.partition(":")
        order: Any = direction or ("desc" if name == "_score" else "asc")
    elif isinstance(each, Mapping) and len(each) == 1:
        [(name, order)] = each.items()
        if isinstance(order, Mapping):
            if set(order) - {"order"}:
                raise refuse(f"[sort] does not support [{named(min(map(str, set(order) - {'order'})))}].")
            order = order.get("order", "desc" if name == "_score" else "asc")
    else:
        raise refuse("[sort] is a field, {field: direction}, or a list with one of them.", "parsing_exception")
    if order not in ("asc", "desc"):
        raise refuse("[sort] a direction is asc or desc.")
    if name == "_score":
        if order != "desc":
            raise refuse("[sort] by _score is descending: the best comes first.")
        return None
    path = payload_field(name)
    if any("." in part for part in path):
        raise refuse("[sort] a field's name has no dot of its own.")
    return SortBy(".".join(path), order == "desc")


async def _search_body(call: Call) -> dict[str, Any]:
    """Return the search of a request: its body, or the parameters of its address for a shell."""
    given = call.parameters
    document = await call.document(empty={})
    if not isinstance(document, dict):
        raise refuse("A search is a JSON object.", "parsing_exception")
    found = dict(document)
    for name, value in given.items():
        key, parsed = _of_address(name, value)
        if key == "_source" and isinstance(found.get("_source"), dict) and isinstance(parsed, dict):
            parsed = {**found["_source"], **parsed}
        elif key in found:
            raise refuse(f"[{name}] stands in the address and in the body; give it once.")
        found[key] = parsed
    return found


def _of_address(name: str, value: str) -> tuple[str, Any]:
    if name == "q":
        return "query", value
    if name == "track_total_hits" and value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    if name in ("size", "from", "track_total_hits"):
        if not value.isascii() or not value.isdigit() or len(value) > 9:
            raise refuse(f"[{name}] is a number{', true or false' if name == 'track_total_hits' else ''}.")
        return name, int(value)
    if name in ("filter", "aggs"):
        return name, as_document(value.encode("utf-8", "replace"))
    if name == "_source":
        lowered = value.lower()
        return name, {"true": True, "false": False}.get(lowered, value.split(","))
    if name in ("_source_includes", "_source_excludes"):
        return "_source", {name.removeprefix("_source_"): value.split(",")}
    if name == "explain":
        return name, value.lower() in ("true", "")
    return name, value


_PARAMETERS = (
    Parameter("q", "What to look for."),
    Parameter("size", "Most hits.", {"type": "integer", "minimum": 0, "maximum": 1000}),
    Parameter("from", "Hits to leave out first.", {"type": "integer", "minimum": 0, "maximum": DEEPEST}),
    Parameter("sort", "field:asc or field:desc."),
    Parameter("filter", "Estudio's filter, as JSON."),
    Parameter("aggs", "Aggregations, as JSON."),
    Parameter("_source", "Fields of the payload, with commas; or true, false."),
    Parameter("_source_includes", "Fields of the payload."),
    Parameter("_source_excludes", "Fields of the payload that are left out."),
    Parameter("track_total_hits", "true, false, or how far is counted."),
    Parameter("explain", "Whether the score is told as a sum."),
)
_LINES = {
    "type": "array",
    "items": {"type": "object"},
    "description": "Lines of JSON: a header {index: plugin}, then a search, and so on.",
}

ENDPOINTS = (
    Endpoint(
        "/{plugin}/_search", ("POST", "GET"), search, "Search", "search", SearchBody, parameters=_PARAMETERS,
    ),
    Endpoint("/{plugin}/_count", ("POST", "GET"), count, "Count what meets a filter", "search", CountBody),
    Endpoint(
        "/{plugin}/_msearch", ("POST", "GET"), multi_search, "Several searches", "search", _LINES,
        media=("application/x-ndjson",), most_bytes=4 * SEARCH_BYTES,
    ),
    Endpoint(
        "/_msearch", ("POST", "GET"), multi_search, "Several searches, each of the plugin that its header names",
        "search", _LINES, media=("application/x-ndjson",), most_bytes=4 * SEARCH_BYTES,
    ),
)  # fmt: skip
