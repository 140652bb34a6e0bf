"""Vectors moved between two trainings: measured, bounded, taken back, ended by the next release."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.errors import NotEnoughDataError, ReleaseError
from estudio_core.improvement import ledger
from estudio_core.pipeline.adjust import adjust
from estudio_core.pipeline.apply import apply
from estudio_core.pipeline.improvement.moved_vectors import read_moved
from estudio_core.pipeline.revert import revert
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import live_release
from estudio_core.vectordb.search import find_by_ids
from tests.pipeline.steps import initialize, release

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

pytestmark = pytest.mark.e2e

IDS = [str(number) for number in range(60)]
PARAMS: dict[str, Any] = {"before_release_days": 1, "min_held_out_queries": 5}

HARMFUL = """
from estudio_core import VectorsAdjuster

class Harmful(VectorsAdjuster):
    def adjust_vectors(self, data_for_improvement):
        for session in data_for_improvement:
            for element in session.clicked_elements:
                element.vector = element.vector - 0.5 * session.query.vector
        return data_for_improvement
"""


@pytest.fixture
def conn(shop: Shop) -> Iterator[psycopg.Connection]:
    # The shop's words tell its kinds of products apart, and leave nothing for vectors to improve.
    shop.rewrite_plugin("import DagSettings", "import TextIndex, DagSettings")
    shop.rewrite_plugin(
        "    dag=DagSettings(shards=2),", "    dag=DagSettings(shards=2), index=TextIndex(lexical=None),"
    )
    initialize("shop")
    shop.search_sessions(1_200, variants=40)
    with database.connect(autocommit=True) as connection:
        yield connection


def vectors(conn: psycopg.Connection, user: str | None = None) -> dict[str, Any]:
    live = live_release(conn, "shop")
    assert live is not None
    found = find_by_ids(conn, live.collection, IDS, user_id=user, with_vectors=True)
    return {entry.original_id or entry.object_id: entry.vectors for entry in found}


def greatest_angle(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Degrees between the part vectors that were turned most."""
    cosines = [
        (before[i] * after[i]).sum(1) / np.linalg.norm(before[i], axis=1) / np.linalg.norm(after[i], axis=1)
        for i in before
    ]
    return float(np.degrees(np.arccos(np.clip(min(c.min() for c in cosines), -1, 1))))


def run(run_id: str, **params: Any) -> Any:
    manifest = adjust("shop", run_id, PARAMS | params)
    apply("shop", run_id, manifest.as_dict())
    return manifest


def test_clicks_move_vectors_within_the_bound_over_all_runs_and_the_next_release_ends_it(
    shop: Shop, conn: psycopg.Connection
) -> None:
    before = vectors(conn)
    began = datetime.now(UTC) + timedelta(seconds=1)
    manifest = run("one")
    assert manifest.state == "applied"
    assert datetime.fromisoformat(manifest.until) < began - timedelta(minutes=30)  # later clicks are on their way
    assert manifest.gain > 0
    assert manifest.objects > 10
    after = vectors(conn)
    assert 0.5 < greatest_angle(before, after) <= 10.01
    apply("shop", "one", manifest.as_dict())  # cleared and run again
    assert greatest_angle(after, vectors(conn)) < 0.01
    assert [entry.run_id for entry in ledger.history(conn, "shop")] == ["one"]

    with pytest.raises(NotEnoughDataError, match="0 clicked sessions to learn from since"):
        adjust("shop", "two", PARAMS)
    for number in range(3):  # the same sessions again and again: the bound is over all runs
        conn.execute("UPDATE estudio.improvements SET until = until - interval '1 day'")
        run(f"again-{number}")
    assert greatest_angle(before, vectors(conn)) <= 10.01

    shop.sql("UPDATE products SET title = 'a garden hose' WHERE id = 3")
    release("shop", "1", "next")
    fresh = vectors(conn)
    assert greatest_angle({i: before[i] for i in IDS if i != "3"}, {i: fresh[i] for i in IDS if i != "3"}) < 0.01
    with pytest.raises(ReleaseError, match="is not live any more"):
        apply("shop", "late", manifest.as_dict())


def test_what_was_moved_can_be_taken_back(conn: psycopg.Connection) -> None:
    before = vectors(conn)
    run("one")
    assert revert("shop", "back", "ana") > 10
    assert all((before[i] == after).all() for i, after in vectors(conn).items())
    assert ledger.history(conn, "shop")[0].reason == "Taken back by ana."

    conn.execute("UPDATE estudio.improvements SET until = until - interval '1 day'")
    newer = run("two")
    moved = vectors(conn)
    assert revert("shop", "back", "ana") > 10  # cleared: the improvement since then is not its business
    assert greatest_angle(moved, vectors(conn)) < 0.01
    assert ledger.history(conn, "shop")[0].run_id == "two"
    assert newer.state == "applied"


