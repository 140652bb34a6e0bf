from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.pairs import ExampleKind, build_pairs, guarded, in_batch_negatives, of_kind


def test_pairs_are_all_combinations_of_every_session() -> None:
    rng = np.random.default_rng(2)
    clicked, negatives = rng.random((5, 9)) < 0.3, rng.random((5, 9)) < 0.5
    expected = {
        (s, p, n)
        for s in range(5)
        for p in range(9)
        for n in range(9)
        if clicked[s, p] and negatives[s, n] and not clicked[s, n]
    }
    pairs = build_pairs(torch.tensor(clicked), torch.tensor(negatives))
    found = list(zip(pairs.session.tolist(), pairs.positive.tolist(), pairs.negative.tolist(), strict=True))
    assert len(found) == len(expected)
    assert set(found) == expected
    clicks = zip(pairs.session.tolist(), pairs.positive.tolist(), strict=True)
    owners = dict(zip(pairs.positive_index.tolist(), clicks, strict=True))
    assert len(set(owners.values())) == len(owners)


def test_no_clicks_give_no_pairs() -> None:
    pairs = build_pairs(torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
    assert len(pairs) == 0


def test_items_shown_or_ever_clicked_for_the_query_are_no_in_batch_negatives() -> None:
    shown = torch.tensor([[True, False, False]])
    clicked_for_query = torch.tensor([[False, True, False]])
    assert in_batch_negatives(shown, clicked_for_query).tolist() == [[False, False, True]]


def test_guard_drops_only_in_batch_negatives_that_were_nearer_than_the_clicked_item() -> None:
    clicked = torch.tensor([[True, False, False, False]])
    in_batch = torch.tensor([[False, False, True, True]])
    pairs = build_pairs(clicked, ~clicked)
    base = torch.tensor([[0.5, 0.9, 0.7, 0.55]])
    assert guarded(pairs, in_batch, base, guard=0.1).negative.tolist() == [1, 3]
    assert guarded(pairs, in_batch, base, guard=0.3).negative.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ExampleKind.ALL, [1, 1, 1, 1, 1, 1]),
        (ExampleKind.HARD_ALL, [1, 0, 0, 1, 0, 0]),
        (ExampleKind.MEDIUM_ALL, [0, 1, 0, 0, 1, 0]),
        (ExampleKind.SOFT_ALL, [0, 0, 1, 0, 0, 1]),
        (ExampleKind.HARD_POSITIVE, [1, 0, 0, 0, 0, 0]),
        (ExampleKind.MEDIUM_NEGATIVE, [0, 0, 0, 0, 1, 0]),
        (ExampleKind.SOFT_NEGATIVE, [0, 0, 0, 0, 0, 1]),
        (ExampleKind.NEGATIVE_ONLY, [0, 0, 0, 1, 1, 1]),
    ],
)
def test_kinds_of_pairs_by_difference_against_the_margin(kind: ExampleKind, expected: list[int]) -> None:
    difference = torch.tensor([0.05, 0.15, 0.3, -0.05, -0.15, -0.3])
    assert of_kind(difference, 0.1, kind).int().tolist() == expected
