"""One answer of two releases, or of the one that serves a client.

The champion is searched as always, by what is live; the challenger by its number. Where the live release is not the
experiment's champion any more, or the challenger cannot answer, the answer is the live release's alone: an experiment
makes no search fail, and none slow: the challenger has the search's deadline, and once the champion has answered as
long again as that took (`LEAST_PATIENCE_S` at the least). A search that it is left out of has no part in the experiment
at all, so that neither side gains by it; `left_out` is told.

A challenger follows writes by the change log, as a release that is kept for a rollback does, so that it may lag. What
it finds is therefore looked up in the champion: items that are gone, or do not meet the filter any more, are left out,
and payloads are the champion's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from estudio_core.comparing.ledger import Experiment
from estudio_core.comparing.settings import Form
from estudio_core.comparing.teams import DEPTH, Side, Team, arm, draft, seed_of, takes_part
from estudio_core.errors import EstudioError
from estudio_core.searching import Hit, SearchAnswer
from estudio_core.vectordb import facets
from estudio_core.vectordb.search_session import PLANNER_AS_USUAL, async_search_connection, default_deadline
from estudio_core.vectordb.serving import pinned
from estudio_core.vectordb.statements import Native

if TYPE_CHECKING:
    from estudio_core.deadline import Deadline

LEAST_PATIENCE_S = 0.2
"""How long a challenger is waited for behind a champion that answered at once."""

logger = logging.getLogger(__name__)

Search = Callable[[int | None, int, int], Awaitable[SearchAnswer]]
"""Searches a release, or what is live, for so many hits behind so many others: (release, limit, offset)."""
LeftOut = Callable[[str], None]
"""Told of a search that the champion answers alone, and why: `late`, `failed`, `not looked up`."""


@dataclass(frozen=True)
class Part:
    """What an answer is in an experiment.

    Attributes:
        experiment_id: The experiment.
        form: Its form.
        teams: Of each hit that was drafted, by its id; of an A/B test none.
        worth: What a click on it counts, likewise.
        arm: The side that served it, in an A/B test.
    """

    experiment_id: str
    form: Form
    teams: Mapping[str, Team]
    worth: Mapping[str, float]
    arm: Side | None = None

    def of(self, object_ids: Collection[str]) -> Part:
        """Return the part that these hits have."""
        drafted = [each for each in object_ids if each in self.teams]
        teams = {each: self.teams[each] for each in drafted}
        return replace(self, teams=teams, worth={each: self.worth[each] for each in drafted})

    def told(self) -> dict[str, Any]:
        """Return it as it stands in answers."""
        found: dict[str, Any] = {"id": self.experiment_id, "form": self.form}
        return {**found, "teams": dict(self.teams)} if self.arm is None else {**found, "arm": self.arm}

    def logged(self) -> dict[str, Any]:
        """Return it as it stands in the log: by team, what a click on its results counts."""
        if self.arm is not None:
            return self.told()
        sides = ("champion", "challenger")
        teams = {
            side: {each: round(self.worth[each], 4) for each, team in self.teams.items() if team == side}
            for side in sides
        }
        return {"id": self.experiment_id, "form": self.form, "teams": teams}


@dataclass(frozen=True)
class PartAnswer(SearchAnswer):
    """An answer that has a part in an experiment; its release is the champion's, or that of the side that served it."""

    part: Part


async def answer(
    experiment: Experiment,
    search: Search,
    *,
    drafted_by: str | None,
    client: str | None,
    limit: int,
    offset: int,
    filter: dict[str, Any] | None = None,
    user_id: str | None = None,
    left_out: LeftOut = lambda why: None,
) -> SearchAnswer:
    """Return what a search finds, as a `PartAnswer` where it has a part in the experiment.

    Args:
        experiment: One that is under way.
        search: Searches one release.
        drafted_by: Names the search: pages that name the same are those of one list. None: it has no part.
        client: Who asks: an A/B test serves all searches of one by one side. None: it has no part in that.
        limit: Most hits.
        offset: Hits before them.
        filter: As `search` has it.
        user_id: Likewise.
        left_out: Called where it has no part because the challenger did not answer.

    Raises: as the search of what is live.
    """
    asked = client if experiment.form == "ab" else drafted_by
    if asked is None:
        return await search(None, limit, offset)
    seed = seed_of(experiment.experiment_id, asked)
    if not takes_part(seed, experiment.settings.share):
        return await search(None, limit, offset)
    if experiment.form == "ab":
        return await _of_one_side(experiment, search, seed, limit, offset, left_out)
    return await _interleaved(experiment, search, seed, limit, offset, filter, user_id, left_out)


