"""Which sessions a model learns from, and which judge it: no query stands on both sides."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.query_groups import group_names
from estudio_core.clickstream.query_retriever import fraction_of, query_key
from estudio_core.clickstream.ranking_data import SPLITS, RankingData, Split, as_tables
from estudio_core.clickstream.session_table import SessionTable, in_order
from estudio_core.clickstream.table_builder import table_of
from estudio_core.errors import ConfigurationError, NotEnoughDataError

logger = logging.getLogger(__name__)


class QueryAugmenter(Protocol):
    """Gives queries variants, such as `preprocessing.augmentations.ClickstreamQueryAugmentationApplier`."""

    def apply(self, inputs: Iterable[FineTuningInput]) -> list[FineTuningInput]:
        """Return the sessions with `query_variants` filled."""
        ...


@dataclass(frozen=True)
class _Query:
    """What decides about one distinct query: its key, its group, the number in [0, 1) of both, and any click."""

    key: str
    group: str
    fraction: float
    clicked: bool


class TrainTestSplitter:
    """Splits sessions into train, dev and holdout by the text of their query, case and whitespace aside.

    Each query has a fixed number in [0, 1), a hash of the seed and its text. Those below `test_size_ratio` are
    tested on: below `test_size_ratio * holdout_share` in holdout, else in dev. So all sessions of a query share a
    split, and a query keeps its split when sessions are added, in any process.

    Queries that hold the words of another one have its number (`group_names`), so that `tvs` is not tested on where
    `tv` was learned from; such a query may change sides where the other one is asked for the first time.

    Few queries: where two or more have clicks, train and dev get at least one of those each; else, of two or more
    queries, train gets the one with clicks. Train takes the query with the greatest number, dev the one with the
    smallest, from train if that has several, else from holdout. A single query goes to train.

    With `by_time`, sessions from `test_since` on are tested on, and their queries leave train: older sessions of
    the same queries are dropped, those of all other queries are learned from. Holdout takes the queries whose
    number is below `holdout_share`, dev the others. Frequent queries come again and again, so this leaves
    train with rare ones: use it to see how a model ages, not for the everyday run.

    Args:
        test_size_ratio: Share of queries (with `by_time`: of sessions) that are tested on, dev and holdout together.
        shuffle: False: instead of by hash, the last queries in order of first appearance are tested on, the very
            last in holdout. Sides then change when sessions are added.
        random_state: Seed of the hash.
        augmenter: Gives queries of train augmented variants; none that is a query of dev or holdout.
        do_augment_test: Also augment dev and holdout.
        holdout_share: Share of the tested queries that only the gate sees.
        by_time: Split by time as above.
        test_since: Seconds since 1970, UTC; setting it implies `by_time`. Unset, the newest `test_size_ratio` of
            sessions are tested on.

    Raises:
        ConfigurationError: a share is not between 0 and 1.
    """

    def __init__(
        self,
        test_size_ratio: float = 0.2,
        shuffle: bool = True,
        random_state: int = 42,
        augmenter: QueryAugmenter | None = None,
        do_augment_test: bool = False,
        holdout_share: float = 0.5,
        by_time: bool = False,
        test_since: float | None = None,
    ) -> None:
        if not 0 < test_size_ratio < 1:
            raise ConfigurationError(f"test_size_ratio must be between 0 and 1; got {test_size_ratio}. Try 0.2.")
        if not 0 <= holdout_share < 1:
            raise ConfigurationError(f"holdout_share must be at least 0 and below 1; got {holdout_share}. Try 0.5.")
        self.test_size_ratio = test_size_ratio
        self.shuffle = shuffle
        self.random_state = random_state
        self.augmenter = augmenter
        self.do_augment_test = do_augment_test
        self.holdout_share = holdout_share
        self.by_time = by_time or test_since is not None
        self.test_since = test_since

    def split(self, inputs: Iterable[FineTuningInput]) -> dict[Split, SessionTable]:
        """Return the sessions of each split, in the order given.

        Raises:
            NotEnoughDataError: with `by_time`, no session is older, or none is newer, than the moment.
        """
        sessions = table_of(inputs)
        result = self._split_by_time(sessions) if self.by_time and sessions else self._split_by_query(sessions)
        if self.augmenter is not None:
            augmented = {
                split: self.augmenter.apply(sessions) if self.do_augment_test or split == "train" else list(sessions)
                for split, sessions in result.items()
            }
            tested = {session.query_key for split in SPLITS[1:] for session in augmented[split]}
            augmented["train"] = [_without_variants(session, tested) for session in augmented["train"]]
            result = as_tables(augmented)
        return result

    def _split_by_query(self, sessions: SessionTable) -> dict[Split, SessionTable]:
        queries = self._queries(sessions)
        holdout = self.test_size_ratio * self.holdout_share
        split_of = {q.key: _split_at(q.fraction, holdout, self.test_size_ratio) for q in queries}
        _give_each_split_one(queries, split_of)
        return _gather(sessions, split_of)

    def _split_by_time(self, sessions: SessionTable) -> dict[Split, SessionTable]:
        since = self._moment(sessions)
        times = sessions.of_session("timestamp")
        old, new = sessions.where(times < since), sessions.where(times >= since)
        if not old or not new:
            raise NotEnoughDataError(
                f"{len(old)} sessions are older than test_since={since} and {len(new)} are not; both sides need some. "
                f"Sessions are from {times.min()} to {times.max()}: choose a moment between, or by_time=False."
            )
        queries = {q.key: q for q in self._queries(new)}
        split_of = {key: _split_at(q.fraction, self.holdout_share, 1.0) for key, q in queries.items()}
        if all(key in split_of for key in old.query_keys()):
            del split_of[max(self._queries(old), key=lambda q: (q.clicked, q.fraction)).key]
        if split_of and "dev" not in split_of.values():
            split_of[max(split_of, key=lambda key: queries[key].fraction)] = "dev"
        result = _gather(new, split_of)
        result["train"] = old.where(~_asks(old, split_of))
        dropped = len(sessions) - sum(len(part) for part in result.values())
        logger.info("Split at %s: %d sessions dropped, their queries are on the other side.", since, dropped)
        return result

    def _moment(self, sessions: SessionTable) -> float:
        if self.test_since is not None:
            return self.test_since
        times = np.sort(sessions.of_session("timestamp"))
        return float(times[min(len(times) - 1, math.floor(len(times) * (1 - self.test_size_ratio)))])

    def _queries(self, sessions: SessionTable) -> list[_Query]:
        names, keys = sessions.columns.queries.keys, sessions.keys
        clicked = np.zeros(len(names), dtype=bool)
        clicked[keys[sessions.clicked]] = True
        asked = in_order(keys)
        found = list(zip([names[code] for code in asked.tolist()], clicked[asked].tolist(), strict=True))
        if self.shuffle:
            groups = group_names([key for key, _ in found])
            return [_Query(key, groups[key], fraction_of(groups[key], self.random_state), any_) for key, any_ in found]
        count = len(found)
        return [_Query(key, key, (count - 1 - i) / count, any_) for i, (key, any_) in enumerate(found)]


def items_on_both_sides(data: RankingData | Mapping[Split, Sequence[FineTuningInput]]) -> tuple[str, ...]:
    """Return ids of items that occur in train and in dev or holdout, sorted.

    Queries never stand on both sides; items may, and the report states how many.
    """
    splits = data.splits if isinstance(data, RankingData) else data
    shown = {}
    for split, sessions in as_tables(splits).items():
        names = sessions.columns.items
        shown[split] = np.zeros(len(names), dtype=bool)
        shown[split][sessions.of_result("item")] = True
    both = shown["train"] & (shown["dev"] | shown["holdout"])
    return tuple(sorted(names[code] for code in np.flatnonzero(both).tolist()))


def _without_variants(session: FineTuningInput, tested: set[str]) -> FineTuningInput:
    """Return the session without the variants of its query that are queries which are tested on."""
    kept = tuple(variant for variant in session.query_variants if query_key(variant) not in tested)
    return session if kept == session.query_variants else replace(session, query_variants=kept)


def _split_at(fraction: float, holdout_below: float, dev_below: float) -> Split:
    if fraction < holdout_below:
        return "holdout"
    return "dev" if fraction < dev_below else "train"


def _give_each_split_one(queries: Sequence[_Query], split_of: dict[str, Split]) -> None:
    """Change `split_of` so that train, and where there are two queries dev, has one; clicked ones come first."""
    clicked = [q for q in queries if q.clicked]
    candidates = sorted(clicked if len(clicked) > 1 else queries, key=lambda q: (q.fraction, q.key))
    if not candidates:
        return
    apart = len({q.group for q in candidates}) > 1  # else one group has to be divided

    def put(query: _Query, split: Split) -> None:
        split_of.update({q.key: split for q in queries if (q.group == query.group if apart else q.key == query.key)})

    anchor = clicked[0] if len(clicked) == 1 else candidates[-1]
    put(anchor, "train")
    if len(candidates) > 1 and not any(split_of[q.key] == "dev" for q in candidates):
        others = [q for q in candidates if (q.group != anchor.group if apart else q.key != anchor.key)]
        movable = [q for q in others if split_of[q.key] == "train"] or others
        put(movable[0], "dev")


def _gather(sessions: SessionTable, split_of: Mapping[str, Split]) -> dict[Split, SessionTable]:
    names = sessions.columns.queries.keys
    numbers = {split: number for number, split in enumerate(SPLITS)}
    of_key = np.array([numbers[split_of[key]] if key in split_of else -1 for key in names.texts], dtype=np.int8)
    side = of_key[sessions.keys] if len(names) else np.empty(0, dtype=np.int8)
    return {split: sessions.where(side == number) for split, number in numbers.items()}


def _asks(sessions: SessionTable, queries: Collection[str]) -> NDArray[np.bool_]:
    """Return which sessions ask one of some queries."""
    names = sessions.columns.queries.keys
    return np.array([key in queries for key in names.texts], dtype=bool)[sessions.keys]
