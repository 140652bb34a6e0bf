"""Items over HTTP: what an application writes is found when it is acknowledged, and lost by no build or switch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from starlette.responses import Response

from estudio_core import database
from estudio_core.errors import ItemError
from estudio_core.service import finding
from estudio_core.service.access import require_plugin
from estudio_core.service.answers import SHARDS
from estudio_core.service.endpoints import ITEMS_BYTES, WRITE_S, Call, Endpoint, Parameter, as_document
from estudio_core.service.item_rows import read_item, row_loader
from estudio_core.service.refusals import Refused, as_request, json_response, named, refusal_of, refuse
from estudio_core.service.schemas import RefreshBody, read
from estudio_core.service.scopes import PLUGIN_NAME
from estudio_core.vectordb import facets
from estudio_core.vectordb.change_log import ItemWrite
from estudio_core.vectordb.objects import check_text
from estudio_core.vectordb.search import find_by_ids
from estudio_core.vectordb.serving import read as read_live
from estudio_core.writing import WriteResult, delete, refresh, upsert

if TYPE_CHECKING:
    import psycopg

    from estudio_core.vectordb.releases import Release

MOST_ACTIONS = 5_000
"""Lines of one `_bulk`: some seconds to minutes of embedding."""
_SEQUENCE = {"_shards": SHARDS, "_seq_no": 0, "_primary_term": 1, "_version": 1}
"""What OpenSearch's clients expect; Estudio keeps no versions of items."""

Done = TypeVar("Done")


async def put(call: Call) -> Response:
    """Write an item."""
    _ = call.parameters
    object_id = _object_id(call.request.path_params["object_id"])
    document = await call.document()

    def write() -> tuple[bool, WriteResult]:
        item = read_item(document, object_id, partial(row_loader, call.plugin))
        return bool(_known(call.plugin, [object_id])), upsert(call.plugin, [item])

    known, result = await _threaded(call, write)
    told = {"_index": call.plugin, "_id": object_id, "result": "updated" if known else "created", **_SEQUENCE}
    return json_response({**told, "ext": {"estudio": {"release": result.release_id}}}, 200 if known else 201)


async def put_without_id(call: Call) -> Response:
    """Refuse an item that has no id: none is made up, as the table of items would not know it."""
    raise refuse("An item is written under the id that it has in its table: POST /{plugin}/_doc/{id}.")


async def remove(call: Call) -> Response:
    """Delete an item."""
    _ = call.parameters
    object_id = _object_id(call.request.path_params["object_id"])
    result = await _threaded(call, partial(delete, call.plugin, [object_id]))
    told = {"_index": call.plugin, "_id": object_id, "result": "deleted" if result.deleted else "not_found"}
    return json_response({**told, **_SEQUENCE}, 200 if result.deleted else 404)


async def get(call: Call) -> Response:
    """Give an item as it is found now."""
    _ = call.parameters
    object_id = _object_id(call.request.path_params["object_id"])
    condition = call.caller.within(None)

    def seen(connection: psycopg.Connection, release: Release) -> dict[str, Any] | None:
        of = facets.subset(condition, None, [object_id])
        if not facets.count_up_to(connection, release.collection, of, 1):
            return None
        items = find_by_ids(connection, release.collection, [object_id])
        return items[0].payload if items else None

    _, found = await finding.look(call.plugin, seen, call.state)
    told: dict[str, Any] = {"_index": call.plugin, "_id": object_id, "found": found is not None}
    return json_response(told if found is None else {**told, "_source": found}, 404 if found is None else 200)


async def bring(call: Call) -> Response:
    """Bring items to the state of their table; without ids there is nothing to do: writes are found at once."""
    _ = call.parameters
    document = await call.document()
    if document is None:
        return json_response({"_shards": SHARDS})
    ids = read(RefreshBody, document, "A refresh").ids
    counts = await _threaded(call, partial(refresh, call.plugin, ids))
    return json_response({"_shards": SHARDS, **counts.numbers, "invalid": counts.invalid})


async def bulk(call: Call) -> Response:
    """Carry out many writes; one that fails does not stop the others."""
    _ = call.parameters
    begun = time.perf_counter()
    actions = list(_actions(await call.body(), call.plugin))
    results: list[dict[str, Any] | None] = [None] * len(actions)
    for run in _runs(actions):
        await _carry_out(call, actions, run, results)
    told = [{actions[place].name: result or {}} for place, result in enumerate(results)]
    failed = any((result or {}).get("status", 500) >= 400 for result in results)
    took = round((time.perf_counter() - begun) * 1000)
    return json_response({"took": took, "errors": failed, "items": told})


