"""From a request to a release run and back: who asks, what a run takes up, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estudio_core import database
from estudio_core.errors import NotEnoughDataError
from estudio_core.experiments.model_registry import FAILURE_TAG
from estudio_core.pipeline.manifests import RegistrationManifest
from estudio_core.pipeline.plugin_access import open_plugin
from estudio_core.plugin.run_params import ReleaseParams
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import observe
from estudio_core.vectordb.releases import live_release


def request_release(
    plugin_name: str, registered: dict[str, Any], release_run_id: str, way: ledger.Way, actor: str
) -> str:
    """Ask for the release of a registered candidate, which the run `release_run_id` carries out; return the version.

    Args:
        plugin_name: The plugin.
        registered: What `register_candidate` returned.
        release_run_id: Id that the run of `<plugin>__release` will have.
        way: `gate` or `approval`.
        actor: The run whose gate passed, or the person who approved.
    """
    wanted = RegistrationManifest.model_validate(registered)
    assert wanted.version is not None  # a dry run registers nothing and never comes here
    registry = open_plugin(plugin_name).get_manager().registry
    with database.connect(autocommit=True) as connection:
        promotion = ledger.request(
            connection,
            plugin_name,
            way,
            actor,
            wanted.version,
            run_id=release_run_id,
            reason=wanted.reason,
            numbers=registry.numbers_of(int(wanted.version)),
        )
    return promotion.to_version


def refuse_release(plugin_name: str, registered: dict[str, Any], release_run_id: str, actor: str) -> str:
    """Write down that a person refused a candidate, in the audit trail and on the model version; return the reason."""
    wanted = RegistrationManifest.model_validate(registered)
    assert wanted.version is not None
    reason = f"Refused by {actor}."
    registry = open_plugin(plugin_name).get_manager().registry
    with database.connect(autocommit=True) as connection:
        ledger.refuse(
            connection,
            plugin_name,
            actor,
            wanted.version,
            run_id=release_run_id,
            reason=reason,
            numbers=registry.numbers_of(int(wanted.version)),
        )
    registry.set_tags(int(wanted.version), {"estudio.approval": reason})
    return reason


def initialize_version(plugin_name: str, version: str, run_id: str, actor: str) -> str:
    """Ask for the first release of the base model; return its version.

    Raises:
        SupersededError: this is a rerun, and something newer was asked for or went live since.
    """
    with database.connect(autocommit=True) as connection:
        promotion = ledger.request(
            connection, plugin_name, "initialize", actor, version, run_id=run_id, reason="base model"
        )
        ledger.require_open(connection, promotion)
    return version


def take_up(plugin_name: str, run_id: str, params: dict[str, Any], actor: str, *, by_alias: bool = False) -> str:
    """Return the version that this release run makes live; a run that nobody asked for before asks itself.

    Args:
        plugin_name: The plugin.
        run_id: The run.
        params: Parameters of the run, for one that a person started.
        actor: Who started it.
        by_alias: Whether a moved alias started it: then the request decides, not the parameters.

    Raises:
        NotEnoughDataError: the alias was moved back, or another run has taken the request up: nothing is to be done.
        ConfigurationError: there is no such version or alias.
        SupersededError: a later request has taken the place of this one.
    """
    registry = open_plugin(plugin_name).get_manager().registry
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        promotion = ledger.of_run(connection, plugin_name, run_id)
        if promotion is None and by_alias:
            # Taken up before MLflow is asked: while MLflow is away, the run's retries find it as theirs.
            promotion = ledger.take_up(connection, plugin_name, run_id)
            if promotion is None:
                observe(connection, registry)
                promotion = ledger.take_up(connection, plugin_name, run_id)
            if promotion is None:
                raise NotEnoughDataError(f"No moved alias of {plugin_name!r} waits for a release any more.")
        elif promotion is None:
            number = registry.resolve(ReleaseParams.model_validate(params).version)
            promotion = ledger.request(
                connection,
                plugin_name,
                "manual",
                actor,
                str(number),
                run_id=run_id,
                numbers=registry.numbers_of(number),
            )
        promotion = ledger.reopen(connection, promotion)
        ledger.require_open(connection, promotion)
        return promotion.to_version


def put_back(plugin_name: str, run_id: str, errors: Sequence[str]) -> str:
    """Close the promotion of a failed run; the alias goes back, the reason goes on the model version. Return it.

    A promotion that went live before something failed stays as it is.
    """
    registry = open_plugin(plugin_name).get_manager().registry
    reason = " ".join(errors) or f"A task of run {run_id} ended without a message; see its log."
    with database.connect(autocommit=True) as connection:
        promotion = ledger.of_run(connection, plugin_name, run_id)
        if promotion is None:
            return reason
        promotion = ledger.end(connection, promotion, "failed", reason=reason)
        live = live_release(connection, plugin_name)
    if promotion.outcome == "failed":
        reason = promotion.reason  # of the first attempt, where this one is repeated
        registry.set_tags(int(promotion.to_version), {FAILURE_TAG: f"failed: {reason}"[:2000]})
        if promotion.alias == "challenger":
            registry.put_back("challenger", promotion.alias_before, reason=reason, actor=f"release {run_id}")
        if live is not None:
            registry.put_back("champion", int(live.model_version), reason=reason, actor=f"release {run_id}")
    return reason
