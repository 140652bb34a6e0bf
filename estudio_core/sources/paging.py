"""Rows of a source in pages, each read in a transaction of its own that ends before anybody works with them.

A reader that encodes what it reads takes hours. One snapshot for all of it would keep PostgreSQL from clearing away
what the user's application changes meanwhile. So rows come by keyset: the next page begins behind the key of the last
one. Rows that change between two pages come as they were in one of them or the other; whoever reads sees to the rest
(a build by the change log, a sync by its queue, its watermark or its next comparison: docs/architecture.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import pairwise
from typing import Any, cast

from sqlalchemy import Connection, Select, func, select

from estudio_core.errors import SourceTimeoutError
from estudio_core.settings import get_settings
from estudio_core.sources.data_loader import KeyRange
from estudio_core.sources.query_generator import QueryGenerator
from estudio_core.sources.source_database import SourceDatabase

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
"""Values of an item's columns, by name."""

PAGE_ROWS = 10_000
"""Rows of a page: what is read behind an index takes some tenths of a second."""
PAGE_BYTES = 32 * 2**20
"""Characters and bytes in a page after which it ends early."""
PAGE_S = 15.0
"""Seconds after which a page ends early. With the longest statement that `source_timeout_s` allows, 40 s unless it says
otherwise, a transaction is over within a minute."""
_FETCHED = 500
"""Rows that come from the server at once."""
_WIDER = 4
"""How much larger a page becomes that holds rows of one key only."""


def read_pages(
    database: SourceDatabase,
    query: Callable[[Row | None], Select[Any]],
    key: Callable[[Row], Hashable],
    page_rows: int,
) -> Iterator[list[Row]]:
    """Yield all rows, in order; those of one key stand in one page.

    Args:
        database: Where they are.
        query: From the last row read, None at first, to the ordered query for those behind its key.
        key: What a row is ordered by.
        page_rows: Most rows of a page, as long as it holds more than one key.

    Raises:
        SourceSchemaError, UnavailableError, DataError: the query fails.
    """
    behind: Row | None = None
    factor = 1
    while True:
        limit, most_bytes = page_rows * factor, PAGE_BYTES * factor
        rows, ended = database.read(
            lambda connection: _page(connection, query(behind).limit(limit), limit, most_bytes, PAGE_S * factor)  # noqa: B023
        )
        if ended:
            if rows:
                yield rows
            return
        last = key(rows[-1])
        whole = len(rows)
        while whole and key(rows[whole - 1]) == last:  # more rows of this key may follow
            whole -= 1
        if not whole:
            factor *= _WIDER
            continue
        factor = 1
        behind = rows[whole - 1]
        yield rows[:whole]


def _page(
    connection: Connection, query: Select[Any], limit: int, most_bytes: int, most_s: float
) -> tuple[list[Row], bool]:
    """Return the first rows of a query, and whether these are all."""
    began = time.monotonic()
    rows: list[Row] = []
    size = 0
    result = connection.execution_options(yield_per=min(_FETCHED, limit)).execute(query)
    for fetched in result.mappings().partitions():
        rows += cast("list[Row]", fetched)
        size += sum(len(value) for row in fetched for value in row.values() if isinstance(value, str | bytes))
        if size >= most_bytes or time.monotonic() - began >= most_s:
            result.close()
            return rows, False
    return rows, len(rows) < limit


def key_ranges(database: SourceDatabase, generator: Callable[[], QueryGenerator], shards: int) -> list[KeyRange]:
    """Divide the keys into at most `shards` ranges whose counts differ by one at most, where keys are unique.

    Where rows are estimated (`count_rows`), the last range has more or fewer than the others, and its count is a guess.
    Each bound is looked up behind the one before, in a transaction of its own. Rows of one key lie in one range. The
    first range has no lower and the last no upper bound.
    """
    total = count_rows(database, generator)
    bounds: list[tuple[str | None, int]] = [(None, 0)]
    for shard in range(1, shards):
        after, before = bounds[-1]
        wanted = total * shard // shards - before
        if wanted <= 0:
            continue
        found = database.read(lambda connection: _bound(connection, generator(), after, wanted))  # noqa: B023
        if found is None or before + found[1] >= total:
            break
        bounds.append((found[0], before + found[1]))
    edges = [*bounds, (None, total)]
    return [KeyRange(after, until, end - start) for (after, start), (until, end) in pairwise(edges) if end > start]


def count_rows(database: SourceDatabase, generator: Callable[[], QueryGenerator]) -> int:
    """Return the number of rows that have a key.

    Where counting them takes longer than a query may, it is what the server's planner estimates, and the log says so:
    a count tells how much there is to do, never which rows there are.

    Raises:
        SourceSchemaError, UnavailableError, DataError: the query fails.
    """
    try:
        return int(database.read(lambda connection: connection.execute(generator().count()).scalar_one()))
    except SourceTimeoutError:
        estimated = database.read(lambda connection: _estimate(connection, generator()))
    logger.warning(
        "Counting the items takes longer than %g s: about %s rows, as PostgreSQL's planner estimates. ANALYZE makes "
        "its estimate better.",
        get_settings().source_timeout_s,
        f"{estimated:,}",
    )
    return estimated


def _estimate(connection: Connection, generator: QueryGenerator) -> int:
    query = generator.keys().compile(connection, compile_kwargs={"render_postcompile": True})
    explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {query}", dict(query.params))
    return int(explained.scalar_one()[0]["Plan"]["Plan Rows"])


def _bound(connection: Connection, generator: QueryGenerator, after: str | None, wanted: int) -> tuple[str, int] | None:
    """Return the key of the row `wanted` behind `after`, and the number of rows up to and including that key.

    A key that is no text, which a range cannot name, is passed over: the next one that is ends the range.
    """
    keys = generator.keys(after)
    ordered, passed, limit = keys.order_by(generator.sort_key), wanted - 1, 1
    while True:
        found = connection.execute(ordered.offset(passed).limit(limit)).scalars().all()
        usable = next((key for key in found if not generator.key_type.fault(key)), None)
        if usable is not None:
            break
        if len(found) < limit:
            return None
        passed, limit = passed + limit, PAGE_ROWS
    key = generator.key_type.format(usable)
    up_to = keys.where(generator.sort_key <= generator.key_type.bind(key)).subquery("up_to")
    return key, int(connection.execute(select(func.count()).select_from(up_to)).scalar_one())
