"""Markdown of what was measured: median and range over the repetitions."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

Results = Mapping[str, Mapping[str, Any]]

_ROWS = (
    ("alias-to-release", "to_run_s", "alias moved in MLflow → release run starts"),
    ("alias-to-release", "to_live_s", "alias moved in MLflow → release run ended, version live"),
    ("trigger-to-first-task", "to_first_task_s", "run triggered → first task starts"),
    ("trigger-to-first-task", "rollback_s", "rollback triggered → earlier release live, run ended"),
    ("fine-tune-overhead", "wall_s", "`fine_tune` triggered → run ended"),
    ("fine-tune-overhead", "steps_s", "… of which its steps' own time, along the critical path"),
    ("fine-tune-overhead", "overhead_s", "… of which orchestration"),
    ("parsing", "parse_s", "DAG files of {plugins} plugins ({dags} DAGs) parsed by one process"),
)


def markdown(results: Results) -> str:
    """Return the table of the units that are measured."""
    lines = ["| what | median, s | range, s | repetitions |", "|---|---:|---:|---:|"]
    for unit, field, title in _ROWS:
        if unit in results:
            values = results[unit][field]
            spread = f"{min(values):.1f} to {max(values):.1f}"
            lines.append(f"| {title.format(**results[unit])} | {median(values):.1f} | {spread} | {len(values)} |")
    if "fine-tune-overhead" in results:
        found = results["fine-tune-overhead"]
        each = median(o / n for o, n in zip(found["overhead_s"], found["tasks"], strict=True))
        lines += ["", f"Orchestration of `fine_tune` per task that ran: {each:.2f} s (median)."]
    return "\n".join(lines)


def circumstances(results: Results) -> str:
    """Return a line for each unit: the machine, and how busy it was."""
    return "\n".join(
        f"- {unit}: {found['machine']}; load average (1 min) {found['load_before'][0]:.1f} before, "
        f"{found['load_after'][0]:.1f} after"
        for unit, found in results.items()
    )
