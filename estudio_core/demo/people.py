"""Simulated people: they search the service over HTTP and click as a click model draws. Nobody real is among them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from estudio_core.clickstream.replay import ClickModel
from estudio_core.errors import DataError, UnavailableError

if TYPE_CHECKING:
    import httpx

SHOWN = 20
"""Results that a simulated person is shown."""
AT_ONCE = 8
"""People who search at the same time: two cores are busy with them, and nobody waits for a deadline."""
ZIPF_EXPONENT = 0.5
"""The query of rank r is asked r ** -0.5 times as often as the first."""
SEARCHES_OF_A_PERSON = 3
"""On average; few, so that nobody's opinion counts for much."""
_TRIES, _PATIENCE_S = 6, 30.0
_BUSY = frozenset({429, 502, 503, 504})
SIMULATED = {"simulated": True}
"""Stands in the attributes of every search and every event."""


@dataclass(frozen=True)
class Visit:
    """One search that somebody makes: what is asked, by whom, under which id."""

    query_id: str
    query: str
    client_id: str
    session_id: str
    seed: int
    """Of the clicks: they depend on nothing but it and what is shown."""


@dataclass(frozen=True)
class Traffic:
    """What was asked of the service, and how fast it answered.

    Attributes:
        searches: Answered.
        clicked: Those of which something was clicked.
        clicks: Acknowledged.
        requests: Sent, both kinds together.
        seconds: From the first to the last.
    """

    searches: int = 0
    clicked: int = 0
    clicks: int = 0
    requests: int = 0
    seconds: float = 0.0

    @property
    def requests_per_s(self) -> float:
        """Requests a second, all people together."""
        return self.requests / self.seconds if self.seconds else 0.0

    def __add__(self, other: Traffic) -> Traffic:
        """Return both, one after the other."""
        return Traffic(
            self.searches + other.searches,
            self.clicked + other.clicked,
            self.clicks + other.clicks,
            self.requests + other.requests,
            self.seconds + other.seconds,
        )


