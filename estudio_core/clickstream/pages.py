"""One search of several rows: its pages merge, whatever their order, and however the log was cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from estudio_core.clickstream.log_values import field_name
from estudio_core.clickstream.query_retriever import query_key
from estudio_core.clickstream.refinements import OFFSET_NAMES, PAGE_NAMES, REFINING_NAMES, number_of
from estudio_core.clickstream.ubi import UbiQuery

EXPERIMENT = "experiment"
"""Attribute of a search that has a part in an experiment (`comparing`): its `id`, `form`, and `arm`, or `teams`: of
each side its results, with what a click on them counts."""
MOST_PAGES = 200
"""Of one search: whoever writes more of them under one id means several searches."""


@dataclass(frozen=True)
class Page:
    """Results that came at once; `number` is what the log counts it by, where it does."""

    at: datetime
    number: float | None
    hits: tuple[str, ...]
    scores: tuple[float, ...] | None


@dataclass(frozen=True)
class Search:
    """A search with its pages, each of other hits, in the order shown."""

    row: UbiQuery
    pages: tuple[Page, ...]
    inferred: bool = False

    @classmethod
    def of(cls, row: UbiQuery) -> Search:
        """Return the search of one row."""
        hits, scores = row.query_response_hit_ids, row.query_response_scores
        page = Page(row.timestamp, _number(row.query_attributes), hits, scores)
        return cls(row, (page,) if hits else ())

    def merged_with(self, other: Search) -> Search | None:
        """Return both as one; None where they are two, as they ask for different things or have too many pages.

        The order of rows makes no difference.
        """
        if self.inferred or other.inferred:
            return other if self.inferred else self
        texts = (self.row.user_query, other.row.user_query)
        if all(texts) and query_key(texts[0]) != query_key(texts[1]):
            return None
        first, second = sorted((self.row, other.row), key=lambda row: (row.timestamp, row.user_query))
        by_hits: dict[tuple[str, ...], Page] = {}
        for page in (*self.pages, *other.pages):
            known = by_hits.get(page.hits, page)
            by_hits[page.hits] = min((known, page), key=lambda p: (p.at, p.scores is None, p.scores or ()))
        if len(by_hits) > MOST_PAGES:
            return None
        pages = _in_order(by_hits.values())
        shown: dict[str, float | None] = {}
        for page in pages:
            for place, hit in enumerate(page.hits):
                shown.setdefault(hit, page.scores[place] if page.scores else None)
        if len(pages) == 1:  # one page keeps what it shows twice
            hits, scores = pages[0].hits, pages[0].scores
        else:
            hits = tuple(shown)
            known_scores = [score for score in shown.values() if score is not None]
            scores = tuple(known_scores) if shown and len(known_scores) == len(shown) else None
        row = replace(
            first,
            user_query=first.user_query or second.user_query,
            client_id=first.client_id or second.client_id,
            session_id=first.session_id or second.session_id,
            user_id=first.user_id or second.user_id,
            query_response_hit_ids=hits,
            query_response_scores=scores,
            query_attributes=_attributes(first, second),
        )
        return Search(row, pages)

    def pages_json(self) -> list[dict[str, Any]] | None:
        """Return the pages as they are stored; None where the row itself says all of it."""
        if self.pages == Search.of(self.row).pages:
            return None
        return [
            {
                "at": page.at.isoformat(),
                "number": page.number,
                "hits": list(page.hits),
                "scores": None if page.scores is None else list(page.scores),
            }
            for page in self.pages
        ]


def pages_from_json(stored: list[dict[str, Any]]) -> tuple[Page, ...]:
    """Return pages from how they are stored."""
    return tuple(
        Page(
            datetime.fromisoformat(page["at"]),
            page["number"],
            tuple(page["hits"]),
            None if page["scores"] is None else tuple(page["scores"]),
        )
        for page in stored
    )


def _in_order(pages: Any) -> tuple[Page, ...]:
    listed = list(pages)
    numbered = all(page.number is not None for page in listed)
    return tuple(sorted(listed, key=lambda page: (page.number if numbered else 0, page.at, page.hits)))


def _number(attributes: Mapping[str, Any]) -> int | None:
    return number_of({field_name(name): value for name, value in attributes.items()}, (*OFFSET_NAMES, *PAGE_NAMES))


def _attributes(first: UbiQuery, second: UbiQuery) -> dict[str, Any]:
    """Return the attributes of two rows of a search; how a list was asked for is said of its first page."""
    top = min((first, second), key=lambda row: _number(row.query_attributes) or 0)
    both = {**second.query_attributes, **first.query_attributes}
    kept = {name: value for name, value in both.items() if field_name(name) not in REFINING_NAMES}
    asked = {name: value for name, value in top.query_attributes.items() if field_name(name) in REFINING_NAMES}
    teams = {} if not all(map(_drafted, (first, second))) else {EXPERIMENT: _joined(first, second)}
    return {**kept, **asked, **teams}


def _drafted(row: UbiQuery) -> bool:
    said = row.query_attributes.get(EXPERIMENT)
    return isinstance(said, Mapping) and isinstance(said.get("teams"), Mapping)


def _joined(first: UbiQuery, second: UbiQuery) -> dict[str, Any]:
    """Return the part that two pages have in an experiment: the teams of the results of both."""
    one, other = first.query_attributes[EXPERIMENT], second.query_attributes[EXPERIMENT]
    if one.get("id") != other.get("id"):
        return dict(one)
    sides = {
        side: {**found, **of}
        for side, of in one["teams"].items()
        if isinstance(of, Mapping) and isinstance(found := other["teams"].get(side, {}), Mapping)
    }
    return {**one, "teams": sides}
