"""Machines are left out with their number, and no client outvotes the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from estudio_core.clickstream.clients import (
    EVERYTHING,
    NO_REST,
    RATE,
    STEADY,
    counted_sessions,
    implausible_clients,
)
from estudio_core.clickstream.ranking_data import FineTuningInput

START = 1_750_000_000
HOUR = 3_600


def searches(
    client: str | None, times: list[int], clicks: float = 0.1, query: str | None = None
) -> list[FineTuningInput]:
    rng = np.random.default_rng(len(times))
    return [
        FineTuningInput(
            f"{client} {number}",
            query or f"query {number}",
            tuple("abcdefghij"),
            tuple(range(10)),
            (None,) * 10,
            tuple((rng.random(10) < clicks).astype(float).tolist()),
            timestamp=time,
            client_id=client,
        )
        for number, time in enumerate(times)
    ]


def people(count: int = 30) -> list[FineTuningInput]:
    rng = np.random.default_rng(1)
    return [
        session
        for person in range(count)
        for session in searches(f"person {person}", sorted((START + rng.integers(0, 30 * 24 * HOUR, 8)).tolist()))
    ]


def by_day(hours: range, days: int, an_hour: int) -> list[int]:
    """Times of somebody who searches in these hours of each day, at no rhythm."""
    rng = np.random.default_rng(2)
    return sorted(
        int(START + (24 * day + hour) * HOUR + rng.integers(HOUR))
        for day in range(days)
        for hour in hours
        for _ in range(an_hour)
    )


@pytest.mark.parametrize(
    ("times", "clicks", "reason"),
    [
        (by_day(range(1), 1, 400), 0.1, RATE),
        (by_day(range(24), 1, 60), 0.1, RATE),
        (by_day(range(24), 4, 3), 0.1, NO_REST),
        ([START + 600 * number for number in range(60)], 0.1, STEADY),
        (by_day(range(9, 10), 20, 1), 1.0, EVERYTHING),
    ],
)
def test_what_no_person_does_is_called_by_its_name(times: list[int], clicks: float, reason: str) -> None:
    assert implausible_clients([*people(), *searches("machine", times, clicks)]) == {"machine": reason}


@pytest.mark.parametrize(
    ("times", "clicks"),
    [
        (by_day(range(8, 20), 60, 10), 0.1),  # somebody at work: 120 searches a day
        (by_day(range(9, 10), 2, 3), 1.0),  # six searches, each answered well
        ([START] * 60, 0.1),  # all of one moment: the time of an import
        ([0] * 5_000, 0.1),  # no times known
    ],
)
def test_what_a_person_may_do_is_left_in(times: list[int], clicks: float) -> None:
    assert implausible_clients([*people(), *searches("busy", times, clicks)]) == {}


def test_where_everybody_clicks_much_nobody_is_conspicuous() -> None:
    eager = [replace(session, click_weights=(1.0,) * 10) for session in people()]
    assert implausible_clients([*eager, *searches("one more", by_day(range(9, 10), 20, 1), 1.0)]) == {}


def test_sessions_beyond_what_counts_of_a_client_are_left_out_and_counted() -> None:
    keen = searches("keen", [0] * 130)
    again = [replace(s, session_id=f"again {s.session_id}") for s in searches("fond", [0] * 9, query="lamp")]
    nobody = searches(None, [0] * 200, query="lamp")
    kept, left_out = counted_sessions([*keen, *again, *nobody])
    assert kept == [*keen[:100], *again[:3], *nobody]
    assert (left_out.beyond_cap, left_out.capped_clients, left_out.sessions) == (36, 2, 0)
    assert "36 sessions of 2 clients" in str(left_out)


def test_implausible_clients_are_left_out_with_their_number() -> None:
    kept, left_out = counted_sessions([*people(), *searches("machine", by_day(range(24), 4, 3))])
    assert kept == people()
    assert (dict(left_out.clients), left_out.sessions) == ({NO_REST: 1}, 288)
    assert str(left_out) == f"288 sessions of 1 implausible clients (1 for {NO_REST})"


def test_a_user_stands_in_for_a_client_that_is_not_known() -> None:
    named = [replace(s, client_id=None, user_id="ana") for s in searches("x", [0] * 120)]
    assert len(counted_sessions(named)[0]) == 100