def plan_visits(
    judgments: Mapping[str, Mapping[str, float]], count: int, name: str, *, first: int = 0, seed: int = 42
) -> list[Visit]:
    """Return who asks what: visits number `first` to `first + count` of the stream called `name`.

    >>> [visit.query_id for visit in plan_visits({"lamp": {"1": 3.0}}, 2, "demo", first=5)]
    ['demo-000005', 'demo-000006']

    Args:
        judgments: Grades by query and object; any query may be asked.
        count: Number of visits.
        name: Of the stream: its ids begin with it, and the same name gives the same visits.
        first: Number of the first one: visits go on where earlier ones ended.
        seed: Of the popularity of queries, and of all that is drawn.

    Raises:
        DataError: there are no queries.
    """
    if not judgments:
        raise DataError("Nobody can search without queries: there are no ratings.")
    queries = sorted(judgments)
    popularity = (1.0 + np.random.default_rng(seed).permutation(len(queries))) ** -ZIPF_EXPONENT
    share = popularity.cumsum() / popularity.sum()
    stream = int.from_bytes(name.encode()[-8:], "big")
    visits = []
    for number in range(first, first + count):
        draw = np.random.default_rng((seed, stream, number))
        person = int(draw.integers(max(1, (first + count) // SEARCHES_OF_A_PERSON)))
        visits.append(
            Visit(
                query_id=f"{name}-{number:06d}",
                query=queries[min(int(np.searchsorted(share, draw.random(), side="right")), len(queries) - 1)],
                client_id=f"simulated-{name}-{person:05d}",
                session_id=f"simulated-{name}-{number:06d}",
                seed=int(draw.integers(2**32)),
            )
        )
    return visits


class SimulatedPeople:
    """People in front of one plugin's search, as many at once as `AT_ONCE`.

    They see whatever is ranked. What nobody rated is of grade 0 to them, as it is to the figures that are called full.

    Args:
        address: Of the service.
        key: A key of the service that may search and log events.
        plugin: What is searched.
        judgments: Grades by query and object.
        click_model: How they look and click; None: by position, see `ClickModel`.
    """

    def __init__(
        self,
        address: str,
        key: str,
        plugin: str,
        judgments: Mapping[str, Mapping[str, float]],
        click_model: ClickModel | None = None,
    ) -> None:
        self._address, self._key, self._plugin = address, key, plugin
        self._judgments, self._click_model = judgments, click_model or ClickModel()

    def search(self, visits: Sequence[Visit], on_progress: Callable[[Traffic], None] | None = None) -> Traffic:
        """Make all visits; return when the last click is acknowledged.

        Raises:
            UnavailableError: the service does not answer, for a while, or refuses what is asked.
        """
        return asyncio.run(self._all(visits, on_progress))

    def clicks_on(self, visit: Visit, shown: Sequence[str]) -> list[int]:
        """Return the 0-based places of `shown`, object ids, that a visitor clicks, from the top down."""
        grades = [self._judgments[visit.query].get(object_id, 0.0) for object_id in shown]
        chance = self._click_model.examination(np.arange(len(shown))) * self._click_model.attraction(grades)
        clicked = np.random.default_rng(visit.seed).random(len(shown)) < chance
        return [int(place) for place in np.flatnonzero(clicked)]

    async def _all(self, visits: Sequence[Visit], on_progress: Callable[[Traffic], None] | None) -> Traffic:
        import httpx

        began, waiting = time.monotonic(), iter(visits)
        searches = clicked = clicks = requests = 0
        async with httpx.AsyncClient(
            base_url=self._address,
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=_PATIENCE_S,
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
            trust_env=False,
        ) as client:

            async def person() -> None:
                nonlocal searches, clicked, clicks, requests
                for visit in waiting:
                    made = await self._visit(client, visit)
                    searches += 1
                    clicked += bool(made)
                    clicks += made
                    requests += 1 + bool(made)
                    if on_progress is not None:
                        on_progress(Traffic(searches, clicked, clicks, requests, time.monotonic() - began))

            try:
                async with asyncio.TaskGroup() as everybody:
                    for _ in range(min(AT_ONCE, len(visits))):
                        everybody.create_task(person())
            except ExceptionGroup as group:  # the first one stopped all others
                raise group.exceptions[0] from None
        return Traffic(searches, clicked, clicks, requests, time.monotonic() - began)

    async def _visit(self, client: httpx.AsyncClient, visit: Visit) -> int:
        """Search, and click; return the number of clicks."""
        ubi = {
            "query_id": visit.query_id,
            "client_id": visit.client_id,
            "session_id": visit.session_id,
            "query_attributes": SIMULATED,
        }
        search = {
            "query": visit.query,
            "size": SHOWN,
            "_source": False,
            "track_total_hits": False,
            "ext": {"ubi": ubi},
        }
        answer = await self._post(client, f"/{self._plugin}/_search", search)
        clicked_at = datetime.now(UTC)
        shown = [hit["_id"] for hit in answer["hits"]["hits"]]
        places = self.clicks_on(visit, shown)
        if not places:
            return 0
        events = [
            {
                "action_name": "click",
                "query_id": visit.query_id,
                "application": self._plugin,
                "client_id": visit.client_id,
                "session_id": visit.session_id,
                "timestamp": (clicked_at + timedelta(milliseconds=number)).isoformat(),
                "event_attributes": {
                    "object": {"object_id": shown[place]},
                    "position": {"ordinal": place + 1},
                    **SIMULATED,
                },
            }
            for number, place in enumerate(places)
        ]
        stored = await self._post(client, "/ubi_events", events)
        if stored["stored"] != len(events):
            raise UnavailableError(f"The service refused clicks of {visit.query_id}: {stored['errors'][:3]}.")
        return len(events)

    async def _post(self, client: httpx.AsyncClient, path: str, body: Any) -> Any:
        """Send a request, again where the service is busy or away for a moment.

        Sending again changes nothing: searches and clicks are known by their ids.
        """
        import httpx

        wait_s, problem = 0.2, ""
        for _ in range(_TRIES):
            try:
                answer = await client.post(path, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__} {error}".strip()
            else:
                if answer.is_success:
                    return answer.json()
                problem = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code not in _BUSY:
                    break
            await asyncio.sleep(wait_s)
            wait_s *= 2
        raise UnavailableError(f"The service at {self._address} does not answer {path}: {problem}.")


def still_to_make(visits: Sequence[Visit], made: Collection[str]) -> list[Visit]:
    """Return the visits whose searches are not in the clickstream, by their ids."""
    known = set(made)
    return [visit for visit in visits if visit.query_id not in known]
