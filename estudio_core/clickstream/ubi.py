"""Rows of User Behavior Insights (UBI): what was asked and shown, and what users did.

UBI logs in the wild count positions from 0 or from 1. Estudio's tables count from 1 (`position_ordinal`
1 is the topmost result); `read_ubi` shifts an application's ordinals where it finds a 0 among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from estudio_core.errors import DataError
from estudio_core.ids import id_list

_ORDINAL_ACTIONS = frozenset({"impression", "click", "item_click", "add_to_cart", "purchase"})
"""Actions whose ordinal is a place in the result list; page-level events carry other numbers there."""


@dataclass(frozen=True)
class UbiQuery:
    """One search. `query_response_hit_ids` are in the order shown, scores parallel to them."""

    query_id: str
    user_query: str
    timestamp: datetime
    application: str
    query_response_hit_ids: tuple[str, ...] = ()
    query_response_scores: tuple[float, ...] | None = None
    client_id: str | None = None
    query_attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse scores that do not match the hits, and hits that are one text."""
        object.__setattr__(self, "query_response_hit_ids", tuple(id_list(self.query_response_hit_ids, "Hits")))
        scores = self.query_response_scores
        if scores is not None and len(scores) != len(self.query_response_hit_ids):
            raise DataError(
                f"Query {self.query_id!r} has {len(self.query_response_hit_ids)} hits and {len(scores)} scores. "
                "Give one score for each hit, or none at all."
            )


@dataclass(frozen=True)
class UbiEvent:
    """Something a user did after a search. `position_ordinal` counts from 1."""

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


@dataclass(frozen=True)
class UbiLog:
    """The rows of a UBI file; `skipped` says which lines could not be used, and why."""

    queries: list[UbiQuery]
    events: list[UbiEvent]
    skipped: list[str]


def read_ubi(path: Path) -> UbiLog:
    """Read an OpenSearch bulk file (ndjson) of `ubi_queries` and `ubi_events` documents.

    The bulk action's `_id` becomes the event id; an event without one is named by a hash of its content.
    Several documents of one query id (pages, refinements) are merged: hits in order of appearance.

    Raises:
        DataError: the file does not exist, or a line is not a JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The UBI file {path} cannot be read: {error}.") from error
    queries: dict[str, UbiQuery] = {}
    events: list[UbiEvent] = []
    skipped: list[str] = []
    bulk_id: str | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        document = _parse(path, number, line)
        if len(document) == 1 and ("index" in document or "create" in document):
            action = next(iter(document.values()))
            bulk_id = action.get("_id") if isinstance(action, dict) else None
            continue
        try:
            if "action_name" in document:
                events.append(_event(document, bulk_id))
            else:
                query = _query(document)
                queries[query.query_id] = _merged(queries.get(query.query_id), query)
        except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            skipped.append(f"line {number}: {type(error).__name__} {error}")
        bulk_id = None
    return UbiLog(list(queries.values()), _counted_from_one(events), skipped)


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error}. UBI files hold one document a line.") from error
    if not isinstance(document, dict):
        raise DataError(f"{path}, line {number} is not a JSON object but {type(document).__name__}.")
    return document


def _query(document: Mapping[str, Any]) -> UbiQuery:
    return UbiQuery(
        query_id=_text(document, "query_id"),
        user_query=_text(document, "user_query"),
        timestamp=_moment(document["timestamp"]),
        application=_text(document, "application"),
        query_response_hit_ids=tuple(str(hit) for hit in document.get("query_response_hit_ids") or ()),
        client_id=document.get("client_id"),
        query_attributes=_object(document, "query_attributes"),
    )


def _event(document: Mapping[str, Any], bulk_id: str | None) -> UbiEvent:
    attributes = _object(document, "event_attributes")
    item = _object(attributes, "object")
    ordinal = _object(attributes, "position").get("ordinal")
    content = json.dumps(document, sort_keys=True).encode()
    return UbiEvent(
        event_id=document.get("event_id") or bulk_id or hashlib.sha256(content).hexdigest()[:32],
        action_name=_text(document, "action_name"),
        query_id=_text(document, "query_id"),
        timestamp=_moment(document["timestamp"]),
        application=_text(document, "application"),
        object_id=None if item.get("object_id") is None else str(item["object_id"]),
        position_ordinal=None if ordinal is None else int(ordinal),
        client_id=document.get("client_id"),
        user_query=document.get("user_query"),
        event_attributes=attributes,
    )


def _merged(known: UbiQuery | None, query: UbiQuery) -> UbiQuery:
    if known is None:
        return query
    return replace(
        known,
        timestamp=min(known.timestamp, query.timestamp),
        query_response_hit_ids=tuple(dict.fromkeys(known.query_response_hit_ids + query.query_response_hit_ids)),
    )


def _counted_from_one(events: list[UbiEvent]) -> list[UbiEvent]:
    """Shift the ordinals of applications that count from 0."""
    from_zero = {e.application for e in events if e.action_name in _ORDINAL_ACTIONS and e.position_ordinal == 0}
    return [
        replace(e, position_ordinal=e.position_ordinal + 1)
        if e.application in from_zero and e.position_ordinal is not None
        else e
        for e in events
    ]


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}; a non-empty text is needed")
    return value


def _object(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} is {value!r}; an object is needed")
    return value


def _moment(value: str | float) -> datetime:
    """Return the time of an ISO text or of milliseconds since 1970; UTC where no zone is given."""
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(value / 1000, UTC)
