"""Promotions by alias, gate, person and rollback: one audit trail, the later one wins, nothing between is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from estudio_core import database
from estudio_core.context import context
from estudio_core.errors import NotEnoughDataError, ReleaseError, SupersededError
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.pipeline.put_back import put_back
from estudio_core.pipeline.refuse import refuse
from estudio_core.pipeline.request_release import request_release
from estudio_core.pipeline.rollback import rollback
from estudio_core.pipeline.take_up import take_up
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import ACTOR, observe_all
from estudio_core.vectordb.releases import live_release
from tests.pipeline.conftest import forget_plugins
from tests.pipeline.steps import initialize, release
from tests.snapshot import Snapshot, estudio_home

if TYPE_CHECKING:
    from estudio_core.experiments.model_registry import ModelRegistry
    from tests.pipeline.conftest import Shop

pytestmark = pytest.mark.e2e

__all__ = ["estudio_home"]


@pytest.fixture(scope="module")
def snapshot(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    made = Snapshot(postgres_server, tmp_path_factory.mktemp("promotion"))
    yield made
    made.drop()


@pytest.fixture
def versions(shop: Shop, small_model: Callable[..., Any], snapshot: Snapshot, tmp_path: Path) -> list[int]:
    """The live base model, and two candidates that passed through a gate."""
    if snapshot.kept is None:
        snapshot.keep(shop.database_url, _made_versions(small_model, tmp_path))
        forget_plugins()
    snapshot.restore(shop.database_url)
    return list(snapshot.kept)


def _made_versions(small_model: Callable[..., Any], folder: Path) -> list[int]:
    from estudio_core.models.storage import save_model

    initialize("shop")
    manager = open_plugin("shop").experiments
    made = [1]
    for seed in (2, 3):
        save_model(small_model(seed=seed), folder / f"model-{seed}")
        run = manager.start_iteration(f"run-{seed}")
        made.append(manager.register_model(folder / f"model-{seed}", run.run_id, metrics={"unseen_ndcg@10_gain": 0.1}))
    assert look() == []  # what Estudio itself moved is no request
    return made


@pytest.fixture
def conn(versions: list[int]) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


def registry() -> ModelRegistry:
    return open_plugin("shop").experiments.registry


def in_mlflow(alias: str, version: int) -> None:
    """Move an alias as MLflow's own interface does."""
    context.mlflow_client.client.set_registered_model_alias("shop", alias, str(version))


def look() -> list[ledger.Promotion]:
    with database.connect(autocommit=True) as connection:
        return observe_all(connection, context.mlflow_client)


def follow(run_id: str) -> str:
    """Do what the release run does that a moved alias starts; return the version it took up."""
    version = take_up("shop", run_id, {}, "the run", by_alias=True)
    release("shop", version, run_id)
    return version


def served(conn: psycopg.Connection) -> str:
    live = live_release(conn, "shop")
    assert live is not None
    return live.model_version


def test_a_champion_named_in_mlflow_goes_live_and_the_trail_says_how(
    versions: list[int], conn: psycopg.Connection
) -> None:
    in_mlflow("champion", versions[1])
    [waiting] = look()
    assert look() == [waiting]  # asked for once, however often one looks
    assert follow("run") == str(versions[1])
    assert look() == []
    assert served(conn) == "2"
    assert registry().aliases() == {"base": 1, "challenger": 3, "champion": 2, "previous": 1}
    last, first = ledger.history(conn, "shop")
    assert (first.way, first.actor, first.from_version, first.to_version) == ("initialize", "ana", None, "1")
    assert (last.way, last.actor, last.alias, last.from_version, last.to_version, last.outcome) == (
        *("alias", ACTOR, "champion", "1", "2", "live"),
    )
    assert last.numbers == {"unseen_ndcg_at_10_gain": 0.1, "recall_at_10": 1.0}
    assert last.release_id == live_release(conn, "shop").release_id  # type: ignore[union-attr]


def test_a_challenger_named_in_mlflow_goes_live_and_one_that_fine_tuning_named_does_not(
    versions: list[int], conn: psycopg.Connection
) -> None:
    assert registry().aliases()["challenger"] == 3
    in_mlflow("challenger", 2)
    assert follow("run") == "2"
    assert served(conn) == "2"
    assert registry().aliases() == {"base": 1, "champion": 2, "previous": 1}
    in_mlflow("challenger", 1)  # the same person wants the old one again
    assert follow("again") == "1"
    assert registry().aliases()["champion"] == 1


