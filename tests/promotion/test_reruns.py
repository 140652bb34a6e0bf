"""What a release run does that is cleared and run again from one of its steps, after a failure or after a rollback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from estudio_core.errors import SupersededError, TrackingUnavailableError
from estudio_core.pipeline import embed_shard as embed_shard_step
from estudio_core.pipeline.build_index import build_index
from estudio_core.pipeline.embed_shard import embed_shard
from estudio_core.pipeline.manifests import PublishedManifest, ShardManifest
from estudio_core.pipeline.publish_model import publish_model
from estudio_core.pipeline.put_back import put_back
from estudio_core.pipeline.register_base_model import register_base_model
from estudio_core.pipeline.rollback import rollback
from estudio_core.pipeline.start_collection import start_collection
from estudio_core.pipeline.switch import switch
from estudio_core.pipeline.take_up import take_up
from estudio_core.pipeline.verify import verify
from estudio_core.promotion import ledger
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import live_release, start_release
from tests.pipeline.conftest import forget_plugins

if TYPE_CHECKING:
    import psycopg

    from estudio_core.experiments.model_registry import ModelRegistry
    from estudio_core.vectordb.releases import Release

    Build = Callable[[str, str], Release]


def manifest(release: Release) -> dict[str, Any]:
    """What `verify` hands to `switch`."""
    return {"release_id": release.release_id, "recall_at_10": 1.0, "ef_search": 40, "golden_queries": 0}


def served(conn: psycopg.Connection) -> str:
    live = live_release(conn, "shop")
    assert live is not None
    return live.model_version


def away(monkeypatch: pytest.MonkeyPatch, registry: ModelRegistry, method: str) -> None:
    """Let MLflow be away for one method of the registry."""

    def unanswered(*_: Any, **__: Any) -> None:
        raise TrackingUnavailableError("MLflow does not answer")

    monkeypatch.setattr(type(registry), method, unanswered)


def test_a_switch_cleared_after_a_failure_is_open_again_and_the_trail_and_the_version_say_live(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, verified: Build
) -> None:
    live("first", "1")
    take_up("shop", "failed", {"version": "2"}, "ana")
    release = verified("failed", "2")
    put_back("shop", "failed", ["switch: no connection"])
    assert "estudio.release" in registry.versions()[2].tags
    switch("shop", manifest(release))
    assert served(conn) == "2"
    [row] = ledger.history(conn, "shop")
    assert (row.outcome, row.reason, row.release_id) == ("live", "", release.release_id)
    assert "estudio.release" not in registry.versions()[2].tags
    assert registry.aliases()["champion"] == 2


@pytest.mark.parametrize("way", ["manual", "rollback"])
def test_a_switch_cleared_after_a_failure_undoes_nothing_that_was_asked_for_since(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, verified: Build, way: ledger.Way
) -> None:
    live("first", "1")
    take_up("shop", "failed", {"version": "2"}, "ana")
    release = verified("failed", "2")
    put_back("shop", "failed", ["switch: no connection"])
    newer = ledger.request(conn, "shop", way, "ben", "1", run_id="newer")
    ledger.end(conn, newer, "live")
    for again in (lambda: switch("shop", manifest(release)), lambda: take_up("shop", "failed", {}, "ana")):
        with pytest.raises(SupersededError, match=r"failed to release version 2 .* version 1 was asked for by ben"):
            again()
    assert served(conn) == "1"
    assert ledger.history(conn, "shop")[1].outcome == "failed"


def test_a_run_cleared_after_a_failure_undoes_no_release_that_nobody_asked_for(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    take_up("shop", "failed", {"version": "2"}, "ana")
    put_back("shop", "failed", ["verify: recall@10 is 0.2"])
    second = live("second", "3")
    with pytest.raises(SupersededError, match=f"release {second.release_id} went live"):
        take_up("shop", "failed", {}, "ana")


def test_a_release_that_went_live_before_mlflow_went_away_is_live_in_the_trail(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, verified: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    live("first", "1")
    take_up("shop", "run", {"version": "2"}, "ana")
    release = verified("run", "2")
    with monkeypatch.context() as patch:
        away(patch, registry, "promote")
        assert "does not answer" in switch("shop", manifest(release)).note
    put_back("shop", "run", ["clean_up: killed"])
    assert ledger.history(conn, "shop")[0].outcome == "live"
    switch("shop", manifest(release))
    assert registry.aliases()["champion"] == 2


def test_an_open_promotion_whose_process_died_behind_the_pointer_is_live_whatever_comes_next(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    live("first", "1")
    take_up("shop", "died", {"version": "2"}, "ana")
    second = live("died", "2")
    put_back("shop", "died", ["switch: killed"])
    row = ledger.of_run(conn, "shop", "died")
    assert row is not None
    assert (row.outcome, row.release_id) == ("live", second.release_id)
    take_up("shop", "again", {"version": "3"}, "ana")
    third = live("again", "3")
    ledger.supersede(conn, "shop", "Version 1 was asked for by ben.")
    row = ledger.of_run(conn, "shop", "again")
    assert row is not None
    assert (row.outcome, row.release_id) == ("live", third.release_id)


def test_a_rollback_that_is_run_again_undoes_no_later_release(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build
) -> None:
    first = live("first", "1")
    live("second", "2")
    back = ledger.request(conn, "shop", "rollback", "ben", "1", run_id="back", release_id=first.release_id)
    ledger.end(conn, back, "live")
    live("third", "3")
    with pytest.raises(SupersededError, match=f"Run back made release {first.release_id} live"):
        rollback("shop", {}, "back", "ben")
    assert served(conn) == "3"


def test_an_initialization_that_is_run_again_undoes_no_later_release(
    registry: ModelRegistry,
    conn: psycopg.Connection,
    live: Build,
    small_model: Callable[..., Any],
    tmp_path: Path,
) -> None:
    model, plugin_file = small_model(seed=1), tmp_path / "plugins" / "shop.py"
    model.backbone.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    plugin_file.write_text(plugin_file.read_text().replace(f'"{tmp_path / "none"}"', f'"{tmp_path / "base"}"'))
    forget_plugins()
    conn.execute("CREATE TABLE products (id int PRIMARY KEY, title text)")
    base = register_base_model("shop", "first", "ana")
    promotion = ledger.of_run(conn, "shop", "first")
    assert promotion is not None
    ledger.end(conn, promotion, "live", release_id=live("first", base).release_id)
    assert register_base_model("shop", "first", "ana") == base  # nothing has come after it
    live("second", "2")
    with pytest.raises(SupersededError, match="running it again does not undo that"):
        register_base_model("shop", "first", "ana")


@pytest.mark.parametrize("end", ["superseded", "rolled back", "failed, then rolled back"])
def test_no_step_of_a_release_goes_on_once_something_newer_was_asked_for(
    registry: ModelRegistry, conn: psycopg.Connection, live: Build, end: str
) -> None:
    live("first", "1")
    take_up("shop", "run", {"version": "2"}, "ana")
    release = start_release(conn, "shop", "shop_v2", "2", SearchIndexInfo(dimensions=2), "run")
    if end.startswith("failed"):
        put_back("shop", "run", ["embed_shard: no connection"])
    way: ledger.Way = "manual" if end == "superseded" else "rollback"
    newer = ledger.request(conn, "shop", way, "ben", "1", run_id="newer")
    if way == "rollback":
        ledger.end(conn, newer, "live")
    entry = PublishedManifest(name="shop_v2", version="2", digest="d", dimensions=2).as_dict()
    shard = ShardManifest(label="1 of 1", release_id=release.release_id, after=None, until=None, count=1).as_dict()
    loaded = {"release_id": release.release_id, "label": "1 of 1", "items": 1, "parts": 1, "reused": 0}
    loaded |= {"invalid": {}, "invalid_items": 0, "seconds": 1.0}
    built = {"release_id": release.release_id, "items": 1, "parts": 1, "invalid_items": 0, "seconds": 1.0}
    steps: dict[str, Callable[[], Any]] = {
        "take_up": lambda: take_up("shop", "run", {}, "ana"),
        "publish_model": lambda: publish_model("shop", "2", "run"),
        "start_collection": lambda: start_collection("shop", entry, 1, "run"),
        "embed_shard": lambda: embed_shard("shop", shard),
        "build_index": lambda: build_index("shop", [loaded]),
        "verify": lambda: verify("shop", built),
        "switch": lambda: switch("shop", manifest(release)),
    }
    went_on = dict.fromkeys(steps, True)
    for step, rerun in steps.items():
        with suppress(SupersededError):
            rerun()
            continue
        went_on[step] = False
    assert not any(went_on.values()), went_on
    assert served(conn) == "1"


def test_a_shard_stops_between_items_once_something_newer_was_asked_for(
    registry: ModelRegistry, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_up("shop", "run", {"version": "2"}, "ana")
    release = start_release(conn, "shop", "shop_v2", "2", SearchIndexInfo(dimensions=2), "run")
    monkeypatch.setattr(embed_shard_step, "CHECK_S", 0.0)
    vector = np.zeros((1, 2), np.float32)
    items = (IndexedObject(str(number), {}, "h", vector) for number in range(3))
    wanted = embed_shard_step._while_wanted(items, release)
    assert next(wanted).object_id == "0"
    ledger.request(conn, "shop", "rollback", "ben", "1", run_id="back")
    with pytest.raises(SupersededError, match="asked for by ben"):
        next(wanted)