@dataclass(frozen=True)
class Action:
    """A write of a `_bulk`, or why it is none."""

    name: str
    plugin: str
    object_id: str
    document: Any = None
    problem: Refused | None = None


def _actions(content: bytes, default: str) -> Iterator[Action]:
    lines = iter([line for line in content.split(b"\n") if line.strip()])
    for number, line in enumerate(lines):
        if number >= MOST_ACTIONS:
            raise Refused(413, f"A [_bulk] has at most {MOST_ACTIONS:,} actions. Send them in pieces.")
        header = as_document(line)
        names = ("index", "create", "delete", "update")
        if not isinstance(header, dict) or len(header) != 1 or next(iter(header)) not in names:
            raise refuse("[_bulk] wants {index|create|delete: {_id}} before each item.", "parsing_exception")
        [(name, about)] = header.items()
        document = None
        if name != "delete":
            following = next(lines, None)
            if following is None:
                raise refuse("[_bulk] ends before the item of its last action.", "parsing_exception")
            document = following
        yield _action(name, about, document, default)


def _action(name: str, about: Any, document: bytes | None, default: str) -> Action:
    given = about if isinstance(about, dict) else {}
    plugin, object_id = given.get("_index", default), given.get("_id")
    shown_id = str(object_id)[:1024] if isinstance(object_id, str | int) else ""
    try:
        if not isinstance(about, dict) or (unknown := sorted(set(about) - {"_index", "_id"})):
            what = f" [{named(unknown[0])}] is not supported." if isinstance(about, dict) else ""
            raise refuse(f"An action of [_bulk] has _id and _index.{what}")
        if name == "update":
            raise refuse("[_bulk] the action [update] is not supported: write the whole item with [index].")
        if not isinstance(plugin, str) or not PLUGIN_NAME.fullmatch(plugin):
            raise Refused(404, "No plugin is called so.", "index_not_found_exception")
        if isinstance(object_id, bool) or not isinstance(object_id, str | int):
            raise refuse("An action of [_bulk] has the _id of its item.")
        return Action(name, plugin, _object_id(str(object_id)), None if document is None else as_document(document))
    except Refused as problem:
        return Action(name, plugin if isinstance(plugin, str) else default, shown_id, problem=problem)


def _runs(actions: Sequence[Action]) -> Iterator[list[int]]:
    """Yield places of actions that may be carried out at once: of one kind and plugin, each id once, in their order."""
    run: list[int] = []
    ids: set[str] = set()
    for place, action in enumerate(actions):
        kind = (action.name, action.plugin, action.problem is None)
        if run:
            first = actions[run[0]]
            if kind != (first.name, first.plugin, first.problem is None) or action.object_id in ids:
                yield run
                run, ids = [], set()
        run.append(place)
        ids.add(action.object_id)
    if run:
        yield run


async def _carry_out(
    call: Call, actions: Sequence[Action], run: Sequence[int], results: list[dict[str, Any] | None]
) -> None:
    first = actions[run[0]]

    def tell(place: int, status: int, **more: Any) -> None:
        action = actions[place]
        told = {"_index": action.plugin, "_id": action.object_id, "status": status, **more}
        results[place] = {**told, **_SEQUENCE} if status < 400 else told

    def refuse_all(places: Sequence[int], error: Exception) -> None:
        refused = refusal_of(error, call.request_id)
        for place in places:
            tell(place, refused.status, error={"type": refused.kind, "reason": refused.reason})

    if first.problem is not None:
        for place in run:
            refuse_all([place], actions[place].problem or Refused(400, "It is no action."))
        return
    batch = [actions[place] for place in run]
    try:
        require_plugin(call.caller, first.plugin, "items")
        if first.name == "delete":
            known = await _threaded(call, partial(_deleted, first.plugin, [action.object_id for action in batch]))
            for place, action in zip(run, batch, strict=True):
                there = action.object_id in known
                tell(place, 200 if there else 404, result="deleted" if there else "not_found")
            return
        known, read = await _threaded(call, partial(_read_all, first.plugin, batch))
    except Exception as error:
        refuse_all(run, error)
        return
    items: dict[int, ItemWrite] = {}
    for place, item in zip(run, read, strict=True):
        if isinstance(item, Exception):
            refuse_all([place], item)
        else:
            items[place] = item
    await _write(call, first.plugin, items, refuse_all)
    for place in items:
        if results[place] is None:
            there = actions[place].object_id in known
            tell(place, 200 if there else 201, result="updated" if there else "created")


