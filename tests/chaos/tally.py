"""The table: what was killed where, and what became of writes and searches until the next kill."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.chaos.campaign import Kill
from tests.chaos.verdict import Violation

_HEAD = (
    *("step", "point", "killed", "kills", "attempts", "writes acknowledged", "lost", "duplicated", "searches"),
    *("failed, database up", "failed, database down", "mixed releases", "seconds"),
)


def table(kills: Sequence[Kill], journal: Iterable[Mapping[str, Any]], violations: Sequence[Violation]) -> str:
    """Return the tally as Markdown, one line a kill, and the sum.

    A write counts where it was acknowledged, a search where it began, up to the next kill; what came before the first
    counts with the first. `seconds` is from the kill to the end of the step.
    """
    starts = [kill.at for kill in kills]
    counts: list[Counter[str]] = [Counter() for _ in kills]

    def at(moment: float | None) -> Counter[str]:
        place = len(starts) if moment is None else bisect.bisect_right(starts, moment)
        return counts[max(0, place - 1)]

    for line in journal:
        if line["kind"] == "ack":
            at(line["at"])["writes"] += 1
        elif line["kind"] in {"search", "probe"}:
            at(line["began"])["searches"] += 1
            if "error" in line:
                at(line["began"])["errors"] += 1
    for violation in violations:
        at(violation.at)[violation.kind] += 1
    rows = [
        [kill.point.step, kill.point.name, kill.point.target, 1, kill.attempts, *_numbers(count), f"{kill.seconds:.1f}"]
        for kill, count in zip(kills, counts, strict=True)
    ]
    total: Counter[str] = sum(counts, Counter())
    attempts, seconds = sum(kill.attempts for kill in kills), sum(kill.seconds for kill in kills)
    rows.append(["all", "", "", len(kills), attempts, *_numbers(total), f"{seconds:.1f}"])
    lines = [_HEAD, ["---"] * 3 + ["---:"] * (len(_HEAD) - 3), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _numbers(count: Counter[str]) -> list[int]:
    down = count["errors"] - count["failed"]
    return [
        *(count["writes"], count["lost"], count["duplicated"], count["searches"]),
        *(count["failed"], down, count["mixed"]),
    ]
