"""Watching a live release: measured by hand where it can be, drift answered once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from estudio_core import database
from estudio_core.airflow_ui import content, pages
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import NothingLiveError
from estudio_core.monitoring.ledger import history
from estudio_core.pipeline.measure import measure
from estudio_core.promotion.trainings import note_training
from estudio_core.searching import search
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

OLD, NEW = ("lamp", "chair", "kettle"), ("weather in rome", "opening hours", "return policy")
NOW = datetime.now(UTC)
TRAINED = NOW - timedelta(days=3)


@pytest.fixture
def conn(indexed_shop: Shop) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


def log(conn: psycopg.Connection, kinds: tuple[str, ...], sessions: int, at: datetime, rate: float, name: str) -> None:
    """Searches for `kinds`; the topmost of three results is clicked at `rate`."""
    rng = random.Random(name)
    queries, events = [], []
    for number in range(sessions):
        query_id = f"{name}{number}"
        shown = tuple(str(i) for i in rng.sample(range(60), 3))
        moment = at + timedelta(seconds=number)
        text = f"{kinds[number % len(kinds)]} {number % 12}"
        queries.append(UbiQuery(query_id, text, moment, "shop", query_response_hit_ids=shown))
        if rng.random() < rate:
            events.append(UbiEvent(f"e-{query_id}", "click", query_id, moment, "shop", object_id=shown[0]))
    store = ClickstreamStore(conn)
    store.log_queries(queries)
    store.log_events(events)


def trained(conn: psycopg.Connection, until: datetime, run_id: str = "tune") -> None:
    note_training(
        conn, "shop", run_id, until=until, version="1", promoted=True, reason="", report_uri="none", numbers={}
    )


def test_nothing_live_is_nothing_to_watch(shop: Shop) -> None:
    with pytest.raises(NothingLiveError):
        measure("shop", "one", {})


def test_before_the_first_session_index_and_encoder_are_measured(conn: psycopg.Connection) -> None:
    seen = measure("shop", "one", {})
    assert (seen.sessions, seen.reaction, seen.drift) == (0, "none", [])
    assert seen.numbers["index_rows"] == 60
    assert seen.numbers["index_bytes"] > 8192
    assert 0 < seen.numbers["encoder_p50_ms"] <= seen.numbers["encoder_p99_ms"]
    assert "ndcg_at_10" not in seen.numbers
    assert "Nothing was trained yet" in seen.summary
    assert [row.run_id for row in history(conn, "shop")] == ["one"]


def test_the_live_release_is_judged_by_fresh_clicks_corrected_for_position(conn: psycopg.Connection) -> None:
    best = [hit.object_id for hit in search("shop", "red lamp", limit=10).hits]
    at = NOW - timedelta(hours=1)
    # Shown at the top and clicked in one of two sessions, and shown below it and clicked in none: grades 1/2 and 0.
    queries = [UbiQuery(f"q{i}", "red lamp", at, "shop", query_response_hit_ids=(best[0], best[1])) for i in range(2)]
    store = ClickstreamStore(conn)
    store.log_queries(queries)
    store.log_events([UbiEvent("e", "click", "q0", at, "shop", object_id=best[0])])
    first = measure("shop", "first", {})
    assert first.numbers["ndcg_at_10"] == 1
    assert first.numbers["judged_queries"] == 1
    assert first.numbers["clicked_sessions"] == 0.5
    assert first.numbers["click_rate_1"] == 0.5
    assert first.numbers["click_rate_2"] == 0
    assert first.numbers["recall_at_10"] == 1

    # A click on what the live release ranks second, at position 5: examination 1/5 (exponent 1), so its grade is 1
    # where that of the first stays 1/2.
    others = tuple(str(i) for i in range(60) if str(i) not in best[:2])[:4]
    store.log_queries([UbiQuery("q2", "red lamp", at, "shop", query_response_hit_ids=(*others, best[1]))])
    store.log_events([UbiEvent("e2", "click", "q2", at, "shop", object_id=best[1])])
    second = measure("shop", "second", {})
    low, high = 0.5, 1.0  # what clicks tell are gains, not grades
    discount = 0.6309297535714575  # 1 / log2(3)
    assert second.numbers["ndcg_at_10"] == pytest.approx((low + high * discount) / (high + low * discount))


def test_drift_starts_one_training_however_often_it_is_seen_and_the_next_training_is_a_new_mark(
    conn: psycopg.Connection,
) -> None:
    params: dict[str, Any] = {"on_drift": "train", "min_sessions": 50}
    log(conn, OLD, 300, TRAINED - timedelta(days=1), 0.6, "old")
    trained(conn, TRAINED)
    log(conn, OLD, 120, NOW - timedelta(hours=2), 0.6, "same")
    calm = measure("shop", "calm", params)
    assert (calm.reaction, calm.drift) == ("none", [])
    assert calm.summary.startswith("No drift: ")
    assert calm.reference_sessions == 300
    assert calm.numbers["new_queries"] == 0

    log(conn, NEW, 240, NOW - timedelta(hours=1), 0.1, "new")
    drifted = measure("shop", "drifted", params)
    assert drifted.reaction == "train"
    assert drifted.drift == ["new_queries", "query_shift", "click_drop"]
    assert drifted.numbers["new_queries"] == pytest.approx(240 / 360)
    assert "67% of sessions ask what training never saw" in drifted.summary
    assert measure("shop", "drifted", params).reaction == "train"  # the run was cleared
    again = measure("shop", "again", params)
    assert (again.reaction, again.drift) == ("none", drifted.drift)
    assert again.summary.endswith("A training was asked for by drifted.")

    trained(conn, NOW - timedelta(minutes=90), "tune 2")
    assert measure("shop", "after", params).reaction == "train"


def test_drift_that_is_only_told_is_told_once(conn: psycopg.Connection) -> None:
    log(conn, OLD, 200, TRAINED - timedelta(days=1), 0.6, "old")
    trained(conn, TRAINED)
    few = measure("shop", "few", {})
    assert "0 sessions since the last training; drift is measured from 100 on" in few.summary
    log(conn, OLD, 200, NOW - timedelta(hours=2), 0.2, "unclicked")
    first = measure("shop", "first", {})
    assert (first.reaction, first.drift) == ("notify", ["click_drop"])
    second = measure("shop", "second", {})
    assert second.reaction == "none"
    assert second.summary.endswith("This was told by first.")
    log(conn, NEW, 200, NOW - timedelta(hours=1), 0.2, "new")
    assert measure("shop", "third", {}).reaction == "notify"  # there is something new to tell
    assert measure("shop", "bounds", {"click_drop": 0.9, "new_queries": 1.0, "query_shift": 2.0}).drift == []


@pytest.mark.usefixtures("indexed_shop")
def test_the_page_of_a_model_shows_the_manifest_of_this_plugin_s_entries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = content.model("shop", "shop_v1")
    assert found is not None
    page = pages.model_page(*found)
    assert found[0].digest in page
    assert found[0].files["1/model.onnx"] in page
    assert "by ONNX Runtime" in page
    for name in ("shop_v2", "books_v1", "..", "shop_v1/../shop_v1"):
        assert content.model("shop", name) is None
    assert content.model("books", "shop_v1") is None
    monkeypatch.setenv("ESTUDIO_INFERENCE", "triton")
    monkeypatch.setenv("ESTUDIO_INFERENCE_GRPC_PORT", "1")
    get_settings.cache_clear()
    away = content.model("shop", "shop_v1")
    assert away is not None
    assert "Triton at 127.0.0.1:1: " in away[1]
    assert "did not answer" in away[1]
    assert "loaded and ready" not in away[1]
