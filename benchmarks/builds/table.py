"""The table of what was measured of a large build, with what is promised."""

from __future__ import annotations

from typing import Any

from benchmarks.builds.load import KILLS

MOST_MEMORY_MB = 2_048
LEAST_RECALL = 0.95
MOST_UNEVEN = 0.2

Row = tuple[str, str, str, bool | None]
"""What, what was measured, what is promised, whether that holds; None: nothing is."""


def table(
    load: dict[str, Any], index: dict[str, Any] | None, filtered: dict[str, Any] | None, attacks: dict[str, Any] | None
) -> str:
    """Return the parts that were measured as Markdown."""
    rows = _load_rows(load) + ([] if filtered is None else _search_rows(filtered["pages"]))
    by_clock, by_cpu = (
        ", ".join(f"{tenth[rate]:,.0f}" for tenth in load["tenths"]) for rate in ("items_per_s", "items_per_cpu_s")
    )
    lines = [
        f"# A build of {load['items']:,} items",
        f"Measured on: {load['machine']}, PostgreSQL on the same machine. Vectors were stored beforehand.",
        f"{load['shards']} shards, {load['kills']} kills, {load['load_s']:,.0f} s from the first row to the last, with "
        f"the starts of processes. Items/s between chunks of one process, by tenths: {by_clock}; for each second of a "
        f"processor, the database's included: {by_cpu}.",
    ]
    if index is not None:
        lines.append(
            f"Indexes: {index['index_s']:,.0f} s; of the vector index the preflight says {index['told_index_s']:,.0f} "
            f"s and {index['told_memory_mb']:,} MB of memory. Disk: {index['disk_mb']:,.0f} MB; the preflight says "
            f"{index['told_disk_mb']:,.0f} MB."
        )
    told = {True: "pass", False: "fail", None: ""}
    marked = ["| what | measured | promised | |", "| --- | --- | --- | --- |"]
    marked += [f"| {what} | {value} | {bar} | {told[passed]} |" for what, value, bar, passed in rows]
    lines.append("\n".join(marked))
    if attacks is not None:
        asked = ["| asked | answered after | with |", "| --- | --- | --- |"]
        asked += [f"| {what} | {each['ms']:,.0f} ms | {each['outcome']} |" for what, each in attacks["attacks"].items()]
        lines += ["Searches that ask for too much; the deadline of each is 2 s, the default:", "\n".join(asked)]
    return "\n\n".join(lines) + "\n"


def _load_rows(load: dict[str, Any]) -> list[Row]:
    first, last = load["tenths"][0], load["tenths"][-1]
    even, even_cpu = (last[rate] / max(1e-9, first[rate]) for rate in ("items_per_s", "items_per_cpu_s"))
    memory = load["most_mb"]
    return [
        ("lost, or otherwise than in the table", f"{load['lost']:,}", "0", load["lost"] == 0),
        ("doubled", f"{load['doubled']:,}", "0", load["doubled"] == 0),
        ("kills of the loading process", f"{load['kills']}", f"{KILLS}", load["kills"] >= KILLS),
        ("most memory of it", f"{memory:,.0f} MB", f"≤ {MOST_MEMORY_MB:,} MB", memory <= MOST_MEMORY_MB),
        ("last tenth against the first, by the clock", f"{even:.2f}", "0.8 to 1.2", abs(even - 1) <= MOST_UNEVEN),
        ("last tenth against the first, by processor time", f"{even_cpu:.2f}", "", None),
    ]


def _search_rows(pages: dict[str, Any]) -> list[Row]:
    bare = pages["none"]["p99_ms"]
    rows: list[Row] = []
    for name, page in pages.items():
        recall, p50, p99 = page["recall_at_10"], page["p50_ms"], page["p99_ms"]
        rows.append((f"filter {name}, recall@10", f"{recall:.3f}", f"≥ {LEAST_RECALL}", recall >= LEAST_RECALL))
        rows.append((f"filter {name}, p99", f"{p99:.1f} ms (p50 {p50:.1f})", "≤ 2 x that without", p99 <= 2 * bare))
    return rows
