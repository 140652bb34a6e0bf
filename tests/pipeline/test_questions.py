"""Which queries the gate asks, and that a query counts once however it is spelt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.evaluation.judgments import Judgments
from estudio_core.pipeline.evaluation.questions import held_out_clicks, questions


def session(number: int, query: str, clicks: tuple[float, float]) -> FineTuningInput:
    return FineTuningInput(f"{query}-{number}", query, ("1", "2"), (0, 1), (None, None), clicks)


ITEMS = ItemsSet({"1": ("a lamp",), "2": ("a chair",)})


def test_held_out_spellings_are_one_query_that_all_their_clicks_grade() -> None:
    held_out = [
        session(0, "Lamp", (1.0, 0.0)),
        session(1, "lamp", (0.0, 1.0)),
        session(2, "lamp", (1.0, 0.0)),
        session(3, "lamp ", (1.0, 0.0)),
        session(4, "chair", (0.0, 1.0)),
    ]
    judgments, groups = questions(None, RankingData({"train": [], "dev": [], "holdout": held_out}, ITEMS))
    assert groups == {"unseen": ("lamp", "chair")}
    assert {i: 2**grade - 1 for i, grade in judgments["lamp"].items()} == pytest.approx({"1": 0.75, "2": 0.25})


def test_judged_spellings_are_one_query_on_the_side_of_its_sessions() -> None:
    human = Judgments(
        {"Lamp": {"1": 3}, "CHAIR": {"2": 2}, "lamp": {"1": 1, "2": 1}, "tent": {"1": 1}, "Tent ": {"2": 1}}
    )
    train, dev = [session(0, "lamp", (1.0, 0.0))], [session(1, "chair", (0.0, 1.0))]
    judgments, groups = questions(human, RankingData({"train": train, "dev": dev, "holdout": []}, ITEMS))
    assert groups == {"seen": ("Lamp",), "unseen": ("tent",)}
    assert judgments["Lamp"] == {"1": 2.0, "2": 1.0}
    assert judgments["tent"] == {"1": 1.0, "2": 1.0}


def test_what_augmentation_made_of_a_trained_query_was_seen() -> None:
    train = [replace(session(0, "lamp", (1.0, 0.0)), query_variants=("LAMP red", "lmap"))]
    human = Judgments({"lmap": {"1": 1}, "chair": {"2": 1}})
    _, groups = questions(human, RankingData({"train": train, "dev": [], "holdout": []}, ITEMS))
    assert groups == {"seen": ("lmap",), "unseen": ("chair",)}


def test_held_out_clicks_are_a_log_of_the_items_that_are_ranked() -> None:
    held_out = [session(0, "Lamp", (1.0, 0.0)), session(1, "lamp", (0.0, 2.0)), session(2, "lamp", (0.0, 0.0))]
    data = RankingData({"train": [], "dev": [], "holdout": held_out}, ITEMS)
    log = held_out_clicks(data, {"1", "2"})
    assert log is not None
    assert log.names == (("lamp", "1"), ("lamp", "2"))
    assert log.rewards.tolist() == [1, 0, 0, 2, 0, 0]
    gone = held_out_clicks(data, {"2"})
    assert gone is not None
    assert (gone.names, gone.positions.tolist()) == ((("lamp", "2"),), [1, 1, 1])
    assert held_out_clicks(RankingData({"train": held_out, "dev": [], "holdout": []}, ITEMS), {"1"}) is None
