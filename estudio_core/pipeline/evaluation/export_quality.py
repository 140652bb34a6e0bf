"""How a plugin's models are published, and what they lose by it: measured on held-out queries."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from estudio_core import database
from estudio_core.errors import NotEnoughDataError, RepositoryError
from estudio_core.pipeline.evaluation.sample import sampled_items
from estudio_core.pipeline.items.parts import SplitItem
from estudio_core.plugin.plugin import Plugin, prepare

if TYPE_CHECKING:
    from estudio_core.evaluation.judgments import Judgments
    from estudio_core.evaluation.scores import EncodedCatalog
    from estudio_core.export.ranking_loss import RankingCheck
    from estudio_core.inference.embedder import Embedder
    from estudio_core.inference.manifest import Precision, RankingLoss
    from estudio_core.vectordb.index_info import SearchIndexInfo

logger = logging.getLogger(__name__)

MOST_ITEMS = 4_000
"""Items that are ranked beside the judged ones: twice encoded, about a minute on two cores."""
BULK_FROM = 100_000
"""Items from which int8 in bulk is worth measuring: on CPUs with AVX2 it saves 0.37 of encoding each, and a measurement
encodes `MOST_ITEMS` twice, for the gate and for the release."""
MOST_SESSIONS = 20_000
"""Newest sessions among which the held-out ones are looked for, where a plugin has no judgments."""


def ranking_check(plugin: Plugin, name: str, item_name: str | None = None) -> tuple[Precision, RankingCheck | None]:
    """Return the precision in which the entry `name` is to be published, and what measures its loss.

    Items are encoded by the entry `item_name`, where that is another, which has stood the same test.

    fp32 where nothing could measure the loss; with a check, the entry gets an int8 graph for items in bulk if they lose
    little by it. An entry that is there keeps its precision: a name is written once.
    """
    from estudio_core.inference.model_store import entry_of

    wanted: Precision = plugin.export.precision
    published = False
    with contextlib.suppress(RepositoryError):  # not published yet, or damaged, and then it is made anew
        wanted = entry_of(name).precision
        published = True
    if wanted == "fp32":
        return wanted, None if published or item_name is not None else bulk_check(plugin)
    judgments = _held_out(plugin)
    if not judgments:
        if published:
            return wanted, None
        logger.warning(
            "%s is published in fp32 instead of %s: the plugin has neither judgments nor held-out sessions with a "
            "click, so nothing can say what it would lose.",
            name,
            wanted,
        )
        return "fp32", None
    return wanted, _Measurement(plugin, judgments, item_name)


def bulk_check(plugin: Plugin) -> RankingCheck | None:
    """Return what measures int8 for items in bulk; None where it would not pay, or nothing is judged."""
    from estudio_core.inference.opening import encodes_items_in_int8

    if not encodes_items_in_int8() or plugin.loader.total_count() < BULK_FROM:
        return None
    judgments = _held_out(plugin)
    return _Measurement(plugin, judgments) if judgments else None


@dataclass(frozen=True)
class _Measurement:
    """A `RankingCheck` over the plugin's own items."""

    plugin: Plugin
    judgments: Judgments
    item_name: str | None = None

    def __call__(self, reference: Embedder, converted: Embedder) -> RankingLoss:
        from estudio_core.inference.manifest import RankingLoss
        from estudio_core.inference.opening import open_bulk_embedder

        items = list(sampled_items(self.plugin, self.judgments.object_ids, MOST_ITEMS))
        kept = None if self.item_name is None else _encoded(open_bulk_embedder(self.item_name), items)
        before, after = (self._ndcg(embedder, kept or _encoded(embedder, items)) for embedder in (reference, converted))
        return RankingLoss(
            queries=len(before),
            items=len(items),
            ndcg_fp32=float(before.mean()),
            ndcg=float(after.mean()),
            maximum_loss=self.plugin.export.maximum_ndcg_loss,
        )

    def _ndcg(self, embedder: Embedder, catalog: EncodedCatalog) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return nDCG@10 of each query."""
        from estudio_core.evaluation.evaluate import FULL, evaluate_judgments

        index: SearchIndexInfo = self.plugin.index
        queries = list(self.judgments)
        found = evaluate_judgments(queries, embedder.embed_queries(queries), catalog, index, self.judgments)
        if not found.queries:
            raise NotEnoughDataError(
                f"None of the {len(queries)} held-out queries has a relevant item in the table any more, so nothing "
                "can say what fewer bits would lose. Correct the judgments, or publish with precision fp32."
            )
        values: np.ndarray[tuple[int], np.dtype[np.float64]] = np.nan_to_num(found.values[FULL])
        return values


def _encoded(embedder: Embedder, items: list[SplitItem]) -> EncodedCatalog:
    from estudio_core.evaluation.scores import EncodedCatalog

    vectors = embedder.embed_items([part for split in items for part in split.parts])
    offsets = np.concatenate([[0], np.cumsum([len(split.parts) for split in items])]).astype(np.int64)
    return EncodedCatalog(tuple(split.item.object_id for split in items), vectors, offsets)


def _held_out(plugin: Plugin) -> Judgments | None:
    """Return the plugin's judgments, else the clicks of the newest sessions whose queries training never sees."""
    from estudio_core.clickstream.ranking_data import with_one_spelling
    from estudio_core.clickstream.store import ClickstreamStore
    from estudio_core.evaluation.evaluate import judgments_from_sessions

    human = plugin.judgments
    if human is not None:
        return human.with_one_spelling().answerable()
    with database.connect() as connection:
        database.require_schema(connection)
        sessions = list(ClickstreamStore(connection).sessions(plugin.meta.name, limit=MOST_SESSIONS))
    if not any(session.events for session in sessions):
        return None
    try:
        held_out = prepare(plugin, sessions).splits["holdout"]
    except NotEnoughDataError:
        return None
    return judgments_from_sessions(with_one_spelling(held_out)).answerable()
