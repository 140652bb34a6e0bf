"""The data of a fit: batches of training sessions, in an order that depends on seed and epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning
import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from estudio_core.preprocessing.ranking_data import FineTuningInput
from lightning_modules.batches import BatchBuilder, SessionBatch
from lightning_modules.config import TrainingConfig


class SessionBatches(IterableDataset[SessionBatch]):
    """Batches of clicked sessions, shuffled anew in every epoch.

    Args:
        sessions: Clicked training sessions.
        builder: Makes a batch of some of them.
        config: Batch size and seed.
        rank: Number of this process among `world_size`, each of which takes its share of every batch.
        world_size: Number of processes.
    """

    def __init__(
        self,
        sessions: Sequence[FineTuningInput],
        builder: BatchBuilder,
        config: TrainingConfig,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._sessions = list(sessions)
        self._builder = builder
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self._sessions) // self._config.batch_size)

    def __iter__(self) -> Iterator[SessionBatch]:
        """Yield the batches of the current epoch, then go to the next epoch."""
        order = np.random.default_rng((self._config.seed, self.epoch)).permutation(len(self._sessions)).tolist()
        size = self._config.batch_size
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            # Every process needs a session of its own in every step.
            mine = chosen[self._rank :: self._world_size] or chosen[:1]
            yield self._builder.build([self._sessions[i] for i in mine], self.epoch)
        self.epoch += 1


class SessionsDataModule(lightning.LightningDataModule):
    """Hands `SessionBatches` to Lightning, with the share of each process where there are several."""

    def __init__(self, sessions: Sequence[FineTuningInput], builder: BatchBuilder, config: TrainingConfig) -> None:
        super().__init__()
        self._sessions = sessions
        self._builder = builder
        self._config = config

    def train_dataloader(self) -> DataLoader[SessionBatch]:
        """Return the loader of training batches; they are built in this process."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = SessionBatches(self._sessions, self._builder, self._config, rank, world)
        return DataLoader(batches, batch_size=None, num_workers=0)
