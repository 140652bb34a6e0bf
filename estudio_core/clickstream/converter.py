"""From stored sessions to training input."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.query_retriever import QueryRetriever
from estudio_core.clickstream.refinements import Usual, is_by_relevance, offset_of
from estudio_core.clickstream.sessions import SearchResult, SessionEvent, SessionWithEvents
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.clickstream.visits import Visits
from estudio_core.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from estudio_core.sources.item_meta import ItemMeta


ALONE = Visits()
"""What is known of visits where a session is looked at by itself."""


@dataclass(frozen=True)
class FineTuningInputWithItems:
    """A session ready for training, and where to load its results from.

    `items` is parallel to `input.results`. `dropped_events` counts events for objects that were never shown.
    """

    input: FineTuningInput
    items: tuple[ItemMeta, ...]
    dropped_events: int = 0


class ClickstreamSessionConverter:
    """Makes `FineTuningInput` of a session and its events.

    Results stand in shown order, each object once, at its first position, with the score at which it was served; those
    of a further page where they stood in the whole list. Lists that were sorted by something else than relevance,
    filtered, or a further page are marked (`FineTuningInput.by_relevance`), see `is_by_relevance`.
    The click weight of a result is the greatest `importance * event_weights[event_type]` over its events; types
    that are not named weigh 1. A session marked irrelevant has click weights of zero, whatever its events are.

    Args:
        item_type: Class of the item metas, as the data loader wants them.
        query_retriever: What turns `query` into text.
        event_weights: Weight by event type, for instance `{"add_to_cart": 2, "purchase": 3}`. With a weight of
            0 an event type does not count as a click.

    Raises:
        ConfigurationError: an event weight is negative.
    """

    def __init__(
        self,
        item_type: type[ItemMeta],
        query_retriever: QueryRetriever | None = None,
        event_weights: Mapping[str, float] | None = None,
    ) -> None:
        self.item_type = item_type
        self.query_retriever = query_retriever or TextQueryRetriever()
        self.event_weights = dict(event_weights or {})
        wrong = {name: weight for name, weight in self.event_weights.items() if not weight >= 0}
        if wrong:
            raise ConfigurationError(f"Event weights must be 0 or greater; got {wrong}. Use 0 to ignore a type.")

    def convert(
        self, session: SessionWithEvents | Mapping[str, Any], query_retriever: QueryRetriever | None = None
    ) -> FineTuningInputWithItems:
        """Return the training input and item metas of `session`; `query_retriever` goes before the converter's own.

        Raises:
            DataError: the session is malformed, or its query is empty.
        """
        session = parse_session(session)
        try:
            query = (query_retriever or self.query_retriever)(session.query)
        except DataError as error:
            raise DataError(f"Session {session.session_id!r}: {error}") from error
        shown = _shown_once(session.search_results, offset_of(session))
        weights = dict.fromkeys((result.object_id for _, result in shown), 0.0)
        dropped_events = 0
        for event in session.events:
            if event.object_id not in weights:
                dropped_events += 1
            elif not session.is_irrelevant:
                weights[event.object_id] = max(weights[event.object_id], self._weight(event))
        return FineTuningInputWithItems(
            input=FineTuningInput(
                session_id=session.session_id,
                query=query,
                results=tuple(weights),
                positions=tuple(position for position, _ in shown),
                ranks=tuple(result.rank for _, result in shown),
                click_weights=tuple(weights.values()),
                timestamp=session.created_at,
                user_id=session.user_id,
                release=session.release,
                client_id=ALONE.client_of(session),
                by_relevance=is_by_relevance(session),
            ),
            items=tuple(self._item(result) for _, result in shown),
            dropped_events=dropped_events,
        )

    def _weight(self, event: SessionEvent) -> float:
        return event.importance * self.event_weights.get(event.event_type, 1.0)

    def _item(self, result: SearchResult) -> ItemMeta:
        """Return the meta of a result; fields of `item_type` that the result's own meta names are filled from it."""
        meta = result.meta or {}
        own = {name: meta[name] for name in self.item_type.model_fields if name in meta}
        return self.item_type(**(own | {"object_id": result.object_id, "payload": result.meta}))


def usable_inputs(
    sessions: Iterable[SessionWithEvents], converter: ClickstreamSessionConverter, query_retriever: QueryRetriever
) -> Iterator[FineTuningInput]:
    """Yield what the usable ones of `sessions` become. The others are counted and logged where they are trained on."""
    given = list(sessions)
    log = WholeLog.of(given)
    for session in given:
        try:
            converted = converter.convert(session, query_retriever)
        except DataError:
            continue
        yield log.applied(converted.input, session)


@dataclass(frozen=True)
class WholeLog:
    """What the whole log says of each of its sessions: what is usual there, and who made a visit."""

    usual: Usual
    visits: Visits

    @classmethod
    def of(cls, sessions: Iterable[SessionWithEvents]) -> WholeLog:
        """Read the sessions of a log twice."""
        given = sessions if isinstance(sessions, Collection) else list(sessions)
        return cls(Usual.of(given), Visits.of(given))

    def applied(self, converted: FineTuningInput, session: SessionWithEvents) -> FineTuningInput:
        """Return a converted session, by relevance where nothing speaks against that but what most of the log has."""
        ranked = converted.by_relevance or is_by_relevance(session, self.usual)
        client = converted.client_id
        if client is None or client == session.visit_id != session.client_id:
            client = self.visits.client_of(session)
        if (ranked, client) == (converted.by_relevance, converted.client_id):
            return converted
        return replace(converted, by_relevance=ranked, client_id=client)


def parse_session(session: SessionWithEvents | Mapping[str, Any]) -> SessionWithEvents:
    """Return `session` as a `SessionWithEvents`.

    Raises:
        DataError: a field is missing, unknown or of a wrong type.
    """
    if isinstance(session, SessionWithEvents):
        return session
    try:
        return SessionWithEvents.model_validate(session)
    except ValidationError as error:
        name = session.get("session_id") if isinstance(session, Mapping) else session
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(
            f"Session {name!r} is malformed: {problems}. Fields: {', '.join(SessionWithEvents.model_fields)}."
        ) from error


def _shown_once(results: list[SearchResult], offset: int) -> list[tuple[int, SearchResult]]:
    """Return results with their positions, by position, each object at its first one only.

    Where they are counted from the top of their page, `offset` results stood above it.
    """
    placed = [(i if r.position is None else r.position, r) for i, r in enumerate(results)]
    if offset and min((position for position, _ in placed), default=offset) < offset:
        placed = [(position + offset, result) for position, result in placed]
    first: dict[str, tuple[int, SearchResult]] = {}
    for position, result in sorted(placed, key=lambda pair: pair[0]):
        first.setdefault(result.object_id, (position, result))
    return list(first.values())
