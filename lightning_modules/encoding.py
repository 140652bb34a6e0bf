"""Vectors of texts by their rows: length-sorted sub-batches, and frozen layers computed once per distinct text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from estudio_core.models.embeddings_model import EmbeddingsModelInterface, evaluating
from estudio_core.models.transformer_layers import pad
from lightning_modules.text_bank import TextBank


class TextEncoder:
    """Encodes texts of a bank with a model, with gradient where it is enabled.

    Args:
        model: Its frozen layers never change while the encoder lives: their outputs are kept.
        bank: The texts.
        batch_tokens: Most padded tokens of one forward pass.
        cache_bytes: Memory for outputs of the frozen layers; beyond it they are computed anew.
        half: Keep them as float16 (training in half precision rounds more than that).
    """

    def __init__(
        self,
        model: EmbeddingsModelInterface,
        bank: TextBank,
        batch_tokens: int,
        cache_bytes: int = 0,
        *,
        half: bool = False,
    ) -> None:
        self._model = model
        self._bank = bank
        self._batch_tokens = batch_tokens
        self._free_bytes = cache_bytes
        self._dtype = torch.float16 if half else torch.float32
        self._cache: dict[int, Tensor] = {}

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Return vectors float32 [len(rows), dimensions], in the order of `rows`."""
        chunks = self.chunks(rows)
        vectors = torch.cat([self.encode_chunk([rows[i] for i in chunk]) for chunk in chunks])
        order = torch.tensor([i for chunk in chunks for i in chunk], dtype=torch.long, device=vectors.device)
        return vectors[order.argsort()]

    def token_count(self, rows: Sequence[int]) -> int:
        """Return the number of real tokens of the texts `rows`."""
        return self._bank.token_count(rows)

    def vectors(self, rows: Sequence[int]) -> Tensor:
        """Return vectors of `rows` as a call does, without gradient or dropout, on the CPU."""
        with evaluating(self._model), torch.no_grad():
            return self(rows).float().cpu()

    def chunks(self, rows: Sequence[int]) -> list[list[int]]:
        """Return positions in `rows`, shortest texts first, cut where the padded size would exceed the bound."""
        order = sorted(range(len(rows)), key=lambda i: len(self._bank.tokens[rows[i]]))
        chunks: list[list[int]] = [[]]
        for i in order:
            if chunks[-1] and (len(chunks[-1]) + 1) * len(self._bank.tokens[rows[i]]) > self._batch_tokens:
                chunks.append([])
            chunks[-1].append(i)
        return chunks

    def encode_chunk(self, rows: Sequence[int]) -> Tensor:
        """Return vectors of `rows` from one forward pass."""
        model = self._model
        ids, mask = pad([self._bank.tokens[row] for row in rows], model.padding_id, model.device)
        if not model.frozen_layers:
            return model(ids, mask)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped
        cached = [self._cache.get(row) for row in rows]
        if all(entry is not None for entry in cached):
            hidden = pad_sequence([entry for entry in cached if entry is not None], batch_first=True)
            return model.forward_upper(hidden.to(model.device, torch.float32), mask)
        hidden = model.forward_lower(ids, mask)
        self._store(rows, hidden)
        return model.forward_upper(hidden, mask)

    def _store(self, rows: Sequence[int], hidden: Tensor) -> None:
        for row, states in zip(rows, hidden, strict=True):
            kept = states[: len(self._bank.tokens[row])].to("cpu", self._dtype)
            size = kept.numel() * kept.element_size()
            if row not in self._cache and size <= self._free_bytes:
                self._cache[row] = kept.clone()
                self._free_bytes -= size
