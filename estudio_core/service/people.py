"""What the search page asks beside searches: fields to filter by, releases to compare, grades to keep."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
from starlette.responses import Response, StreamingResponse

from estudio_core import database
from estudio_core.errors import ModelError, ReleaseError
from estudio_core.evaluation import judgment_store
from estudio_core.evaluation.judgment_files import shown_grade
from estudio_core.searching import Hit, Mode, as_hit
from estudio_core.service import finding
from estudio_core.service.answers import why
from estudio_core.service.endpoints import Call, Endpoint, Parameter
from estudio_core.service.refusals import Refused, as_request, json_response, refuse
from estudio_core.service.schemas import CompareBody, GradeBody, Side, read
from estudio_core.vectordb.filters import parse_filter
from estudio_core.vectordb.releases import Release, get_release, list_releases
from estudio_core.vectordb.search import search as search_collection
from estudio_core.vectordb.serving import read as read_live

COMPARABLE = ("live", "challenger", "verified", "built", "previous")
"""States of releases whose collection is there to be searched: the champion, the challenger, the one before."""
PAGE_OF_GRADES = 10_000
"""Of an answer in JSON, which says whether these are all; CSV holds all, read in such pages."""

Done = TypeVar("Done")


async def fields(call: Call) -> Response:
    """Give the fields of items, as facets and orders offer them."""
    _ = call.parameters
    found = await finding.fields(call.plugin, call.caller.within(None), call.state)
    return json_response({"fields": [vars(field) for field in found]})


async def mapping(call: Call) -> Response:
    """Give the fields of items as OpenSearch's clients ask for them; answers too whether the plugin is there."""
    _ = call.parameters
    found = await finding.fields(call.plugin, call.caller.within(None), call.state)
    kinds = {"text": "keyword", "number": "double", "truth": "boolean"}
    properties = {field.name: {"type": "text" if field.prose else kinds[field.kind]} for field in found}
    return json_response({call.plugin: {"mappings": {"properties": properties}}})


async def releases(call: Call) -> Response:
    """Give the releases that can be compared."""
    _ = call.parameters
    found = await _threaded(call, partial(_releases, call.plugin))
    return json_response(
        {
            "releases": [
                {
                    "release": each.release_id,
                    "state": each.state,
                    "model_version": each.model_version,
                    "items": each.stats.get("objects"),
                    "created_at": each.created_at.isoformat(),
                }
                for each in found
            ]
        }
    )


async def compare(call: Call) -> Response:
    """Answer one query by two releases, or by two ways of ranking."""
    _ = call.parameters
    body = read(CompareBody, await call.document(empty={}), "A comparison")
    if not body.query.strip():
        raise refuse("[query] is blank.")
    if body.filter is not None:
        with as_request():
            parse_filter(body.filter)
    answers = []
    for side in body.sides:
        release, hits = await _threaded(call, partial(_side, call.plugin, body, call.caller.within(body.filter), side))
        told = [
            {"_id": hit.object_id, "_score": hit.score, "_source": hit.payload, "ext": {"estudio": why(hit)}}
            for hit in hits
        ]
        answers.append({"release": release.release_id, "state": release.state, "mode": side.mode, "hits": told})
    return json_response({"query": body.query, "sides": answers})


async def grade(call: Call) -> Response:
    """Keep, change or take back what a person says of a result."""
    _ = call.parameters
    body = read(GradeBody, await call.document(empty={}), "A grade")
    with as_request():
        given = judgment_store.Grade(body.query, body.object_id, body.judge, body.grade)
    await _threaded(call, partial(_keep, call.plugin, given))
    return json_response({"result": "deleted" if body.grade is None else "updated"})


async def grades(call: Call) -> Response:
    """Give what people said of results: one query's or person's, or all, as JSON or CSV."""
    given = call.parameters
    form = given.get("format", "json")
    if form not in ("json", "csv"):
        raise refuse("[format] is json or csv.")
    page = partial(_grades, call.plugin, given.get("query"), given.get("judge"))
    first = await _threaded(call, partial(page, None))
    if form == "json":
        told = [vars(each) for each in first]
        return json_response({"judgments": told, "complete": len(first) < PAGE_OF_GRADES})
    headers = {"Content-Disposition": f'attachment; filename="{call.plugin}-judgments.csv"'}
    return StreamingResponse(_table(call, first, page), media_type="text/csv", headers=headers)


