"""`python -m tests.chaos`: the full exercise; the tallies go into `benchmarks/results/chaos.md`, `chaos-online.md`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.machine import describe
from tests.chaos.drill import Outcome, drill
from tests.chaos.moves import Outcome as Move
from tests.chaos.moves import all_moves, table
from tests.chaos.online import Outcome as Online
from tests.chaos.online import drill as online_drill
from tests.chaos.points import POINTS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def main(argv: list[str] | None = None) -> int:
    """Run, print and write the tally; 1 where a promise was broken."""
    asked = _arguments(argv)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", flush=True)

    if asked.moves_only:
        outcomes = all_moves(say)
        print(moves_report(outcomes))
        return 1 if any(outcome.violations for outcome in outcomes) else 0
    if asked.online_only:
        return 1 if _online(asked, say).violations else 0
    points = [
        point for point in POINTS if any(part in f"{point.step} {point.target} {point.name}" for part in asked.points)
    ]
    if not points:
        print(f"No point has {asked.points} in its step, target or name.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="estudio-chaos-") as folder:
        outcome = drill(
            points,
            items=asked.items,
            models=asked.models,
            seed=asked.seed,
            limit_s=asked.limit_s,
            folder=Path(asked.keep or folder) / "drill",
            say=say,
        )
    whole = asked.points == [""]
    online = _online(asked, say) if whole else None
    moves = all_moves(say) if whole else []
    text = report(outcome, asked.items, asked.models, asked.seed)
    text += moves_report(moves)
    print(text)
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "chaos.md").write_text(text, encoding="utf-8")
    broken = [*outcome.violations, *(online.violations if online else []), *(v for m in moves for v in m.violations)]
    return 1 if broken else 0


def _online(asked: argparse.Namespace, say: Callable[[str], None]) -> Online:
    with tempfile.TemporaryDirectory(prefix="estudio-chaos-") as folder:
        outcome = online_drill(
            items=asked.items,
            seed=asked.seed,
            rounds=asked.rounds,
            short=False,
            folder=Path(asked.keep or folder) / "online",
            say=say,
        )
    text = online_report(outcome, asked.items, asked.seed)
    print(text)
    asked.results.mkdir(parents=True, exist_ok=True)
    (asked.results / "chaos-online.md").write_text(text, encoding="utf-8")
    return outcome


def online_report(outcome: Online, items: int, seed: int) -> str:
    """Return the tally of the service under fire, and every violation, Markdown."""
    served = "a Triton server" if outcome.with_triton else "ONNX Runtime in each worker process (no Triton here)"
    found = "\n".join(f"- {violation.kind}: {violation.text}" for violation in outcome.violations)
    return f"""# Faults of the service, while an experiment runs

`estudio serve` with two worker processes; simulated people search two releases interleaved, click and turn pages, and
an application writes, all over HTTP; each repeats a request once whose connection breaks. Queries are encoded by
{served}. SIGKILL for a worker, the whole service (a supervisor starts it again), PostgreSQL, one of its sessions,
Triton, the challenger's builder, and whoever carries out the verdict. {outcome.outages} times none of the service, or
no database, was there; a request fails then, and never otherwise, but for writes of items while Triton is away. Hits
are checked against the models, teams against the coins of the query id and against the log. {items} items, seed {seed},
{outcome.seconds:.0f} s in all.

Machine: {describe()}. Its load average over 15 minutes was {os.getloadavg()[2]:.1f}.

{outcome.table}
{chr(10) + found + chr(10) if found else ""}"""


def moves_report(outcomes: list[Move]) -> str:
    """Return the tally of the moves of the database, and every violation, Markdown."""
    if not outcomes:
        return ""
    found = "\n".join(f"- {one.kind}, {one.moment}: {text}" for one in outcomes for text in one.violations)
    return f"\n## The database moves\n\n{table(outcomes)}\n{chr(10) + found + chr(10) if found else ''}"


def report(outcome: Outcome, items: int, models: int, seed: int) -> str:
    """Return the tally with the conditions and every violation, Markdown."""
    down_s = sum(ended - began for began, ended in outcome.outages)
    served = "a Triton server" if outcome.with_triton else "ONNX Runtime in the searching process (no Triton here)"
    found = "\n".join(f"- {violation.kind}: {violation.text}" for violation in outcome.violations)
    return f"""# Faults

SIGKILL at {outcome.kills} points of {outcome.releases} releases and their rollbacks, while another process upserted,
deleted and searched. {items} items, {models} random models of 32 dimensions released in turn, queries encoded by
{served}. Seed {seed}. The database was down {len(outcome.outages)} times, {down_s:.1f} s together.
{outcome.seconds:.0f} s in all.

Machine: {describe()}. Its load average over 15 minutes was {os.getloadavg()[2]:.1f}.

{outcome.table}

{len(outcome.violations)} violations.{chr(10) + chr(10) + found if found else ""}
"""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides operations, outages and shards")
    parser.add_argument("--items", type=int, default=600, help="rows of the items table")
    parser.add_argument("--models", type=int, default=3, help="model versions that are released in turn")
    parser.add_argument(
        "--points", nargs="+", default=[""], help="parts of steps, targets or names of the points to kill at"
    )
    parser.add_argument(
        "--moves-only", action="store_true", help="move the database to other clusters, and kill nothing"
    )
    parser.add_argument(
        "--online-only", action="store_true", help="only the service under fire while an experiment runs"
    )
    parser.add_argument("--rounds", type=int, default=4, help="how often each part of the service is killed")
    parser.add_argument(
        "--limit-s", type=float, default=780, help="no release begins later than this after the traffic"
    )
    parser.add_argument("--keep", type=Path, help="folder in which the installation is left for a look; must be empty")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tally")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
