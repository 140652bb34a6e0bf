"""The command `estudio init`: into an Airflow that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from estudio_core.cli_parts import (
    DEFAULT_MODEL,
    TABLE,
    TEXT,
    AsJson,
    Connection,
    IdColumn,
    Model,
    Payload,
    console,
    errors,
    explained,
)
from estudio_core.terminal import Column, show_json, show_rows


@explained
def init(
    plugin: Annotated[str | None, typer.Option(help="Plugin to write, where there is none of that name.")] = None,
    table: Annotated[str | None, TABLE] = None,
    text: Annotated[list[str] | None, TEXT] = None,
    id_column: IdColumn = "id",
    model: Model = DEFAULT_MODEL,
    payload: Payload = None,
    connection_id: Connection = None,
    dags: Annotated[
        Path | None, typer.Option(help="Folder for the DAG files; by default that of Airflow's first local DAG bundle.")
    ] = None,
    roles: Annotated[bool, typer.Option(help="Make roles for searching, writing and tasks.")] = True,
    as_json: AsJson = False,
) -> None:
    """Prepare an Airflow that is there already; safe to run again.

    Makes what is missing of: Estudio's tables and roles in ESTUDIO_DATABASE_URL, the Airflow pools estudio_training and
    estudio_index, a first plugin, the DAG file of each plugin, and a file with the variables that Airflow's processes
    need. Run it in Airflow's own Python environment, with its AIRFLOW_HOME. It changes nothing else there.
    """
    from estudio_core.plugin.scaffold import NewPlugin
    from estudio_core.preparation import prepare

    if plugin is None and (table or text or payload or connection_id):
        raise typer.BadParameter("--table, --text, --payload and --connection belong to a plugin: give --plugin NAME")
    new = None
    if plugin is not None:
        new = NewPlugin(
            plugin, table or "", tuple(text or ()), model, id_column, tuple(payload or ()), connection_id=connection_id
        )
    with errors.status("Looking at the database, Airflow and the plugins"):
        steps = list(prepare(new, dags=dags, roles=roles))
    left = [step for step in steps if step.state == "left"]
    if as_json:
        show_json([vars(step) for step in steps])
    else:
        state = Column("state", styles={"made": "green", "found": "dim", "left": "red"})
        rows = [{**vars(step), "detail": " → ".join(filter(None, (step.detail, step.mend)))} for step in steps]
        show_rows(console, [state, Column("what"), Column("detail", prose=True)], rows)
        if not left:
            console.print(
                "Next: start Airflow's processes with these variables, switch the plugin's DAGs on, and run "
                "<plugin>__initialize once.",
                markup=False,
                soft_wrap=True,
                highlight=False,
            )
    if left:
        raise typer.Exit(1)
