"""A look at an experiment, and what follows from its verdict."""

from __future__ import annotations

from typing import overload

from estudio_core import database
from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import Experiment
from estudio_core.comparing.looking import look
from estudio_core.errors import ConfigurationError
from estudio_core.pipeline.challenging.concluding import carry_out


@overload
def conclude_experiment(plugin_name: str, experiment_id: str) -> Experiment: ...
@overload
def conclude_experiment(plugin_name: str, experiment_id: None = None) -> Experiment | None: ...
def conclude_experiment(plugin_name: str, experiment_id: str | None = None) -> Experiment | None:
    """Look at an experiment, and carry out its verdict where there is one; one that has ended stays as it is.

    The promotion goes through the ledger as any other does: a later request is not overtaken, the pointer moves in one
    transaction with the last writes, and the aliases follow. A killed call is made good by the next.

    Args:
        plugin_name: The plugin.
        experiment_id: The experiment; None: the one that is under way.

    Returns:
        The experiment as it is then; None where none is under way.

    Raises:
        ConfigurationError: the plugin has no such experiment.
        ReleaseError, ConcurrentReleaseError: the challenger cannot go live now; both go on answering.
        ModelError, InferenceUnavailableError: its models cannot be used now; likewise.
    """
    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        if experiment_id is None:
            experiment = ledger.under_way(connection, plugin_name)
            if experiment is None:
                return None
        else:
            experiment = ledger.get(connection, experiment_id)
        if experiment.plugin != plugin_name:
            raise ConfigurationError(f"Experiment {experiment_id!r} is one of {experiment.plugin!r}.")
        experiment = look(connection, experiment)
        return experiment if experiment.state == "running" else carry_out(connection, experiment)
