"""The data of a fit: batches of training sessions, in an order that depends on seed and epoch only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import lightning
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from estudio_core.clickstream.ranking_data import FineTuningInput
from estudio_core.clickstream.table_builder import table_of
from lightning_modules.batches import BatchBuilder, SessionBatch
from lightning_modules.config import TrainingConfig


class SessionBatches(IterableDataset[SessionBatch]):
    """Batches of clicked sessions, put together anew in every epoch.

    Sessions of a query go into a batch in groups: they showed the same objects, whose texts are encoded once. A query
    has one group in a batch at most (of few queries, `TIMES_ITS_SHARE` of its even share), so that none takes the place
    of others, however often it is asked; which of its sessions these are, each epoch draws anew. Of an epoch that is
    longer than the whole training, every query gets one group before any gets a second.

    Args:
        sessions: Clicked training sessions.
        builder: Makes a batch of some of them; None where sessions are only drawn.
        config: Groups per batch, sessions per group, bounds of the training, and seed.
    """

    def __init__(
        self, sessions: Sequence[FineTuningInput], builder: BatchBuilder | None, config: TrainingConfig
    ) -> None:
        self._sessions = table_of(sessions)
        self._steps = steps_of_training(self._sessions, config)
        self._builder = builder
        self._config = config
        self._epochs_begun = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return batches_per_epoch(self._sessions, self._config)

    def __iter__(self) -> Iterator[SessionBatch]:
        """Yield the batches of the next epoch, from 0 on."""
        # Counted at the start: who takes `len` batches and no more never comes to the end of this function.
        epoch = self._epochs_begun
        self._epochs_begun += 1
        assert self._builder is not None
        for sessions in self.drawn(epoch):
            yield self._builder.build(sessions, epoch)

    def drawn(self, epoch: int) -> Iterator[list[FineTuningInput]]:
        """Yield the sessions of each batch of an epoch."""
        rng = np.random.default_rng((self._config.seed, epoch))
        order = rng.permutation(len(self._sessions))
        size = self._config.batch_size
        of_query: dict[int, list[list[int]]] = {}
        queries = self._sessions.keys[order].tolist()
        for query, group in _groups(order.tolist(), queries, self._config.sessions_per_query):
            of_query.setdefault(query, []).append(group)
        batches = len(self)
        most = min(batches, self._steps) * _in_a_batch(len(of_query), size)
        taken = _shares([len(groups) for groups in of_query.values()], most, self._steps * size)
        chosen = [groups[:count] for groups, count in zip(of_query.values(), taken, strict=True)]
        dealt = [group for i in rng.permutation(len(chosen)).tolist() for group in chosen[i]]
        # Dealt like cards, a query's groups fall into different batches. Those of a training that ends within the epoch
        # are dealt to the batches that it takes.
        hands = min(batches, -(-len(dealt) // size))
        for hand in rng.permutation(hands).tolist():
            places = [place for group in dealt[hand::hands] for place in group]
            yield list(self._sessions.take(np.array(places, dtype=np.int64)))


def batches_per_epoch(sessions: Sequence[FineTuningInput], config: TrainingConfig) -> int:
    """Return the number of batches, and so of optimiser steps, of an epoch, see `SessionBatches`.

    >>> asked = [FineTuningInput(str(i), "tv" if i % 5 else f"query {i}", (), (), (), ()) for i in range(1_600)]
    >>> batches_per_epoch(asked, TrainingConfig(sessions_per_query=1))  # 320 queries asked once, one 1,280 times
    11
    """
    sizes = np.bincount(table_of(sessions).keys)
    groups = -(-sizes[sizes > 0] // config.sessions_per_query)
    most = _in_a_batch(len(groups), config.batch_size)
    batches, fewer = 0, -(-int(groups.sum()) // config.batch_size)
    while fewer != batches:  # fewer batches leave a frequent query fewer places, and so on
        batches, fewer = fewer, -(-int(np.minimum(groups, fewer * most).sum()) // config.batch_size)
    return batches


TIMES_ITS_SHARE = 4
"""Times its even share that a query may take of a batch."""


def _in_a_batch(queries: int, size: int) -> int:
    """Return how many groups of one query a batch of `size` may hold."""
    return max(1, -(-TIMES_ITS_SHARE * size // max(queries, 1)))


def _shares(groups: Sequence[int], most: int, room: int) -> list[int]:
    """Return how many groups of each query an epoch takes: `most` of each, and no more than there is `room` for.

    The largest number of groups that fits is the same for all queries; where not even one does, the first ones get it.

    >>> _shares([9, 1, 2], most=4, room=6), _shares([9, 1, 2], most=9, room=100), _shares([1, 1, 1], most=1, room=2)
    ([3, 1, 2], [9, 1, 2], [1, 1, 0])
    """
    counts = np.array(groups, dtype=np.int64)
    low, high = 0, min(most, int(counts.max(initial=0)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(counts, middle).sum() <= room else (low, middle - 1)
    shares = np.minimum(counts, low)
    left = room - int(shares.sum())
    more = np.flatnonzero(counts > low)[: max(left, 0)] if low < most else np.empty(0, dtype=np.int64)
    shares[more] += 1
    return [int(share) for share in shares]


FEWEST_STEPS = 100
"""Steps that `query_passes` allows whatever the log: a few queries with many sessions each have more to say than that
many passes over the queries."""


def steps_of_training(sessions: Sequence[FineTuningInput], config: TrainingConfig) -> int:
    """Return the optimiser steps of a training: epochs, passes over the distinct queries, or the most that are allowed.

    >>> asked = [FineTuningInput(str(i), f"query {i}", (), (), (), ()) for i in range(6_400)]
    >>> [steps_of_training(asked[:count], TrainingConfig(query_passes=3)) for count in (640, 6_400)]
    [100, 600]

    Args:
        sessions: Clicked training sessions.
        config: `num_epochs`, `query_passes`, `max_steps`, and the size of a batch.
    """
    bounds = [batches_per_epoch(sessions, config) * config.num_epochs]
    if config.query_passes is not None:
        queries = len(np.unique(table_of(sessions).keys))
        bounds.append(max(FEWEST_STEPS, math.ceil(config.query_passes * queries / config.batch_size)))
    if config.max_steps is not None:
        bounds.append(config.max_steps)
    return min(bounds)


def _groups(sessions: Sequence[int], queries: Sequence[int], size: int) -> list[tuple[int, list[int]]]:
    """Return sessions in groups of one query each, of at most `size`, in order of their first session.

    >>> _groups([7, 8, 9, 5], [1, 0, 1, 1], 2)
    [(1, [7, 9]), (0, [8]), (1, [5])]
    """
    groups: list[tuple[int, list[int]]] = []
    open_groups: dict[int, list[int]] = {}
    for session, query in zip(sessions, queries, strict=True):
        group = open_groups.get(query)
        if group is None or len(group) == size:
            group = open_groups[query] = []
            groups.append((query, group))
        group.append(session)
    return groups


class SessionsDataModule(lightning.LightningDataModule):
    """Hands `SessionBatches` to Lightning; the same ones in every process where there are several."""

    def __init__(self, sessions: Sequence[FineTuningInput], builder: BatchBuilder, config: TrainingConfig) -> None:
        super().__init__()
        self._sessions = sessions
        self._builder = builder
        self._config = config

    def train_dataloader(self) -> DataLoader[SessionBatch]:
        """Return the loader of training batches; they are built in this process."""
        batches = SessionBatches(self._sessions, self._builder, self._config)
        return DataLoader(batches, batch_size=None, num_workers=0)
