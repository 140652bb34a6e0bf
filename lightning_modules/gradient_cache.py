"""Batches larger than memory: what finds no room with its graph is encoded without, and again for its gradients.

Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983), where
every text is encoded twice. Here it is only what goes beyond a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lightning_modules.encoding import TextEncoder

_CHUNKS = 4
"""Parts of the bound that a forward pass may fill: what is left of it at the end is smaller than one."""
_PROBED = 4
"""Texts of which graphs are measured."""


class CachedGradients:
    """Encodes a batch; `backward` encodes again what had no graph, a chunk at a time, with the same dropout.

    Args:
        encoder: Encodes with a model whose parameters collect the gradients.
        graph_bytes: Most memory for what graphs keep; 0: nothing is encoded with one but in `backward`.
    """

    def __init__(self, encoder: TextEncoder, graph_bytes: int) -> None:
        self._encoder = encoder
        self._graph_bytes = graph_bytes
        self._most_tokens: int | None = None
        self._again: list[tuple[list[int], list[Tensor]]] = []
        self._leaf = torch.empty(0)

    def encode(self, rows: Sequence[int]) -> Tensor:
        """Return vectors [len(rows), dimensions]. The gradient of those without graph stops in a leaf."""
        if self._most_tokens is None:
            self._most_tokens = self._graph_bytes and self._tokens_with_graph(rows)
        room = self._most_tokens
        kept: list[Tensor] = []
        left: list[Tensor] = []
        places: tuple[list[int], list[int]] = [], []
        self._again = []
        for chunk in self._encoder.chunks(rows, max(1, room // _CHUNKS) if room else None):
            some = [rows[i] for i in chunk]
            size = self._encoder.padded_tokens(some)
            fits = size <= room
            if fits:
                room -= size
            else:
                self._again.append((some, _random_states()))
            with torch.set_grad_enabled(fits):
                (kept if fits else left).append(self._encoder.encode_chunk(some))
            places[not fits].extend(chunk)
        self._leaf = torch.cat(left).requires_grad_() if left else torch.empty(0)
        found = torch.cat([*kept, *([self._leaf] if left else [])])
        order = torch.tensor([*places[0], *places[1]], dtype=torch.long)
        return found[order.argsort().to(found.device)]

    def backward(self, context: Callable[[], AbstractContextManager[object]]) -> None:
        """Carry the gradient of the leaf on to the parameters; call it after the loss's own backward.

        Args:
            context: Makes the autocast context that held while encoding, once for every chunk.
        """
        gradient, start = self._leaf.grad, 0
        if gradient is None:
            return
        with torch.random.fork_rng():
            for some, states in self._again:
                _set_random_states(states)
                with context():
                    vectors = self._encoder.encode_chunk(some)
                (vectors * gradient[start : start + len(some)]).sum().backward()  # type: ignore[no-untyped-call]
                start += len(some)
        self._again, self._leaf = [], torch.empty(0)

    def _tokens_with_graph(self, rows: Sequence[int]) -> int:
        """Return how many padded tokens' graphs the bound has room for, by those of the longest text of `rows`."""
        with torch.random.fork_rng():
            for row in [rows[i] for i in reversed(self._encoder.by_length(rows))]:
                one, some = (self._graph_of([row] * count) for count in (1, _PROBED))
                if some > one:  # what does not grow with the texts, as weights, is no part of it
                    tokens = self._encoder.padded_tokens([row]) * (_PROBED - 1)
                    return max(1, int(self._graph_bytes * tokens / (some - one)))
        return self._graph_bytes  # nothing here has a graph

    def _graph_of(self, rows: Sequence[int]) -> int:
        """Return the bytes that a forward pass of `rows` keeps for its backward pass."""
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            vectors = self._encoder.encode_chunk(rows)
        return sum(kept.values()) if vectors.requires_grad else 0


def _random_states() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])
