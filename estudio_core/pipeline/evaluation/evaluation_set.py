"""The same questions for every model: which items it finds for which queries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from estudio_core.evaluation.comparison import Group
from estudio_core.pipeline.items.encoding import EncodedItems
from estudio_core.pipeline.items.parts import SplitItem
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.progress import report
from estudio_core.vectordb.objects import IndexedObject

if TYPE_CHECKING:
    from estudio_core.evaluation.evaluate import QueryMetrics
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.inference.embedder import Embedder
    from estudio_core.vectordb.index_info import SearchIndexInfo

_REPORT_EACH = 256


@dataclass(frozen=True)
class ModelRanking:
    """What a model ranked, and how good that is."""

    name: str
    metrics: dict[Group, QueryMetrics]
    top: dict[str, list[str]]
    """Ids of the ten best items, by query."""
    random_similarity: float


@dataclass(frozen=True)
class EvaluationSet:
    """What both models have to rank: the same items for the same queries."""

    index: SearchIndexInfo
    items: list[SplitItem]
    judgments: Judgments
    groups: dict[Group, tuple[str, ...]]
    rated: bool
    """Whether people's ratings judge; else clicks do, of which the judged figure and the tax are not told."""

    @property
    def queries(self) -> list[str]:
        """The queries of all groups."""
        return [query for group in self.groups.values() for query in group]

    @cached_property
    def titles(self) -> dict[str, str]:
        """What a report shows of each item."""
        return {split.item.object_id: split.title for split in self.items}

    def rank_with(
        self, name: str, embedder: Embedder, digest: str, known: VectorStore
    ) -> tuple[ModelRanking, list[IndexedObject]]:
        """Let the model of the entry with this digest rank; return the result, and the vectors of the items."""
        from estudio_core.evaluation.evaluate import OF_RATINGS, evaluate_scores, rank_scores
        from estudio_core.evaluation.scores import EncodedCatalog, mean_random_similarity, similarity_scores

        encoded: list[IndexedObject] = []
        for item in EncodedItems(self.items, embedder, digest, known):
            encoded.append(item)
            if len(encoded) % _REPORT_EACH == 0 or len(encoded) == len(self.items):
                report("Evaluate", len(encoded), len(self.items), "items", f"({name})")
        catalog = EncodedCatalog.from_parts({item.object_id: item.vectors for item in encoded})
        scores = similarity_scores(embedder.embed_queries(self.queries), catalog, self.index)
        found = evaluate_scores(self.queries, scores, catalog.rows, self.judgments)
        found = found if self.rated else found.without(OF_RATINGS)
        metrics = {group: found.only(asked) for group, asked in self.groups.items()}
        best = rank_scores(scores, len(self.queries)).rows.tolist()
        top = {q: [catalog.object_ids[row] for row in rows] for q, rows in zip(self.queries, best, strict=True)}
        return ModelRanking(name, metrics, top, mean_random_similarity(catalog)), encoded
