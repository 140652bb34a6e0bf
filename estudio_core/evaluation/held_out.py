"""How well a model ranks what held-out sessions showed: shown lists ranked again.

Clicks follow what the logging release showed, and showed high. Figures on them compare models; they are no absolute
measure of quality, and judgments go before them where there are any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.evaluation.evaluate import K, QueryMetrics
from estudio_core.evaluation.ranking_metrics import ndcg_at_k, pairwise_accuracy
from estudio_core.evaluation.scores import EncodedCatalog, Scores, query_blocks

SHOWN_METRICS = ("shown_ndcg@10", "shown_pairwise_accuracy")


@dataclass(frozen=True)
class ShownResults:
    """Results of sessions, flat: int64 arrays of equal length.

    Attributes:
        sessions: Number of the session among those kept, from 0, rising.
        columns: Number of the result among the session's kept results, from 0.
        queries: Row of the query vector.
        objects: Row of the object in the catalogue.
        clicked: bool.
    """

    sessions: NDArray[np.int64]
    columns: NDArray[np.int64]
    queries: NDArray[np.int64]
    objects: NDArray[np.int64]
    clicked: NDArray[np.bool_]

    @classmethod
    def of(cls, sessions: Iterable[FineTuningInput], queries: Sequence[str], catalog: EncodedCatalog) -> ShownResults:
        """Flatten sessions by relevance with both a clicked and a skipped result.

        Results that are not in the catalogue and queries without a vector are left out.

        Args:
            sessions: The sessions.
            queries: Texts whose vectors are known.
            catalog: The objects.
        """
        row_of = {query: row for row, query in enumerate(queries)}
        rows: list[tuple[int, int, int, int, bool]] = []
        number = 0
        for session in sessions:
            kept = [
                (catalog.rows[result], weight > 0)
                for result, weight in zip(session.results, session.click_weights, strict=True)
                if result in catalog.rows
            ]
            if not session.by_relevance or session.query not in row_of or len({click for _, click in kept}) < 2:
                continue
            rows += [(number, column, row_of[session.query], row, click) for column, (row, click) in enumerate(kept)]
            number += 1
        table = np.array(rows, dtype=np.int64).reshape(-1, 5)
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4].astype(bool))

    def scored(self, scores: Scores) -> NDArray[np.float32]:
        """Return the score of query and object of each result, [results]."""
        found = np.empty(len(self.sessions), dtype=np.float32)
        for block in query_blocks(np.unique(self.queries)):
            here = np.isin(self.queries, block)
            found[here] = scores(block)[np.searchsorted(block, self.queries[here]), self.objects[here]]
        return found


def evaluate_shown(
    sessions: Iterable[FineTuningInput], queries: Sequence[str], ranks: Scores, catalog: EncodedCatalog
) -> QueryMetrics:
    """Rank again what each session showed, and see where the clicked results end: means over a query's sessions.

    The list is the logging release's own, so this says whether clicked results are told from skipped ones, and nothing
    about what else could have been shown. Metrics: `SHOWN_METRICS`.

    Args:
        sessions: Held-out sessions; those without both a clicked and a skipped result are left out.
        queries: Distinct query texts.
        ranks: Scores of the queries with the catalog's objects.
        catalog: All objects.
    """
    shown = ShownResults.of(sessions, queries, catalog)
    if len(shown.sessions) == 0:
        return QueryMetrics((), {name: np.empty(0) for name in SHOWN_METRICS})
    shape = (int(shown.sessions.max()) + 1, int(shown.columns.max()) + 1)
    scores, clicks, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    cells = (shown.sessions, shown.columns)
    scores[cells], clicks[cells], mask[cells] = shown.scored(ranks), shown.clicked, True
    order = np.argsort(np.where(mask, -scores, np.inf), axis=1, kind="stable")
    per_session = (
        ndcg_at_k(np.take_along_axis(clicks, order, 1), clicks, K),
        pairwise_accuracy(scores, clicks, mask),
    )
    broken = ~np.isfinite(scores).all(axis=1)
    asked, inverse = np.unique(shown.queries[shown.columns == 0], return_inverse=True)
    count = np.bincount(inverse)
    return QueryMetrics(
        tuple(queries[row] for row in asked),
        {
            name: np.bincount(inverse, weights=np.where(broken, np.nan, values)) / count
            for name, values in zip(SHOWN_METRICS, per_session, strict=True)
        },
    )
