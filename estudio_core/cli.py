"""The command line: `estudio --help`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from estudio_core import exact_json
from estudio_core.cli_clickstream import clickstream_app
from estudio_core.cli_experiments import experiments_app
from estudio_core.cli_init import init
from estudio_core.cli_judgments import judgments_app
from estudio_core.cli_parts import (
    DEFAULT_MODEL,
    TABLE,
    TEXT,
    AsJson,
    Connection,
    IdColumn,
    Model,
    Payload,
    PluginName,
    console,
    errors,
)
from estudio_core.cli_parts import explained as _explained
from estudio_core.cli_service import keys_app, serve, webhook_app
from estudio_core.errors import ConfigurationError, NothingLiveError
from estudio_core.searching import Mode
from estudio_core.terminal import Column, show_json, show_rows

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Semantic search that learns from its users.")
plugins_app = typer.Typer(no_args_is_help=True, help="Search plugins: list, write, validate, remove.")
app.add_typer(plugins_app, name="plugins")
app.add_typer(clickstream_app, name="clickstream")
app.add_typer(judgments_app, name="judgments")
app.add_typer(keys_app, name="keys")
app.add_typer(webhook_app, name="webhook")
app.add_typer(experiments_app, name="experiments")
app.command()(init)
app.command()(serve)


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what happens inside.")] = False,
) -> None:
    """Set up logging for all commands."""
    from estudio_core.sources.connections import set_connection_resolver

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    set_connection_resolver(_airflow_connection)


def _airflow_connection(connection_id: str) -> str | None:
    from estudio_core.local.airflow_connection import connection_fields

    with errors.status(f"Asking Airflow for the connection {escape(connection_id)}"):
        return connection_fields(connection_id)


@app.command()
@_explained
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    plugin: PluginName = "demo_catalog",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Most results.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Results to leave out first.")] = 0,
    where: Annotated[str | None, typer.Option("--filter", help="Payload filter, as JSON.")] = None,
    max_distance: Annotated[float | None, typer.Option(help="Leave out what is farther.")] = None,
    sort: Annotated[str | None, typer.Option(help="Payload field to order by; -field for descending.")] = None,
    mode: Annotated[Mode, typer.Option(help="What ranks: words and vectors, or one of them.")] = "hybrid",
    user: Annotated[str | None, typer.Option(help="Whose personal vectors to use.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all items instead of asking the index.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the release that answered, and hits.")] = False,
) -> None:
    """Search the live release of a plugin."""
    from estudio_core.searching import search as run_search
    from estudio_core.vectordb.ordering import SortBy

    try:
        payload_filter = exact_json.loads(where) if where else None
    except ValueError as error:
        raise typer.BadParameter(f"--filter is not JSON: {error}") from error
    answer = _of_known_plugin(
        plugin,
        lambda: run_search(
            plugin,
            query,
            limit=limit,
            offset=offset,
            max_distance=max_distance,
            filter=payload_filter,
            sort_by=SortBy(sort.removeprefix("-"), sort.startswith("-")) if sort else None,
            user_id=user,
            mode=mode,
            exact=exact,
        ),
    )
    if as_json:
        typer.echo(
            exact_json.dumps(
                {
                    "plugin": answer.plugin,
                    "release": answer.release_id,
                    "model_version": answer.model_version,
                    "hits": [vars(hit) for hit in answer.hits],
                }
            )
        )
        return
    console.print(
        f"“{query}” · release {answer.release_id}, model version {answer.model_version}", markup=False, soft_wrap=True
    )
    columns = [
        Column("position", right=True),
        Column("score", ".3f", right=True),
        Column("similarity", ".3f", right=True),
        Column("words", ".3f", right=True),
        Column("object_id"),
        Column("item", prose=True),
    ]
    rows = []
    for position, hit in enumerate(answer.hits, start=offset + 1):
        first = next((str(v) for v in hit.payload.values() if isinstance(v, str)), "")
        rows.append({"position": position, **vars(hit), "item": str(hit.payload.get("title") or first)})
    show_rows(console, columns, rows)


def _of_known_plugin(name: str, action: Callable[[], Any]) -> Any:
    """Return what `action` returns; where nothing is live, say first whether there is a plugin of that name at all."""
    try:
        return action()
    except NothingLiveError:
        from estudio_core.context import context

        context.plugin_manager.meta(name)  # raises where there is none, with the nearest name
        raise


@app.command()
@_explained
def releases(
    plugin: Annotated[str | None, typer.Option("--plugin", "-p", help="Only this plugin.")] = None,
    as_json: AsJson = False,
) -> None:
    """List releases: state, model version, items, recall, when."""
    from estudio_core import database
    from estudio_core.vectordb.releases import list_releases

    with database.connect() as connection:
        database.require_schema(connection)
        found = list_releases(connection, plugin)
    rows = [
        {
            "plugin": release.plugin,
            "release": release.release_id,
            "state": release.state,
            "version": release.model_version,
            "item_version": release.item_model_version,
            "items": release.stats.get("objects"),
            "recall_at_10": release.stats.get("recall_at_10"),
            "words_weight": None if release.index_info.lexical is None else release.ranking.weight,
            "created": release.created_at,
            "live": release.live_at,
            "reason": release.reason,
        }
        for release in found
    ]
    if as_json:
        show_json(rows)
    elif not rows:
        console.print("No releases yet. Run a plugin's DAG <plugin>__initialize, or: make demo")
    else:
        show_rows(
            console,
            [
                Column("plugin"),
                Column("release", right=True),
                Column("state", styles={"live": "bold green", "failed": "red"}),
                Column("version", right=True),
                *([Column("item_version", right=True)] if any(len(release.models) > 1 for release in found) else []),
                Column("items", right=True),
                Column("recall_at_10", ".3f", right=True),
                Column("words_weight", ".3f", right=True),
                Column("created"),
                Column("reason", prose=True),
            ],
            rows,
        )


@app.command()
@_explained
def promotions(
    plugin: Annotated[str | None, typer.Option("--plugin", "-p", help="Only this plugin.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List who had which version go live, when, by which way, on which numbers, and what became of it."""
    from estudio_core import database
    from estudio_core.promotion.ledger import history

    with database.connect() as connection:
        database.require_schema(connection)
        found = history(connection, plugin, limit)
    rows = [
        {
            "requested": row.requested_at,
            "plugin": row.plugin,
            "from": row.from_version,
            "to": row.to_version,
            "way": row.way,
            "alias": row.alias,
            "outcome": row.outcome,
            "release": row.release_id,
            "ended": row.ended_at,
            "actor": row.actor,
            "reason": row.reason,
            "gains": {name: value for name, value in row.numbers.items() if name.endswith("_gain")},
            "numbers": row.numbers,
        }
        for row in found
    ]
    if as_json:
        show_json(rows)
    elif not rows:
        console.print("No promotions yet. Run a plugin's DAG <plugin>__initialize, or: make demo")
    else:
        show_rows(
            console,
            [
                Column("requested"),
                Column("plugin"),
                Column("from", right=True),
                Column("to", right=True),
                Column("way"),
                Column("alias"),
                Column("outcome", styles={"live": "green", "failed": "red"}),
                Column("release", right=True),
                Column("actor", prose=True),
                Column("reason", prose=True),
                Column("gains", "+.3f", prose=True),
            ],
            rows,
        )


