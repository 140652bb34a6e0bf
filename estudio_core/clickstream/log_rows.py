"""From one document of a log, in whatever form its writer chose, to rows of User Behavior Insights.

Known are UBI of all its versions (nested, flat, dotted, attributes as a text), search answers and bulk lines of
OpenSearch, Insights events in Algolia's form, and tables with a column a field.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import Any

from estudio_core.clickstream.actions import IMPRESSION, known_action
from estudio_core.clickstream.log_values import (
    Unusable,
    as_hits,
    as_log_id,
    as_moment,
    as_position,
    as_scores,
    field_name,
)
from estudio_core.clickstream.query_retriever import query_key
from estudio_core.clickstream.refinements import REFINING_NAMES
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery

FIELDS: Mapping[str, tuple[str, ...]] = {
    "event_id": ("event_id",),
    "query_id": ("query_id", "search_id", "ubi_query_id"),
    "user_query": ("user_query", "query_text", "search_query", "search_term", "search_terms", "keywords", "q"),
    "hits": (
        "query_response_hit_ids",
        "query_response_object_ids",
        "query_response_objects_ids",
        "query_response_hits",
        "response_hit_ids",
        "hit_ids",
        "hits",
        "result_ids",
        "results",
    ),
    "scores": ("query_response_scores", "hit_scores", "scores"),
    "timestamp": ("timestamp", "@timestamp", "time", "ts", "event_time", "event_timestamp", "datetime", "date"),
    "application": ("application", "app", "index"),
    "client_id": ("client_id", "user_token", "visitor_id", "anonymous_id"),
    "session_id": ("session_id",),
    "user_id": ("user_id", "authenticated_user_token"),
    "action": ("action_name", "action", "event"),
    "object": ("object_id", "item_id", "product_id", "doc_id", "document_id", "sku"),
    "position": ("position_ordinal", "position", "ordinal", "rank"),
    "clicked": ("clicked", "is_click", "click", "clicks"),
    "event_attributes": ("event_attributes", "attributes"),
    "query_attributes": ("query_attributes",),
}
"""What a row is made of, and the names that writers give it; the first one there counts."""

KEPT_OF_SEARCH = (*REFINING_NAMES, "release")
"""Fields beside a search's attributes that say how it was asked; they are kept among them."""
LONGEST_ID_BYTES = 1024
"""Two of them are a key: PostgreSQL's indexes hold 2,700 bytes."""
LONGEST_APPLICATION_BYTES = 255
LONGEST_QUERY = 10_000
MOST_HITS = 10_000

_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False)
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_DWELL = {"dwell_s": 1.0, "dwell_seconds": 1.0, "dwell_time_s": 1.0, "dwell_time": 1.0, "dwell": 1.0,
          "dwell_ms": 0.001, "dwell_time_ms": 0.001}  # fmt: skip
_ALGOLIA_ACTIONS = {
    ("click", None): "click",
    ("view", None): IMPRESSION,
    ("conversion", None): "conversion",
    ("conversion", "add_to_cart"): "add_to_cart",
    ("conversion", "purchase"): "purchase",
}
_YES, _NO = {"1", "true", "yes", "t", "y"}, {"", "0", "false", "no", "f", "n"}

NO_LOG = "neither a search nor an event"
ZONELESS = "time without a zone, read as {zone}"
NO_POSITION = "position that is no place in a list, left out; the event is kept"
NO_ATTRIBUTES = "attributes that are no object, left out; the row is kept"
NO_OBJECT = "click that does not say on what"


