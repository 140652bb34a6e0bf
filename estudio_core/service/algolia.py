"""Search and events in Algolia's form: as much of it as InstantSearch and search-insights use."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.responses import Response

from estudio_core.searching import Hit
from estudio_core.service import finding, impressions
from estudio_core.service.access import charge, require_readable
from estudio_core.service.aggregations import Aggregation
from estudio_core.service.algolia_queries import BESIDE, LARGEST_FACET, Asked, of_params, read_query, whole_number
from estudio_core.service.collecting import Given, store
from estudio_core.service.endpoints import EVENTS_BYTES, SEARCH_BYTES, Call, Endpoint
from estudio_core.service.finding import MATCHES, Found, Wanted
from estudio_core.service.highlights import Beginning
from estudio_core.service.queries import payload_field
from estudio_core.service.refusals import Refused, json_response, named, refuse
from estudio_core.service.schemas import UbiExtension
from estudio_core.service.scopes import PLUGIN_NAME
from estudio_core.vectordb.filters import Field

MOST_QUERIES = 50
AT_ONCE = 4


async def query(call: Call) -> Response:
    """Answer one query."""
    _ = call.parameters
    document = await call.document(empty={})
    return json_response(await _answered(call, call.plugin, document))


async def queries(call: Call) -> Response:
    """Answer several queries, as InstantSearch asks them."""
    _ = call.parameters
    document = await call.document(empty={})
    requests = document.get("requests") if isinstance(document, dict) else None
    if not isinstance(requests, list) or not 1 <= len(requests) <= MOST_QUERIES:
        raise refuse(f"[requests] is a list of 1 to {MOST_QUERIES} queries.")
    if unknown := sorted(set(document) - {"requests", "strategy"}):
        raise refuse(f"[{named(unknown[0])}] is not supported.")
    charge(call.request, call.caller, call.state, len(requests) - 1)
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(request: Any) -> dict[str, Any]:
        if not isinstance(request, dict):
            raise refuse("Each of [requests] is an object.")
        plugin = request.get("indexName")
        if not isinstance(plugin, str) or not PLUGIN_NAME.fullmatch(plugin):
            raise Refused(404, "An [indexName] is the name of a plugin.")
        async with slots:
            await require_readable(call.caller, plugin, call.state)
            if request.get("type") == "facet":
                return await _facet_values(call, plugin, str(request.get("facet", "")), request)
            return await _answered(call, plugin, request)

    return json_response({"results": await asyncio.gather(*map(one, requests))})


async def facet_values(call: Call) -> Response:
    """Find values of a facet by how they begin."""
    _ = call.parameters
    document = await call.document(empty={})
    name = call.request.path_params["facet"]
    return json_response(await _facet_values(call, call.plugin, name, document))


async def events(call: Call) -> Response:
    """Store what users did, in the form of Insights events."""
    _ = call.parameters
    document = await call.document(empty={})
    listed = document.get("events") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise refuse("[events] is a list of events.")
    if len(listed) > 1_000:
        raise refuse("A request has at most 1,000 events.")
    answer = await store(call, [_event(each) for each in listed], "event")
    if not answer["stored"]:
        raise refuse(f"No event was stored: {answer['errors'][0]['reason']}.")
    told = {"status": 200, "message": "OK"}
    return json_response(told if not answer["refused"] else {**told, **answer})


def _event(given: Any) -> Given:
    """Return an event as the clickstream reads it: one without objects is of the page, or of its filters."""
    if not isinstance(given, dict):
        return Given(None, "it is no JSON object")
    event = {"timestamp": int(time.time() * 1000), **{k: v for k, v in given.items() if v is not None}}
    if event.get("objectIDs"):
        return Given(event)
    kind = str(event.pop("eventType", ""))[:100]
    event.pop("objectIDs", None)
    if not kind:
        return Given(None, "no eventType")
    return Given({**event, "action_name": f"{kind}_filters" if event.get("filters") else kind})


async def _answered(call: Call, plugin: str, request: Any) -> dict[str, Any]:
    asked = await read_query(call, plugin, request)
    query_id = impressions.new_query_id()
    token = asked.values.get("userToken")
    client = token if isinstance(token, str) and 0 < len(token) <= 1024 else None
    if asked.logs and client is not None:  # pages do not say which search they are of
        drafted_by = f"{client}\x1f{asked.wanted.text}"
        asked = replace(asked, wanted=replace(asked.wanted, drafted_by=drafted_by, client=client))
    found = await finding.find(asked.wanted, call.state)
    call.tell_log(plugin=plugin, release=found.release_id, query=asked.wanted.text)
    total = found.total or 0
    answer: dict[str, Any] = {
        "index": plugin,
        "query": asked.values.get("query", ""),
        "params": request.get("params", ""),
        "hits": [_hit(hit, asked) for hit in found.hits],
        "nbHits": total,
        "page": asked.page,
        "hitsPerPage": asked.per_page,
        "nbPages": math.ceil(min(total, MATCHES) / asked.per_page) if asked.per_page else 0,
        "exhaustiveNbHits": found.relation == "eq",
        "exhaustiveFacetsCount": True,
        "processingTimeMS": found.took_ms,
    }
    if asked.facets:
        answer |= _facets(asked, found)
    if asked.logs:
        answer["queryID"] = query_id
        ubi = UbiExtension(client_id=client)
        await call.state.typing.keep(
            (plugin, ubi.client_id),
            asked.wanted.text or "",
            partial(impressions.keep, call.state, call.caller, asked.wanted, found, ubi, query_id, {"form": "algolia"}),
        )
    return answer


def _facets(asked: Asked, found: Found) -> dict[str, Any]:
    counted = found.aggregations or {}
    values, stats = {}, {}
    for name in asked.facets:
        buckets = counted[name]["buckets"]
        values[name] = {str(each.get("key_as_string", each["key"])): each["doc_count"] for each in buckets}
        if (numbers := counted[name]["stats"])["count"]:
            stats[name] = {each: numbers[each] for each in ("min", "max", "avg", "sum")}
    return {"facets": {name: counts for name, counts in values.items() if counts}, "facets_stats": stats}


def _hit(hit: Hit, asked: Asked) -> dict[str, Any]:
    kept = asked.source.of(hit.payload) if asked.source is not None else {}
    told = {**{name: value for name, value in kept.items() if not name.startswith("_")}, "objectID": hit.object_id}
    marked = {
        name: asked.highlighter.marked(value)
        for name, value in hit.payload.items()
        if asked.marks(name) and isinstance(value, str | int | float | list)
    }
    told["_highlightResult"] = {name: value for name, value in marked.items() if value is not None}
    return told


async def _facet_values(call: Call, plugin: str, name: str, request: Any) -> dict[str, Any]:
    if not isinstance(request, dict):
        raise refuse("A search for values of a facet is a JSON object.")
    given = {**of_params(request.get("params", "")), **request}
    begins = given.get("facetQuery", "")
    if not isinstance(begins, str) or len(begins) > 200:
        raise refuse("[facetQuery] is a text of at most 200 characters.")
    beginning = Beginning.of(begins)
    most = whole_number(given, "maxFacetHits", 10, 100)
    searched = {k: v for k, v in given.items() if k not in BESIDE and k not in ("hitsPerPage", "page", "facets")}
    asked = await read_query(call, plugin, {**searched, "hitsPerPage": 0})
    path = Field(payload_field(name))
    wanted = Wanted(
        plugin=plugin,
        text=asked.wanted.text,
        filter=asked.wanted.filter,
        size=0,
        aggregations={"values": Aggregation("terms", path, LARGEST_FACET)},
        user_id=asked.wanted.user_id,
    )
    found = await finding.find(wanted, call.state)
    buckets = (found.aggregations or {})["values"]["buckets"]
    hits = [
        {"value": str(each.get("key_as_string", each["key"])), "count": each["doc_count"]}
        for each in buckets
        if beginning.begins(str(each["key"]))
    ]
    marked = [{**each, "highlighted": beginning.marked(each["value"], asked.highlighter)} for each in hits[:most]]
    return {"facetHits": marked, "exhaustiveFacetsCount": True, "processingTimeMS": found.took_ms}


_REQUESTS: dict[str, Any] = {
    "type": "object",
    "required": ["requests"],
    "properties": {
        "requests": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "indexName": {"type": "string"},
                    "params": {"type": "string"},
                    "query": {"type": "string"},
                },
            },
        }
    },
}
_EVENTS: dict[str, Any] = {
    "type": "object",
    "required": ["events"],
    "properties": {
        "events": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "eventType": {"enum": ["click", "view", "conversion"]},
                    "eventName": {"type": "string"},
                    "index": {"type": "string"},
                    "userToken": {"type": "string"},
                    "queryID": {"type": "string"},
                    "objectIDs": {"type": "array", "items": {"type": "string"}},
                    "positions": {"type": "array", "items": {"type": "integer"}},
                    "timestamp": {"type": "integer"},
                },
            },
        }
    },
}
_MEDIA: Sequence[str] = ("application/json", "text/plain", "application/x-www-form-urlencoded")

ENDPOINTS = (
    Endpoint(
        "/1/indexes/*/queries", ("POST",), queries, "Several queries", "search", _REQUESTS, tuple(_MEDIA),
        most_bytes=SEARCH_BYTES, form="algolia", key_in_address=True,
    ),
    Endpoint(
        "/1/indexes/{plugin}/query", ("POST",), query, "A query", "search", {"type": "object"}, tuple(_MEDIA),
        form="algolia", key_in_address=True,
    ),
    Endpoint(
        "/1/indexes/{plugin}/facets/{facet}/query", ("POST",), facet_values, "Values of a facet", "search",
        {"type": "object"}, tuple(_MEDIA), form="algolia", key_in_address=True,
    ),
    Endpoint(
        "/1/events", ("POST",), events, "Store what users did", "events", _EVENTS, tuple(_MEDIA),
        most_bytes=EVENTS_BYTES, form="algolia", key_in_address=True,
    ),
)  # fmt: skip