@app.command()
@_explained
def rollback(
    plugin: PluginName,
    target: Annotated[str, typer.Option("--to", help="previous, or the number of a kept release.")] = "previous",
) -> None:
    """Go back to an earlier release, in seconds."""
    import getpass
    import uuid

    from estudio_core.pipeline.rollback import rollback as run_rollback

    live = run_rollback(plugin, {"target": target}, f"cli-{uuid.uuid4()}", f"{getpass.getuser()} on the command line")
    console.print(
        f"Release {live.release_id} of {plugin} is live again (model version {live.version}). {live.note}".rstrip(),
        markup=False,
        soft_wrap=True,
    )


@app.command()
@_explained
def sync(
    plugin: PluginName,
    everything: Annotated[bool, typer.Option("--everything", help="Compare all rows, not only changed ones.")] = False,
    most_deleted_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of the live items that may be deleted.")
    ] = 0.5,
    compare_hours: Annotated[
        float, typer.Option(min=0, help="Compare all rows where they were last compared longer ago than this.")
    ] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list with one object.")] = False,
) -> None:
    """Bring new, changed and deleted items of the table into the live release."""
    from estudio_core.pipeline.sync import sync as run_sync

    wanted = {"everything": everything, "most_deleted_share": most_deleted_share, "compare_hours": compare_hours}
    done = _of_known_plugin(plugin, lambda: run_sync(plugin, wanted))
    if as_json:
        found = done.as_dict()
        show_json([{"plugin": plugin, "release": found.pop("release_id"), **found}])
        return
    console.print(
        f"Release {done.release_id} of {plugin} follows its items again: {done.embedded} embedded, "
        f"{done.payload_only} with a new payload only, {done.deleted} deleted, {done.unchanged} unchanged, "
        f"{done.invalid_items} unusable ({done.seconds:.1f} s, found by {done.method}). "
        f"All rows were compared at {done.compared_at}, and are every {done.compare_hours:g} hours. "
        f"{done.note}".rstrip(),
        markup=False,
        soft_wrap=True,
    )
    if done.invalid:
        unusable = [{"object_id": item_id, "reason": reason} for item_id, reason in done.invalid.items()]
        show_rows(console, [Column("object_id"), Column("reason", prose=True)], unusable)


