"""The table of the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_MIB, LEAST_PER_S, MOST_SHARE = 4_096, 20_000, 0.10
_NAMES = {
    "extract": "extract, from PostgreSQL",
    "bare_copy": "— bare COPY of the same rows",
    "prepare": "prepare",
    "scan": "— bare Arrow scan and count of the same rows",
    "weigh": "load and weigh",
}


def markdown(found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return the table of the measurements by size and step."""
    machines = sorted({unit["machine"] for steps in found.values() for unit in steps.values()})
    lines = [
        "# Large logs",
        "",
        "Simulated clicks: ten results a session, a query and an item for each ten sessions, five sessions a client.",
        "`make bench-clickstream`; each step in a process of its own. Seconds of processor are those of this process,",
        "without PostgreSQL's: on a machine that is busy otherwise, they say more than seconds do. Peak memory counts",
        "the libraries that a step imports.",
        "",
        *(f"Machine: {machine}" for machine in machines),
        "",
        "| sessions | step | s | processor s | sessions/s | sessions/processor s | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for size, steps in sorted(found.items()):
        for step, name in _NAMES.items():
            if (unit := steps.get(step)) is not None:
                lines.append(
                    f"| {size:,} | {name} | {unit['s']:.1f} | {unit['cpu_s']:.1f} | {size / unit['s']:,.0f} "
                    f"| {size / max(unit['cpu_s'], 1e-9):,.0f} | {unit['peak_mib']:,.0f} |"
                )
    lines += ["", *_bars(found)]
    return "\n".join(lines) + "\n"


def _bars(found: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    said = []
    prepared = {size: steps["prepare"] for size, steps in found.items() if "prepare" in steps}
    if prepared:
        size, largest = max(prepared.items())
        per_s = size / largest["s"]
        said.append(
            f"Prepared: {size:,} sessions at {per_s:,.0f} sessions/s (bar: {LEAST_PER_S:,} at 10,000,000), peak "
            f"{largest['peak_mib']:,.0f} MiB (bar: {MOST_MIB:,})."
        )
    for size, steps in sorted(found.items()):
        if (unit := steps.get("train")) is not None:
            share = unit["validation_s"] / unit["fit_s"]
            said.append(
                f"Validation of {size:,} sessions: {unit['validation_s']:.1f} s of {unit['fit_s']:.1f} s of training "
                f"({unit['steps']} steps), {share:.0%} (bar: {MOST_SHARE:.0%})."
            )
    return said
