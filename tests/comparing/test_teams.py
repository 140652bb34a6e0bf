"""Team-draft interleaving: each result once, teams as drawn, and no side favoured by the coins."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.comparing.teams import DEPTH, draft, seed_of, takes_part

rankings = st.lists(st.integers(0, 30).map(str), unique=True, max_size=25)
seeds = st.integers(0, 2**256 - 1)


def by_hand(champion: list[str], challenger: list[str], seed: int, depth: int) -> tuple[list[str], dict[str, str]]:
    """Draft as captains do, who write their lists anew after each pick."""
    order: list[str] = []
    teams: dict[str, str] = {}
    rounds = 0
    while True:
        left = [[each for each in ranking if each not in teams] for ranking in (champion, challenger)]
        if not all(left) or len(order) == depth:
            return order, teams
        if left[0][0] == left[1][0]:
            picks = [(left[0][0], "both")]
        elif len(order) == depth - 1:
            return order, teams
        else:
            picks = [(left[0][0], "champion"), (left[1][0], "challenger")]
            if seed >> rounds & 1:
                picks.reverse()
            rounds += 1
        for result, team in picks:
            order.append(result)
            teams[result] = team


@given(rankings, rankings, seeds, st.sampled_from([1, 4, 10, DEPTH]))
def test_a_draft_is_that_of_two_captains_who_pick_by_turns(
    champion: list[str], challenger: list[str], seed: int, depth: int
) -> None:
    found = draft(champion, challenger, seed, depth)
    order, teams = by_hand(champion, challenger, seed, depth)
    assert list(found.order) == order
    assert found.teams == teams
    assert len(set(found.order)) == len(found.order) <= depth
    assert found == draft(champion, challenger, seed, depth)
    assert all(0 <= worth <= 1 for worth in found.worth.values())
    assert all((found.worth[each] == 0) == (team == "both") for each, team in teams.items())


@given(rankings, rankings, seeds, st.integers(1, 7), st.sampled_from([4, 10]))
def test_pages_hold_each_result_once_and_all_that_the_champion_finds(
    champion: list[str], challenger: list[str], seed: int, size: int, depth: int
) -> None:
    found = draft(champion[:depth], challenger[:depth], seed, depth)
    pages: list[str] = []
    while page := found.page(champion[: max(depth, len(pages) + size)], len(pages), size):
        pages += page
    assert len(set(pages)) == len(pages)
    assert {*champion} <= {*pages} <= {*champion, *challenger}
    assert pages[: len(found.order)] == list(found.order)


@given(rankings, rankings, seeds)
def test_a_user_who_looks_at_places_alone_brings_both_the_same(
    champion: list[str], challenger: list[str], seed: int
) -> None:
    """With all coins turned over, each place plays for the other side, and counts as much."""
    found, turned = (draft(champion, challenger, coins) for coins in (seed, seed ^ (2**256 - 1)))
    sides = {"champion": -1, "challenger": 1, "both": 0}
    values = [[sides[each.teams[result]] * each.worth[result] for result in each.order] for each in (found, turned)]
    assert [-value for value in values[0]] == values[1]


@given(rankings, rankings, seeds)
def test_who_swaps_the_rankings_and_the_coins_swaps_the_teams(
    champion: list[str], challenger: list[str], seed: int
) -> None:
    found = draft(champion, challenger, seed)
    mirrored = draft(challenger, champion, seed ^ (2**256 - 1))
    swapped = {"champion": "challenger", "challenger": "champion", "both": "both"}
    assert mirrored.order == found.order
    assert mirrored.teams == {result: swapped[team] for result, team in found.teams.items()}
    assert mirrored.worth == pytest.approx(found.worth)


def test_what_both_would_have_put_in_the_same_place_plays_for_both() -> None:
    same = [str(number) for number in range(12)]
    assert set(draft(same, same, 0b1011).teams.values()) == {"both"}
    other = [*same[:4], "x", *same[5:]]
    found = draft(same, other, 0b1011)
    assert [found.teams[each] for each in same[:4]] == ["both"] * 4
    assert (found.teams["x"], found.teams["4"]) == ("challenger", "champion")


def test_a_click_counts_by_how_much_the_rankings_differ_about_its_pair() -> None:
    same = [str(number) for number in range(12)]
    top, below = (draft(same, swapped(same, place), 0) for place in (0, 8))
    assert top.worth["0"] == top.worth["1"] == pytest.approx(math.sqrt(1 - 1 / math.log2(3)))
    assert below.worth["8"] == below.worth["9"] == pytest.approx(math.sqrt(1 / math.log2(10) - 1 / math.log2(11)))
    new = draft(same, ["x", *same], 0)
    assert new.worth["x"] == new.worth["0"] == pytest.approx(math.sqrt((1 + 1 - 1 / math.log2(3)) / 2))


def swapped(ranking: list[str], place: int) -> list[str]:
    """Return a ranking with the results of a place and the next exchanged."""
    return [*ranking[:place], ranking[place + 1], ranking[place], *ranking[place + 2 :]]


def test_seeds_belong_to_the_experiment_and_the_search_and_spread_evenly() -> None:
    assert seed_of("a", "bc") == seed_of("a", "bc") != seed_of("ab", "c")
    seeds_of_searches = [seed_of("first", str(number)) for number in range(4000)]
    assert sum(takes_part(seed, 0.25) for seed in seeds_of_searches) / 4000 == pytest.approx(0.25, abs=0.03)
    assert all(takes_part(seed, 1.0) for seed in seeds_of_searches)
    for bit in (0, 7, 24):
        assert sum(seed >> bit & 1 for seed in seeds_of_searches) / 4000 == pytest.approx(0.5, abs=0.03)