@app.command()
@_explained
def migrate() -> None:
    """Bring Estudio's tables to what this version works with. `up` and `demo` do so themselves."""
    from estudio_core import database
    from estudio_core.vectordb.cluster import settle_cluster

    console.print(f"Estudio's tables are at version {database.migrate()}.")
    with database.connect(autocommit=True) as connection:
        if settle_cluster(connection):
            console.print("The database was moved to another cluster: the change log is applied again by its order.")


@app.command()
@_explained
def roles() -> None:
    """Make roles for searching, writing and tasks in the database, and grant each what it needs; safe to run again."""
    from estudio_core import database
    from estudio_core.vectordb.roles import OWNER, READER, WRITER, set_up_roles

    with database.connect() as connection:
        database.require_schema(connection)
        made = set_up_roles(connection)
    for name, use in ((READER, "search"), (WRITER, "write items and log clicks"), (OWNER, "run tasks")):
        console.print(f"{name} ({'made' if name in made else 'there already'}): for logins that {use}", highlight=False)
    console.print("Grant one to a login: GRANT estudio_reader TO web", highlight=False)


@app.command()
@_explained
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, reachable and missing, and the command that mends it."""
    from estudio_core.doctor import examine

    findings = examine()
    if as_json:
        show_json([vars(finding) for finding in findings])
    else:
        states = {"ok": "green", "note": "yellow", "missing": "red"}
        columns = [Column("state", styles=states), Column("what"), Column("detail", prose=True)]
        rows = [
            {**vars(finding), "detail": " → ".join(filter(None, (finding.detail, finding.mend)))}
            for finding in findings
        ]
        show_rows(console, columns, rows)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(1)


@app.command()
@_explained
def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, with an empty database.")] = False,
) -> None:
    """Run the main job on the electronics catalog: index, learn from simulated clicks, release."""
    import signal

    from estudio_core.demo.run import run_demo

    for ending in (signal.SIGTERM, signal.SIGHUP):  # it ends what it started, as at Ctrl-C
        signal.signal(ending, signal.default_int_handler)
    run_demo(console, fresh=fresh)


@app.command()
@_explained
def up() -> None:
    """Start database, Airflow, MLflow and Triton on this machine, and print their addresses."""
    from estudio_core import local

    local.up(console)


@app.command()
@_explained
def down() -> None:
    """Stop what `up` started."""
    from estudio_core import local

    local.down(console)


@app.command()
@_explained
def status(as_json: AsJson = False) -> None:
    """Show which local services run, and where."""
    from estudio_core import local

    if as_json:
        show_json(local.parts(local.inspect()))
    else:
        local.status(console)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
@_explained
def airflow(context: typer.Context) -> None:
    """Run a command of this installation's Airflow, such as: estudio airflow connections list."""
    import subprocess
    import sys

    from estudio_core.local.airflow_connection import command_environment

    environment = command_environment(prepare=True) or {}
    ended = subprocess.run(
        [sys.executable, "-m", "airflow", *context.args], env={**os.environ, **environment}, check=False
    )
    raise typer.Exit(ended.returncode)