def _deleted(plugin: str, object_ids: Sequence[str]) -> set[str]:
    """Delete items; return those that were there."""
    known = _known(plugin, object_ids)
    delete(plugin, object_ids)
    return known


def _read_all(plugin: str, batch: Sequence[Action]) -> tuple[set[str], list[ItemWrite | Exception]]:
    """Return which items are there, and each as it is to be written, or why it cannot be."""
    known = _known(plugin, [action.object_id for action in batch])
    loader = cache(partial(row_loader, plugin))
    read: list[ItemWrite | Exception] = []
    for action in batch:
        if action.name == "create" and action.object_id in known:
            read.append(Refused(409, "An item of this id is there.", "version_conflict_engine_exception"))
            continue
        try:
            read.append(read_item(action.document, action.object_id, loader))
        except Exception as error:
            read.append(error)
    return known, read


async def _write(
    call: Call, plugin: str, items: Mapping[int, ItemWrite], refuse_all: Callable[[Sequence[int], Exception], None]
) -> None:
    """Write items, those again whose batch had one that cannot be used."""
    left = dict(items)
    while left:
        try:
            await _threaded(call, partial(upsert, plugin, list(left.values())))
            return
        except ItemError as error:
            bad = [place for place, item in left.items() if item.object_id in error.item_ids]
            if not bad:
                refuse_all(list(left), error)
                return
            refuse_all(bad, error)
            for place in bad:
                del left[place]
        except Exception as error:  # foreseen or not: what became of the other items is told
            refuse_all(list(left), error)
            return


def _object_id(given: str) -> str:
    with as_request():
        check_text(given, "id", given[:100])
    if not given or len(given.encode()) > 1024:
        raise refuse("An id has 1 to 1,024 bytes.")
    return given


def _known(plugin: str, object_ids: Sequence[str]) -> set[str]:
    with database.errors_named():
        release = read_live(plugin).release
        with database.connection() as connection:
            return {found.object_id for found in find_by_ids(connection, release.collection, object_ids)}


async def _threaded(call: Call, work: Callable[[], Done]) -> Done:
    """Run a write to its end: whether its client waits or not, it is whole."""
    return await anyio.to_thread.run_sync(work, limiter=call.state.writes)


_ANY_ITEM: dict[str, Any] = {"type": "object", "additionalProperties": True}
_REFRESH = (Parameter("refresh", "Taken for the sake of clients: a write is found when it is acknowledged."),)
_LINES = {
    "type": "array",
    "items": {"type": "object"},
    "description": "Lines of JSON: {index|create|delete: {_index, _id}}, then the item.",
}

ENDPOINTS = (
    Endpoint(
        "/{plugin}/_doc/{object_id:path}", ("GET",), get, "An item as it is found now", "search",
    ),
    Endpoint(
        "/{plugin}/_doc/{object_id:path}", ("PUT", "POST"), put, "Write an item", "items", _ANY_ITEM,
        parameters=_REFRESH, most_bytes=ITEMS_BYTES, most_s=WRITE_S, statuses=(201, 409),
    ),
    Endpoint(
        "/{plugin}/_doc/{object_id:path}", ("DELETE",), remove, "Delete an item", "items",
        parameters=_REFRESH, most_s=WRITE_S, statuses=(409,),
    ),
    Endpoint("/{plugin}/_doc", ("POST",), put_without_id, "Refused: an item has an id", "items", _ANY_ITEM),
    Endpoint(
        "/{plugin}/_bulk", ("POST", "PUT"), bulk, "Write and delete many items", "items", _LINES,
        media=("application/x-ndjson",), parameters=_REFRESH, most_bytes=ITEMS_BYTES, most_s=WRITE_S,
    ),
    Endpoint(
        "/_bulk", ("POST", "PUT"), bulk, "Write and delete many items of several plugins", "items", _LINES,
        media=("application/x-ndjson",), parameters=_REFRESH, most_bytes=ITEMS_BYTES, most_s=WRITE_S,
    ),
    Endpoint(
        "/{plugin}/_refresh", ("POST", "GET"), bring, "Bring items to the state of their table", "items", RefreshBody,
        most_s=WRITE_S, statuses=(409,),
    ),
)  # fmt: skip
