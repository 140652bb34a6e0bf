"""Vectors of texts before training, of those that training and validation will look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from lightning_modules.config import TrainingConfig
from lightning_modules.data_module import SessionBatches


class BaseVectors:
    """What the model gave for texts when training began.

    Until `seal` is called, texts that are asked for are encoded; afterwards the weights are others.

    Args:
        encode: Returns the vectors of rows of the text bank, float32 [rows, dim], on the CPU.
        texts: Number of texts in the bank.
    """

    def __init__(self, encode: Callable[[Sequence[int]], Tensor], texts: int) -> None:
        self._encode: Callable[[Sequence[int]], Tensor] | None = encode
        self._places = np.full(texts, -1, dtype=np.int64)
        self._vectors: list[Tensor] = []
        self._known = 0

    def __len__(self) -> int:
        """Return the number of texts whose vectors are known."""
        return self._known

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """Return the vectors of `rows`, [len(rows), dim].

        Raises:
            LookupError: they are sealed, and a row was not asked for before.
        """
        self.add(rows)
        if len(self._vectors) > 1:
            self._vectors = [torch.cat(self._vectors)]
        return self._vectors[0][torch.from_numpy(self._places[list(rows)])]

    def add(self, rows: Sequence[int]) -> None:
        """Encode those of `rows` that are not known yet. Raises: as `__getitem__`."""
        unknown = self._places[list(rows)] < 0
        if not unknown.any() and self._vectors:
            return
        new = list(dict.fromkeys(row for row, is_new in zip(rows, unknown.tolist(), strict=True) if is_new))
        if self._encode is None:
            raise LookupError(f"{len(new)} texts were not encoded before training began, the first of row {new[0]}.")
        self._places[new] = np.arange(self._known, self._known + len(new))
        self._vectors.append(self._encode(new))
        self._known += len(new)

    def seal(self) -> None:
        """The weights are about to change."""
        self._encode = None


def rows_of_training(batches: SessionBatches, texts: int, steps: int, config: TrainingConfig) -> list[int]:
    """Return the rows of the texts that `steps` steps of training look at, in order.

    A training that is shorter than an epoch reads a part of a large log; its batches are known beforehand. In a whole
    epoch every session has its turn, and mining looks at all objects: all texts then.

    Args:
        batches: Those of the training, none taken yet.
        texts: Number of texts in the bank.
        steps: Steps of the training.
        config: Whether negatives are mined.
    """
    if steps >= len(batches) or config.mined_negatives:
        return list(range(texts))
    rows = {row for batch in islice(batches, steps) for row in (*batch.query_rows, *batch.part_rows)}
    return sorted(rows)
