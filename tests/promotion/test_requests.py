"""Requests that meet: what is asked for, refused or lost beside a promotion that is under way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from estudio_core import database
from estudio_core.errors import TrackingUnavailableError
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.pipeline import evaluate
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.pipeline.refuse import refuse
from estudio_core.pipeline.request_release import request_release
from estudio_core.pipeline.take_up import take_up
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import observe_all
from estudio_core.promotion.turns import one_at_a_time
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import psycopg

    from estudio_core.vectordb.releases import Release

    Build = Callable[[str, str], Release]

CANDIDATE = RegistrationManifest(
    version="3", promoted=True, reason="better", summary="", next_step="approve", report_uri=""
).as_dict()


def test_a_refusal_leaves_what_is_under_way_alone(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    take_up("shop", "run", {"version": "2"}, "ana")
    for _ in range(2):
        assert refuse("shop", CANDIDATE, "f__release", "ben") == "Refused by ben."
    rows = [(row.way, row.actor, row.from_version, row.to_version, row.outcome) for row in ledger.history(conn, "shop")]
    assert rows == [("approval", "ben", "1", "3", "refused"), ("manual", "ana", "1", "2", "open")]
    assert take_up("shop", "run", {}, "ana") == "2"


def test_a_refusal_ends_what_was_asked_for_by_the_same_run(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    request_release("shop", CANDIDATE, "f__release", "approval", "ana")
    refuse("shop", CANDIDATE, "f__release", "ben")
    [row] = ledger.history(conn, "shop")
    assert (row.outcome, row.reason) == ("refused", "Refused by ben.")


def test_a_candidate_is_compared_with_what_serves_whatever_the_alias_names(
    registry: ModelRegistry, live: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    live("first", "1")
    registry.set_alias("champion", 2, reason="never served", actor="ana")
    asked: list[str] = []

    def published(plugin: str, version: str) -> Any:
        asked.append(version)
        raise InterruptedError

    monkeypatch.setattr("estudio_core.pipeline.publish_model.publish_model", published)
    training: Any = type("Training", (), {"start_version": "2"})
    with pytest.raises(InterruptedError):
        evaluate._champion(None, open_plugin("shop"), training)  # type: ignore[arg-type]
    assert asked == ["1"]


def test_an_odd_model_leaves_the_aliases_of_others_alone(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    client = registry.wrapper.client
    for name in ("another", "shop"):
        if name != "shop":
            client.create_registered_model(name)
        client.set_registered_model_tag(name, "audit.2020", "approved by the board")
        client.set_registered_model_tag(name, "audit.2021", '{"at": 3}')
        client.set_registered_model_tag(name, "known.champion", "none")
    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")
    [waiting] = observe_all(conn, registry.wrapper)
    assert (waiting.plugin, waiting.to_version) == ("shop", "2")


def test_a_plugin_that_cannot_be_looked_at_leaves_the_others_alone(
    registry: ModelRegistry,
    conn: psycopg.Connection,
    live: Build,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = live("first", "1")
    client = registry.wrapper.client
    client.create_registered_model("a-broken-one")  # read first
    client.create_model_version("a-broken-one", "nowhere")
    client.set_registered_model_alias("a-broken-one", "champion", "1")
    conn.execute(
        "INSERT INTO estudio.pointers (plugin, release_id, switched_by) VALUES ('a-broken-one', %s, 'ana')",
        (release.release_id,),
    )
    conn.execute("UPDATE estudio.deployments SET model_version = 'x' WHERE release_id = %s", (release.release_id,))
    client.set_registered_model_alias("shop", "champion", "2")
    conn.execute("UPDATE estudio.pointers SET release_id = %s WHERE plugin = 'shop'", (live("second", "1").release_id,))
    [waiting] = observe_all(conn, registry.wrapper)
    assert waiting.plugin == "shop"
    assert "'a-broken-one' were not looked at" in caplog.text


def test_a_version_whose_run_is_gone_has_no_numbers(registry: ModelRegistry) -> None:
    assert registry.numbers_of(2) == {"unseen_ndcg_at_10_gain": 0.1}
    run_id = registry.versions()[2].run_id
    with sqlite3.connect(get_settings().home / "mlflow.db") as store:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            store.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))
    assert registry.numbers_of(2) == {}


def test_a_request_is_taken_up_while_mlflow_is_away(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    live("first", "1")
    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")
    observe_all(conn, registry.wrapper)

    def unanswered(self: ModelRegistry) -> None:
        raise TrackingUnavailableError("MLflow does not answer")

    monkeypatch.setattr(ModelRegistry, "foreign_moves", unanswered)
    assert take_up("shop", "run", {}, "the run", by_alias=True) == "2"
    assert ledger.waiting(conn) == []


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_an_alias_that_a_failed_run_could_not_put_back_is_put_back_by_the_watcher(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, alias: str
) -> None:
    live("first", "1")
    registry.promote(1, reason="first", actor="ana")
    registry.wrapper.client.set_registered_model_alias("shop", alias, "2")
    observe_all(conn, registry.wrapper)
    take_up("shop", "run", {}, "the run", by_alias=True)
    observe_all(conn, registry.wrapper)
    assert registry.aliases()[alias] == 2  # under way
    promotion = ledger.of_run(conn, "shop", "run")
    assert promotion is not None
    ledger.end(conn, promotion, "failed", reason="verify: recall@10 is 0.2")
    assert observe_all(conn, registry.wrapper) == []
    assert registry.aliases() == {"champion": 1, "challenger": 3}
    assert registry.versions()[2].tags["estudio.release"] == "failed: verify: recall@10 is 0.2"
    assert registry.audit_trail()[-1].reason == "verify: recall@10 is 0.2"
    trail = registry.audit_trail()
    assert observe_all(conn, registry.wrapper) == []
    assert registry.audit_trail() == trail


def test_an_alias_that_a_switch_could_not_move_follows_the_pointer(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    registry.promote(1, reason="first", actor="ana")
    take_up("shop", "run", {"version": "2"}, "ana")
    promotion = ledger.of_run(conn, "shop", "run")
    assert promotion is not None
    ledger.end(conn, promotion, "live", release_id=live("run", "2").release_id)
    with one_at_a_time(conn, "shop"), database.connect(autocommit=True) as other:
        observe_all(other, registry.wrapper)
        assert registry.aliases()["champion"] == 1  # the switch is at it
    observe_all(conn, registry.wrapper)
    assert registry.aliases() == {"champion": 2, "previous": 1, "challenger": 3}


def test_an_open_promotion_whose_run_is_over_is_ended_and_its_alias_put_back(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    registry.promote(1, reason="first", actor="ana")
    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")
    take_up("shop", "run", {}, "the run", by_alias=True)
    conn.execute("UPDATE estudio.promotions SET requested_at = requested_at - interval '2 days'")
    conn.execute(
        "INSERT INTO estudio.progress VALUES ('shop__release', 'run', 'embed_shard', 0, 'Embed', 1, 2, 'items', '')"
    )
    observe_all(conn, registry.wrapper)
    assert ledger.history(conn, "shop")[0].outcome == "open"  # it works
    conn.execute("UPDATE estudio.progress SET updated_at = updated_at - interval '2 days'")
    observe_all(conn, registry.wrapper)
    [row] = ledger.history(conn, "shop")
    assert (row.outcome, row.reason) == ("failed", "Run run has shown no sign of life for 24 hours.")
    assert registry.aliases()["champion"] == 1
