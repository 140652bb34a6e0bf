"""What visits say: whose results their clicks were on.

**A search** that was interleaved brings what its clicks on the challenger's results count, less those on the
champion's, between -1 and 1; a click counts by its importance, and by how much the rankings differ about its result
(`teams`). One that is clicked on results of `both` alone, or not at all, brings nothing. One of an A/B test brings its
success (its clicks' importance, 1 at most), less what is usual, to the side that served it.

**A visit** is a client's searches within the time in which clicks settle, and the mean over those of them that bring
something. It is one value: what somebody does ten times in half an hour is one opinion. Clicks that come later than the
same time again do not count, so that a value does not change any more once it is one. `MOST_VISITS` of a client count.

Clients that are hardly people are left out, as in training (`clickstream.clients`). Searches that name no client are
visits of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estudio_core.clickstream.clients import implausible_clients
from estudio_core.clickstream.converter import ClickstreamSessionConverter
from estudio_core.clickstream.pages import EXPERIMENT
from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.sessions import SessionWithEvents
from estudio_core.comparing.settings import ExperimentSettings
from estudio_core.errors import DataError
from estudio_core.sources.item_meta import ItemMeta

MOST_VISITS = 10
"""Of one client."""
SIDES = ("champion", "challenger")


@dataclass(frozen=True)
class Searched:
    """A search of an experiment, as it was logged.

    Attributes:
        at: When, seconds since 1970.
        client: Who, None where nobody knows.
        to_champion: What clicks on the champion's results count.
        to_challenger: Likewise.
        clicked: Whether anything was clicked.
        arm: The side that served it, in an A/B test.
    """

    at: int
    client: str | None
    to_champion: float
    to_challenger: float
    clicked: bool
    arm: str | None = None

    def value(self, usual_success: float) -> float | None:
        """Return what it brings, -1 to 1; None: nothing."""
        if self.arm is not None:
            success = min(1.0, self.to_champion + self.to_challenger) - usual_success
            return success if self.arm == "challenger" else -success
        if not self.to_champion and not self.to_challenger:
            return None
        return min(1.0, max(-1.0, self.to_challenger - self.to_champion))


@dataclass(frozen=True)
class Visit:
    """A client's searches within a while.

    Attributes:
        begun: Its first search, seconds since 1970.
        value: Mean of what its searches bring; None where none brings anything.
        searches: How many it has.
        clicked: Whether anything was clicked.
    """

    begun: int
    value: float | None
    searches: int
    clicked: bool


@dataclass(frozen=True)
class Visits:
    """The visits of an experiment in the order in which they begin, and who is not among them."""

    visits: tuple[Visit, ...]
    searches: int
    implausible: Mapping[str, int]
    """Number of clients left out, by reason."""
    beyond: int
    """Visits beyond those of a client that count."""


def visits_of(sessions: Iterable[SessionWithEvents], experiment_id: str, settings: ExperimentSettings) -> Visits:
    """Return the visits of an experiment.

    Args:
        sessions: All sessions of the plugin's application since it started, by time: those that it has no part in say
            which clients are people.
        experiment_id: Its name.
        settings: As the experiment has them.
    """
    settle_s = settings.settle_minutes * 60
    converter = ClickstreamSessionConverter(ItemMeta, event_weights=settings.event_weights)
    inputs: list[FineTuningInput] = []
    searched: list[Searched] = []
    for session in sessions:
        events = [event for event in session.events if event.created_at <= session.created_at + settle_s]
        try:
            converted = converter.convert(session.model_copy(update={"events": events})).input
        except DataError:
            continue
        inputs.append(converted)
        said = (session.search_meta or {}).get(EXPERIMENT)
        if isinstance(said, Mapping) and said.get("id") == experiment_id:
            searched.append(_searched(converted, said))
    implausible = implausible_clients(inputs)
    people = [search for search in searched if search.client not in implausible]
    reasons = Counter(implausible[client] for client in {search.client for search in searched} if client in implausible)
    return _visits(people, settle_s, settings.usual_success, reasons)


def _searched(session: FineTuningInput, said: Mapping[str, Any]) -> Searched:
    worth = {result: weight for result, weight in zip(session.results, session.click_weights, strict=True) if weight}
    arm = said.get("arm")
    if arm in SIDES:
        return Searched(session.timestamp, session.client, 0.0, sum(worth.values()), bool(worth), arm)
    teams = said.get("teams")
    of = {side: _counted(worth, teams.get(side) if isinstance(teams, Mapping) else None) for side in SIDES}
    return Searched(session.timestamp, session.client, of["champion"], of["challenger"], bool(worth))


def _counted(clicks: Mapping[str, float], team: Any) -> float:
    """Return what clicks on the results of a team count; the log may have been written by others."""
    if not isinstance(team, Mapping):
        return 0.0
    counts = {each: value for each, value in team.items() if isinstance(value, int | float) and 0 <= value <= 1}
    return sum(weight * counts[result] for result, weight in clicks.items() if result in counts)


def _visits(searched: Sequence[Searched], settle_s: float, usual: float, reasons: Mapping[str, int]) -> Visits:
    open_visits: dict[str, list[Searched]] = {}
    taken: Counter[str] = Counter()
    found: list[list[Searched]] = []
    beyond = 0
    for search in sorted(searched, key=lambda each: each.at):
        current = None if search.client is None else open_visits.get(search.client)
        if current is not None and search.at < current[0].at + settle_s:
            current.append(search)
            continue
        visit = [search]
        if search.client is not None:
            open_visits[search.client] = visit
            taken[search.client] += 1
            if taken[search.client] > MOST_VISITS:
                beyond += 1
                continue
        found.append(visit)
    return Visits(tuple(_visit(each, usual) for each in found), len(searched), dict(reasons), beyond)


def _visit(searches: Sequence[Searched], usual: float) -> Visit:
    values = [value for search in searches if (value := search.value(usual)) is not None]
    return Visit(
        begun=searches[0].at,
        value=sum(values) / len(values) if values else None,
        searches=len(searches),
        clicked=any(search.clicked for search in searches),
    )
