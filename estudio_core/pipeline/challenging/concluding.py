"""What follows from the verdict of an experiment: the challenger goes live, or is dropped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import Experiment
from estudio_core.errors import SupersededError
from estudio_core.pipeline.clean_up import clean_up
from estudio_core.pipeline.items.embed_writes import embed_writes
from estudio_core.pipeline.release.going_live import make_live
from estudio_core.plugin.registry import open_plugin
from estudio_core.promotion import ledger as promotions
from estudio_core.promotion.turns import one_at_a_time
from estudio_core.vectordb import releases, switching

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)

VERDICT_TAG = "estudio.experiment"
"""Tag of a model version: what the last experiment said of it."""


def carry_out(connection: psycopg.Connection, experiment: Experiment) -> Experiment:
    """Do what a decided experiment's verdict says, on an autocommit connection; one that has ended stays as it is."""
    with one_at_a_time(connection, experiment.plugin):
        experiment = ledger.get(connection, experiment.experiment_id)  # as it is once it is this one's turn
        if experiment.state != "decided":
            return experiment
        if experiment.verdict == "better":
            try:
                experiment = _promote(connection, experiment)
            except SupersededError as error:  # for good: asking again would be refused again
                reason = f"{experiment.reason} Not promoted: {error}"
                experiment = ledger.stop(connection, experiment, "its verdict", reason)
        if experiment.verdict != "better":
            _drop(connection, experiment)
        experiment = ledger.end(connection, experiment)
    clean_up(experiment.plugin, {})
    return experiment


def _promote(connection: psycopg.Connection, experiment: Experiment) -> Experiment:
    """Make the challenger live; where something else has gone live since the verdict, stop the experiment instead."""
    from estudio_core.inference.opening import ensure_served

    plugin = experiment.plugin
    challenger = releases.get_release(connection, experiment.challenger)
    live = releases.live_release(connection, plugin)
    if live is None or live.release_id not in (experiment.champion, experiment.challenger):
        now = "nothing is live any more" if live is None else f"release {live.release_id} went live"
        return ledger.stop(connection, experiment, "its verdict", f"{experiment.reason} Not promoted, because {now}.")
    for name in challenger.models:
        ensure_served(name)
    promotion = promotions.request(
        connection,
        plugin,
        "experiment",
        f"experiment {experiment.experiment_id}",
        challenger.model_version,
        run_id=_run_id(experiment),
        release_id=challenger.release_id,
        reason=experiment.reason,
        numbers=_numbers(experiment, challenger),
    )
    promotion = promotions.reopen(connection, promotion)
    promotions.require_open(connection, promotion)
    make_live(connection, promotion, lambda: switching.switch(connection, challenger, embed_writes(plugin)))
    _tag(connection, experiment, challenger)
    return experiment


def _drop(connection: psycopg.Connection, experiment: Experiment) -> None:
    challenger = releases.get_release(connection, experiment.challenger)
    if challenger.state == "live":
        return  # somebody has had it go live otherwise
    switching.drop_challenger(connection, challenger, actor=f"experiment {experiment.experiment_id}")
    promotions.refuse(
        connection,
        experiment.plugin,
        f"experiment {experiment.experiment_id}",
        challenger.model_version,
        run_id=_run_id(experiment),
        reason=experiment.reason,
        numbers=_numbers(experiment, challenger),
        way="experiment",
    )
    _tag(connection, experiment, challenger)


def _run_id(experiment: Experiment) -> str:
    return f"experiment {experiment.experiment_id}"


def _numbers(experiment: Experiment, challenger: releases.Release) -> dict[str, float]:
    weight = {} if challenger.index_info.lexical is None else {"words_weight": challenger.ranking.weight}
    standing = experiment.standing
    if standing is None:
        return weight
    return weight | {
        "experiment_credit": standing.credit,
        "experiment_low": standing.low,
        "experiment_high": standing.high,
        "experiment_visits": float(standing.decided),
    }


def _tag(connection: psycopg.Connection, experiment: Experiment, challenger: releases.Release) -> None:
    champion = releases.get_release(connection, experiment.champion)
    of_one = champion.model_version == challenger.model_version
    try:
        registry = open_plugin(experiment.plugin).experiments.registry
        weight = f" with the weight {challenger.ranking.weight:g} of words" if of_one else ""
        said = f"{experiment.verdict}{weight}. {experiment.reason}"
        registry.set_tags(int(challenger.model_version), {VERDICT_TAG: said})
    except Exception as error:  # what happened is in the database: whatever keeps MLflow from knowing undoes nothing
        logger.warning("MLflow does not say what experiment %s found: %s", experiment.experiment_id, error)
