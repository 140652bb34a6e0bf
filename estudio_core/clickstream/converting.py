"""What `ClickstreamSessionConverter` makes of stored sessions, in columns: a million of them in seconds."""

from __future__ import annotations

import json
import logging
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.arrow_columns import floats_of, lengths_of, numbered, texts_of
from estudio_core.clickstream.query_retriever import QueryRetriever
from estudio_core.clickstream.refinements import USUAL_SHARE, Usual, is_unrefined, offset_of
from estudio_core.clickstream.session_files import StoredSessions
from estudio_core.clickstream.session_table import NOBODY, Codes, Floats, Ints, SessionTable, Vocabulary
from estudio_core.clickstream.sessions import SearchResult, SessionWithEvents
from estudio_core.clickstream.table_builder import TableBuilder
from estudio_core.clickstream.texts import Texts
from estudio_core.errors import DataError
from estudio_core.progress import report

if TYPE_CHECKING:
    import pyarrow as pa

    from estudio_core.clickstream.converter import ClickstreamSessionConverter

logger = logging.getLogger(__name__)

_NO_META = "null"


class StoredLog:
    """Reads stored sessions as training input; the same as session by session, see `ClickstreamSessionConverter`.

    Args:
        stored: What `extract` wrote: results of a session are distinct, and every event is on one of them.
        converter: Weights of events.
        query_retriever: Reads queries, each distinct one once.
    """

    def __init__(
        self, stored: StoredSessions, converter: ClickstreamSessionConverter, query_retriever: QueryRetriever
    ) -> None:
        self._stored = stored
        self._factors = converter.event_weights
        self._retriever = query_retriever
        self._builder = TableBuilder(len(stored), stored.shown)
        self._warned = False
        self._asked, self._metas = Vocabulary(), Vocabulary([_NO_META])
        self._spelling = np.empty(0, dtype=np.int32)  # of what was asked; negative for what is no query
        self._usual, self._who = self._read_all_of_log()

    def table(self, lost: Counter[str]) -> SessionTable:
        """Return the sessions in order; count in `lost` those that are left out."""
        done = 0
        for batch in self._stored.batches():
            self._add(batch, lost)
            done += batch.num_rows
            report("convert", done, len(self._stored), "sessions")
        return _without_repeated(self._builder.table(), lost)

    def _read_all_of_log(self) -> tuple[Usual, Codes]:
        """Return what most searches have, and who made each visit, [people]; the visit itself where nobody says."""
        times: Counter[int] = Counter()
        client_of: dict[int, int] = {}
        user_of: dict[int, int] = {}
        people = self._builder.people
        for batch in self._stored.batches("search_meta", "client_id", "visit_id", "user_id"):
            meta = numbered(self._metas, batch.column("search_meta"))
            times.update(dict(enumerate(np.bincount(np.maximum(meta, 0), minlength=len(self._metas)).tolist())))
            client, visit, user = (
                numbered(people, batch.column(name)) for name in ("client_id", "visit_id", "user_id")
            )
            for known, who in ((client_of, client), (user_of, np.where(client < 0, user, NOBODY))):
                named = (visit >= 0) & (who >= 0)
                pairs = zip(visit[named].tolist(), who[named].tolist(), strict=True)
                for one, name in pairs:
                    known.setdefault(one, name)
        conditions: Counter[str] = Counter()
        for code, count in times.items():
            for condition in Usual.of([self._searched(code)]).conditions:
                conditions[condition] += count
        usual = frozenset(each for each, count in conditions.items() if count > USUAL_SHARE * len(self._stored))
        found = np.full((2, len(people)), NOBODY, dtype=np.int32)
        for row, known in zip(found, (client_of, user_of), strict=True):
            row[list(known)] = list(known.values())
        return Usual(usual), found

    def _add(self, batch: pa.RecordBatch, lost: Counter[str]) -> None:
        spelling = self._spelt(batch.column("query"))
        if (spelling < 0).any():
            lost["malformed"] += int((spelling < 0).sum())
            batch, spelling = batch.filter(_mask(spelling >= 0)), spelling[spelling >= 0]
        results = batch.column("results")
        lengths = lengths_of(results)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.cumsum(lengths) - lengths
        meta = np.maximum(numbered(self._metas, batch.column("search_meta")), 0)
        offset = self._offsets(meta, lengths)
        position = _or(batch.column("positions"), lengths, np.arange(len(owner)) - starts[owner]).astype(np.int32)
        top = np.full(len(lengths), np.iinfo(np.int32).max, dtype=np.int64)
        np.minimum.at(top, owner, position)
        position += np.where(top < offset, offset, 0)[owner].astype(np.int32)
        item = numbered(self._builder.items, results.flatten())
        rank = _or(batch.column("ranks"), lengths, np.full(len(owner), np.nan))
        weight = self._weights(batch, starts, len(owner))
        step = np.diff(owner)
        if ((step == 0) & (np.diff(position) < 0)).any():
            order = np.lexsort((position, owner))
            position, item, rank, weight = position[order], item[order], rank[order], weight[order]
        client, visit, user = (
            numbered(self._builder.people, batch.column(name)) for name in ("client_id", "visit_id", "user_id")
        )
        refined = batch.column("is_refined").to_numpy(zero_copy_only=False).astype(bool)
        self._builder.add_columns(
            ids=texts_of(batch.column("session_id")),
            query=spelling,
            client=self._clients(client, visit, user),
            user=user,
            release=numbered(self._builder.releases, batch.column("release")),
            timestamp=batch.column("created_at").to_numpy(zero_copy_only=False).astype(np.int64),
            by_relevance=self._ranked(meta) & ~refined & (offset == 0),
            variants=np.zeros(len(lengths), dtype=np.int32),
            lengths=lengths,
            item=item,
            position=position,
            rank=rank,
            weight=weight,
        )

    def _spelt(self, asked: pa.Array) -> Codes:
        """Return the numbers of the queries' texts; negative for what is no query."""
        code = numbered(self._asked, asked)
        known = len(self._spelling)
        if known < len(self._asked):
            self._spelling = np.concatenate(
                [self._spelling, np.array([self._read(text) for text in self._asked.texts[known:]], dtype=np.int32)]
            )
        return self._spelling[code]

    def _read(self, asked: str) -> int:
        try:
            return self._builder.queries.code(self._retriever(asked))
        except DataError as error:
            if not self._warned:
                logger.warning("A session is left out, further ones are counted: %s", error)
            self._warned = True
            return NOBODY

    def _clients(self, client: Codes, visit: Codes, user: Codes) -> Codes:
        """Return who asked, as `visits.Visits` has it."""
        client_of, user_of = (np.append(known, np.int32(NOBODY)) for known in self._who)
        found = np.where(client < 0, client_of[visit], client)
        as_visit = np.where(user_of[visit] < 0, visit, user_of[visit])
        return np.where((found < 0) & (user < 0), as_visit, found)

    def _weights(self, batch: pa.RecordBatch, starts: Ints, count: int) -> Floats:
        """Return the weight of the click on each result: the greatest of its events'."""
        weight = np.zeros(count)
        on = batch.column("events.result")
        event_owner = np.repeat(np.arange(len(on)), lengths_of(on))
        types = batch.column("events.event_type").flatten().dictionary_encode()
        factors = np.array([self._factors.get(name, 1.0) for name in types.dictionary.to_pylist()], dtype=np.float64)
        worth = floats_of(batch.column("events.importance").flatten())
        if len(worth) == 0:
            return weight
        worth = worth * factors[types.indices.to_numpy(zero_copy_only=False)]
        worth[batch.column("is_irrelevant").to_numpy(zero_copy_only=False).astype(bool)[event_owner]] = 0.0
        np.maximum.at(weight, starts[event_owner] + on.flatten().to_numpy(zero_copy_only=False), worth)
        return weight

    def _searched(self, meta: int, results: int = 0) -> SessionWithEvents:
        shown = [SearchResult(object_id=str(place)) for place in range(results)]
        said = json.loads(self._metas[meta])
        return SessionWithEvents(session_id="", query="", search_meta=said, search_results=shown)

    def _ranked(self, meta: Ints) -> NDArray[np.bool_]:
        """Return where nothing that a search says speaks against a ranking by relevance, whatever page it is."""
        used, number = np.unique(meta, return_inverse=True)
        found = [is_unrefined(self._searched(code), self._usual) for code in used.tolist()]
        return np.array(found, dtype=bool)[number]

    def _offsets(self, meta: Ints, lengths: Ints) -> Ints:
        """Return how many results stood on the pages before."""
        said, number = np.unique(np.stack([meta, lengths]), axis=1, return_inverse=True)
        found = [self._offset(code, count) for code, count in said.T.tolist()]
        return np.array(found, dtype=np.int64)[number.ravel()]

    @lru_cache(maxsize=100_000)  # noqa: B019 (lives as long as the preparation)
    def _offset(self, meta: int, results: int) -> int:
        return offset_of(self._searched(meta, results))


def _or(lists: pa.Array, lengths: Ints, usual: NDArray[Any]) -> NDArray[Any]:
    """Return the values of lists as numbers, one behind the other; what is `usual` for lists that are null."""
    if lists.null_count == len(lists):
        return usual
    given = lengths_of(lists) > 0
    if given.all() or lists.null_count == 0:
        return floats_of(lists.flatten())
    values = usual.astype(np.float64)
    values[np.repeat(given, lengths)] = floats_of(lists.flatten())
    return values


def _mask(kept: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    return pa.array(kept)


def _without_repeated(table: SessionTable, lost: Counter[str]) -> SessionTable:
    """Return the sessions without those whose id stood before."""
    ids: Texts = table.columns.ids
    hashes = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(np.diff(hashes[order]) == 0)
    if not len(same):
        return table
    suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
    seen: set[str] = set()
    kept = np.ones(len(ids), dtype=bool)
    for row in suspects.tolist():
        kept[row] = ids[row] not in seen
        seen.add(ids[row])
    lost["repeated"] += int((~kept).sum())
    return table.where(kept)