@plugins_app.command("list")
@_explained
def plugins_list(as_json: AsJson = False) -> None:
    """List the plugins that load, and those that do not."""
    from estudio_core.context import context

    manager = context.plugin_manager
    found = [manager.meta(name) for name in manager.plugin_names]
    rows = [{"plugin": meta.name, "version": meta.version, "description": meta.description} for meta in found]
    if as_json:
        show_json(rows)
    else:
        show_rows(console, [Column("plugin"), Column("version"), Column("description", prose=True)], rows)
    _show_broken(manager.errors)
    if manager.errors:
        raise typer.Exit(1)


def _show_broken(broken: Mapping[str, str]) -> None:
    for file, problem in sorted(broken.items()):
        where = "does not load" if file in problem else escape(file)
        errors.print(f"[red]{where}:[/] {escape(problem)}", soft_wrap=True, highlight=False)


@plugins_app.command("new")
@_explained
def plugins_new(
    name: Annotated[str, typer.Argument(help="Letters, digits and single underscores.")],
    table: Annotated[str, TABLE],
    text: Annotated[list[str], TEXT],
    id_column: IdColumn = "id",
    model: Model = DEFAULT_MODEL,
    payload: Payload = None,
    connection_id: Connection = None,
    dags: Annotated[Path, typer.Option(help="Folder of DAG files.")] = Path("dags"),
) -> None:
    """Write a working plugin and its DAG stub."""
    from estudio_core.plugin.scaffold import NewPlugin, write_plugin
    from estudio_core.settings import get_settings

    new = NewPlugin(name, table, tuple(text), model, id_column, tuple(payload or ()), connection_id)
    plugin_file, stub = write_plugin(new, plugins_path=get_settings().plugins_path, dags_path=dags)
    console.print(
        f"Wrote {plugin_file} and {stub}.\nNext: estudio plugins validate {name}", markup=False, soft_wrap=True
    )


