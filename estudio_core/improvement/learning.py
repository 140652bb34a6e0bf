"""From sessions to moved vectors, and what they are worth on sessions that moved nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.improvement.bounds import bounded
from estudio_core.improvement.improvement_input import ImprovementElement, ImprovementInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from estudio_core.clickstream.click_log import ClickLog
    from estudio_core.evaluation.click_gain import RankedPairs
    from estudio_core.evaluation.evaluate import QueryMetrics
    from estudio_core.evaluation.scores import EncodedCatalog, Scores
    from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
    from estudio_core.vectordb.releases import Release

    Vectors = NDArray[np.float32]

Key = tuple[str, str | None]
"""Object id, and the user whose vectors are meant; None for everybody's."""


def keys_of(session: FineTuningInput, personal: bool) -> list[Key]:
    """Return whose vectors of which objects a session is about."""
    return [(object_id, session.user_id if personal else None) for object_id in session.results]


def move(
    adjuster: VectorsAdjuster,
    sessions: Iterable[FineTuningInput],
    queries: Mapping[str, Vectors],
    vectors: Mapping[Key, Vectors],
    base: Mapping[Key, Vectors],
    max_angle_degrees: float,
    personal: bool,
) -> dict[Key, Vectors]:
    """Return the vectors that the plugin's adjuster moves, none further than the angle from what the model gave.

    Clicked results are clicked, results above the last click skipped, where the list was by relevance; what stands
    below it was perhaps never seen.

    Args:
        adjuster: Of the plugin.
        sessions: With at least one click.
        queries: Query vectors [dim] by text.
        vectors: Vectors as stored now, [parts, dim].
        base: Vectors as the model gave them.
        max_angle_degrees: Bound of each part vector's whole turn, over all runs.
        personal: Whether each user has vectors of their own.
    """
    import torch

    elements = {
        key: ImprovementElement(key[0], torch.from_numpy(rows.copy()), user_id=key[1]) for key, rows in vectors.items()
    }
    inputs = []
    for session in sessions:
        known = [
            (key, weight > 0)
            for key, weight in zip(keys_of(session, personal), session.click_weights, strict=True)
            if key in elements
        ]
        last = max((i for i, (_, clicked) in enumerate(known) if clicked), default=-1)
        if last < 0:
            continue
        query = ImprovementElement(session.query, torch.from_numpy(queries[session.query].copy())[None, :])
        clicked = [elements[key] for key, click in known if click]
        skipped = [elements[key] for key, click in known[:last] if not click and session.by_relevance]
        inputs.append(ImprovementInput(session.session_id, query, clicked, skipped))
    adjuster.adjust_vectors(inputs)
    moved = {}
    for key, element in elements.items():
        rows = bounded(torch.from_numpy(base[key].copy()), element.vector.detach().float(), max_angle_degrees).numpy()
        if abs(rows - vectors[key]).max() > 1e-7:
            moved[key] = rows
    return moved


@dataclass(frozen=True)
class HeldOut:
    """Held-out sessions as they are ranked with vectors: each object is named by whose vectors are meant.

    Attributes:
        sessions: With those names as results.
        queries: Their distinct texts.
        scores: Of the queries with all objects of `catalog`.
        catalog: The objects.
    """

    sessions: list[FineTuningInput]
    queries: list[str]
    scores: Scores
    catalog: EncodedCatalog

    def metrics(self) -> QueryMetrics:
        """Return how well what was shown is ranked again, see `evaluate_shown`."""
        from estudio_core.evaluation.held_out import evaluate_shown

        return evaluate_shown(self.sessions, self.queries, self.scores, self.catalog)

    def log(self) -> ClickLog:
        """Return the sessions as a click log, of objects that have vectors."""
        from estudio_core.clickstream.click_log import ClickLog

        rows = self.catalog.rows
        kept = (s.without([result for result in s.results if result not in rows]) for s in self.sessions)
        return ClickLog.of(session for session in kept if session.results)

    def shown(self, log: ClickLog) -> RankedPairs:
        """Return where these vectors put what the log shows."""
        import numpy as np

        from estudio_core.evaluation.click_ranking import rank_shown
        from estudio_core.evaluation.scores import query_blocks

        row_of = {query: row for row, query in enumerate(self.queries)}
        asked = np.array([row_of[query] for query, _ in log.names], dtype=np.int64)
        columns = np.array([self.catalog.rows[name] for _, name in log.names], dtype=np.int64)
        found = np.empty(len(asked))
        for block in query_blocks(np.unique(asked)):
            here = np.isin(asked, block)
            found[here] = self.scores(block)[np.searchsorted(block, asked[here]), columns[here]]
        return rank_shown(log, found)


def held_out(
    sessions: Sequence[FineTuningInput],
    queries: Mapping[str, Vectors],
    vectors: Mapping[Key, Vectors],
    release: Release,
    words: Mapping[str, Mapping[str, float]],
    personal: bool,
) -> HeldOut:
    """Return held-out sessions as these vectors rank them, and the release's words.

    Args:
        sessions: The held-out ones.
        queries: Query vectors [dim] by text.
        vectors: Part vectors [parts, dim] by object and user.
        release: The one whose vectors they are.
        words: By query, BM25 of the objects that hold one of its words.
        personal: Whether each user has vectors of their own.
    """
    import numpy as np

    from estudio_core.evaluation.scores import EncodedCatalog, fused_scores, similarity_scores

    names = {key: f"{key[0]}\x1f{key[1] or ''}" for key in vectors}
    catalog = EncodedCatalog.from_parts({names[key]: rows for key, rows in vectors.items()})
    renamed = [
        replace(session, results=tuple(f"{key[0]}\x1f{key[1] or ''}" for key in keys_of(session, personal)))
        for session in sessions
    ]
    asked = list(dict.fromkeys(session.query for session in sessions))
    similarity = similarity_scores(np.stack([queries[query] for query in asked]), catalog, release.index_info)

    def by_words(rows: NDArray[np.int64]) -> Vectors:
        of_queries = [words.get(asked[row], {}) for row in rows]
        return np.array([[of_query.get(key[0], 0.0) for key in vectors] for of_query in of_queries], dtype=np.float32)

    return HeldOut(renamed, asked, fused_scores(similarity, by_words, release.ranking), catalog)