def test_an_adjuster_that_harms_is_not_served_and_moved_vectors_that_harm_switch_it_off(
    shop: Shop, conn: psycopg.Connection
) -> None:
    run("good")
    moved = vectors(conn)
    shop.rewrite_plugin("from estudio_core import TextIndex", HARMFUL + "from estudio_core import TextIndex")
    shop.rewrite_plugin("dag=DagSettings(shards=2),", "dag=DagSettings(shards=2), vectors_adjuster=Harmful(),")
    conn.execute("UPDATE estudio.improvements SET until = until - interval '1 day'")
    refused = run("harmful")
    assert refused.state == "refused"
    assert refused.gain_high < 0
    assert "a gain has to be certain" in refused.reason
    assert greatest_angle(moved, vectors(conn)) < 0.01

    # What was moved before turns out to harm: these vectors are served after all.
    live = live_release(conn, "shop")
    assert live is not None
    with ArtifactStore().fetch(refused.uri) as folder, conn.transaction():
        assert ledger.apply(conn, live, read_moved(folder)) > 10
    base = {stored_id: rows for stored_id, (_, rows) in ledger.base_vectors(conn, live).items()}
    conn.execute("UPDATE estudio.improvements SET until = until - interval '1 day'")
    off = run("off")
    assert off.state == "off"
    assert ledger.base_vectors(conn, live) == {}
    after = vectors(conn)
    assert all((base[i] == after[i]).all() for i in base)
    with pytest.raises(NotEnoughDataError, match="Switched off for release 1 since"):
        adjust("shop", "more", PARAMS)
    revert("shop", "by hand", "ana")
    with pytest.raises(NotEnoughDataError, match="Switched off for release 1 since"):
        adjust("shop", "still off", PARAMS)


def test_vectors_of_one_user_change_nothing_for_the_others(shop: Shop, conn: psycopg.Connection) -> None:
    before = vectors(conn)
    shop.sql("UPDATE estudio.ubi_queries SET user_id = 'u1'")
    manifest = run("one", personal=True)
    assert (manifest.state, manifest.users) == ("applied", 1)
    assert all((before[i] == after).all() for i, after in vectors(conn).items())
    assert greatest_angle(before, vectors(conn, "u1")) > 0.5
    assert greatest_angle(before, vectors(conn, "u2")) < 0.01
    revert("shop", "back", "ana")
    assert greatest_angle(before, vectors(conn, "u1")) < 0.01


def test_personal_vectors_end_with_the_text_they_were_made_of_and_an_application_s_own_are_left_alone(
    shop: Shop, conn: psycopg.Connection
) -> None:
    shop.sql("UPDATE estudio.ubi_queries SET user_id = 'u1'")
    live = live_release(conn, "shop")
    assert live is not None
    [original] = find_by_ids(conn, live.collection, ["4"], with_vectors=True)
    assert original.vectors is not None
    own = IndexedObject("mine", None, original.content_hash, -original.vectors, user_id="u1", original_id="4")
    live.collection.upsert_objects(conn, [own])
    assert run("one", personal=True).state == "applied"
    assert (vectors(conn, "u1")["4"] == -original.vectors).all()
    assert greatest_angle({"3": vectors(conn)["3"]}, {"3": vectors(conn, "u1")["3"]}) > 0.5

    # The item's text changes, and with it its vectors: those of the user were made of what it was.
    [changed] = find_by_ids(conn, live.collection, ["3"], with_vectors=True)
    assert changed.vectors is not None
    live.collection.upsert_objects(conn, [IndexedObject("3", changed.payload, "another text", -changed.vectors)])
    conn.execute("UPDATE estudio.improvements SET until = until - interval '1 day'")
    run("two", personal=True)
    assert greatest_angle({"3": vectors(conn)["3"]}, {"3": vectors(conn, "u1")["3"]}) <= 10.01
    hashes = {entry.content_hash for entry in find_by_ids(conn, live.collection, ["3"], user_id="u1")}
    assert hashes == {"another text"}
    assert (vectors(conn, "u1")["4"] == -original.vectors).all()

    # A row that no session is about any more goes as well.
    [_, *rest] = ledger.base_vectors(conn, live)
    stale = next(stored_id for stored_id in rest if "\x1f" in stored_id)
    item = stale.partition("\x1f")[0]
    [before] = find_by_ids(conn, live.collection, [item], with_vectors=True)
    assert before.vectors is not None
    live.collection.upsert_objects(conn, [IndexedObject(item, before.payload, "yet another", before.vectors)])
    with conn.transaction():
        assert ledger.drop_stale(conn, live) == 1
        assert ledger.drop_stale(conn, live) == 0
    assert stale not in ledger.base_vectors(conn, live)
    assert [entry.user_id for entry in find_by_ids(conn, live.collection, [item], user_id="u1")] == [None]
