"""The commands of `estudio clickstream`: logs come in, are looked at, and leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from estudio_core.cli_parts import AsJson, console, explained, progress_bar
from estudio_core.errors import ConfigurationError, suggest
from estudio_core.terminal import Column, show_json, show_rows

if TYPE_CHECKING:
    from estudio_core.clickstream.importing import Imported

clickstream_app = typer.Typer(no_args_is_help=True, help="The log of searches and clicks: import, check, forget.")

_FirstPosition = Annotated[
    int | None, typer.Option("--first-position", min=0, max=1, help="What the topmost result is counted as.")
]
_Clicks = Annotated[
    list[str] | None,
    typer.Option("--click", help="ACTION or ACTION=IMPORTANCE: a further action that is a click. May be repeated."),
]
_Impressions = Annotated[
    list[str] | None, typer.Option("--impression", help="A further action that says a result was shown.")
]


@clickstream_app.command("import")
@explained
def import_logs(
    sources: Annotated[
        list[str],
        typer.Argument(help="File, URL, or opensearch://[user:password@]host:9200[/index,…].", metavar="SOURCE…"),
    ],
    application: Annotated[
        str | None, typer.Option("--application", "-a", help="Application of rows that name none.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="LOGGED=OURS: what an application is called here. May be repeated.")
    ] = None,
    first_position: _FirstPosition = None,
    click: _Clicks = None,
    impression: _Impressions = None,
    timezone: Annotated[str, typer.Option(help="Zone of times that have none, such as Europe/Berlin.")] = "UTC",
    column: Annotated[
        list[str] | None,
        typer.Option(help="OURS=YOURS: what your log calls a field, such as user_query=suchtext. May be repeated."),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Do not go on where an import of the same log was stopped.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each source.")] = False,
) -> None:
    """Append logs of searches and clicks: User Behavior Insights of any version, Insights events, CSV, Parquet.

    Importing a log again changes nothing, and one that is stopped goes on. The table at the end says what was taken,
    and what was left out and why.
    """
    from estudio_core import database
    from estudio_core.clickstream.importing import Declared, import_log
    from estudio_core.clickstream.log_rows import RowReader

    declared = Declared(first_position, _clicks(click), tuple(impression or ()))
    options: dict[str, Any] = {
        "application": application,
        "renamed": _pairs(rename, "--rename"),
        "zone": _zone(timezone),
        "columns": _columns(column),
    }
    done = []
    with database.connect() as connection:
        database.require_schema(connection)
        connection.commit()
        for source in sources:
            with progress_bar():
                found = import_log(
                    connection,
                    source,
                    reader=RowReader(**options),
                    declared=declared,
                    commit=True,
                    from_start=from_start,
                )
            done.append(found)
            if not as_json:
                _show_import(found)
    if as_json:
        show_json([_as_row(found) for found in done])


@clickstream_app.command("declare")
@explained
def declare_application(
    application: Annotated[str, typer.Argument(help="Application, as the log names it.")],
    first_position: _FirstPosition = None,
    click: _Clicks = None,
    impression: _Impressions = None,
) -> None:
    """Say once what an application's log means; it holds for all rows, those that are there as well."""
    from estudio_core import database
    from estudio_core.clickstream.applications import application_facts, declare, find_first_position

    with database.connect() as connection:
        database.require_schema(connection)
        declare(
            connection,
            application,
            first_position=first_position,
            clicks=_clicks(click),
            impressions=tuple(impression or ()),
        )
        seen = find_first_position(connection, application)
        facts = application_facts(connection, application)
    console.print(f"{application}: {facts}.", markup=False, soft_wrap=True, highlight=False)
    if first_position is not None and (against := seen.against(first_position)):
        console.print(f"But {against}.", style="yellow", markup=False, soft_wrap=True, highlight=False)


