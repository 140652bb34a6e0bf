"""What weights make of clicks whose truth is known: how much of them irrelevant results get, beside raw clicks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.simulation import GRADES, SHOWN, Clicks, World
from benchmarks.machine import describe
from estudio_core.clickstream.evidence import weigh_evidence
from estudio_core.clickstream.examination import estimate_examination
from estudio_core.clickstream.ranking_data import FineTuningInput

Floats = NDArray[np.float64]

MODELS = ("PBM 0", "PBM 0.5", "PBM 1", "PBM 2", "cascade", "DBN")
NOISES = (0.05, 0.2)
"""Chance that an irrelevant result is clicked once it is looked at."""
SESSIONS_PER_QUERY = (1, 2, 5, 20)
CLICK_SHARES = (1.0, 0.1)
"""Share of clicks that users make at all: 1 in ten is a shop that few click in."""
NEARLY = 0.05
"""Share by which the mean weight of a grade may be below that of the one before it: few clicks fall on some grades."""
SESSIONS = 2_400
"""Of a log."""


@dataclass(frozen=True)
class Log:
    """A cell of the table: a click model, its noise, how often each query is asked, and how many clicks are made."""

    model: str
    noise: float
    per_query: int
    click_share: float
    sessions: int = SESSIONS

    def drawn(self, seed: int) -> tuple[list[FineTuningInput], Floats]:
        """Return sessions and the grades of what each showed, [sessions, shown]."""
        rng = np.random.default_rng(seed)
        queries = max(60, self.sessions // self.per_query)
        world = World.drawn(rng, queries)
        asked = np.tile(np.arange(queries), self.per_query)
        grades = np.take_along_axis(world.grades, world.shown, 1)[asked]
        scores = np.take_along_axis(world.champion, world.shown, 1)[asked]
        clicks = Clicks(self.model, self.noise).drawn(rng, grades)
        clicks &= rng.random(clicks.shape) < self.click_share
        places = tuple(range(SHOWN))
        sessions = [
            FineTuningInput(
                str(number),
                f"query {query}",
                tuple(map(str, world.shown[query].tolist())),
                places,
                tuple(scores[number].tolist()),
                tuple(clicks[number].astype(float).tolist()),
            )
            for number, query in enumerate(asked.tolist())
        ]
        return sessions, grades.astype(np.float64)


@dataclass(frozen=True)
class Weighed:
    """What one log's weights are like.

    Attributes:
        log: The cell.
        raw: Share of clicks on irrelevant results.
        weighted: Share of the weight of clicks on irrelevant results.
        by_grade: Mean weight of a click by grade, from 0 on; NaN where none was clicked.
        skips_by_grade: Mean confidence of a skip by grade.
        exponent: Of attention, as estimated.
    """

    log: Log
    raw: float
    weighted: float
    by_grade: tuple[float, ...]
    skips_by_grade: tuple[float, ...]
    exponent: float

    @property
    def rises(self) -> bool:
        """Whether relevant results' clicks weigh more, grade by grade, but for what two logs of one kind differ by."""
        known = [weight for weight in self.by_grade if np.isfinite(weight)]
        return all(after > before * (1 - NEARLY) for before, after in pairwise(known))


def weighed(log: Log, seeds: int = 2) -> Weighed:
    """Draw a cell's logs, weigh their clicks and skips as training does, and count."""
    found: list[tuple[Floats, Floats, Floats]] = []
    exponents = []
    for seed in range(seeds):
        sessions, grades = log.drawn(seed)
        examination = estimate_examination(sessions)
        evidence = weigh_evidence(sessions, examination)
        clicked = np.array([session.click_weights for session in sessions]) > 0
        of = [session.session_id for session in sessions]
        confidences = np.array([evidence.confidences[each] for each in of])
        weights = confidences * np.where(clicked, np.array([evidence.click_weights[each] for each in of]), 1.0)
        found.append((grades.ravel(), clicked.ravel().astype(float), weights.ravel()))
        exponents.append(examination.exponent)
    grade, click, weight = (np.concatenate(parts) for parts in zip(*found, strict=True))
    on_click = click > 0

    def share(values: Floats) -> float:
        return float(values[on_click & (grade == 0)].sum() / values[on_click].sum())

    def means(here: NDArray[np.bool_]) -> tuple[float, ...]:
        of_grades = (weight[here & (grade == each)] for each in range(GRADES + 1))
        return tuple(float(part.mean()) if len(part) else float("nan") for part in of_grades)

    return Weighed(log, share(click), share(weight), means(on_click), means(~on_click), float(np.mean(exponents)))


def logs(quick: bool = False) -> Iterator[Log]:
    """Yield all cells; `quick`: those of two sessions a query."""
    for model, noise, count, share in product(MODELS, NOISES, SESSIONS_PER_QUERY, CLICK_SHARES):
        if not quick or count == 2:
            yield Log(model, noise, count, share)


def weights_table(cells: list[Weighed]) -> str:
    """Return the cells as Markdown."""
    worse, falls = sum(c.weighted > c.raw for c in cells), sum(not c.rises for c in cells)
    lines = [
        "# Weights of clicks",
        "",
        "Share of the clicks, and of their weight in training, that falls on irrelevant results (grade 0), in "
        f"simulated logs of {SESSIONS:,} sessions (20 results shown, 2 seeds); mean weight of a click by the grade of "
        "its result; mean confidence of a skip. Examination is estimated from the same log.",
        "",
        f"{len(cells)} cells; more weight than clicks on irrelevant results in {worse}; the mean weight falls by more "
        f"than {NEARLY:.0%} from a grade to the next in {falls}.",
        "",
        f"Machine: {describe()}. Command: `make bench-bias`.",
        "",
        "| clicks | noise | clicks made | sessions a query | e | raw | weighed | by grade 0 to 3 | skips, 0 to 3 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for c in cells:
        clicks, skips = (
            ", ".join("none" if np.isnan(value) else f"{value:.3f}" for value in of)
            for of in (c.by_grade, c.skips_by_grade)
        )
        lines.append(
            f"| {c.log.model} | {c.log.noise:g} | {c.log.click_share:.0%} | {c.log.per_query} | {c.exponent:.2f} "
            f"| {c.raw:.3f} | {c.weighted:.3f} | {clicks} | {skips} |"
        )
    return "\n".join([*lines, ""])
