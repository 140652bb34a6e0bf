"""Connections of this installation's Airflow, for commands: what its tasks would be given.

Run as `python -m estudio_core.local.airflow_connection ID` in Airflow's environment, it tells the fields of one as
JSON.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from estudio_core.local.airflow_process import answer, ask
from estudio_core.settings import get_settings

METADATA_VARIABLE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_FOLDER_VARIABLES = ("AIRFLOW_HOME", "AIRFLOW_CONFIG")


@cache
def connection_fields(connection_id: str) -> str | None:
    """Return the fields of a connection as JSON; None where Airflow has none of that name, or is not set up here.

    A variable `AIRFLOW_CONN_<ID>` needs no Airflow to be read.

    Raises:
        UnavailableError: Airflow is set up and cannot say.
    """
    environment = None if f"AIRFLOW_CONN_{connection_id.upper()}" in os.environ else command_environment()
    if environment is None:
        return None
    advice = f"Start it (estudio up), or set AIRFLOW_CONN_{connection_id.upper()}."
    return ask(__name__, connection_id, {**os.environ, **environment}, advice) or None


def command_environment(*, prepare: bool = False) -> dict[str, str] | None:
    """Return the variables with which `airflow` commands work on this installation; None where nothing is set up.

    Where the environment names an Airflow itself, nothing is added: by its metadata database, as in a container, or by
    the folder of its `airflow.cfg`, unless `estudio up` has set one up here.

    Args:
        prepare: Set Airflow up where it is not yet.

    Raises:
        ConfigurationError, UnavailableError: it cannot be set up.
    """
    if os.environ.get(METADATA_VARIABLE):
        return {}
    from estudio_core.local.airflow_home import airflow_home, ensure_airflow

    home = get_settings().home.expanduser().resolve()
    if (airflow_home(home) / "prepared.json").is_file() and (Path.cwd() / "dags").is_dir():
        return ensure_airflow(home)
    if any(os.environ.get(variable) for variable in _FOLDER_VARIABLES):
        return {}
    return ensure_airflow(home) if prepare else None


def main(connection_id: str) -> None:
    """Print the fields of a connection, or nothing where there is none."""
    from airflow.models.connection import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    from estudio_core.sources.connections import fields_of

    try:
        found = fields_of(Connection.get_connection_from_secrets(connection_id))
    except AirflowNotFoundException:
        found = None
    answer(found or "")


if __name__ == "__main__":
    main(sys.argv[1])
