"""From raw sessions to a dataset: convert, load items, clean, split, make texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from estudio_core import progress
from estudio_core.clickstream.clients import counted_sessions
from estudio_core.clickstream.converter import WholeLog, parse_session
from estudio_core.clickstream.dataset_words import DatasetWords, ReadWords, WordCounts
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.ranking_data import SPLITS, RankingData, as_tables
from estudio_core.clickstream.session_table import SessionTable
from estudio_core.clickstream.table_builder import TableBuilder
from estudio_core.errors import DataError, NotEnoughDataError
from estudio_core.streams import batched

if TYPE_CHECKING:
    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.query_retriever import QueryRetriever
    from estudio_core.clickstream.session_files import StoredSessions
    from estudio_core.clickstream.sessions import SessionWithEvents
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.lexical.settings import Bm25Settings
    from estudio_core.preprocessing.items_manager import ItemSetManager, PreparedItems
    from estudio_core.sources.data_loader import DataLoader
    from estudio_core.sources.item_meta import ItemMeta

    Clickstream = StoredSessions | Sequence[SessionWithEvents | Mapping[str, Any]]

logger = logging.getLogger(__name__)

_ITEMS_PER_LOAD = 1000
_SESSIONS_PER_REPORT = 1000
_TEXTS_PER_READ = 20_000
_FEWEST_RESULTS = 2
"""A session with one result that was not clicked says nothing."""
_IDS_IN_A_MESSAGE = 10


def prepare_data(
    clickstream: Clickstream,
    converter: ClickstreamSessionConverter,
    splitter: TrainTestSplitter,
    query_retriever: QueryRetriever,
    loader: DataLoader,
    items_set_manager: ItemSetManager,
    read_words: ReadWords | None = None,
    lexical: Bm25Settings | None = None,
) -> RankingData:
    """Return the dataset that `clickstream` makes.

    Results whose item is missing or cannot be used are removed, then sessions without a click and with fewer than two
    results: the negatives of a single clicked result are the items of other queries. Sessions that are malformed, have
    an empty query, or an id that stood before are left out, and those of machines and of clients beyond what counts of
    one (`counted_sessions`); other sessions without clicks stay. What was left out is logged with its count, and in
    `RankingData.left_out`; items with their ids.

    With `read_words`, the dataset has the words of its items and queries, to be weighed as `lexical` says.

    Raises:
        NotEnoughDataError: no session with a click is left in train; states how many were lost where.
        SourceSchemaError, UnavailableError: the items cannot be loaded.
    """
    lost: Counter[str] = Counter()
    sessions, metas = _convert(clickstream, converter, query_retriever, lost)
    sessions, of_clients = counted_sessions(sessions)
    lost += Counter(of_clients.by_reason)
    if of_clients:
        logger.warning("Left out: %s.", of_clients)
    loaded = _load(loader, metas, len(sessions.columns.items), items_set_manager)
    texts, invalid = loaded.texts, loaded.texts.invalid
    _log_items("are not in the source", loaded.missing)
    _log_items("cannot be used", [f"{object_id} ({reason})" for object_id, reason in invalid.items()])
    sessions = _without(sessions, {*loaded.missing, *invalid}, lost)
    splits = as_tables(splitter.split(sessions))  # of a splitter of the plugin's own, lists
    clicked = int(sessions.clicked.sum())
    if not splits["train"].clicked.any():
        raise NotEnoughDataError(
            f"No session with a click is left to train on: of {len(clickstream)} sessions, {len(sessions)} are usable"
            f"{_and_lost(lost)}, {clicked} of them with a click; "
            f"{len(loaded.missing)} items are missing and {len(invalid)} unusable. "
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
        words = DatasetWords(
            _words(read_words, items_set, texts.texts.__getitem__, loaded.payloads.get),
            _words(read_words, dict.fromkeys(chain(*(splits[split].texts() for split in SPLITS))), str, _no_payload),
            *([] if lexical is None else [lexical]),
        )
    return RankingData(
        splits=splits,
        items=items_set,
        missing_items=tuple(loaded.missing),
        invalid_items=invalid,
        words=words,
        left_out={reason: count for reason, count in sorted(lost.items()) if count},
    )


def _words(
    read_words: ReadWords,
    keys: Collection[str],
    text_of: Callable[[str], str],
    payload_of: Callable[[str], Mapping[str, Any] | None],
) -> WordCounts:
    """Return the words of texts by key, read some thousands at a time."""
    found = WordCounts()
    for some in batched(keys, _TEXTS_PER_READ):
        found.add(some, read_words([text_of(key) for key in some], [payload_of(key) for key in some]))
        progress.report("words", len(found), len(keys), "texts")
    return found


def _no_payload(query: str) -> None:
    """Queries have no payload."""


def _convert(
    clickstream: Clickstream,
    converter: ClickstreamSessionConverter,
    query_retriever: QueryRetriever,
    lost: Counter[str],
) -> tuple[SessionTable, Iterable[ItemMeta]]:
    """Return usable sessions in order, and the metas of their items."""
    from estudio_core.clickstream.converter import ClickstreamSessionConverter
    from estudio_core.clickstream.session_files import StoredSessions

    if isinstance(clickstream, StoredSessions) and type(converter) is ClickstreamSessionConverter:
        from estudio_core.clickstream.converting import StoredLog

        table = StoredLog(clickstream, converter, query_retriever).table(lost)
        return table, (converter.item_type(object_id=each) for each in table.columns.items)
    builder, metas, seen = TableBuilder(), dict[str, "ItemMeta"](), set[str]()
    log = WholeLog.of(session for each in clickstream if not isinstance(session := _parsed(each), DataError))
    for start, some in enumerate(batched(clickstream, _SESSIONS_PER_REPORT)):
        inputs: list[FineTuningInput] = []
        for given in some:
            session = _parsed(given)
            try:
                if isinstance(session, DataError):
                    raise session
                converted = converter.convert(session, query_retriever)
            except DataError as error:
                if not lost["malformed"]:
                    logger.warning("A session is left out, further ones are counted: %s", error)
                lost["malformed"] += 1
                continue
            if converted.input.session_id in seen:
                lost["repeated"] += 1
                continue
            seen.add(converted.input.session_id)
            lost["events of results never shown"] += converted.dropped_events
            inputs.append(log.applied(converted.input, session))
            for meta in converted.items:
                metas.setdefault(meta.id, meta)
        builder.add(inputs)
        progress.report("convert", start * _SESSIONS_PER_REPORT + len(some), len(clickstream), "sessions")
    return builder.table(), metas.values()


def _parsed(session: SessionWithEvents | Mapping[str, Any]) -> SessionWithEvents | DataError:
    try:
        return parse_session(session)
    except DataError as error:
        return error


@dataclass
class _Loaded:
    """Texts of items; the payloads of those that have one; ids that the source does not have."""

    texts: PreparedItems
    payloads: dict[str, Mapping[str, Any]]
    missing: list[str]


def _load(loader: DataLoader, metas: Iterable[ItemMeta], count: int, manager: ItemSetManager) -> _Loaded:
    """Load items and make their texts, some at a time: rows of a million items do not fit beside a log."""
    from estudio_core.preprocessing.items_manager import PreparedItems

    loaded = _Loaded(PreparedItems({}, {}, {}), {}, [])
    done = 0
    for wanted in batched(metas, _ITEMS_PER_LOAD):
        found = loader.find_items(wanted)
        loaded.missing += found.missing
        loaded.texts.invalid.update(found.invalid)
        loaded.texts.update(manager.prepare(found.items))
        loaded.payloads.update({item.id: item.meta.payload for item in found.items if item.meta.payload})
        done += len(wanted)
        progress.report("load", done, count, "items")
    return loaded


def _without(sessions: SessionTable, gone: set[str], lost: Counter[str]) -> SessionTable:
    if gone:
        names = sessions.columns.items.texts
        sessions = sessions.without_items(np.fromiter((name in gone for name in names), dtype=bool, count=len(names)))
    silent = (sessions.lengths < _FEWEST_RESULTS) & ~sessions.clicked
    lost["with fewer than two results and no click"] += int(silent.sum())
    return sessions.where(~silent)


def _log_items(what: str, names: Sequence[str]) -> None:
    if names:
        rest = f" and {len(names) - _IDS_IN_A_MESSAGE} more" if len(names) > _IDS_IN_A_MESSAGE else ""
        logger.warning("%d items %s: %s%s", len(names), what, ", ".join(names[:_IDS_IN_A_MESSAGE]), rest)


def _and_lost(lost: Counter[str]) -> str:
    parts = [f"{count} {reason}" for reason, count in sorted(lost.items()) if count]
    return f" (left out: {', '.join(parts)})" if parts else ""
