"""From measurements to a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.index.bars import Row
from benchmarks.index.search import CONTENDERS


def markdown(rows: Sequence[Row], machines: Sequence[str], drawing: str) -> str:
    """Return the whole document; `machines` are those that the measurements were made on."""
    kept = [row.kept for row in rows if row.kept is not None]
    lines = ["# Indexing and search", "", "Measured on: " + "; ".join(dict.fromkeys(machines)) + ".", ""]
    lines += [f"{sum(kept)} of {len(kept)} promises are kept.", ""]
    for section, of_section in groupby(rows, key=lambda row: row.section):
        lines += [f"## {section}", "", "| what | Estudio | compared with | ratio | promised | |", "|" + " --- |" * 6]
        for row in of_section:
            mark = {True: "pass", False: "**miss**", None: ""}[row.kept]
            lines.append(f"| {row.what} | {row.ours} | {row.other} | {row.ratio} | {row.bar} | {mark} |")
        lines.append("")
    lines += [
        f"![Search latency and throughput by number of clients]({drawing})",
        "",
        "Contenders take turns in the same run; figures are medians, latencies percentiles over all rounds. Texts are",
        "the demo's products, vectors for search are generated in clusters. Search clients are processes; the bare",
        "statement is prepared, on a connection of its own, with the same `ef_search`. *Pointer and search* is all",
        "that a search does in the database: the statement also confirms that the release is still live.",
        "Stages of a re-index overlap. Processor seconds are those of the process and the database. Lock is from",
        "taking the exclusive lock to the end of its transaction.",
        "",
    ]
    return "\n".join(lines)


def plot(path: Path, searches: Sequence[Mapping[str, Any]]) -> None:
    """Draw p50, p99 and queries per second by number of clients, a row of panels per collection size, as SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "estudio"  # the same figures give the same file
    sizes = sorted({result["size"] for result in searches})
    figure, axes = plt.subplots(max(1, len(sizes)), 3, figsize=(12, 3.2 * max(1, len(sizes))), squeeze=False)
    for row, size in zip(axes, sizes, strict=False):
        of_size = sorted((r for r in searches if r["size"] == size), key=lambda r: r["clients"])
        for axis, (key, label) in zip(
            row, (("p50_ms", "p50, ms"), ("p99_ms", "p99, ms"), ("queries_per_s", "queries/s")), strict=True
        ):
            for name in CONTENDERS:
                having = [r for r in of_size if name in r["contenders"]]  # some were measured before words were
                axis.plot(
                    [r["clients"] for r in having],
                    [r["contenders"][name][key] for r in having],
                    marker="o",
                    label=name,
                )
            axis.set(xlabel=f"clients, {size:,} vectors", ylabel=label, ylim=(0, None))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    figure.set_layout_engine("constrained")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
