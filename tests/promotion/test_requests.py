"""Requests that meet: what is asked for, refused or lost beside a promotion that is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from estudio_core.pipeline import evaluate
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.pipeline.plugin_access import open_plugin
from estudio_core.pipeline.promote import refuse_release, request_release, take_up
from estudio_core.promotion import ledger

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
