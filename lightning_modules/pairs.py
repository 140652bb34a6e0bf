"""Pairs of a clicked and a not clicked item, as index tensors; no Python loop over pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.example_kinds import ExampleKind


@dataclass(frozen=True)
class Pairs:
    """Index tensors, int64 [n] each, into the sessions and objects of a batch.

    Attributes:
        session: Row of the session.
        positive: Column of the clicked object.
        negative: Column of the not clicked object.
        positive_index: Number of the (session, clicked object) that the pair belongs to.
    """

    session: Tensor
    positive: Tensor
    negative: Tensor
    positive_index: Tensor

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.session)

    def where(self, kept: Tensor) -> Pairs:
        """Return the pairs for which `kept` (bool [n]) holds."""
        return Pairs(self.session[kept], self.positive[kept], self.negative[kept], self.positive_index[kept])


def build_pairs(clicked: Tensor, negatives: Tensor) -> Pairs:
    """Return every (clicked, negative) pair of every session.

    >>> pairs = build_pairs(torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]]))
    >>> pairs.positive.tolist(), pairs.negative.tolist()
    ([0, 0], [1, 2])

    Args:
        clicked: bool [sessions, objects].
        negatives: bool [sessions, objects]; where an object is both, it is no negative.
    """
    session, positive = clicked.nonzero(as_tuple=True)
    index, negative = (negatives & ~clicked)[session].nonzero(as_tuple=True)
    return Pairs(session[index], positive[index], negative, index)


def in_batch_negatives(shown: Tensor, clicked_for_query: Tensor) -> Tensor:
    """Return which objects of the batch are negatives that other sessions brought, bool [sessions, objects].

    Args:
        shown: bool, the session showed the object itself (then it is clicked, or the session's own negative, or
            left out by sampling).
        clicked_for_query: bool, the object was clicked for the session's query in any training session.
    """
    return ~shown & ~clicked_for_query


def guarded(pairs: Pairs, in_batch: Tensor, base_similarity: Tensor, guard: float) -> Pairs:
    """Leave out in-batch negatives that are likely relevant: more similar than the clicked item by more than `guard`.

    Args:
        pairs: Pairs of a batch.
        in_batch: bool [sessions, objects], where a negative comes from another session.
        base_similarity: [sessions, objects] of the model before training: it stands still while the model moves.
        guard: In units of similarity; may be negative to be stricter.
    """
    excess = base_similarity[pairs.session, pairs.negative] - base_similarity[pairs.session, pairs.positive]
    return pairs.where(~(in_batch[pairs.session, pairs.negative] & (excess > guard)))


def of_kind(difference: Tensor, margin: float, kind: ExampleKind) -> Tensor:
    """Return which pairs belong to a stage of the curriculum, bool [n].

    >>> difference = torch.tensor([0.05, 0.15, 0.5, -0.05])
    >>> of_kind(difference, 0.1, ExampleKind.HARD_ALL).tolist()
    [True, False, False, True]

    Args:
        difference: s+ - s- of each pair, [n].
        margin: Margin of the loss.
        kind: Stage.
    """
    size = difference.abs()
    kept = torch.ones_like(difference, dtype=torch.bool)
    if kind.difficulty is not None:
        bounds = {"hard": (0.0, margin), "medium": (margin, 2 * margin), "soft": (2 * margin, torch.inf)}
        least, most = bounds[kind.difficulty]
        kept = (size >= least) & (size < most)
    if kind.order is not None:
        kept &= difference >= 0 if kind.order == "right" else difference < 0
    return kept
