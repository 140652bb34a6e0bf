"""Whether Airflow makes DAGs of a plugin, asked of Airflow itself: `plugins validate` tells before it does."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from estudio_core.errors import EstudioError

if TYPE_CHECKING:
    from estudio_core.plugin.registry import PluginManager
    from estudio_core.plugin.validation import Check

_MODULE = "estudio_core.dag_factory.parsed"


def airflow_check(manager: PluginManager, name: str) -> Iterator[Check]:
    """Say in one line what Airflow makes of a plugin's DAGs: notices, tags and time limits are its to judge.

    Nothing is said where no Airflow is installed, or where the plugin is not found: other checks do.
    """
    from estudio_core.local.airflow_connection import command_environment
    from estudio_core.local.airflow_process import ask
    from estudio_core.plugin.discovery import read_card
    from estudio_core.plugin.validation import Check

    if importlib.util.find_spec("airflow") is None:
        return
    try:
        read_card(name, manager.path)
    except EstudioError:
        return
    with tempfile.TemporaryDirectory() as empty:  # where Airflow is not set up, it leaves no files at home
        try:
            given = command_environment()
            environment = {"AIRFLOW_HOME": empty} if given is None else given
            environment |= {"ESTUDIO_PLUGINS_PATH": str(manager.path)}
            found = json.loads(ask(_MODULE, name, {**os.environ, **environment}, "See: airflow info"))
        except EstudioError as error:
            yield Check("Airflow", True, str(error), warns=True)
            return
    problem = found.get("problem")
    yield Check("Airflow", problem is None, problem or f"{len(found['dags'])} DAGs")
