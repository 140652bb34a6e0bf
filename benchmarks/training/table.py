"""Markdown table and plot of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Results = list[dict[str, Any]]
EPOCHS = 6
"""Of the column that adds up preparation and steps: the default of training."""


def write_table(results: Results, folder: Path, name: str) -> Path:
    """Write `<name>.md` and its plot `<name>.svg`; return the path of the table."""
    lines = ["# Training speed", ""]
    for of_machine in _by_machine(results):
        lines += [f"## {of_machine[0]['machine']['processor']}", "", *_machine(of_machine), ""]
        for size in sorted({result["unit"]["sessions"] for result in of_machine}):
            rows = _rows([r for r in of_machine if r["unit"]["sessions"] == size])
            lines += [f"### {size:,} sessions", "", *rows, ""]
    _plot(results, folder / f"{name}.svg")
    lines += [f"![Sessions per second, memory and preparation by number of sessions]({name}.svg)", ""]
    lines += [
        "Sessions hold a query and 8 products of the demo's catalogue, one clicked, cut to 64 tokens; searches are",
        "simulated. All contenders get the same sessions in the same order. Sessions and tokens per second are those",
        "of the steps after warm-up; tokens are those that were encoded, padding left out, so that a contender that",
        f"encodes a text once per batch has fewer per session. *{EPOCHS} epochs* is preparation plus all sessions",
        f"{EPOCHS} times at that speed, calculated. *With preparation* is the rate of the whole call of so few steps,",
        "what comes before the first one included: Estudio tokenises then, and takes all texts that the steps need",
        "through the frozen layers, which they do not pay for again. The longer a training, the less that weighs.",
        "The loop takes an SGD step after every session and computes in 32",
        "bits; the others step after a batch. Estudio trains without dropout, its default; the others with the model's",
        "own (0.1), theirs. *Sessions/CPU s* are those per second of all cores' work: they move least where others use",
        "the machine.",
        "",
    ]
    path = folder / f"{name}.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _by_machine(results: Results) -> list[Results]:
    """Return the results of each machine: what different ones took is not to be compared."""
    machines: dict[str, Results] = {}
    for result in results:
        machines.setdefault(json.dumps(result["machine"], sort_keys=True), []).append(result)
    return list(machines.values())


def _machine(results: Results) -> list[str]:
    on, unit = results[0]["machine"], results[0]["unit"]
    commits = ", ".join(sorted({result["code"] for result in results if result["code"]})) or "unknown"
    device = f"GPU {on['gpu']}" if on["gpu"] != "none" else f"CPU, {unit['threads']} threads, no GPU"
    return [
        f"Computed on: **{device}**. {on['processor']}, {on['cores']} cores, {on['memory']}; torch {on['torch']}, "
        f"Python {on['python']}.",
        f"Batches of {unit['batch_size']} sessions, {unit['steps']} steps measured after {unit['warmup']} of warm-up, "
        f"seed {unit['seed']}, code {commits}.",
    ]


def _rows(results: Results) -> list[str]:
    on_gpu = results[0]["peak_gpu_memory_mb"] is not None
    head = [
        "contender",
        "precision",
        "sessions/s",
        "with preparation",
        "sessions/CPU s",
        "tokens/s",
        "tokens/session",
        "preparation, s",
        f"{EPOCHS} epochs, s",
    ]
    head += ["peak memory, MB", *(["peak GPU memory, MB"] if on_gpu else [])]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for result in sorted(results, key=lambda result: -result["sessions_per_s"]):
        whole = result["preparation_s"] + EPOCHS * result["unit"]["sessions"] / result["sessions_per_s"]
        cells = [
            result["unit"]["contender"],
            result["precision"],
            f"{result['sessions_per_s']:.1f}",
            f"{_whole_rate(result):.1f}",
            f"{result['sessions_per_cpu_s']:.1f}",
            f"{result['tokens_per_s']:,.0f}",
            f"{result['tokens_per_session']:.0f}",
            f"{result['preparation_s']:.1f}",
            f"{whole:,.0f}",
            f"{result['peak_memory_mb']:,.0f}",
            *([f"{result['peak_gpu_memory_mb']:,.0f}"] if on_gpu else []),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _whole_rate(result: dict[str, Any]) -> float:
    """Return sessions per second of the whole call: preparation, steps of warm-up and measured steps."""
    unit = result["unit"]
    return float((unit["warmup"] + unit["steps"]) * unit["batch_size"] / result["step_ends_s"][-1])


def _plot(results: Results, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "estudio"  # the same figures give the same file
    import matplotlib.pyplot as plt

    panels = (
        ("sessions_per_s", "sessions/s"),
        ("peak_memory_mb", "peak memory, MB"),
        ("preparation_s", "preparation, s"),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4))
    machines = _by_machine(results)
    for axis, (key, label) in zip(axes, panels, strict=True):
        for number, of_machine in enumerate(machines):
            where = f", {of_machine[0]['machine']['processor'].split(' (')[0]}" if len(machines) > 1 else ""
            for contender in dict.fromkeys(result["unit"]["contender"] for result in of_machine):
                points = sorted(
                    (r["unit"]["sessions"], r[key]) for r in of_machine if r["unit"]["contender"] == contender
                )
                axis.plot(*zip(*points, strict=True), marker="os^v"[number % 4], label=contender + where)
        axis.set(xscale="log", xlabel="sessions", ylabel=label, ylim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
    figure.set_layout_engine("constrained")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
