"""What a request that was lost on its way left behind is put right: rows of runs that are over, misplaced aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estudio_core.experiments.alias_audit import entries_of, foreign_moves_of
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.promotion import ledger
from estudio_core.promotion.turns import try_one_at_a_time
from estudio_core.vectordb.releases import Release, live_release, previous_release

if TYPE_CHECKING:
    import psycopg
    from mlflow.entities.model_registry import RegisteredModel

ACTOR = "the watcher"

ABANDONED_H = 24
"""Hours without a request or progress after which the run of an open promotion is taken to be over. One that works on
all the same loses nothing: its switch opens the promotion again."""


def end_abandoned(conn: psycopg.Connection) -> None:
    """End as failed the open promotions that no run works on: for `ABANDONED_H` hours no sign of life, or none came."""
    rows = conn.execute(
        "SELECT promotion_id FROM estudio.promotions p WHERE outcome = 'open' AND run_id IS NOT NULL"
        " AND GREATEST(requested_at, (SELECT max(updated_at) FROM estudio.progress g WHERE g.run_id = p.run_id"
        " AND g.dag_id LIKE p.plugin || '\\_\\_%%')) < clock_timestamp() - make_interval(hours => %s)",
        (ABANDONED_H,),
    ).fetchall()
    unheard = conn.execute(
        "SELECT promotion_id FROM estudio.promotions WHERE outcome = 'open' AND run_id IS NULL"
        " AND requested_at < clock_timestamp() - make_interval(hours => %s)",
        (ABANDONED_H,),
    ).fetchall()
    for (promotion_id,) in [*rows, *unheard]:
        promotion = ledger.get(conn, promotion_id)
        reason = (
            f"No run has taken it up for {ABANDONED_H} hours: is {promotion.plugin}__release in Airflow and not paused?"
            if promotion.run_id is None
            else f"Run {promotion.run_id} has shown no sign of life for {ABANDONED_H} hours."
        )
        ledger.end(conn, promotion, "failed", reason=reason)


def put_right(conn: psycopg.Connection, registry: ModelRegistry, model: RegisteredModel) -> None:
    """Let `champion` name the version that serves, and a failed challenger's alias what it named before.

    Where the version that serves is not registered any more, `champion` names nothing.

    Only where nothing is under way and nobody has moved the alias since: a run whose task to put it back did not reach
    MLflow, or was never run, has left it so.
    """
    last = ledger.history(conn, registry.name, 1)
    if foreign_moves_of(model) or not last or not _is_off(conn, model, last[0]):
        return
    with try_one_at_a_time(conn, registry.name) as alone:
        if not alone:
            return  # a switch or a rollback moves pointer and alias just now
        [latest] = ledger.history(conn, registry.name, 1)
        live = live_release(conn, registry.name)
        if latest.outcome == "open" or live is None:
            return
        if latest.outcome == "failed":
            _take_back(registry, model, latest)
        serving = int(live.model_version)
        if registry.aliases().get("champion") != (serving if serving in registry.versions() else None):
            _follow_pointer(conn, registry, latest, live)


def _is_off(conn: psycopg.Connection, model: RegisteredModel, last: ledger.Promotion) -> bool:
    live = live_release(conn, last.plugin)
    if live is None or last.outcome == "open":
        return False
    return str(model.aliases.get("champion", "")) != live.model_version or _is_left_behind(model, last)


def _is_left_behind(model: RegisteredModel, failed: ledger.Promotion) -> bool:
    """Return whether the alias `challenger` still names what somebody set it to for a release that failed."""
    if failed.outcome != "failed" or failed.alias != "challenger":
        return False
    told = next((entry for entry in reversed(entries_of(model)) if entry.alias == "challenger"), None)
    named = str(model.aliases.get("challenger", ""))
    return named == failed.to_version and told is not None and told.action == "set in MLflow"


def _take_back(registry: ModelRegistry, model: RegisteredModel, failed: ledger.Promotion) -> None:
    registry.tell_failure(int(failed.to_version), failed.reason)
    if _is_left_behind(model, failed):
        registry.put_back("challenger", failed.alias_before, reason=failed.reason, actor=ACTOR)


def _follow_pointer(conn: psycopg.Connection, registry: ModelRegistry, latest: ledger.Promotion, live: Release) -> None:
    if latest.outcome == "failed":
        registry.put_back("champion", int(live.model_version), reason=latest.reason, actor=ACTOR)
        return
    before = previous_release(conn, registry.name)
    registry.promote(
        live.model_version,
        reason=f"release {live.release_id} is live",
        actor=ACTOR,
        former=int(before.model_version) if before else None,
    )
