"""From raw sessions to a dataset: convert, load items, clean, split, make texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from estudio_core import progress
from estudio_core.clickstream.dataset_words import DatasetWords, ReadWords
from estudio_core.clickstream.ranking_data import SPLITS, FineTuningInput, RankingData, Split
from estudio_core.errors import DataError, NotEnoughDataError

if TYPE_CHECKING:
    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.lexical.settings import Bm25Settings
    from estudio_core.preprocessing.items_manager import ItemSetManager
    from estudio_core.sources.data_loader import DataLoader, DownloadedItem
    from estudio_core.sources.item_meta import ItemMeta

logger = logging.getLogger(__name__)

_ITEMS_PER_LOAD = 1000
_SESSIONS_PER_REPORT = 1000
_FEWEST_RESULTS = 2
"""A session with one result has nothing to rank."""
_IDS_IN_A_MESSAGE = 10


def prepare_data(
    clickstream: Sequence[SessionWithEvents | Mapping[str, Any]],
    converter: ClickstreamSessionConverter,
    splitter: TrainTestSplitter,
    query_retriever: QueryRetriever,
    loader: DataLoader,
    items_set_manager: ItemSetManager,
    read_words: ReadWords | None = None,
    lexical: Bm25Settings | None = None,
) -> RankingData:
    """Return the dataset that `clickstream` makes.

    Results whose item is missing or cannot be used are removed, then sessions with fewer than two results.
    Sessions that are malformed, have an empty query, or an id that stood before are left out; sessions without
    clicks stay. What was left out is logged with its count, items with their ids.

    With `read_words`, the dataset has the words of its items and queries, to be weighed as `lexical` says.

    Raises:
        NotEnoughDataError: no session with a click is left in train; states how many were lost where.
        SourceSchemaError, UnavailableError: the items cannot be loaded.
    """
    lost: Counter[str] = Counter()
    inputs, metas = _convert(clickstream, converter, query_retriever, lost)
    items, missing, invalid = _load(loader, metas)
    texts = items_set_manager.prepare(items)
    invalid |= texts.invalid
    _log_items("are not in the source", missing)
    _log_items("cannot be used", [f"{object_id} ({reason})" for object_id, reason in invalid.items()])
    inputs = _without(inputs, {*missing, *invalid}, lost)
    splits = splitter.split(inputs)
    if not any(not session.is_clickless for session in splits["train"]):
        raise NotEnoughDataError(
            f"No session with a click is left to train on: of {len(clickstream)} sessions, {len(inputs)} are usable"
            f"{_and_lost(lost)}, {sum(not s.is_clickless for s in inputs)} of them with a click; "
            f"{len(missing)} items are missing and {len(invalid)} unusable. "
            "Collect more sessions, widen the window, or check that their object ids are ids of the source."
        )
    logger.info(
        "%d sessions given%s; %s.",
        len(clickstream),
        _and_lost(lost),
        ", ".join(f"{len(splits[split])} in {split}" for split in SPLITS),
    )
    items_set = items_set_manager.items_set(texts, splits)
    words = None
    if read_words is not None:
        payloads = {item.id: item.meta.payload for item in items}
        of_items = read_words([texts.texts[key] for key in items_set], [payloads[key] for key in items_set])
        queries = _spellings(splits)
        of_queries = read_words(queries, [None] * len(queries))
        words = DatasetWords(
            dict(zip(items_set, of_items, strict=True)),
            dict(zip(queries, of_queries, strict=True)),
            *([] if lexical is None else [lexical]),
        )
    return RankingData(splits=splits, items=items_set, missing_items=tuple(missing), invalid_items=invalid, words=words)


def _spellings(splits: Mapping[Split, Sequence[FineTuningInput]]) -> list[str]:
    """Return every distinct text of a query, augmented ones among them."""
    sessions = [session for split in SPLITS for session in splits[split]]
    return list(dict.fromkeys(text for s in sessions for text in (s.query, *s.query_variants)))


def _convert(
    clickstream: Sequence[SessionWithEvents | Mapping[str, Any]],
    converter: ClickstreamSessionConverter,
    query_retriever: QueryRetriever,
    lost: Counter[str],
) -> tuple[list[FineTuningInput], dict[str, ItemMeta]]:
    """Return usable sessions in order, and the metas of their items by id."""
    inputs: dict[str, FineTuningInput] = {}
    metas: dict[str, ItemMeta] = {}
    for done, session in enumerate(clickstream, start=1):
        try:
            converted = converter.convert(session, query_retriever)
        except DataError as error:
            if not lost["malformed"]:
                logger.warning("A session is left out, further ones are counted: %s", error)
            lost["malformed"] += 1
            continue
        if converted.input.session_id in inputs:
            lost["repeated"] += 1
            continue
        lost["events of results never shown"] += converted.dropped_events
        inputs[converted.input.session_id] = converted.input
        for meta in converted.items:
            metas.setdefault(meta.id, meta)
        if done % _SESSIONS_PER_REPORT == 0 or done == len(clickstream):
            progress.report("convert", done, len(clickstream), "sessions")
    return list(inputs.values()), metas


def _load(loader: DataLoader, metas: Mapping[str, ItemMeta]) -> tuple[list[DownloadedItem], list[str], dict[str, str]]:
    wanted = list(metas.values())
    items: list[DownloadedItem] = []
    missing: list[str] = []
    invalid: dict[str, str] = {}
    for start in range(0, len(wanted), _ITEMS_PER_LOAD):
        found = loader.find_items(wanted[start : start + _ITEMS_PER_LOAD])
        items += found.items
        missing += found.missing
        invalid |= found.invalid
        progress.report("load", min(start + _ITEMS_PER_LOAD, len(wanted)), len(wanted), "items")
    return items, missing, invalid


def _without(inputs: Iterable[FineTuningInput], gone: set[str], lost: Counter[str]) -> list[FineTuningInput]:
    kept = []
    for session in inputs:
        rest = session if gone.isdisjoint(session.results) else session.without(gone)
        if len(rest.results) < _FEWEST_RESULTS:
            lost["with fewer than two results"] += 1
        else:
            kept.append(rest)
    return kept


def _log_items(what: str, names: Sequence[str]) -> None:
    if names:
        rest = f" and {len(names) - _IDS_IN_A_MESSAGE} more" if len(names) > _IDS_IN_A_MESSAGE else ""
        logger.warning("%d items %s: %s%s", len(names), what, ", ".join(names[:_IDS_IN_A_MESSAGE]), rest)


def _and_lost(lost: Counter[str]) -> str:
    parts = [f"{count} {reason}" for reason, count in sorted(lost.items()) if count]
    return f" (left out: {', '.join(parts)})" if parts else ""