def test_a_release_that_fails_puts_the_alias_back_and_leaves_the_reason_on_the_version(
    versions: list[int], conn: psycopg.Connection
) -> None:
    before = registry().aliases()
    for run_id, alias in (("first", "champion"), ("second", "challenger")):
        in_mlflow(alias, 2)
        version = take_up("shop", run_id, {}, "the run", by_alias=True)
        put_back("shop", run_id, [f"verify: recall@10 is 0.2 in the {run_id}"])
        put_back("shop", run_id, [])  # cleared and run again
        assert registry().aliases() == before
        reason = f"verify: recall@10 is 0.2 in the {run_id}"
        assert registry().versions()[int(version)].tags["estudio.release"] == f"failed: {reason}"
        last = ledger.history(conn, "shop")[0]
        assert (last.outcome, last.reason) == ("failed", reason)
        assert look() == []
        assert served(conn) == "1"

    assert take_up("shop", "second", {}, "the run") == "2"  # somebody clears the whole run: it is open again
    release("shop", "2", "second")
    assert served(conn) == "2"


def test_of_two_promotions_the_later_wins_and_an_alias_moved_back_calls_its_release_off(
    versions: list[int], conn: psycopg.Connection
) -> None:
    in_mlflow("champion", 2)
    first = take_up("shop", "first", {}, "the run", by_alias=True)
    in_mlflow("champion", 3)  # while the first is being built; nobody has looked yet
    with pytest.raises(SupersededError, match=r"Version 2 .* any more\. Version 3 was asked for"):
        release("shop", first, "first")
    assert served(conn) == "1"
    assert registry().aliases()["champion"] == 3
    assert put_back("shop", "first", []) != ""  # nothing to put back: the alias belongs to the later one
    assert registry().aliases()["champion"] == 3
    assert follow("second") == "3"
    assert served(conn) == "3"
    outcomes = [(row.to_version, row.outcome) for row in ledger.history(conn, "shop")]
    assert outcomes == [("3", "live"), ("2", "superseded"), ("1", "live")]

    in_mlflow("champion", 2)
    assert len(look()) == 1
    in_mlflow("champion", 3)
    assert look() == []
    with pytest.raises(NotEnoughDataError, match="No moved alias"):
        take_up("shop", "third", {}, "the run", by_alias=True)
    assert ledger.history(conn, "shop")[0].outcome == "superseded"


def test_gate_approval_and_refusal_stand_in_the_same_trail(versions: list[int], conn: psycopg.Connection) -> None:
    registered = RegistrationManifest(
        version="3", promoted=True, reason="better", summary="", next_step="request_release", report_uri=""
    ).as_dict()
    assert refuse("shop", registered, "f0__release", "ben") == "Refused by ben."
    assert registry().versions()[3].tags["estudio.approval"] == "Refused by ben."
    request_release("shop", registered, "f1__release", "gate", "gate of f1")
    request_release("shop", registered, "f2__release", "approval", "ana")
    with pytest.raises(SupersededError):
        take_up("shop", "f1__release", {}, "fine_tune")
    release("shop", take_up("shop", "f2__release", {}, "fine_tune"), "f2__release")
    rows = [(row.way, row.actor, row.outcome) for row in ledger.history(conn, "shop")[:3]]
    assert rows == [("approval", "ana", "live"), ("gate", "gate of f1", "superseded"), ("approval", "ben", "refused")]
    assert registry().aliases() == {"base": 1, "champion": 3, "previous": 1}


def test_a_rollback_stands_in_the_trail_calls_off_a_build_and_leads_to_the_same_when_repeated(
    versions: list[int], conn: psycopg.Connection
) -> None:
    release("shop", take_up("shop", "manual", {"version": "2"}, "ana"), "manual")
    take_up("shop", "late", {"version": "3"}, "ana")
    for _ in range(2):
        rollback("shop", {}, "back", "ben")
        assert served(conn) == "1"
    assert look() == []
    with pytest.raises(SupersededError, match="asked for by ben"):
        release("shop", "3", "late")
    assert served(conn) == "1"
    row = ledger.history(conn, "shop")[0]
    assert (row.way, row.actor, row.from_version, row.to_version, row.outcome) == (
        *("rollback", "ben", "2", "1", "live"),
    )
    with pytest.raises(ReleaseError, match="no release 99"):
        rollback("shop", {"target": "99"}, "far", "ben")
    assert ledger.history(conn, "shop")[0] == row


def test_a_finished_release_run_that_is_run_again_undoes_neither_a_rollback_nor_a_later_release(
    versions: list[int], conn: psycopg.Connection
) -> None:
    in_mlflow("champion", versions[1])
    look()
    assert follow("second") == str(versions[1])
    second = live_release(conn, "shop")
    assert second is not None
    assert take_up("shop", "second", {}, "ana", by_alias=True) == str(versions[1])  # nothing has come after it
    rollback("shop", {}, "back", "ana")
    with pytest.raises(SupersededError, match=f"made release {second.release_id} live, and release"):
        take_up("shop", "second", {}, "ana", by_alias=True)
    live = live_release(conn, "shop")
    assert live is not None
    assert live.model_version == "1"
