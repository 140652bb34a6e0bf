"""What serves decides: versions, tags and models that are gone, odd or too long stop nothing, and aliases follow."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from estudio_core.errors import ConfigurationError, ModelError, TrackingUnavailableError
from estudio_core.experiments.alias_audit import TAG_UNITS, cleaned, entries_of
from estudio_core.experiments.mlflow_client import MLflowClientWrapper
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.pipeline.put_back import put_back
from estudio_core.pipeline.release.going_live import make_live
from estudio_core.pipeline.take_up import take_up
from estudio_core.plugin.run_params import RollbackParams
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import observe_all
from estudio_core.vectordb import switching
from estudio_core.vectordb.releases import live_release

if TYPE_CHECKING:
    import psycopg

    from estudio_core.vectordb.releases import Release

    Build = Callable[[str, str], Release]


def go_live(conn: psycopg.Connection, release: Release) -> str:
    """Switch to a release as its run does; return what could not be done beside it."""
    promotion = ledger.request(conn, "shop", "manual", "ana", release.model_version, run_id=release.run_id)
    done = make_live(conn, promotion, lambda: switching.switch(conn, release, lambda release, writes, stored: []))
    return done.note


def go_back(conn: psycopg.Connection, run_id: str) -> str:
    target = live_release(conn, "shop")
    assert target is not None
    promotion = ledger.request(conn, "shop", "rollback", "ana", "1", run_id=run_id)
    done = make_live(conn, promotion, lambda: switching.rollback(conn, "shop", lambda release, writes, stored: []))
    return done.note


def test_a_rollback_to_a_version_that_was_deleted_serves_it_and_no_alias_names_another(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build
) -> None:
    assert go_live(conn, verified("first", "1")) == go_live(conn, verified("second", "2")) == ""
    assert registry.aliases() == {"champion": 2, "previous": 1, "challenger": 3}
    registry.wrapper.client.delete_model_version("shop", "1")
    note = go_back(conn, "back")
    assert "Version 1 is not registered in MLflow any more" in note
    live = live_release(conn, "shop")
    assert live is not None
    assert live.model_version == "1"
    assert registry.aliases() == {"previous": 2, "challenger": 3}
    row = ledger.history(conn, "shop")[0]
    assert (row.outcome, row.way, row.reason) == ("live", "rollback", note)
    trail = registry.audit_trail()
    for _ in range(2):
        assert observe_all(conn, registry.wrapper) == []
    assert registry.audit_trail() == trail, "nothing is left to mend, however often one looks"

    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")  # somebody wants the other one
    [waiting] = observe_all(conn, registry.wrapper)
    assert waiting.to_version == "2"
    assert go_live(conn, verified("again", "2")) == ""
    assert registry.aliases()["champion"] == 2


def test_aliases_follow_once_mlflow_answers_again(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_live(conn, verified("first", "1"))

    def away(self: MLflowClientWrapper, operation: object) -> None:
        raise TrackingUnavailableError("MLflow at sqlite does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(MLflowClientWrapper, "call", away)
        assert "does not answer" in go_live(conn, verified("second", "2"))
    assert registry.aliases()["champion"] == 1
    row = ledger.history(conn, "shop")[0]
    assert (row.outcome, "which the watcher mends" in row.reason) == ("live", True)
    observe_all(conn, registry.wrapper)
    assert registry.aliases() == {"champion": 2, "previous": 1, "challenger": 3}


def test_the_serving_version_is_deleted_and_the_next_release_goes_on(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build
) -> None:
    go_live(conn, verified("first", "1"))
    registry.wrapper.client.delete_model_version("shop", "1")
    assert observe_all(conn, registry.wrapper) == []
    assert registry.aliases() == {"challenger": 3}
    assert go_live(conn, verified("second", "2")) == ""
    assert registry.aliases() == {"champion": 2, "challenger": 3}


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_a_failed_release_of_a_version_that_was_deleted_meanwhile_puts_its_alias_back(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build, alias: str
) -> None:
    go_live(conn, verified("first", "1"))
    registry.wrapper.client.set_registered_model_alias("shop", alias, "2")
    take_up("shop", "run", {}, "the run", by_alias=True)
    registry.wrapper.client.delete_model_version("shop", "2")
    assert put_back("shop", "run", ["publish_model: no version 2"]) == "publish_model: no version 2"
    assert registry.aliases() == {"champion": 1, "challenger": 3}
    assert observe_all(conn, registry.wrapper) == []


def test_an_alias_that_would_go_back_to_a_deleted_version_names_nothing(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build
) -> None:
    go_live(conn, verified("first", "1"))
    registry.wrapper.client.set_registered_model_alias("shop", "challenger", "2")
    take_up("shop", "run", {}, "the run", by_alias=True)
    registry.wrapper.client.delete_model_version("shop", "3")  # what the alias named before
    put_back("shop", "run", ["verify: recall"])
    assert registry.aliases() == {"champion": 1}


@pytest.mark.parametrize(
    "reason",
    ["Причина " * 250, "🙂" * 2000, '"\\' * 3000, "line\n\tend\x00\x1b[31m" * 400, "lone \ud800 half", "x" * 100_000],
)
def test_a_reason_of_any_length_and_letters_fits_where_it_is_stored(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build, reason: str
) -> None:
    go_live(conn, verified("first", "1"))
    registry.wrapper.client.set_registered_model_alias("shop", "champion", "2")
    take_up("shop", "run", {}, "the run", by_alias=True)
    for _ in range(2):
        put_back("shop", "run", [reason])
    assert registry.aliases()["champion"] == 1
    model = registry.wrapper.client.get_registered_model("shop")
    texts = [*model.tags.values(), *registry.versions()[2].tags.values()]
    assert max(len(text.encode("utf-16-le")) // 2 for text in texts) <= TAG_UNITS
    assert all(text.encode() and "\x00" not in text for text in texts)
    last = entries_of(model)[-1]
    assert last.reason[:100].strip("…") in cleaned(reason)
    assert cleaned(reason) in ledger.history(conn, "shop", 1)[0].reason
    assert len([e for e in entries_of(model) if e.action == "put back"]) == 1, "told once, though cut"


def test_numbers_without_end_leave_the_entry_readable(registry: ModelRegistry) -> None:
    numbers = {f"metric_of_a_very_long_name_{i}": i / 7 for i in range(500)}
    registry.set_alias("base", 1, reason="r" * 3000, actor="a" * 3000, numbers=numbers)
    model = registry.wrapper.client.get_registered_model("shop")
    assert max(len(text) for text in model.tags.values()) <= TAG_UNITS
    entry = entries_of(model)[-1]
    assert entry.numbers["metric_of_a_very_long_name_3"] == 3 / 7
    assert 10 < len(entry.numbers) < 500


def test_a_version_that_somebody_registered_by_hand_is_named_and_stops_no_other(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build, tmp_path: Path
) -> None:
    go_live(conn, verified("first", "1"))
    client = registry.wrapper.client
    client.create_model_version("shop", str(tmp_path / "nowhere"))
    assert registry.resolve("4") == 4
    with pytest.raises(ModelError, match=r"Version 4 .* was not registered by Estudio"):
        registry.download(4)
    assert registry.download(2).is_dir()
    client.set_registered_model_alias("shop", "champion", "4")
    [waiting] = observe_all(conn, registry.wrapper)
    assert (waiting.to_version, waiting.numbers) == ("4", {})


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_stops_no_promotion(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build, figure: float
) -> None:
    go_live(conn, verified("first", "1"))
    client = registry.wrapper.client
    client.log_metric(str(registry.versions()[2].run_id), "seen_gain", figure)
    client.set_registered_model_alias("shop", "champion", "2")
    [waiting] = observe_all(conn, registry.wrapper)
    assert waiting.to_version == "2"
    stored = {} if math.isnan(figure) else {"seen_gain": math.copysign(sys.float_info.max, figure)}  # MLflow's infinity
    assert {name: float(value) for name, value in waiting.numbers.items()} == {"unseen_ndcg_at_10_gain": 0.1, **stored}
    assert take_up("shop", "run", {}, "the run", by_alias=True) == "2"
    assert ledger.end(conn, waiting, "failed", numbers={"recall_at_10": figure}).numbers == waiting.numbers


@pytest.mark.parametrize("number", ["9" * 5000, "10000000000000000000", "0", "-1", "1.0", "champion2"])
def test_a_number_beyond_all_versions_is_refused_as_any_other(registry: ModelRegistry, number: str) -> None:
    with pytest.raises(ConfigurationError, match="has no version or alias"):
        registry.resolve(number)
    with pytest.raises(ConfigurationError, match="should match pattern"):
        RollbackParams.model_validate({"target": number})


def test_a_model_that_was_renamed_or_exchanged_in_mlflow_stops_no_rollback_and_is_followed_again(
    registry: ModelRegistry, conn: psycopg.Connection, verified: Build, tmp_path: Path
) -> None:
    go_live(conn, verified("first", "1"))
    go_live(conn, verified("second", "2"))
    client = registry.wrapper.client
    client.rename_registered_model("shop", "shop_of_last_year")
    assert "Model 'shop' has no version or alias '1'" in go_back(conn, "back")
    assert observe_all(conn, registry.wrapper) == []
    with pytest.raises(ConfigurationError, match="has no version or alias '2'"):
        take_up("shop", "run", {"version": "2"}, "ana")
    client.rename_registered_model("shop_of_last_year", "shop")
    assert observe_all(conn, registry.wrapper) == []
    assert registry.aliases() == {"champion": 1, "previous": 2, "challenger": 3}

    client.delete_registered_model("shop")  # and another team takes the name
    client.create_registered_model("shop")
    client.create_model_version("shop", str(tmp_path / "theirs"))
    client.set_registered_model_alias("shop", "champion", "1")
    assert observe_all(conn, registry.wrapper) == [], "what serves is called 1 too"
    with pytest.raises(ModelError, match="was not registered by Estudio"):
        registry.download("champion")
    assert "Version 2 is not registered in MLflow any more" in go_back(conn, "back again")
    assert observe_all(conn, registry.wrapper) == []
    assert registry.aliases() == {"previous": 1}


def test_odd_entries_of_the_trail_are_left_out(registry: ModelRegistry, conn: psycopg.Connection, live: Build) -> None:
    live("first", "1")
    client = registry.wrapper.client
    odd = {"at": "9999", "action": "set", "alias": "champion", "from_version": "one", "to_version": [2], "actor": 3}
    client.set_registered_model_tag("shop", "audit.1", json.dumps(odd | {"reason": None, "numbers": {}}))
    client.set_registered_model_tag("shop", "audit.2", json.dumps(odd | {"alias": None, "reason": "", "numbers": 1}))
    client.set_registered_model_tag("shop", "audit.3", "[" * 4990)
    client.set_registered_model_tag("shop", "audit.4", '{"to_version": 1e999}')
    client.set_registered_model_tag("shop", "known.challenger", "9" * 4990)
    client.set_registered_model_tag("shop", "known.champion", "²")
    client.set_registered_model_alias("shop", "champion", "2")
    [waiting] = observe_all(conn, registry.wrapper)
    assert waiting.to_version == "2"


def test_files_that_are_gone_are_named(registry: ModelRegistry) -> None:
    import shutil

    shutil.rmtree(Path(registry.versions()[2].source.removeprefix("file://")))
    with pytest.raises(ModelError, match="files of version 2 of 'shop' cannot be fetched"):
        registry.download(2)


@pytest.mark.parametrize("given", ["²", "two", "99", ""])
def test_no_version_of_that_name_is_said_without_a_word_of_python(registry: ModelRegistry, given: str) -> None:
    with pytest.raises(ConfigurationError, match="has no version or alias"):
        registry.resolve(given)


def test_what_mlflow_refuses_comes_as_an_error_of_estudio(registry: ModelRegistry) -> None:
    with pytest.raises(ConfigurationError, match=r"refuses \(RESOURCE_DOES_NOT_EXIST\)"):
        registry.wrapper.call(lambda client: client.get_model_version("shop", "99"))
    with pytest.raises(ConfigurationError, match=r"refuses \(INVALID_PARAMETER_VALUE\)"):
        registry.wrapper.call(lambda client: client.set_registered_model_alias("shop", "an odd / alias", "1"))
