"""What a release run makes live: what was asked for, by whom, or what the run asks for itself."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.errors import NotEnoughDataError
from estudio_core.plugin.registry import open_plugin
from estudio_core.plugin.run_params import ReleaseParams
from estudio_core.promotion import ledger
from estudio_core.promotion.aliases import observe


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
    registry = open_plugin(plugin_name).experiments.registry
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