async def _of_one_side(
    experiment: Experiment, search: Search, seed: int, limit: int, offset: int, left_out: LeftOut
) -> SearchAnswer:
    side = arm(seed)
    found = None
    if side == "challenger":
        found = await _or_none(experiment, search(experiment.challenger, limit, offset), left_out)
    found = found or await search(None, limit, offset)
    if found.release_id != (experiment.challenger if side == "challenger" else experiment.champion):
        return found
    return _with_part(found, found.hits, Part(experiment.experiment_id, "ab", {}, {}, side))


async def _interleaved(
    experiment: Experiment,
    search: Search,
    seed: int,
    limit: int,
    offset: int,
    filter: dict[str, Any] | None,
    user_id: str | None,
    left_out: LeftOut,
) -> SearchAnswer:
    reach = max(DEPTH, offset + limit)
    deadline, began = default_deadline(), time.monotonic()
    other = asyncio.ensure_future(_or_none(experiment, search(experiment.challenger, DEPTH, 0), left_out))
    challenger = None
    try:
        found = await search(None, reach, 0)
        patience_s = min(max(time.monotonic() - began, LEAST_PATIENCE_S), deadline.left_s)
        done, _ = await asyncio.wait({other}, timeout=max(patience_s, 0.0))
        if done:
            challenger = await other
        else:
            left_out("late")
    finally:
        other.cancel()
    page = replace(found, hits=found.hits[offset : offset + limit])
    if challenger is None or found.release_id != experiment.champion:
        return page
    known = {hit.object_id: hit for hit in found.hits}
    unknown = [hit.object_id for hit in challenger.hits if hit.object_id not in known]
    if unknown:
        payloads = await _payloads(experiment, unknown, filter, user_id, deadline)
        if payloads is None:
            left_out("not looked up")
            return page
        for hit in challenger.hits:
            if hit.object_id in payloads:
                known[hit.object_id] = replace(hit, payload=payloads[hit.object_id])
    ranked = [hit.object_id for hit in found.hits]
    drafted = draft(ranked[:DEPTH], [h.object_id for h in challenger.hits if h.object_id in known], seed)
    hits = [known[object_id] for object_id in drafted.page(ranked, offset, limit)]
    part = Part(experiment.experiment_id, "interleaving", drafted.teams, drafted.worth)
    return _with_part(found, hits, part.of([hit.object_id for hit in hits]))


async def _or_none(experiment: Experiment, search: Awaitable[SearchAnswer], left_out: LeftOut) -> SearchAnswer | None:
    """Return what a challenger finds; None where it cannot answer."""
    try:
        return await search
    except Exception as error:  # whatever it is: the champion answers
        known = isinstance(error, EstudioError | psycopg.Error)
        logger.warning(
            "The challenger of experiment %s did not answer: %s", experiment.experiment_id, error, exc_info=not known
        )
        left_out("failed")
        return None


async def _payloads(
    experiment: Experiment,
    object_ids: list[str],
    filter: dict[str, Any] | None,
    user_id: str | None,
    deadline: Deadline,
) -> dict[str, dict[str, Any]] | None:
    """Return the payloads of those of these objects that the champion holds and that meet the filter, by id."""
    try:
        async with async_search_connection("cheap", deadline) as connection, connection.transaction():
            await connection.execute(PLANNER_AS_USUAL)
            champion = await pinned(Native(connection), experiment.plugin, experiment.champion)
            rows, values = facets.subset(filter, user_id, object_ids).rows(champion.release.collection)
            statement = sql.SQL("SELECT v.result_id, v.payload FROM {}").format(rows)
            cursor = await connection.execute(statement, values)
            return dict(await cursor.fetchall())
    except (EstudioError, psycopg.Error) as error:
        logger.warning("What a challenger found cannot be looked up: %s", error)
        return None


def _with_part(found: SearchAnswer, hits: list[Hit], part: Part) -> PartAnswer:
    return PartAnswer(found.plugin, found.release_id, found.model_version, hits, part)
