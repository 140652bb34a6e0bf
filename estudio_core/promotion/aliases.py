"""Aliases that somebody moved in MLflow, turned into requests for a promotion."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from estudio_core.experiments.alias_audit import AliasMove, foreign_moves_of
from estudio_core.experiments.mlflow_client import is_connection_error
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.promotion import ledger, reconcile
from estudio_core.vectordb.releases import live_release

if TYPE_CHECKING:
    import psycopg
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

    from estudio_core.experiments.mlflow_client import MLflowClientWrapper

logger = logging.getLogger(__name__)

ACTOR = "somebody in MLflow"
"""MLflow's registry does not say who moved an alias."""


def observe_all(connection: psycopg.Connection, wrapper: MLflowClientWrapper) -> list[ledger.Promotion]:
    """Write down what somebody asked for in MLflow since the last look, and return what waits for a release run.

    What a lost request left behind is put right (see `reconcile`).
    One read of the registry, whatever the number of plugins. Models of others, and plugins that are not live, are left
    alone; a model that cannot be read is logged and leaves the others alone.

    Raises:
        TrackingUnavailableError, DatabaseUnavailableError: a server does not answer.
    """
    reconcile.end_abandoned(connection)
    ours = {row[0] for row in connection.execute("SELECT plugin FROM estudio.pointers").fetchall()}
    for model in wrapper.call(_all_models):
        if model.name not in ours:
            continue
        try:
            registry = ModelRegistry(wrapper, model.name)
            _observe(connection, registry, foreign_moves_of(model))
            reconcile.put_right(connection, registry, model)
        except Exception as error:
            if connection.broken or is_connection_error(error):
                raise
            logger.exception("The aliases of the model %r were not looked at", model.name)
    return ledger.waiting(connection)


def observe(connection: psycopg.Connection, registry: ModelRegistry) -> None:
    """Write down what somebody asked for in MLflow since the last look, for one plugin."""
    _observe(connection, registry, registry.foreign_moves())


def _observe(connection: psycopg.Connection, registry: ModelRegistry, moves: Iterable[AliasMove]) -> None:
    live = live_release(connection, registry.name)
    if live is None:
        return  # there is nothing to change over from: `initialize` comes first
    for move in moves:
        if str(move.version) != live.model_version:
            ledger.request(
                connection,
                registry.name,
                "alias",
                ACTOR,
                str(move.version),
                alias=move.alias,
                alias_before=int(live.model_version) if move.alias == "champion" else move.before,
                reason=f"The alias {move.alias} was set to version {move.version}.",
                numbers=registry.numbers_of(move.version),
            )
        elif move.alias == "champion":
            ledger.supersede(connection, registry.name, "The alias champion was set back to the version that serves.")
        registry.acknowledge(move, ACTOR)


def _all_models(client: MlflowClient) -> list[RegisteredModel]:
    found: list[RegisteredModel] = []
    token = None
    while True:
        page = client.search_registered_models(max_results=100, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found
