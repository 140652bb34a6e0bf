"""Rows of User Behavior Insights (UBI): what was asked and shown, and what users did.

Ids are those of an application: two of them may both count their searches 1, 2, 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from numbers import Integral
from operator import attrgetter
from typing import Any, TypeVar

from estudio_core.errors import ConfigurationError, DataError, shown
from estudio_core.ids import as_id, id_list, listed


@dataclass(frozen=True)
class UbiQuery:
    """One search. `query_response_hit_ids` are in the order shown, scores parallel to them.

    Several rows of one id are pages of one search. An empty `user_query` is that of an answer which was logged apart
    from what was asked. `client_id` is the browser or device, `session_id` the visit, `user_id` the account.
    """

    query_id: str
    user_query: str
    timestamp: datetime
    application: str
    query_response_hit_ids: tuple[str, ...] = ()
    query_response_scores: tuple[float, ...] | None = None
    client_id: str | None = None
    query_attributes: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse scores that do not match the hits, and either that is no list."""
        object.__setattr__(self, "query_response_hit_ids", tuple(id_list(self.query_response_hit_ids, "Hits")))
        scores: Any = self.query_response_scores
        if scores is not None and not isinstance(scores, tuple):
            scores = tuple(listed(scores, "Scores", "numbers"))
            object.__setattr__(self, "query_response_scores", scores)
        if scores is not None and len(scores) != len(self.query_response_hit_ids):
            raise DataError(
                f"Query {self.query_id!r} has {len(self.query_response_hit_ids)} hits and {len(scores)} scores. "
                "Give one score for each hit, or none at all."
            )


@dataclass(frozen=True)
class UbiEvent:
    """Something a user did after a search.

    `position_ordinal` counts as the application does: from 1, unless `clickstream_applications` says 0.
    """

    event_id: str
    action_name: str
    query_id: str
    timestamp: datetime
    application: str
    object_id: str | None = None
    position_ordinal: int | None = None
    client_id: str | None = None
    user_query: str | None = None
    event_attributes: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None


Row = TypeVar("Row", UbiQuery, UbiEvent)

_IDS = {
    UbiQuery: ("query_id", "application", "client_id", "session_id", "user_id"),
    UbiEvent: ("event_id", "query_id", "application", "object_id", "client_id", "session_id", "user_id"),
}
_TEXTS = {UbiQuery: ("user_query",), UbiEvent: ("action_name", "user_query")}
_ATTRIBUTES = {UbiQuery: "query_attributes", UbiEvent: "event_attributes"}
_OPTIONAL = {
    UbiQuery: frozenset({"client_id", "session_id", "user_id"}),
    UbiEvent: frozenset({"object_id", "client_id", "session_id", "user_id", "user_query"}),
}
_VALUES = {
    UbiQuery: attrgetter(*_IDS[UbiQuery], *_TEXTS[UbiQuery], "timestamp", "query_attributes"),
    UbiEvent: attrgetter(*_IDS[UbiEvent], *_TEXTS[UbiEvent], "timestamp", "event_attributes", "position_ordinal"),
}
_FINE: set[tuple[type, ...]] = set()
"""Types of rows' values with which a row is as it should be: most rows of a log have the same."""
_MOST_FINE = 1_000


def checked(row: Any, kind: type[Row]) -> Row:
    """Return a row whose values are of their fields' kinds: numbers that stand for ids and positions become such.

    Raises:
        DataError: one is of another kind, or it is no row at all.
    """
    if not isinstance(row, kind):
        raise DataError(f"Each row is a {kind.__name__}; given {shown(row)}.")
    types = tuple(map(type, _VALUES[kind](row)))
    if types in _FINE:
        return row
    mended: dict[str, Any] = {}
    for name in _IDS[kind]:
        value = getattr(row, name)
        if type(value) is str or (value is None and name in _OPTIONAL[kind]):
            continue
        try:
            mended[name] = as_id(value, f"{name} of a {kind.__name__}")
        except ConfigurationError as error:
            raise DataError(str(error)) from error
    for name in _TEXTS[kind]:
        value = getattr(row, name)
        if not isinstance(value, str) and not (value is None and name in _OPTIONAL[kind]):
            raise DataError(f"{name} of a {kind.__name__} is a text; given {shown(value)}.")
    if not isinstance(row.timestamp, datetime):
        raise DataError(f"timestamp of a {kind.__name__} is a datetime; given {shown(row.timestamp)}.")
    if not isinstance(attributes := getattr(row, _ATTRIBUTES[kind]), Mapping):
        raise DataError(f"{_ATTRIBUTES[kind]} of a {kind.__name__} are an object; given {shown(attributes)}.")
    position = getattr(row, "position_ordinal", None)
    if position is not None and type(position) is not int:
        if isinstance(position, bool) or not isinstance(position, Integral):
            raise DataError(f"position_ordinal of a {kind.__name__} is an integer; given {shown(position)}.")
        mended["position_ordinal"] = int(position)
    if mended:
        return replace(row, **mended)
    if len(_FINE) < _MOST_FINE:
        _FINE.add(types)
    return row
