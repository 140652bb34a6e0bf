"""The same questions for every model: which items it finds for which queries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from estudio_core.evaluation.comparison import Group
from estudio_core.pipeline.evaluation.catalog_words import catalog_words
from estudio_core.pipeline.items.encoding import EncodedItems
from estudio_core.pipeline.items.parts import SplitItem
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.progress import report
from estudio_core.vectordb.objects import IndexedObject

if TYPE_CHECKING:
    from estudio_core.clickstream.click_log import ClickLog
    from estudio_core.evaluation.click_gain import RankedPairs
    from estudio_core.evaluation.evaluate import QueryMetrics
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.evaluation.scores import Scores
    from estudio_core.inference.embedder import Embedder
    from estudio_core.lexical.settings import Fusion
    from estudio_core.vectordb.index_info import SearchIndexInfo

_REPORT_EACH = 256


@dataclass(frozen=True)
class ModelRanking:
    """What a model ranked, and how good that is."""

    name: str
    metrics: dict[Group, QueryMetrics]
    """Of what would be served: words and vectors together."""
    vectors_alone: dict[Group, QueryMetrics]
    top: dict[str, list[str]]
    """Ids of the ten best items, by query."""
    random_similarity: float
    pairs: RankedPairs | None = None
    """Where it puts what held-out sessions showed; None without held-out clicks."""


@dataclass(frozen=True)
class EvaluationSet:
    """What both models have to rank: the same items for the same queries."""

    index: SearchIndexInfo
    items: list[SplitItem]
    judgments: Judgments
    groups: dict[Group, tuple[str, ...]]
    rated: bool
    """Whether people's ratings judge; else clicks do, of which the judged figure and the tax are not told."""
    clicks: ClickLog | None = None
    """Held-out sessions, of items that are ranked; None where none was clicked."""

    @cached_property
    def queries(self) -> list[str]:
        """The queries of all groups, and those of held-out clicks."""
        of_clicks = [] if self.clicks is None else [query for query, _ in self.clicks.names]
        return list(dict.fromkeys([*(query for group in self.groups.values() for query in group), *of_clicks]))

    @cached_property
    def rows(self) -> dict[str, int]:
        """Column of each item in scores, by id."""
        return {split.item.object_id: row for row, split in enumerate(self.items)}

    @cached_property
    def titles(self) -> dict[str, str]:
        """What a report shows of each item."""
        return {split.item.object_id: split.title for split in self.items}

    @cached_property
    def words(self) -> Scores | None:
        """BM25 of the queries with the items; None where the index ranks no words."""
        return catalog_words(self.index, self.items, self.queries)

    @cached_property
    def words_alone(self) -> dict[Group, QueryMetrics]:
        """How well words alone rank, by group; empty where the index ranks none."""
        return {} if self.words is None else self._judged(self.words)

    def rank_with(
        self,
        name: str,
        embedder: Embedder,
        digest: str,
        known: VectorStore,
        fusion: Fusion,
        of_queries: Embedder | None = None,
    ) -> tuple[ModelRanking, list[IndexedObject]]:
        """Let the model of the entry with this digest rank; return the result, and the vectors of the items.

        Queries are encoded by `of_queries`, where that is another model.
        """
        from estudio_core.evaluation.click_ranking import rank_pairs
        from estudio_core.evaluation.evaluate import rank_scores
        from estudio_core.evaluation.scores import (
            EncodedCatalog,
            fused_scores,
            mean_random_similarity,
            similarity_scores,
        )

        encoded: list[IndexedObject] = []
        for item in EncodedItems(self.items, embedder, digest, known):
            encoded.append(item)
            if len(encoded) % _REPORT_EACH == 0 or len(encoded) == len(self.items):
                report("Evaluate", len(encoded), len(self.items), "items", f"({name})")
        catalog = EncodedCatalog.from_parts({item.object_id: item.vectors for item in encoded})
        queries = (of_queries or embedder).embed_queries(self.queries)
        similarity = similarity_scores(queries, catalog, self.index)
        scores = fused_scores(similarity, self.words, fusion)
        best = rank_scores(scores, len(self.queries)).rows.tolist()
        top = {q: [catalog.object_ids[row] for row in rows] for q, rows in zip(self.queries, best, strict=True)}
        vectors_alone = self._judged(similarity)
        served = vectors_alone if scores is similarity else self._judged(scores)
        pairs = None if self.clicks is None else rank_pairs(self.clicks, self.queries, scores, self.rows)
        return ModelRanking(name, served, vectors_alone, top, mean_random_similarity(catalog), pairs), encoded

    def _judged(self, scores: Scores) -> dict[Group, QueryMetrics]:
        """Return how well the items are ranked by `scores`, which know them in their order."""
        from estudio_core.evaluation.evaluate import OF_RATINGS, evaluate_scores

        found = evaluate_scores(self.queries, scores, self.rows, self.judgments)
        found = found if self.rated else found.without(OF_RATINGS)
        return {group: found.only(asked) for group, asked in self.groups.items()}
