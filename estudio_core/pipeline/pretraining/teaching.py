"""A teacher's scores of queries with the right item and with others that the base model finds nearly as near."""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from estudio_core.errors import DataError
from estudio_core.progress import report

if TYPE_CHECKING:
    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.models.embedding_model import EmbeddingModel
    from estudio_core.preprocessing.catalog.teachers import PairScorer
    from estudio_core.vectordb.index_info import SearchIndexInfo

_NEAR = 50
"""Items nearest to a query among which its negatives are drawn: as many as GPL mines."""
_PAIRS_AT_ONCE = 1_024


def taught(
    sessions: Sequence[FineTuningInput],
    texts: Mapping[str, str],
    parts: Mapping[str, Sequence[str]],
    scorer: PairScorer,
    model: EmbeddingModel,
    index: SearchIndexInfo,
    negatives: int,
) -> list[FineTuningInput]:
    """Return the sessions with further items shown, and as rank of each what the teacher makes of it.

    Ranks are in units of similarity: the teacher's margins are given the spread of the base model's, so that how far
    it can tell items apart, not the unit of its logits, is what the model learns.

    Args:
        sessions: Each of a query and its item.
        texts: Texts of all items, as the teacher reads them.
        parts: The same as the model reads them.
        scorer: The teacher.
        model: The base model, which finds the other items.
        index: Metric and aggregation.
        negatives: Other items for each query.

    Raises:
        DataError: the teacher does not answer as one, or scores all pairs alike.
    """
    shown, similar = _with_negatives(sessions, parts, model, index, negatives)
    asked = [(session.query, texts[key]) for session in shown for key in session.results]
    scores = np.array(_scores(scorer, asked), dtype=np.float64)
    starts = np.cumsum([0, *(len(session.results) for session in shown)])
    margins, of_model = (
        np.concatenate([values[a] - values[a + 1 : b] for a, b in pairwise(starts)]) for values in (scores, similar)
    )
    if not margins.std() > 0:
        raise DataError(
            f"{type(scorer).__name__} tells no item from another: its margins over {len(shown):,} queries are all "
            f"{margins[0]:g}. Give a scorer whose scores depend on query and text."
        )
    scores *= of_model.std() / margins.std()
    return [
        replace(session, ranks=tuple(scores[a:b].tolist()))
        for session, (a, b) in zip(shown, pairwise(starts), strict=True)
    ]


def _scores(scorer: PairScorer, pairs: Sequence[tuple[str, str]]) -> list[float]:
    from estudio_core.preprocessing.catalog.teachers import scored

    found: list[float] = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        found += scored(scorer, pairs[start : start + _PAIRS_AT_ONCE])
        report("Teach", len(found), len(pairs), "pairs")
    return found


def _with_negatives(
    sessions: Sequence[FineTuningInput],
    parts: Mapping[str, Sequence[str]],
    model: EmbeddingModel,
    index: SearchIndexInfo,
    negatives: int,
) -> tuple[list[FineTuningInput], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the sessions with other items behind their own, and the similarity of each result."""
    from estudio_core.evaluation.scores import EncodedCatalog, query_blocks, similarity_scores

    offsets = np.cumsum([0, *(len(of) for of in parts.values())]).astype(np.int64)
    vectors = model.encode_items([text for of in parts.values() for text in of]).numpy()
    catalog = EncodedCatalog(tuple(parts), vectors, offsets)
    scores = similarity_scores(model.encode_queries([s.query for s in sessions]).numpy(), catalog, index)
    right: dict[str, set[str]] = {}
    for session in sessions:
        right.setdefault(session.query_key, set()).update(session.results)
    found, similar = [], []
    for block in query_blocks(np.arange(len(sessions))):
        for row, of_query in zip(block.tolist(), scores(block), strict=True):
            session = sessions[row]
            own = right[session.query_key]
            near = [catalog.object_ids[i] for i in np.argsort(-of_query)[: _NEAR + len(own)].tolist()]
            others = [key for key in near if key not in own][:_NEAR]
            drawn = random.Random(zlib.crc32(session.session_id.encode())).sample(others, min(negatives, len(others)))
            results = (*session.results, *drawn)
            found.append(
                replace(
                    session,
                    results=results,
                    positions=tuple(range(len(results))),
                    ranks=(None,) * len(results),
                    click_weights=(1.0, *(0.0 for _ in drawn)),
                )
            )
            similar += [float(of_query[catalog.rows[key]]) for key in results]
    return found, np.array(similar)