@dataclass
class RowReader:
    """Makes rows of documents, and counts what it could not keep of rows that it kept.

    Attributes:
        application: Of rows that name none.
        renamed: Applications by the names that the log gives them.
        zone: Of times without one.
        columns: Fields of `FIELDS` (by its names or UBI's) by the names that the log gives them.
        notes: How often something was left out of a row that was kept, or assumed.
    """

    application: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    zone: tzinfo = UTC
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def rows(self, document: Mapping[str, Any]) -> list[UbiQuery | UbiEvent]:
        """Return what a document says: one search or event, or an event for each of its objects.

        Raises:
            Unusable: it says neither, or lacks what it needs.
        """
        fields = _named(document, self.columns)
        if "object_ids" in fields and _first(fields, "action") is None:
            return self._insights(fields)
        if _first(fields, "action") is not None or (
            _first(fields, "object") is not None and not any(n in fields for n in FIELDS["hits"])
        ):
            return [self._event(fields)]
        if any(name in fields for name in (*FIELDS["user_query"], *FIELDS["hits"])) or _is_text_query(fields):
            return [self._query(fields)]
        index = fields.get("_index")
        raise Unusable(f"of index {index!r}: {NO_LOG}" if index else NO_LOG)

    def _query(self, fields: Mapping[str, Any]) -> UbiQuery:
        found, scores = as_hits(_first(fields, "hits"))
        if len(found) > MOST_HITS:
            raise Unusable(f"more than {MOST_HITS} hits", len(found))
        text = self._text(fields)
        if text is None and not found:
            raise Unusable("the query is blank")
        attributes = self._attributes(fields, "query_attributes")
        for name in KEPT_OF_SEARCH:
            if fields.get(name) not in (None, ""):
                attributes.setdefault(name, fields[name])
        query = UbiQuery(
            query_id=self._query_id(fields, text),
            user_query=text or "",
            timestamp=self._moment(fields),
            application=self._application(fields),
            query_response_hit_ids=found,
            query_response_scores=scores or as_scores(_first(fields, "scores"), len(found)),
            query_attributes=attributes,
            **self._people(fields, attributes),
        )
        people = (query.client_id, query.session_id, query.user_id)
        _content(query.application, query.query_id, query.user_query, *people, found, attributes)
        return query

    def _event(self, fields: Mapping[str, Any]) -> UbiEvent:
        attributes = self._attributes(fields, "event_attributes")
        asked = self._asked(fields)
        return self._made(
            fields,
            attributes,
            action=self._action(fields),
            object_id=_object_of(attributes, fields),
            position=_position_of(attributes, fields),
            query_id=self._query_id(fields, asked),
            asked=asked,
        )

    def _insights(self, fields: Mapping[str, Any]) -> list[UbiQuery | UbiEvent]:
        """Return the rows of an Insights event, which names several objects at once."""
        objects, _ = as_hits(fields["object_ids"])
        if not objects:
            raise Unusable(NO_OBJECT)
        kind, subtype = fields.get("event_type"), fields.get("event_subtype")
        action = _ALGOLIA_ACTIONS.get(
            (str(kind).lower(), field_name(str(subtype)) if subtype else None), str(kind or "")
        )
        if not action:
            raise Unusable("no action")
        positions, data = fields.get("positions"), fields.get("object_data")
        asked = self._asked(fields)
        made: list[UbiQuery | UbiEvent] = []
        for place, object_id in enumerate(objects):
            of_object = data[place] if isinstance(data, list) and place < len(data) else {}
            own = _named(of_object, {}) if isinstance(of_object, Mapping) else {}
            given = positions[place] if isinstance(positions, list) and place < len(positions) else None
            query_id = self._query_id({**fields, **own}, asked)
            attributes = {"event_name": fields["event_name"]} if fields.get("event_name") else {}
            made.append(self._made(fields, attributes, action, object_id, given, query_id, asked))
        return made

    def _made(
        self,
        fields: Mapping[str, Any],
        attributes: dict[str, Any],
        action: str,
        object_id: Any,
        position: Any,
        query_id: str,
        asked: str | None,
    ) -> UbiEvent:
        try:
            ordinal = as_position(position)
        except Unusable:
            self.notes[NO_POSITION] += 1
            ordinal = None
        if not (_DWELL.keys().isdisjoint(attributes) and _DWELL.keys().isdisjoint(fields)):
            for name, unit in _DWELL.items():
                value = attributes.get(name, fields.get(name))
                if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
                    attributes["dwell_s"] = value * unit
                    break
        if fields.get("importance") not in (None, ""):
            attributes.setdefault("importance", fields["importance"])
        people = self._people(fields, attributes)
        event = UbiEvent(
            event_id="",
            action_name=action,
            query_id=query_id,
            timestamp=self._moment(fields),
            application=self._application(fields),
            object_id=_bounded(as_log_id(object_id, "object_id"), "object_id"),
            position_ordinal=ordinal,
            user_query=asked,
            event_attributes=attributes,
            **people,
        )
        # Without an id of its own an event is known by what it says: the same one, delivered twice, is one.
        given = _bounded(as_log_id(_first(fields, "event_id"), "event_id"), "event_id")
        content = _content(
            event.application,
            action,
            query_id,
            event.timestamp.isoformat(),
            event.object_id,
            ordinal,
            event.user_query,
            people,
            attributes,
            given,
        )
        object.__setattr__(event, "event_id", given or hashlib.sha256(content).hexdigest()[:32])
        return event

    def _text(self, fields: Mapping[str, Any]) -> str | None:
        value = _first(fields, "user_query")
        if value is None and _is_text_query(fields):
            value = fields["query"]
        if value is None:
            return None
        text = value if isinstance(value, str) else as_log_id(value, "the query")
        if text is None or not text.strip():
            raise Unusable("the query is blank")
        if len(text) > LONGEST_QUERY:
            raise Unusable(f"the query is longer than {LONGEST_QUERY} characters", len(text))
        return text

    def _asked(self, fields: Mapping[str, Any]) -> str | None:
        """Return what an event says was asked, where it says so: what was done counts without it."""
        with suppress(Unusable):
            return self._text(fields)
        return None

    def _query_id(self, fields: Mapping[str, Any], text: str | None) -> str:
        found = _bounded(as_log_id(_first(fields, "query_id"), "query_id"), "query_id")
        if found is not None:
            return found
        session = as_log_id(_first(fields, "session_id"), "session_id")
        if session is None or text is None:
            raise Unusable("no query id")
        # A table of sessions: one search is one text in one of them.
        return hashlib.sha256(f"{session}\x1f{query_key(text)}".encode(errors="replace")).hexdigest()[:32]

    def _action(self, fields: Mapping[str, Any]) -> str:
        given = _first(fields, "action")
        if given is None:
            clicked = _first(fields, "clicked")
            said = str(clicked).strip().lower() if clicked is not None else ""
            said = said.removesuffix(".0")
            if said in _YES or (said.isdigit() and int(said) > 0):
                return "click"
            if said in _NO or said == "nan":
                return IMPRESSION
            raise Unusable("whether it was clicked is not told", clicked)
        if not isinstance(given, str) or not given.strip():
            raise Unusable("no action", given)
        return known_action(given) or _bounded(given.strip(), "the action") or ""

    def _moment(self, fields: Mapping[str, Any]) -> Any:
        moment, bare = as_moment(_first(fields, "timestamp"), self.zone)
        if bare:
            self.notes[ZONELESS.format(zone=self.zone)] += 1
        return moment

    def _application(self, fields: Mapping[str, Any]) -> str:
        found = as_log_id(_first(fields, "application"), "application") or self.application
        if not found:
            raise Unusable("no application")
        return _bounded(self.renamed.get(found, found), "application", LONGEST_APPLICATION_BYTES) or found

    def _attributes(self, fields: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = _first(fields, name)
        if isinstance(value, str) and value.strip():
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        if isinstance(value, Mapping):
            return _nested(value)
        if value not in (None, "", []):
            self.notes[NO_ATTRIBUTES] += 1
        return {}

    def _people(self, fields: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, str | None]:
        """Return who it was: browser, visit and account are three things."""
        return {
            name: _bounded(as_log_id(_first(fields, name) or attributes.get(name), name), name)
            for name in ("client_id", "session_id", "user_id")
        }


def _named(document: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a document by the names that they are compared by; dotted ones nested."""
    named: dict[str, Any] = {}
    for name, value in document.items():
        mine = columns.get(name)
        named[mine if mine is not None else field_name(name)] = value
    if not any("." in name for name in named):
        return named
    nested = _nested(named)
    return {field_name(name): value for name, value in nested.items()}


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted names as objects in each other.

    >>> _nested({"object.object_id": 7, "position": {"ordinal": 1}})
    {'object': {'object_id': 7}, 'position': {'ordinal': 1}}
    """
    if not any("." in name for name in values):
        return dict(values)
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        place = nested
        for step in path:
            below = place.setdefault(step, {})
            if not isinstance(below, dict):
                below = place[step] = {"": below}
            place = below
        if not (last in place and value in (None, "")):
            place[last] = value
    return nested


def _first(fields: Mapping[str, Any], what: str) -> Any:
    for name in FIELDS[what]:
        value = fields.get(name)
        if value is not None and value != "":
            return value
    return None


def _is_text_query(fields: Mapping[str, Any]) -> bool:
    """Return whether `query`, which UBI means for the engine's own query, holds what a user wrote."""
    query = fields.get("query")
    return isinstance(query, str) and not query.lstrip().startswith("{") and _first(fields, "user_query") is None


def _object_of(attributes: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    for holder in (attributes.get("object"), attributes.get("data")):
        if isinstance(holder, Mapping):
            for name in ("object_id", "data_id", "internal_id", "id"):
                if holder.get(name) not in (None, ""):
                    return holder[name]
        elif holder not in (None, "") and not isinstance(holder, list):
            return holder
    found = _first(fields, "object")
    return found if found is not None else _first(attributes, "object")


def _position_of(attributes: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    of_object = attributes.get("object")
    holders = (attributes, of_object if isinstance(of_object, Mapping) else {}, fields)
    for holder in holders:
        value = _first(holder, "position")
        if isinstance(value, Mapping):
            value = value.get("ordinal")
        if value is not None:
            return value
    return None


def _bounded(text: str | None, what: str, most: int = LONGEST_ID_BYTES) -> str | None:
    # A character has 4 bytes at most.
    if text is not None and 4 * len(text) > most and len(text.encode(errors="replace")) > most:
        raise Unusable(f"{what} is longer than {most} bytes", text)
    return text


def _content(*values: Any) -> bytes:
    """Return what a row says as bytes, in one order.

    Raises:
        Unusable: PostgreSQL cannot keep it.
    """
    try:
        text = _ENCODER.encode(values)
        content = text.encode()
    except UnicodeEncodeError:
        raise Unusable("a text is not Unicode") from None
    except (TypeError, ValueError, RecursionError):
        raise Unusable("attributes that JSON does not hold") from None
    if "\\u0000" in text and _NUL.search(text):
        raise Unusable("a text holds NUL")
    return content
