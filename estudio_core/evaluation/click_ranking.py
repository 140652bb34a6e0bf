"""Where a model puts what held-out sessions showed, from its scores with the whole catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from estudio_core.clickstream.click_log import ClickLog, Floats
from estudio_core.errors import DataError
from estudio_core.evaluation.click_gain import K, RankedPairs
from estudio_core.evaluation.evaluate import best_of
from estudio_core.evaluation.scores import Scores, query_blocks

_DISCOUNTS = 1.0 / np.log2(np.arange(2, K + 2))


def rank_pairs(log: ClickLog, queries: Sequence[str], scores: Scores, rows: Mapping[str, int]) -> RankedPairs:
    """Rank the catalog for each query of a log.

    Args:
        log: Held-out clicks, of objects that the catalog holds.
        queries: Texts in the order of the rows of `scores`, those of the log among them.
        scores: Of queries with all objects.
        rows: Column of each object in the scores, by id.

    Raises:
        DataError: a query or an object of the log is unknown.
    """
    row_of = {query: row for row, query in enumerate(queries)}
    unknown = [name for name in log.names if name[0] not in row_of or name[1] not in rows]
    if unknown:
        raise DataError(f"{len(unknown)} results of the log cannot be ranked, such as {unknown[:3]}.")
    columns = np.array([rows[object_id] for _, object_id in log.names], dtype=np.int64)
    of_query = np.zeros(log.query_count, dtype=np.int64)
    of_query[log.queries] = [row_of[query] for query, _ in log.names]
    order = np.argsort(log.queries, kind="stable")
    starts = np.searchsorted(log.queries[order], np.arange(log.query_count + 1))
    discounts, found = np.zeros(len(columns)), np.zeros(len(columns))
    unshown = np.zeros(log.query_count)
    for block in query_blocks(np.arange(log.query_count)):
        of_block = scores(of_query[block])
        top = best_of(of_block, K).rows
        for number, of_objects, first in zip(block.tolist(), of_block, top, strict=True):
            pairs = order[starts[number] : starts[number + 1]]
            places = np.zeros(len(of_objects))
            places[first] = _DISCOUNTS[: len(first)]
            discounts[pairs] = places[columns[pairs]]
            found[pairs] = of_objects[columns[pairs]]
            unshown[number] = max(places.sum() - discounts[pairs].sum(), 0.0)
    return RankedPairs(discounts, np.where(unshown < 1e-9, 0.0, unshown), np.nan_to_num(found))


def rank_shown(log: ClickLog, scores: Floats) -> RankedPairs:
    """Rank for each query what its sessions showed, and nothing else.

    >>> from estudio_core.clickstream.ranking_data import FineTuningInput
    >>> log = ClickLog.of([FineTuningInput("s", "lamp", ("a", "b"), (0, 1), (None, None), (0.0, 1.0))])
    >>> rank_shown(log, np.array([0.1, 0.9])).discounts.round(3).tolist()
    [0.631, 1.0]

    Args:
        log: Held-out clicks.
        scores: [pairs].
    """
    order = np.lexsort((-scores, log.queries))
    place = np.arange(len(order)) - np.searchsorted(log.queries[order], log.queries[order])
    discounts = np.zeros(len(order))
    discounts[order] = np.where(place < K, 1.0 / np.log2(place + 2.0), 0.0)
    return RankedPairs(discounts, np.zeros(log.query_count), np.asarray(scores, dtype=np.float64))
