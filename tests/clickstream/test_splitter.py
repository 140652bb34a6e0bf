from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.clickstream.query_retriever import fraction_of, query_key
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData, Split
from estudio_core.clickstream.splitter import TrainTestSplitter, items_on_both_sides
from estudio_core.errors import ConfigurationError, NotEnoughDataError
from estudio_core.preprocessing.augmentations import ChangeCases, ClickstreamQueryAugmentationApplier
from estudio_core.preprocessing.augmentations.random_selection import AugmentationWithRandomSelection


def session(
    name: str, query: str, clicked: bool = True, at: int = 0, results: Sequence[str] = ("a", "b")
) -> FineTuningInput:
    count = len(results)
    return FineTuningInput(
        session_id=name,
        query=query,
        results=tuple(results),
        positions=tuple(range(count)),
        ranks=(None,) * count,
        click_weights=(1.0 if clicked else 0.0,) + (0.0,) * (count - 1),
        timestamp=at,
    )


def many(count: int, repeats: int = 1) -> list[FineTuningInput]:
    return [session(f"{i}-{r}", f"query {i}") for r in range(repeats) for i in range(count)]


def sides(split: dict[Split, list[FineTuningInput]]) -> dict[str, Split]:
    return {query_key(s.query): side for side, sessions in split.items() for s in sessions}


def test_default_shares_are_eighty_ten_ten() -> None:
    split = TrainTestSplitter().split(many(5000))
    assert len(split["train"]) == pytest.approx(4000, abs=100)
    assert len(split["dev"]) == pytest.approx(500, abs=70)
    assert len(split["holdout"]) == pytest.approx(500, abs=70)


def test_holdout_share_divides_the_tested_queries() -> None:
    split = TrainTestSplitter(test_size_ratio=0.5, holdout_share=0.2).split(many(5000))
    assert len(split["holdout"]) == pytest.approx(500, abs=70)
    assert len(split["dev"]) == pytest.approx(2000, abs=120)
    assert TrainTestSplitter(holdout_share=0).split(many(1000))["holdout"] == []


def test_spellings_of_a_query_share_a_split() -> None:
    sessions = [
        session(f"{i}{v}", q) for i in range(300) for v, q in enumerate([f"Query {i}", f"query  {i} ", f"QUERY {i}"])
    ]
    split = TrainTestSplitter().split(sessions)
    keys = [{query_key(s.query) for s in split[side]} for side in ("train", "dev", "holdout")]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert sum(len(s) for s in split.values()) == 900


def test_queries_keep_their_split_when_sessions_are_added() -> None:
    before = sides(TrainTestSplitter().split(many(200)))
    after = sides(TrainTestSplitter().split(list(reversed(many(1000, repeats=2)))))
    assert before.items() <= after.items()


def test_seed_decides_and_processes_agree() -> None:
    first, again, other = (sides(TrainTestSplitter(random_state=s).split(many(100))) for s in (1, 1, 2))
    assert first == again != other
    code = "from estudio_core.clickstream.query_retriever import fraction_of; print(repr(fraction_of('größe 42', 7)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(shown) == fraction_of("größe 42", 7)


def test_order_within_a_split_is_that_given() -> None:
    split = TrainTestSplitter().split(many(100, repeats=3))
    order = {s.session_id: i for i, s in enumerate(many(100, repeats=3))}
    for sessions in split.values():
        places = [order[s.session_id] for s in sessions]
        assert places == sorted(places)


