"""Requests that meet: what is asked for, refused or lost beside a promotion that is under way."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from estudio_core.pipeline import evaluate
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.pipeline.plugin_access import open_plugin
from estudio_core.pipeline.promote import refuse_release, request_release, take_up
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import observe_all
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import psycopg

    from estudio_core.experiments.model_registry import ModelRegistry
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
        assert refuse_release("shop", CANDIDATE, "f__release", "ben") == "Refused by ben."
    rows = [(row.way, row.actor, row.from_version, row.to_version, row.outcome) for row in ledger.history(conn, "shop")]
    assert rows == [("approval", "ben", "1", "3", "refused"), ("manual", "ana", "1", "2", "open")]
    assert take_up("shop", "run", {}, "ana") == "2"


def test_a_refusal_ends_what_was_asked_for_by_the_same_run(registry: ModelRegistry, conn: psycopg.Connection) -> None:
    request_release("shop", CANDIDATE, "f__release", "approval", "ana")
    refuse_release("shop", CANDIDATE, "f__release", "ben")
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

    monkeypatch.setattr("estudio_core.pipeline.publish.publish_model", published)
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
    conn.execute(
        "UPDATE estudio.pointers SET release_id = %s WHERE plugin = 'shop'", (live("second", "1").release_id,)
    )
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
