"""How much each pair counts: hardness within a clicked item, equal clicked items, equal sessions."""

from __future__ import annotations

import torch
from torch import Tensor


def group_softmax(values: Tensor, group: Tensor) -> Tensor:
    """Return the softmax of `values` [n] within each group; `group` [n] holds group numbers.

    >>> group_softmax(torch.tensor([1.0, 1.0, 5.0]), torch.tensor([0, 0, 1])).tolist()
    [0.5, 0.5, 1.0]
    """
    if values.numel() == 0:
        return values
    groups = int(group.max()) + 1
    largest = values.new_full((groups,), -torch.inf).scatter_reduce(0, group, values, "amax")
    weights = (values - largest[group]).exp()
    return weights / weights.new_zeros(groups).index_add(0, group, weights)[group]


def pair_weights(negative: Tensor, positive_index: Tensor, session_index: Tensor, temperature: float | None) -> Tensor:
    """Return the weight of every pair, float [n], without gradient; they sum to 1.

    Every session counts the same, and within it every clicked item. Within a clicked item, pairs share by
    softmax(similarity of the negative / temperature), so that the negatives that stand nearest to the query
    carry the loss; without a temperature they share equally.

    >>> one = torch.tensor([0, 0])
    >>> pair_weights(torch.tensor([0.1, 0.1]), one, one, temperature=0.05).tolist()
    [0.5, 0.5]

    Args:
        negative: Similarity of the negative of each pair, [n].
        positive_index: Number of the clicked item (of a session) that the pair belongs to, int [n].
        session_index: Number of the session, int [n].
        temperature: In units of similarity, > 0; None: equal shares.
    """
    with torch.no_grad():
        values = torch.zeros_like(negative) if temperature is None else negative.detach() / temperature
        within = group_softmax(values.float(), positive_index)
        # Each clicked item's weights sum to 1, so a session's sum is its number of clicked items.
        sessions = int(session_index.max()) + 1 if session_index.numel() else 0
        clicked = within.new_zeros(sessions).index_add(0, session_index, within)
        present = (clicked > 0).sum().clamp_min(1)
        return within / clicked[session_index] / present
