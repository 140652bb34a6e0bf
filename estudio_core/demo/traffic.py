"""The demo's simulated people at work: a key for them, their searches of one release, and how far they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from estudio_core import database
from estudio_core.demo.people import SimulatedPeople, Traffic, Visit
from estudio_core.errors import EstudioError

if TYPE_CHECKING:
    from rich.console import Console

_KEY_DAYS = 1
_PAGE, _PAGE_DAYS = "the demo's search page", 30
_LINE_EACH_S = 10.0


@contextmanager
def key_of(name: str, plugin: str) -> Iterator[str]:
    """Give a key that may search and log events of `plugin`, and revoke it after the block."""
    from estudio_core.service.keys import create_key, revoke_key

    with database.transaction() as connection:
        key, text = create_key(
            connection,
            name,
            ("search", "events"),
            (plugin,),
            expires_at=datetime.now(UTC) + timedelta(days=_KEY_DAYS),
        )
    try:
        yield text
    finally:
        # Where the database is gone, what went wrong is told; the key ends by itself.
        with suppress(EstudioError), database.errors_named(), database.transaction() as connection:
            revoke_key(connection, key.key_id)


def page_key(plugin: str) -> str:
    """Return a new key for whoever tries the search page: what is done there is logged. An earlier one is over."""
    from estudio_core.service.keys import create_key, list_keys, revoke_key

    with database.transaction() as connection:
        for known in list_keys(connection):
            if known.name == _PAGE and known.plugins == (plugin,) and known.revoked_at is None:
                revoke_key(connection, known.key_id)
        expires_at = datetime.now(UTC) + timedelta(days=_PAGE_DAYS)
        return create_key(connection, _PAGE, ("search", "events"), (plugin,), rate=600, expires_at=expires_at)[1]


def visits_made(plugin: str, name: str) -> set[str]:
    """Return the ids of the searches of the stream `name` that are in the clickstream: those of earlier tries."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT query_id FROM estudio.ubi_queries WHERE application = %s AND starts_with(query_id, %s)",
            (plugin, f"{name}-"),
        ).fetchall()
    return {str(query_id) for (query_id,) in rows}


def let_them_search(console: Console, title: str, people: SimulatedPeople, visits: Sequence[Visit]) -> Traffic:
    """Have `people` make all `visits`, with a bar on a terminal and a line now and then elsewhere.

    Raises:
        UnavailableError: the service does not answer.
    """
    console.print(f"\n[bold]{title}[/]")
    with Progress(
        TextColumn("  searches"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}, {task.fields[clicks]:,} clicks, {task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=len(visits), clicks=0, rate="")
        told = time.monotonic()

        def show(now: Traffic) -> None:
            nonlocal told
            bar.update(task, completed=now.searches, clicks=now.clicks, rate=f"{now.requests_per_s:.0f} requests/s")
            if not console.is_terminal and time.monotonic() - told >= _LINE_EACH_S:
                told = time.monotonic()
                console.print(f"  {now.searches:,} of {len(visits):,} searches, {now.requests_per_s:.0f} requests/s")

        made = people.search(visits, show)
    console.print(
        f"  {made.searches:,} searches, {made.clicked:,} with clicks ({made.clicks:,} in all) in {made.seconds:.1f} s: "
        f"{made.requests:,} requests, {made.requests_per_s:.0f} a second."
    )
    return made
