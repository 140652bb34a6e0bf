"""Follow a DAG run in the terminal: one line per task, with the progress that the task itself reports."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from estudio_core import database
from estudio_core.errors import EstudioError
from estudio_core.local import RunState, wait
from estudio_core.local.runs import AirflowApi

_FINAL = {"success": "[green]done[/]", "failed": "[red]failed[/]", "skipped": "[dim]skipped[/]"}
_POLL_PROGRESS_S = 1.0


class RunDisplay:
    """Lines for the tasks of one run: bars on a terminal, a line per finished task elsewhere."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._bars: dict[tuple[str, int], TaskID] = {}
        self._finished: set[tuple[str, int]] = set()
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        console.print(f"\n[bold]{title}[/]")

    def __enter__(self) -> RunDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, state: RunState) -> None:
        """Show the state of all tasks that have started."""
        for task in state.tasks:
            key = (task.task_id, task.map_index)
            if task.state is None or key in self._finished:
                continue
            label = task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"
            if key not in self._bars:
                self._bars[key] = self._progress.add_task(label, total=None, detail="")
            if task.state in _FINAL:
                self._finished.add(key)
                self._progress.update(self._bars[key], total=1, completed=1, detail=_FINAL[task.state])
                self._progress.stop_task(self._bars[key])
                if not self._console.is_terminal:
                    seconds = f"{task.duration_s:.1f} s" if task.duration_s is not None else ""
                    self._console.print(f"  {label:<24} {_FINAL[task.state]} {seconds}")
            elif task.state == "up_for_retry":
                self._progress.update(self._bars[key], detail="[yellow]waits for a retry[/]")

    def show(self, rows: list[tuple[Any, ...]]) -> None:
        """Show the progress that tasks report: (task_id, map_index, done, total, unit, message)."""
        for task_id, map_index, done, total, unit, message in rows:
            key = (task_id, map_index)
            if key in self._bars and key not in self._finished:
                of = f"{done:,}/{total:,}" if total else f"{done:,}"
                self._progress.update(self._bars[key], total=total, completed=done, detail=f"{of} {unit} {message}")


def follow(console: Console, title: str, dag_id: str, run_id: str) -> RunState:
    """Show a run until it ends, and return its last state.

    Raises:
        RunFailedError: the run failed; the message holds the end of the failing task's log.
    """
    with RunDisplay(console, title) as display, AirflowApi.local() as api:
        last = 0.0

        def on_poll(state: RunState) -> None:
            nonlocal last
            display.update(state)
            if time.monotonic() - last >= _POLL_PROGRESS_S:
                last = time.monotonic()
                display.show(_reported(dag_id, run_id))

        return wait(dag_id, run_id, on_poll, api=api)


def _reported(dag_id: str, run_id: str) -> list[tuple[Any, ...]]:
    statement = (
        "SELECT task_id, map_index, done, total, unit, message FROM estudio.progress WHERE dag_id = %s AND run_id = %s"
    )
    try:
        with database.transaction() as connection:
            return connection.execute(statement, (dag_id, run_id)).fetchall()
    except EstudioError:
        return []
