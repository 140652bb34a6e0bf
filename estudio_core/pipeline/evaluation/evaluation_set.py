"""The same questions for every model: which items it finds for which queries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from estudio_core.evaluation.gate import Group
from estudio_core.pipeline.items.encoding import Encoding, SplitItem, encode_items
from estudio_core.pipeline.items.vector_store import VectorStore
from estudio_core.progress import report
from estudio_core.vectordb.items import IndexedItem

if TYPE_CHECKING:
    from estudio_core.evaluation.evaluate import QueryMetrics
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.inference.embedder import Embedder
    from estudio_core.vectordb.index_info import SearchIndexInfo

_REPORT_EACH = 256


@dataclass(frozen=True)
class Contender:
    """A model with everything it ranked."""

    name: str
    metrics: dict[Group, QueryMetrics]
    top: dict[str, list[str]]
    """Ids of the ten best items, by query."""
    random_similarity: float


@dataclass(frozen=True)
class Exam:
    """What both models have to rank: the same items for the same queries."""

    index: SearchIndexInfo
    items: list[SplitItem]
    judgments: Judgments
    groups: dict[Group, tuple[str, ...]]

    @property
    def queries(self) -> list[str]:
        """The queries of all groups."""
        return [query for group in self.groups.values() for query in group]

    @cached_property
    def titles(self) -> dict[str, str]:
        """What a report shows of each item."""
        return {split.item.id: title_of(split) for split in self.items}

    def sit(
        self, name: str, embedder: Embedder, digest: str, known: VectorStore
    ) -> tuple[Contender, list[IndexedItem]]:
        """Let a model rank; return the result and the vectors of the items."""
        from estudio_core.evaluation.evaluate import EncodedCatalog, evaluate_judgments, mean_random_similarity, rank

        done = Encoding()
        encoded: list[IndexedItem] = []
        for item in encode_items((split.with_digest(digest) for split in self.items), embedder, done, known):
            encoded.append(item)
            if done.items % _REPORT_EACH == 0 or done.items == len(self.items):
                report("Evaluate", done.items, len(self.items), "items", f"({name})")
        catalog = EncodedCatalog.from_parts({item.object_id: item.vectors for item in encoded})
        vectors = embedder.embed_queries(self.queries)
        metrics: dict[Group, QueryMetrics] = {}
        start = 0
        for group, asked in self.groups.items():
            own = vectors[start : start + len(asked)]
            metrics[group] = evaluate_judgments(asked, own, catalog, self.index, self.judgments)
            start += len(asked)
        best = rank(vectors, catalog, self.index).rows.tolist()
        top = {q: [catalog.object_ids[row] for row in rows] for q, rows in zip(self.queries, best, strict=True)}
        return Contender(name, metrics, top, mean_random_similarity(catalog)), encoded


def title_of(split: SplitItem) -> str:
    """Return what a report shows of an item: its title, else the beginning of its text."""
    payload = split.item.meta.payload or {}
    title = payload.get("title") or payload.get("name") or " ".join(split.parts[0].split()[:14])
    return str(title)[:120]