@given(
    clicks=st.lists(st.booleans(), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    ratio=st.floats(0.01, 0.99),
    holdout=st.floats(0, 0.99),
)
def test_small_data_has_something_on_each_side(clicks: list[bool], seed: int, ratio: float, holdout: float) -> None:
    sessions = [session(str(i), f"q{i}", clicked) for i, clicked in enumerate(clicks)]
    splitter = TrainTestSplitter(test_size_ratio=ratio, random_state=seed, holdout_share=holdout)
    split = splitter.split(sessions)
    assert sorted(s.session_id for side in split.values() for s in side) == sorted(s.session_id for s in sessions)
    assert split["train"]
    assert split["dev"] or len(clicks) < 2
    assert any(not s.is_clickless for s in split["train"]) or not any(clicks)
    assert any(not s.is_clickless for s in split["dev"]) or sum(clicks) < 2
    assert split == splitter.split(sessions)


def test_one_query_is_trained_on_even_where_its_number_says_otherwise() -> None:
    seed = next(s for s in range(100) if fraction_of("only", s) < 0.1)
    split = TrainTestSplitter(random_state=seed).split([session("1", "only"), session("2", "Only")])
    assert [len(split[side]) for side in ("train", "dev", "holdout")] == [2, 0, 0]


def test_no_sessions_give_empty_splits() -> None:
    assert TrainTestSplitter().split([]) == {"train": [], "dev": [], "holdout": []}
    assert TrainTestSplitter(by_time=True).split([]) == {"train": [], "dev": [], "holdout": []}


def test_without_shuffle_the_last_queries_are_tested_on() -> None:
    split = TrainTestSplitter(shuffle=False).split(many(100))
    assert [s.query for s in split["train"]] == [f"query {i}" for i in range(80)]
    assert [s.query for s in split["dev"]] == [f"query {i}" for i in range(80, 90)]
    assert [s.query for s in split["holdout"]] == [f"query {i}" for i in range(90, 100)]


def test_by_time_tests_on_new_sessions_and_takes_their_queries_from_train() -> None:
    old = [session(f"old{i}", f"query {i}", at=i) for i in range(100)]
    new = [session(f"new{i}", f"query {i}", at=1000 + i) for i in range(80, 120)]
    split = TrainTestSplitter(test_since=1000).split(old + new)
    assert [s.session_id for s in split["train"]] == [f"old{i}" for i in range(80)]
    tested = split["dev"] + split["holdout"]
    assert sorted(s.session_id for s in tested) == sorted(s.session_id for s in new)
    assert split["dev"]
    assert split["holdout"]
    assert not sides({"train": split["train"]}).keys() & {query_key(s.query) for s in tested}


def test_by_time_without_a_moment_tests_on_the_newest_share() -> None:
    sessions = [session(str(i), f"query {i}", at=i) for i in range(100)]
    split = TrainTestSplitter(by_time=True).split(sessions)
    assert [s.timestamp for s in split["train"]] == list(range(80))


def test_by_time_keeps_a_query_for_train_where_all_come_again() -> None:
    sessions = [session(f"{at}-{i}", f"query {i}", at=at) for at in (1, 9) for i in range(4)]
    split = TrainTestSplitter(test_since=5).split(sessions)
    assert {s.timestamp for s in split["train"]} == {1}
    assert len({s.query for s in split["train"]}) == 1
    assert {s.timestamp for s in split["dev"] + split["holdout"]} == {9}
    assert len({s.query for s in split["dev"] + split["holdout"]}) == 3
    assert split["dev"]


@pytest.mark.parametrize("since", [0, 1000])
def test_by_time_with_an_empty_side_says_what_the_times_are(since: int) -> None:
    sessions = [session(str(i), f"query {i}", at=10 + i) for i in range(5)]
    with pytest.raises(NotEnoughDataError, match="from 10 to 14"):
        TrainTestSplitter(test_since=since).split(sessions)


@pytest.mark.parametrize(
    "wrong", [{"test_size_ratio": 0}, {"test_size_ratio": 1}, {"holdout_share": 1}, {"holdout_share": -1}]
)
def test_shares_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        TrainTestSplitter(**wrong)  # type: ignore[arg-type]  # a dict of one keyword


@pytest.mark.parametrize("augment_test", [False, True])
def test_queries_of_train_get_variants_those_of_tests_on_request(augment_test: bool) -> None:
    augmenter = ClickstreamQueryAugmentationApplier(ChangeCases())
    split = TrainTestSplitter(augmenter=augmenter, do_augment_test=augment_test).split(many(100))
    assert all(s.query_variants == (s.query.upper(),) for s in split["train"])
    assert split["dev"]
    assert split["holdout"]
    assert all(bool(s.query_variants) is augment_test for s in split["dev"] + split["holdout"])


class Neighbour(AugmentationWithRandomSelection):
    """Another query of the log."""

    def _raw_transform(self, object: str) -> list[str]:
        name, number = object.split()
        return [f"{name.upper()}  {int(number) + 1}", f"{object} again"]


def test_no_variant_of_train_is_a_query_that_is_tested_on() -> None:
    split = TrainTestSplitter(augmenter=ClickstreamQueryAugmentationApplier(Neighbour())).split(many(100))
    tested = {query_key(s.query) for s in split["dev"] + split["holdout"]}
    made = [query_key(variant) for s in split["train"] for variant in s.query_variants]
    assert tested.isdisjoint(made)
    assert len(split["train"]) < len(made) < 2 * len(split["train"])


def test_items_on_both_sides_are_found() -> None:
    clickstream: dict[Split, list[FineTuningInput]] = {
        "train": [session("1", "x", results=["a", "b", "c"])],
        "dev": [session("2", "y", results=["c", "d"])],
        "holdout": [session("3", "z", results=["d", "a"])],
    }
    assert items_on_both_sides(clickstream) == ("a", "c")
    items = ItemsSet({name: [name] for name in "abcd"})
    assert items_on_both_sides(RankingData(clickstream, items)) == ("a", "c")


@given(count=st.integers(1, 4), seed=st.integers(0, 200))
def test_by_time_always_has_something_in_dev(count: int, seed: int) -> None:
    sessions = [session("old", "old", at=1), *(session(str(i), f"query {i}", at=9) for i in range(count))]
    split = TrainTestSplitter(test_since=5, random_state=seed, holdout_share=0.9).split(sessions)
    assert [s.session_id for s in split["train"]] == ["old"]
    assert split["dev"]
    assert len(split["dev"]) + len(split["holdout"]) == count


def test_queries_of_the_same_words_and_those_that_hold_them_share_a_split() -> None:
    kinds = [f"kind{i}a" for i in range(200)]
    asked = [
        form for kind in kinds for form in (kind, f"{kind}s", f"red {kind}", f"{kind}s in red", f"cheap {kind} red")
    ]
    split = sides(TrainTestSplitter().split([session(str(i), query) for i, query in enumerate(asked)]))
    assert len({split[query] for query in asked}) == 3
    for kind in kinds:
        assert len({side for query, side in split.items() if kind in query}) == 1


def test_what_most_queries_hold_draws_none_of_them() -> None:
    asked = ["dress", *(f"dress {i}" for i in range(100))]
    split = sides(TrainTestSplitter().split([session(str(i), query) for i, query in enumerate(asked)]))
    assert 70 <= sum(side == "train" for side in split.values()) <= 90


@pytest.mark.parametrize("queries", [["tv", "tvs"], ["tv", "tvs", "red tv", "radio"]])
def test_few_related_queries_still_leave_something_on_each_side(queries: list[str]) -> None:
    split = TrainTestSplitter().split([session(query, query) for query in queries])
    assert split["train"]
    assert split["dev"]
    if "radio" in queries:
        assert len({side for query, side in sides(split).items() if "tv" in query}) == 1
