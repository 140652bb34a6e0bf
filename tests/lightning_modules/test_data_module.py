"""Which sessions an epoch draws: no query takes the place of others, and a short training sees as many as it can."""

from __future__ import annotations

from collections import Counter

from estudio_core.clickstream.ranking_data import FineTuningInput
from lightning_modules.config import TrainingConfig
from lightning_modules.data_module import SessionBatches, steps_of_training


def log(head: int, tail: int, each: int = 2) -> list[FineTuningInput]:
    queries = ["tv"] * head + [f"query {number}" for number in range(tail) for _ in range(each)]
    return [FineTuningInput(str(number), query, (), (), (), ()) for number, query in enumerate(queries)]


def test_a_head_query_takes_one_place_of_a_batch_and_the_tail_is_seen() -> None:
    sessions = log(head=8_000, tail=1_000)
    config = TrainingConfig()
    batches = list(SessionBatches(sessions, None, config).drawn(0))
    queries = [Counter(session.query for session in batch) for batch in batches]
    assert all(of_batch["tv"] <= config.sessions_per_query for of_batch in queries)
    assert all(len(of_batch) >= config.batch_size - 1 for of_batch in queries)
    assert len({query for of_batch in queries for query in of_batch}) == 1_001
    assert sum(of_batch["tv"] for of_batch in queries) < 0.1 * sum(map(len, batches))


def test_a_training_shorter_than_an_epoch_sees_every_query_before_it_sees_one_twice() -> None:
    sessions = log(head=500, tail=60, each=40)
    config = TrainingConfig(batch_size=8, max_steps=16, sessions_per_query=1)
    assert steps_of_training(sessions, config) == 16
    drawn = [session.query for batch in SessionBatches(sessions, None, config).drawn(0) for session in batch]
    assert len(drawn) == 128
    assert set(Counter(drawn).values()) == {2, 3}
    assert len(set(drawn)) == 61


def test_epochs_draw_other_sessions_of_a_frequent_query() -> None:
    sessions = log(head=4_000, tail=400)
    batches = SessionBatches(sessions, None, TrainingConfig())
    first, second = (
        {session.session_id for batch in batches.drawn(epoch) for session in batch if session.query == "tv"}
        for epoch in (0, 1)
    )
    assert len(first & second) < 0.2 * len(first)
    assert first == {s.session_id for batch in batches.drawn(0) for s in batch if s.query == "tv"}


def test_few_queries_fill_a_batch_together() -> None:
    sessions = log(head=0, tail=5, each=100)
    batches = list(SessionBatches(sessions, None, TrainingConfig()).drawn(0))
    assert sorted(session.session_id for batch in batches for session in batch) == sorted(
        s.session_id for s in sessions
    )
    assert len(batches) == 4