@clickstream_app.command("check")
@explained
def check_application(
    application: Annotated[str, typer.Argument(help="Application, which is the name of its plugin.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: facts, verdict and reasons.")] = False,
) -> None:
    """Say what a log is good for, before anything is trained on it: go, wait, or will not help."""
    from estudio_core import database
    from estudio_core.log_check import check_log

    with database.connect() as connection, progress_bar():
        database.require_schema(connection)
        found = check_log(connection, application)
    if as_json:
        show_json([found.as_dict()])
        return
    show_rows(console, [Column("what"), Column("value", prose=True)], found.rows())
    styles = {"go": "bold green", "wait": "bold yellow", "will not help": "bold red"}
    console.print()
    console.print(found.verdict, style=styles[found.verdict], markup=False, highlight=False)
    for reason in found.reasons:
        console.print(f"- {reason}", markup=False, soft_wrap=True, highlight=False)


@clickstream_app.command("queries")
@explained
def show_queries(
    application: Annotated[str, typer.Argument(help="Application, which is the name of its plugin.")],
    order: Annotated[
        str, typer.Option(help="popular; found-nothing: lists were empty; brought-nothing: nothing was clicked.")
    ] = "popular",
    days: Annotated[float, typer.Option(help="Age in days of the oldest search that counts.")] = 28.0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Queries at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Say what people ask for: what is popular, what finds nothing, and what brings nobody a click."""
    from estudio_core import database
    from estudio_core.clickstream.asked import Order, asked_queries

    with database.connect() as connection:
        database.require_schema(connection)
        found = asked_queries(connection, application, cast("Order", order), days=days, most=limit)
    rows = [vars(each) for each in found]
    if as_json:
        show_json(rows)
        return
    if not rows:
        console.print(
            f"No such query in the log of {application!r} within {days:g} days.", soft_wrap=True, highlight=False
        )
        return
    numbers = ("searches", "people", "clicked", "found_nothing", "brought_nothing")
    show_rows(console, [Column("query", prose=True), *(Column(name, right=True) for name in numbers)], rows)


@clickstream_app.command("forget")
@explained
def forget_client(
    client: Annotated[str, typer.Argument(help="Id of the client or user, as it is logged.")],
    as_json: AsJson = False,
) -> None:
    """Delete a client's searches, events and personal vectors; no old log brings them back. Trainings stay."""
    from estudio_core.forgetting import forget_client as run_forget

    gone = run_forget(client)
    if as_json:
        show_json([vars(gone)])
        return
    console.print(
        f"Deleted {gone.queries} searches, {gone.events} events and {gone.personal_vectors} personal vectors. "
        "Logs that are imported later bring none of them back.",
        markup=False,
        soft_wrap=True,
    )


@clickstream_app.command("expire")
@explained
def expire_rows(
    days: Annotated[
        float | None, typer.Option(help="Age in days; ESTUDIO_CLICKSTREAM_DAYS where it is not given.")
    ] = None,
    application: Annotated[str | None, typer.Option("--application", "-a", help="Only this application.")] = None,
    as_json: AsJson = False,
) -> None:
    """Delete searches and events that are older than they may be. Trainings stay."""
    from estudio_core import database
    from estudio_core.clickstream.forgetting import expire
    from estudio_core.settings import get_settings

    kept = days if days is not None else get_settings().clickstream_days
    if kept is None:
        raise ConfigurationError("For how many days are rows kept? Give --days, or set ESTUDIO_CLICKSTREAM_DAYS.")
    with database.connect() as connection:
        database.require_schema(connection)
        gone = expire(connection, kept, application, committed=connection.commit)
    if as_json:
        show_json([vars(gone)])
        return
    console.print(f"Deleted {gone.queries} searches and {gone.events} events older than {kept:g} days.", soft_wrap=True)


def _clicks(given: Sequence[str] | None) -> dict[str, float]:
    from estudio_core.clickstream.actions import known_action

    clicks = {}
    for each in given or ():
        action, equals, worth = each.partition("=")
        try:
            clicks[known_action(action) or action] = float(worth) if equals else 1.0
        except ValueError:
            raise ConfigurationError(f"--click is ACTION or ACTION=IMPORTANCE; given {each!r}.") from None
    return clicks


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for each in given or ():
        left, equals, right = each.partition("=")
        if not left or not equals or not right:
            raise ConfigurationError(f"{option} has the form NAME=NAME; given {each!r}.")
        pairs[left] = right
    return pairs


def _columns(given: Sequence[str] | None) -> Mapping[str, str]:
    from estudio_core.clickstream.log_rows import FIELDS

    known = {name: names[0] for name, names in FIELDS.items()} | {
        other: names[0] for names in FIELDS.values() for other in names
    }
    columns = {}
    for ours, yours in _pairs(given, "--column").items():
        if ours not in known:
            raise ConfigurationError(f"--column: no field is called {ours!r}. {suggest(ours, sorted(known))}")
        columns[yours] = known[ours]
    return columns


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(f"--timezone: no zone is called {name!r}. Such as Europe/Berlin, or UTC.") from None


def _as_row(found: Imported) -> dict[str, Any]:
    return {
        "source": found.source,
        "documents": found.documents,
        "searches": vars(found.queries),
        "events": {"inserted": found.events.inserted, "duplicates": found.events.duplicates},
        "left_out": {reason: vars(skipped) for reason, skipped in found.left_out.items()},
        "notes": dict(found.notes),
        "unknown_actions": dict(found.unknown_actions),
        "applications": [
            {
                "application": seen.name,
                "searches": seen.searches,
                "events": seen.events,
                "clicks": seen.clicks,
                "first_position": seen.facts.first_position,
                "first_position_is": seen.facts.basis,
                "contradiction": seen.contradiction,
            }
            for seen in found.applications
        ],
        "resumed": found.resumed,
        "seconds": round(found.seconds, 3),
    }


def _show_import(found: Imported) -> None:
    went_on = f", {found.resumed:,} of them by a run that was stopped" if found.resumed else ""
    console.print(
        f"{found.source}: {found.documents:,} documents{went_on} ({found.seconds:.1f} s)",
        markup=False,
        soft_wrap=True,
        highlight=False,
    )
    rows: list[dict[str, object]] = [
        {"rows": found.queries.inserted, "what": "searches taken", "example": ""},
        {"rows": found.events.inserted, "what": "events taken", "example": ""},
        {"rows": found.queries.merged, "what": "searches' pages merged", "example": ""},
        {"rows": found.queries.duplicates + found.events.duplicates, "what": "known already", "example": ""},
    ]
    rows = [row for row in rows if row["rows"] or row["what"] in ("searches taken", "events taken")]
    rows += [
        {"rows": skipped.count, "what": f"left out: {reason}", "example": skipped.example}
        for reason, skipped in found.left_out.items()
    ]
    rows += [{"rows": count, "what": f"note: {note}", "example": ""} for note, count in found.notes.items()]
    rows += [
        {"rows": count, "what": f"no click: action {action!r}", "example": "if it is one: --click"}
        for action, count in found.unknown_actions.items()
    ]
    show_rows(console, [Column("rows", ",", right=True), Column("what"), Column("example", prose=True)], rows)
    for seen in found.applications:
        count = f"{seen.name}: {seen.searches:,} searches, {seen.events:,} events, {seen.clicks:,} of them clicks"
        counted = f"positions count from {seen.facts.first_position} ({seen.facts.basis})"
        console.print(f"{count}; {counted}.", markup=False, soft_wrap=True, highlight=False)
        if seen.contradiction:
            console.print(f"But {seen.contradiction}.", style="yellow", markup=False, soft_wrap=True, highlight=False)
        if not seen.clicks and not seen.facts.clicks and seen.events:
            console.print(
                "None of its events is a click. Name the action that is one: estudio clickstream declare "
                f"{seen.name} --click ACTION",
                style="yellow",
                markup=False,
                soft_wrap=True,
                highlight=False,
            )
