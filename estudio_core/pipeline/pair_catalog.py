"""What a catalog alone gives: pairs of its texts to learn from, and known items to judge by."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from estudio_core.artifacts import ArtifactStore
from estudio_core.errors import NotEnoughDataError
from estudio_core.pipeline.evaluation.sample import sampled_items
from estudio_core.pipeline.manifests import PairsManifest
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.specs import CatalogPretraining

if TYPE_CHECKING:
    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.preprocessing.catalog.pairs import CatalogPair
    from estudio_core.preprocessing.catalog.query_writers import QueryWriter

KNOWN_ITEMS_FILE = "known_items.json"
FEWEST_PAIRS = 100
"""To learn from: with fewer, what items have in common is chance."""


def pair_catalog(plugin_name: str, run_id: str) -> PairsManifest:
    """Cut the plugin's items in two, write queries for them, and have its teacher score them, if it names one.

    Raises:
        NotEnoughDataError: too few items have a text that can be cut in two.
        ConfigurationError, DataError: the plugin's teacher is none, or does not answer as one.
    """
    from estudio_core.clickstream.dataset_files import write_dataset
    from estudio_core.clickstream.ranking_data import ItemsSet, RankingData
    from estudio_core.pipeline.pretraining.teaching import taught
    from estudio_core.preprocessing.catalog.known_items import divide, known_items, training_queries
    from estudio_core.preprocessing.catalog.pairs import cut
    from estudio_core.preprocessing.catalog.query_writers import WordSamples
    from estudio_core.preprocessing.catalog.teachers import scorer_of, writer_of

    plugin = open_plugin(plugin_name)
    settings = plugin.pretrain or CatalogPretraining()
    whole: dict[str, str] = {}
    titles: list[CatalogPair] = []
    pairs: list[CatalogPair] = []
    for split in sampled_items(plugin, (), settings.items + settings.known_items):
        whole[split.item.object_id] = split.text
        item = split.item.object_id, split.item.data, plugin.item_texts.preprocessor
        for found, pair in ((titles, cut(*item, title=True)), (pairs, cut(*item))):
            if pair is not None:
                found.append(pair)
    judged_by, learned_from = divide(titles, pairs, settings.known_items)
    known = known_items(judged_by, whole.values())
    learned_from = learned_from[: settings.items]
    if settings.query_writer is None:
        asked = {pair.object_id: pair.asked for pair in learned_from}
        texts = {pair.object_id: pair.rest for pair in learned_from}
        writer: QueryWriter = WordSamples(whole.values())
    else:
        asked = texts = {pair.object_id: whole[pair.object_id] for pair in learned_from}
        writer = writer_of(settings.query_writer)
    queries = training_queries(asked, writer, settings.queries_per_item, known)
    sessions = [_asked(key, number, query) for key, of in queries.items() for number, query in enumerate(of)]
    if len(sessions) < FEWEST_PAIRS or len(known) < plugin.gate.minimum_queries:
        raise NotEnoughDataError(
            f"{len(whole):,} items give {len(sessions)} pairs to learn from and {len(known)} known items to judge by; "
            f"{FEWEST_PAIRS} and {plugin.gate.minimum_queries} are needed. The base model goes live as it is. Give the "
            "plugin further text columns, or wait for clicks."
        )
    parts = {session.results[0]: plugin.item_texts.item_splitter(texts[session.results[0]]) for session in sessions}
    if settings.pair_scorer is not None:
        scorer = scorer_of(settings.pair_scorer)
        sessions = taught(sessions, texts, parts, scorer, plugin.base_model(), plugin.index, settings.negatives)
    data = RankingData({"train": sessions}, ItemsSet(parts))
    store = ArtifactStore()
    with store.publish(plugin_name, run_id, "pairs") as folder:
        write_dataset(data, folder)
        (folder / KNOWN_ITEMS_FILE).write_text(json.dumps([asdict(item) for item in known]), encoding="utf-8")
    return PairsManifest(
        uri=store.uri(plugin_name, run_id, "pairs"),
        dataset_id=data.dataset_id,
        items=len(parts),
        pairs=len(sessions),
        known_items=len(known),
        taught=settings.pair_scorer is not None,
    )


def _asked(object_id: str, number: int, query: str) -> FineTuningInput:
    """Return a query and its item in the form of a session with one result, which was clicked."""
    from estudio_core.clickstream.ranking_data import FineTuningInput

    return FineTuningInput(f"{object_id}/{number}", query, (object_id,), (0,), (None,), (1.0,))
