"""Lists that are no ranking by relevance: sorted by something else, filtered, or a further page.

The order of such a list says nothing of how good its results are, and what is not in it was not passed over. UBI has no
fields for that; applications write them into `query_attributes`, under the names of their engines.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from estudio_core.clickstream.log_values import field_name
from estudio_core.clickstream.sessions import SessionWithEvents

SORT_NAMES = ("sort", "sort_by", "order_by", "ordering", "sort_order", "sorting")
FILTER_NAMES = (
    *("filter", "filters", "post_filter", "fq", "facets", "facet_filters", "numeric_filters"),
    *("filter_by", "refinements", "refinement_list", "payload_filter"),
)
OFFSET_NAMES = ("from", "offset", "start")
PAGE_NAMES = ("page", "page_number", "current_page")
_OF_ALGOLIA = "hits_per_page"
SIZE_NAMES = ("size", _OF_ALGOLIA, "per_page", "page_size", "limit", "rows")
REFINING_NAMES = (*SORT_NAMES, *FILTER_NAMES, *OFFSET_NAMES, *PAGE_NAMES, *SIZE_NAMES)
"""As `log_values.field_name` writes them: `sortBy` and `sort-by` are one."""
BY_RELEVANCE = frozenset(
    {"relevance", "relevancy", "score", "_score", "similarity", "best", "best_match", "bestmatch", "rank", "ranking"}
    | {"default", "none", "null", "text_match", "_text_match", "recommended"}
)
"""Names by which applications sort when they do not."""
USUAL_SHARE = 0.5
"""Share of all searches above which a filter or an order is the shop's own (in stock, this market), not a user's."""
_NO_FILTER = frozenset({"", "*", "*:*", "all", "none", "null"})
_MOST_RESULTS = 1_000_000  # a number further down the list than that is something else


@dataclass(frozen=True)
class Usual:
    """Filters and orders that most searches of a log have.

    >>> in_stock = {"search_meta": {"filter": {"in_stock": True}}}
    >>> lamps = [SessionWithEvents(session_id=str(i), query="lamp", **in_stock) for i in range(5)]
    >>> brand = SessionWithEvents(
    ...     session_id="b", query="lamp", search_meta={"filter": {"in_stock": True, "brand": "x"}}
    ... )
    >>> usual = Usual.of([*lamps, brand])
    >>> is_by_relevance(lamps[0]), is_by_relevance(lamps[0], usual), is_by_relevance(brand, usual)
    (False, True, False)
    """

    conditions: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sessions: Iterable[SessionWithEvents]) -> Usual:
        """Return what more than half of the sessions have."""
        found: Counter[str] = Counter()
        count = 0
        for session in sessions:
            count += 1
            found.update(_conditions(session))
        return cls(frozenset(one for one, number in found.items() if number > USUAL_SHARE * count))


NOTHING_USUAL = Usual()


def is_by_relevance(session: SessionWithEvents, usual: Usual = NOTHING_USUAL) -> bool:
    """Return whether a session's list is the top of a ranking by relevance.

    It is not where the search says that it was sorted by something else than relevance, filtered beyond what is usual,
    or a further page; nor where its user sorted or filtered it once it was there, or asked for no text at all.
    """
    return is_unrefined(session, usual) and not offset_of(session)


def is_unrefined(session: SessionWithEvents, usual: Usual = NOTHING_USUAL) -> bool:
    """Return what `is_by_relevance` does, whatever page it is."""
    if session.is_payload_search or session.is_refined:
        return False
    return not (_conditions(session) - usual.conditions)


def offset_of(session: SessionWithEvents) -> int:
    """Return how many results stood on the pages before the one that a session shows.

    Pages count from 1; from 0 where their size is called `hitsPerPage`, as Algolia's API has it. Where no size is said,
    pages before had as many results as this one.

    >>> at = lambda **said: offset_of(SessionWithEvents(session_id="s", query="lamp", search_meta=said))
    >>> at(page=1, size=20), at(page=3, size=20), at(page=1, hitsPerPage=10), at(**{"from": "40"}), at(page="two")
    (0, 40, 10, 40, 0)
    """
    said = _said(session)
    offset = number_of(said, OFFSET_NAMES)
    if offset is not None:
        return offset
    page = number_of(said, PAGE_NAMES)
    if page is None:
        return 0
    size = number_of(said, SIZE_NAMES)
    before = page if _OF_ALGOLIA in said else max(page - 1, 0)
    return min(before * (size or len(session.search_results)), _MOST_RESULTS)


def _said(session: SessionWithEvents) -> dict[str, Any]:
    return {field_name(name): value for name, value in (session.search_meta or {}).items()}


def _conditions(session: SessionWithEvents) -> set[str]:
    """Return the orders and filters of a session, each as one text; those that mean nothing are left out."""
    said = _said(session)
    orders = [session.sort_by, *(said.get(name) for name in SORT_NAMES)]
    filters = [session.payload_filter, *(said.get(name) for name in FILTER_NAMES)]
    found = {f"sort {_text(order)}" for order in orders if _is_order(order)}
    for given in filters:
        found.update(f"filter {one}" for one in _filters(given))
    return found


def _is_order(order: Any) -> bool:
    """Return whether a list in this order is not by relevance: the first criterion decides."""
    if isinstance(order, list | tuple):
        return bool(order) and _is_order(order[0])
    if isinstance(order, Mapping):
        for name in ("field", "by", "name", "key", "column"):
            if name in order:
                return _is_order(order[name])
        return bool(order) and _is_order(next(iter(order)))
    if not isinstance(order, str):
        return False
    words = order.casefold().strip(" +-").replace(":", " ").replace(",", " ").split()
    return bool(words) and words[0] not in BY_RELEVANCE and " ".join(words) not in {"best match", "most relevant"}


def _filters(given: Any) -> Iterator[str]:
    """Yield the conditions of a filter as texts: of an object, each of its fields by itself."""
    if isinstance(given, Mapping):
        yield from (_text({name: value}) for name, value in given.items() if _narrows(value))
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _filters(one)
    elif _narrows(given):
        yield _text(given)


def _narrows(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_narrows(one) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_narrows(one) for one in value)
    if isinstance(value, str):
        return value.strip().casefold() not in _NO_FILTER
    return value is not None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def number_of(said: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """Return the first of some attributes that is a whole number of results."""
    for name in names:
        value = said.get(name)
        if isinstance(value, str) and value.strip().isdecimal():
            value = int(value) if len(value) < 10 else _MOST_RESULTS + 1
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_RESULTS:
            return int(value)
    return None
