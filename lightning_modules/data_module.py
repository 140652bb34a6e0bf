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
    """

    def __init__(self, sessions: Sequence[FineTuningInput], builder: BatchBuilder, config: TrainingConfig) -> None:
        self._sessions = list(sessions)
        self._builder = builder
        self._config = config
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self._sessions) // self._config.batch_size)

    def __iter__(self) -> Iterator[SessionBatch]:
        """Yield the batches of the current epoch, then go to the next epoch."""
        order = np.random.default_rng((self._config.seed, self.epoch)).permutation(len(self._sessions)).tolist()
        size = self._config.batch_size
        for start in range(0, len(order), size):
            yield self._builder.build([self._sessions[i] for i in order[start : start + size]], self.epoch)
        self.epoch += 1


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