async def _table(
    call: Call, first: list[judgment_store.Grade], page: Callable[[judgment_store.Grade], list[judgment_store.Grade]]
) -> AsyncIterator[str]:
    """Yield all grades as CSV, page by page."""
    yield _csv([("query", "object_id", "grade", "judge")])
    found = first
    while found:
        yield _csv([(each.query, each.object_id, shown_grade(each.grade or 0.0), each.judge) for each in found])
        found = await _threaded(call, partial(page, found[-1])) if len(found) == PAGE_OF_GRADES else []


def _csv(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def _releases(plugin: str) -> list[Release]:
    with database.errors_named(), database.connection() as connection:
        found = [each for each in list_releases(connection, plugin) if each.state in COMPARABLE]
    return sorted(found, key=lambda each: (each.state != "live", -each.release_id))


def _side(plugin: str, body: CompareBody, filter: dict[str, Any] | None, side: Side) -> tuple[Release, list[Hit]]:
    """Search the collection of a release with the encoder of the same."""
    from estudio_core.inference.opening import open_search_embedder

    with database.errors_named():
        release = read_live(plugin).release if side.release == "live" else _kept(plugin, side.release)
        by_words: Mode = "words"
        try:
            model = None if side.mode == by_words else open_search_embedder(release.model_name)
        except ModelError:
            raise Refused(409, f"The model of release {release.release_id} is not here any more.") from None
        vector = None if model is None else model.embed_queries([body.query])[0]
        with database.connection() as connection:
            found = search_collection(
                connection,
                release.collection,
                vector,
                text=None if side.mode == "vector" else body.query,
                weight=release.ranking.weight,
                limit=body.size,
                filter=filter,
            )
    return release, [as_hit(hit, release) for hit in found]


def _kept(plugin: str, release_id: int) -> Release:
    with database.connection() as connection:
        try:
            release = get_release(connection, release_id)
        except ReleaseError:
            release = None
    if release is None or release.plugin != plugin or release.state not in COMPARABLE:
        raise Refused(404, "There is no such release of this plugin, or not any more.")
    return release


def _keep(plugin: str, given: judgment_store.Grade) -> None:
    with database.errors_named(), database.transaction() as connection:
        judgment_store.keep(connection, plugin, given)


def _grades(
    plugin: str, query: str | None, judge: str | None, after: judgment_store.Grade | None
) -> list[judgment_store.Grade]:
    with database.errors_named(), database.connection() as connection:
        return judgment_store.grades(connection, plugin, query=query, judge=judge, after=after, most=PAGE_OF_GRADES)


async def _threaded(call: Call, work: Callable[[], Done]) -> Done:
    return await anyio.to_thread.run_sync(work, limiter=call.state.searches)


ENDPOINTS = (
    Endpoint("/{plugin}/_fields", ("GET",), fields, "Fields of items, for facets and orders", "search"),
    Endpoint("/{plugin}/_mapping", ("GET",), mapping, "Fields of items, as OpenSearch tells them", "search"),
    Endpoint("/{plugin}", ("GET",), mapping, "Whether there is a live release", "search"),
    Endpoint("/{plugin}/_releases", ("GET",), releases, "Releases that can be compared", "admin"),
    Endpoint("/{plugin}/_compare", ("POST",), compare, "One query by two rankings", "admin", CompareBody,
             statuses=(409,)),
    Endpoint("/{plugin}/_judgments", ("PUT",), grade, "Keep a person's grade of a result", "admin", GradeBody),
    Endpoint(
        "/{plugin}/_judgments", ("GET",), grades, "Grades that people gave", "admin",
        parameters=(
            Parameter("query", "Only of this query."),
            Parameter("judge", "Only of this person."),
            Parameter("format", "json or csv.", {"enum": ["json", "csv"]}),
        ),
    ),
)  # fmt: skip