@plugins_app.command("remove")
@_explained
def plugins_remove(
    name: Annotated[str, typer.Argument(help="Plugin; its file may be gone already.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take away what is kept for serving a plugin: releases, collections, published models, aliases, requests.

    Its clickstream, audit trail, registered versions, runs and reports stay.
    """
    import getpass

    from estudio_core import database
    from estudio_core.experiments.shared import mlflow_client
    from estudio_core.plugin.discovery import defining_files
    from estudio_core.promotion import removal
    from estudio_core.service.keys import list_keys
    from estudio_core.settings import get_settings

    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        kept = removal.kept_for(connection, mlflow_client(), name)
        files = [*defining_files(get_settings().plugins_path, name), Path("dags") / f"{name}.py"]
        files = [file for file in files if file.is_file()]
        if not kept.anything and not files:
            raise ConfigurationError(
                f"Nothing is kept for a plugin {name!r}. See: estudio plugins list, estudio releases"
            )
        live = "nothing is live" if kept.live is None else f"release {kept.live} is live"
        what = [
            f"{len(kept.releases)} releases with their collections ({live})",
            f"{len(kept.models)} published models",
            f"{kept.requests} open requests",
            f"{len(kept.aliases)} aliases in MLflow",
        ]
        console.print(f"{name}: {', '.join(what)}.", markup=False, soft_wrap=True)
        if not yes:
            typer.confirm("Take them away?", abort=True)
        done = removal.remove(connection, mlflow_client(), name, f"{getpass.getuser()} on the command line")
        keys = [key.name for key in list_keys(connection) if name in key.plugins and key.revoked_at is None]
    stays = "Clickstream, judgments, audit trail, registered versions and reports stay."
    console.print(f"Done. {stays}", markup=False, soft_wrap=True)
    if keys:
        listed = f"{', '.join(keys[:10])}{', …' if len(keys) > 10 else ''}"
        told = f"Keys still name it, and count again once it is back: {listed}. See: estudio keys list"
        console.print(told, markup=False, soft_wrap=True)
    if queue := _change_queue(name):
        console.print(
            f"Triggers on its table still write into {queue}. What ends them, while its file is there: "
            f"estudio plugins queue-sql {name} --drop",
            markup=False,
            soft_wrap=True,
        )
    if files:
        listed = ", ".join(str(file) for file in files)
        console.print(f"Delete its files too, or it can be initialized again: {listed}", markup=False, soft_wrap=True)
    for problem in done.problems:
        errors.print(f"[red]left:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    if done.problems:
        errors.print(f"Run it again: estudio plugins remove {escape(name)}", soft_wrap=True, highlight=False)
        raise typer.Exit(1)


def _change_queue(name: str) -> str | None:
    """Return the queue of changes that a plugin's table feeds; None where it has none, or cannot say any more."""
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader

    try:
        loader = open_plugin(name).loader
    except Exception:  # its file may be gone or broken: that is why it is removed
        return None
    return loader.change_queue.name if isinstance(loader, PgsqlDataLoader) and loader.change_queue else None


@plugins_app.command("queue-sql")
@_explained
def plugins_queue_sql(
    name: Annotated[str, typer.Argument(help="Plugin with PostgresItems(change_queue=...).")],
    drop: Annotated[bool, typer.Option("--drop", help="What takes queue and triggers away again.")] = False,
) -> None:
    """Print the SQL of a plugin's queue of changes and of the triggers that feed it, to run on the items' database."""
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader

    loader = open_plugin(name).loader
    if not isinstance(loader, PgsqlDataLoader):
        raise ConfigurationError(f"Plugin {name!r} reads its items with {type(loader).__name__}, not from PostgreSQL.")
    typer.echo(loader.change_queue_sql(drop=drop), nl=False)


@plugins_app.command("validate")
@_explained
def plugins_validate(
    name: Annotated[str | None, typer.Argument(help="Plugin to validate; all without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build a plugin, load and embed two items, and say what is wrong, one line each."""
    from estudio_core.airflow_check import airflow_check
    from estudio_core.context import context
    from estudio_core.pipeline.items.preflight import size_check
    from estudio_core.plugin.validation import validate_plugin

    manager = context.plugin_manager
    rows = []
    for plugin_name in [name] if name else manager.plugin_names:
        with errors.status(f"Validating {escape(plugin_name)}"):
            rows += [
                {
                    "plugin": plugin_name,
                    "state": "warning" if check.warns else "ok" if check.passed else "wrong",
                    "check": check.what,
                    "detail": check.detail,
                }
                for checks in (validate_plugin, airflow_check, size_check)
                for check in checks(manager, plugin_name)
            ]
    if as_json:
        show_json(rows)
    else:
        state = Column("state", styles={"ok": "green", "warning": "yellow", "wrong": "red"})
        show_rows(console, [Column("plugin"), state, Column("check"), Column("detail", prose=True)], rows)
    broken = {} if name else manager.errors
    _show_broken(broken)
    if broken or any(row["state"] == "wrong" for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
