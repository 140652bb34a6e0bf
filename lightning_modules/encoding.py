"""Vectors of texts by their rows: length-sorted sub-batches, and frozen layers computed once per distinct text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from estudio_core.models.embedding_model import EmbeddingModel, evaluating
from lightning_modules.frozen_outputs import FrozenOutputs
from lightning_modules.text_bank import TextBank


class TextEncoder:
    """Encodes texts of a bank with a model, with gradient where it is enabled.

    Args:
        model: Its frozen layers never change while the encoder lives: their outputs are kept.
        bank: The texts.
        batch_tokens: Most padded tokens of one forward pass.
        cache_bytes: Memory for outputs of the frozen layers; 0: they are computed anew each time.
        disk_bytes: Disk space for them where they are more than `cache_bytes`.
        half: Keep them as float16 (training in half precision rounds more than that).
        compile_with: Backend of `torch.compile` for the layers that are trained; None: not compiled.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        bank: TextBank,
        batch_tokens: int,
        cache_bytes: int = 0,
        disk_bytes: int = 0,
        *,
        half: bool = False,
        compile_with: str | None = None,
    ) -> None:
        self._model = model
        self._bank = bank
        self._batch_tokens = batch_tokens
        self._run: Callable[[Tensor, Tensor], Tensor] = model.forward_upper if model.frozen_layers else model
        if compile_with is not None:
            # Dynamic: number and length of texts differ from chunk to chunk.
            self._run = torch.compile(self._run, dynamic=True, backend=compile_with)
        self._frozen: FrozenOutputs | None = None
        if model.frozen_layers:
            dtype = torch.float16 if half else torch.float32
            self._frozen = FrozenOutputs(bank, model.dimensions, cache_bytes, disk_bytes, dtype, model.device)

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Return vectors float32 [len(rows), dimensions], in the order of `rows`."""
        chunks = self.chunks(rows)
        vectors = torch.cat([self.encode_chunk([rows[i] for i in chunk]) for chunk in chunks])
        order = torch.tensor([i for chunk in chunks for i in chunk], dtype=torch.long)
        return vectors[order.argsort().to(vectors.device)]

    def token_count(self, rows: Sequence[int]) -> int:
        """Return the number of real tokens of the texts `rows`."""
        return self._bank.token_count(rows)

    def vectors(self, rows: Sequence[int]) -> Tensor:
        """Return vectors of `rows` as a call does, without gradient or dropout, on the CPU."""
        with evaluating(self._model), torch.no_grad():
            return self(rows).float().cpu()

    def by_length(self, rows: Sequence[int]) -> list[int]:
        """Return positions in `rows`, shortest texts first."""
        order: list[int] = np.argsort(self._bank.lengths[rows], kind="stable").tolist()
        return order

    def chunks(self, rows: Sequence[int], most_tokens: int | None = None) -> list[list[int]]:
        """Return positions in `rows`, shortest texts first, cut where the padded size would exceed the bound.

        `most_tokens` is a smaller bound.
        """
        bound = min(self._batch_tokens, most_tokens or self._batch_tokens)
        lengths = self._bank.lengths[rows]
        chunks: list[list[int]] = [[]]
        for i in self.by_length(rows):
            length = int(lengths[i])
            if chunks[-1] and (len(chunks[-1]) + 1) * length > bound:
                chunks.append([])
            chunks[-1].append(i)
        return chunks

    def padded_tokens(self, rows: Sequence[int]) -> int:
        """Return the size of one forward pass of the texts `rows`, filled up to the longest."""
        return len(rows) * int(self._bank.lengths[rows].max())

    def encode_chunk(self, rows: Sequence[int]) -> Tensor:
        """Return vectors of `rows` from one forward pass."""
        model = self._model
        if self._frozen is None:
            return self._run(*self._padded(rows))
        _, mask = self._bank.places(rows)
        return self._run(self._hidden(self._frozen, rows, mask.shape[1]), mask.to(model.device))

    def _hidden(self, frozen: FrozenOutputs, rows: Sequence[int], length: int) -> Tensor:
        """Return what the frozen layers make of `rows`, [rows, length, dimensions]: read where kept, else computed."""
        model = self._model
        known = frozen.known(rows)
        if known.all():
            return frozen.read(rows, length, model.device)
        new = [row for row, is_known in zip(rows, known.tolist(), strict=True) if not is_known]
        computed = model.forward_lower(*self._padded(new))
        frozen.write(new, computed)
        if len(new) == len(rows):
            return computed
        kept = [row for row, is_known in zip(rows, known.tolist(), strict=True) if is_known]
        hidden = computed.new_zeros(len(rows), length, model.dimensions, dtype=torch.float32)
        hidden[~known, : computed.shape[1]] = computed.float()
        hidden[known] = frozen.read(kept, length, model.device)
        return hidden

    def _padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        ids, mask = self._bank.padded(rows, self._model.padding_id)
        return ids.to(self._model.device), mask.to(self._model.device)
