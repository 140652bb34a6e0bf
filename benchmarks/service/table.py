"""From measurements to a Markdown table, with what was promised and whether it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.service.measure import BARE, HTTP, IN_PROCESS

Result = Mapping[str, Any]


def markdown(units: Mapping[str, Result]) -> str:
    """Return the document of what was measured, by the names of the units."""
    machines = dict.fromkeys(each["machine"] for each in units.values())
    lines = ["# What HTTP costs", "", "Measured on: " + "; ".join(machines) + ".", ""]
    of_searches = [each for name, each in units.items() if name.startswith("searches-")]
    if of_searches:
        lines += ["## Searches by new texts", "", *_searches(of_searches), ""]
    if known := units.get("known"):
        lines += ["## One client, vectors of the queries known", "", *_known(known), ""]
    of_rows = [each for name, each in units.items() if name.startswith("collecting-")]
    if of_rows:
        lines += ["## Collecting", "", *_collecting(of_rows), ""]
    if beside := units.get("while-collecting"):
        lines += ["## Searches while events are collected", "", *_beside(beside), ""]
    if mixed := units.get("mixed"):
        lines += ["## Mixed load", "", *_mixed(mixed), ""]
    return "\n".join(lines)


def _searches(units: Sequence[Result]) -> list[str]:
    lines = [
        "| clients | contender | p50 | p99 | searches/s | p50 to asearch | throughput to asearch | | CPU of a search:"
        " asker + server + database |",
        "|" + "---|" * 9,
    ]
    for unit in units:
        ours = unit["contenders"][IN_PROCESS]
        for name, found in unit["contenders"].items():
            slower, share = found["p50_ms"] / ours["p50_ms"], found["per_s"] / ours["per_s"]
            mark = ""
            if name == HTTP:
                mark = f"p50 ≤ 1.15: {_mark(slower <= 1.15)}; throughput ≥ 85 %: {_mark(share >= 0.85)}"
            compared = ("", "") if name in (IN_PROCESS, BARE) else (f"{slower:.2f} x", f"{share:.0%}")
            lines.append(
                f"| {unit['clients']} | {name} | {_ms(found['p50_ms'])} | {_ms(found['p99_ms'])} |"
                f" {found['per_s']:,.0f} | {compared[0]} | {compared[1]} | {mark} | {_cpu(found)} |"
            )
    return lines


def _known(unit: Result) -> list[str]:
    found = unit["contenders"]
    lines = ["| contender | p50 | p99 | searches/s | to the statement | | CPU |", "|" + "---|" * 7]
    for name, each in found.items():
        statement = "statement, nearest neighbours" if name.split(", ")[-1] == "vectors" else ""
        if name.endswith("words and vectors"):
            statement = "statement, words and vectors"
        against = mark = ""
        if statement and statement != name:
            ratio = each["p50_ms"] / found[statement]["p50_ms"]
            against = f"{ratio:.2f} x"
            mark = f"≤ 1.5: {_mark(ratio <= 1.5)}" if name.startswith("HTTP") else ""
        lines.append(
            f"| {name} | {_ms(each['p50_ms'])} | {_ms(each['p99_ms'])} | {each['per_s']:,.0f} | {against} | {mark} |"
            f" {_cpu(each)} |"
        )
    return lines


def _collecting(units: Sequence[Result]) -> list[str]:
    lines = ["| rows a request, clients | contender | rows/s | to the faster INSERT | | p50 |", "|" + "---|" * 6]
    for unit in units:
        found = unit["contenders"]
        by_hand = max(each["rows_per_s"] for name, each in found.items() if name != HTTP)
        for name, each in found.items():
            share = each["rows_per_s"] / by_hand
            mark = f"≥ 60 %: {_mark(share >= 0.6)}" if name == HTTP else ""
            clients = unit["clients"] if name == HTTP else 1
            lines.append(
                f"| {unit['rows_a_request']:,}, {clients} | {name} | {each['rows_per_s']:,.0f} | {share:.0%} | {mark} |"
                f" {_ms(each['p50_ms'])} |"
            )
    fsync, commit = units[0]["settings"]
    return [*lines, "", f"fsync {fsync}, synchronous_commit {commit}."]


def _beside(unit: Result) -> list[str]:
    found = unit["contenders"]
    alone = found["alone"]
    [beside] = [each for name, each in found.items() if name != "alone"]
    ratio = beside["p99_ms"] / alone["p99_ms"]
    lines = [f"| {unit['searches_per_s']:g} searches/s, evenly | p50 | p99 |", "|---|---|---|"]
    lines += [
        f"| {name} | {_ms(each['p50_ms'])} | {_ms(each['p99_ms'])} |" for name, each in unit["contenders"].items()
    ]
    return [*lines, "", f"p99 {ratio:.2f} times (≤ 1.2: {_mark(ratio <= 1.2)})."]


def _mixed(unit: Result) -> list[str]:
    samples = unit["samples"]
    shown = samples[:: max(1, len(samples) // 10)]
    if shown[-1] != samples[-1]:
        shown.append(samples[-1])
    lines = [
        f"{unit['minutes']:g} minutes, {unit['searches_per_s']:g} searches/s and 500 events/s, {unit['answers']:,}"
        " answers, none failed.",
        "",
        "| minute | memory, MiB | threads | sockets | connections to the database |",
        "|" + "---|" * 5,
    ]
    return lines + [
        f"| {each['s'] / 60:.1f} | {each['memory_mib']:.0f} | {each['threads']} | {each['sockets']} |"
        f" {each['database_connections']} |"
        for each in shown
    ]


def _cpu(found: Result) -> str:
    parts = [found["asker_cpu_ms"], found.get("server_cpu_ms"), found["database_cpu_ms"]]
    return " + ".join("-" if part is None else f"{part:.2f}" for part in parts) + " ms"


def _ms(value: float) -> str:
    return f"{value:.2f} ms" if value < 100 else f"{value:,.0f} ms"


def _mark(kept: bool) -> str:
    return "pass" if kept else "**miss**"
