"""Batches larger than memory: vectors first without graph, then their gradients chunk by chunk.

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from lightning_modules.encoding import TextEncoder


class CachedGradients:
    """Encodes a batch without graph; `backward` encodes it again, a chunk at a time, with the same dropout.

    Args:
        encoder: Encodes with a model whose parameters collect the gradients.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._chunks: list[tuple[list[int], list[Tensor]]] = []
        self._vectors = torch.empty(0)
        self._rows: Sequence[int] = ()

    def encode(self, rows: Sequence[int]) -> Tensor:
        """Return vectors [len(rows), dimensions] as a leaf: what is computed from it stops here."""
        self._rows = rows
        self._chunks = []
        parts, positions = [], []
        with torch.no_grad():
            for chunk in self._encoder.chunks(rows):
                self._chunks.append((chunk, _random_states()))
                parts.append(self._encoder.encode_chunk([rows[i] for i in chunk]))
                positions += chunk
        found = torch.cat(parts)
        self._vectors = torch.empty_like(found)
        self._vectors[positions] = found
        return self._vectors.requires_grad_()

    def backward(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        """Carry the gradient of the vectors on to the parameters; call it after the loss's own backward.

        Args:
            context: Makes the autocast context that held while encoding, once for every chunk.
        """
        gradient = self._vectors.grad
        if gradient is None:
            return
        with torch.random.fork_rng():
            for chunk, states in self._chunks:
                _set_random_states(states)
                with context():
                    vectors = self._encoder.encode_chunk([self._rows[i] for i in chunk])
                if vectors.requires_grad:  # else of items, which keep theirs where queries alone are trained
                    (vectors * gradient[chunk]).sum().backward()  # type: ignore[no-untyped-call]  # torch has no type
        self._chunks = []


def _random_states() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
