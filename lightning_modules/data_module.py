"""The data of a fit: batches of training sessions, in an order that depends on seed and epoch only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import lightning
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from estudio_core.clickstream.ranking_data import FineTuningInput
from lightning_modules.batches import BatchBuilder, SessionBatch
from lightning_modules.config import TrainingConfig


class SessionBatches(IterableDataset[SessionBatch]):
    """Batches of clicked sessions, put together anew in every epoch.

    Sessions of a query go into a batch in groups: they showed the same objects, whose texts are encoded once.

    Args:
        sessions: Clicked training sessions.
        builder: Makes a batch of some of them.
        config: Groups per batch, sessions per group, and seed.
    """

    def __init__(self, sessions: Sequence[FineTuningInput], builder: BatchBuilder, config: TrainingConfig) -> None:
        self._sessions = list(sessions)
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
        rng = np.random.default_rng((self._config.seed, epoch))
        order = [self._sessions[i] for i in rng.permutation(len(self._sessions)).tolist()]
        groups = _groups(order, self._config.sessions_per_query)
        if self._config.sessions_per_query > 1:  # frequent queries would come first
            groups = [groups[i] for i in rng.permutation(len(groups)).tolist()]
        size = self._config.batch_size
        for start in range(0, len(groups), size):
            yield self._builder.build([s for group in groups[start : start + size] for s in group], epoch)


def batches_per_epoch(sessions: Sequence[FineTuningInput], config: TrainingConfig) -> int:
    """Return the number of batches, and so of optimiser steps, of an epoch."""
    return -(-len(_groups(sessions, config.sessions_per_query)) // config.batch_size)


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
        queries = len({session.query_key for session in sessions})
        bounds.append(max(FEWEST_STEPS, math.ceil(config.query_passes * queries / config.batch_size)))
    if config.max_steps is not None:
        bounds.append(config.max_steps)
    return min(bounds)


def _groups(sessions: Sequence[FineTuningInput], size: int) -> list[list[FineTuningInput]]:
    """Return `sessions` in groups of one query each, of at most `size`, in order of their first session."""
    groups: list[list[FineTuningInput]] = []
    open_groups: dict[str, list[FineTuningInput]] = {}
    for session in sessions:
        group = open_groups.get(session.query_key)
        if group is None or len(group) == size:
            group = open_groups[session.query_key] = []
            groups.append(group)
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
