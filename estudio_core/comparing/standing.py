"""Where an experiment stands: wins, ties and losses, the band of the credit, what is still needed, and the verdict."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from estudio_core.comparing.credit import Visits
from estudio_core.comparing.sequence import Counts, band, highest, times_needed
from estudio_core.comparing.settings import ExperimentSettings

Finding = Literal["better", "worse", "harm", "no difference"]


class Standing(BaseModel):
    """What clicks have said of a challenger so far. Credit: see `credit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    searches: int
    """Searches of the experiment that count, open visits included."""
    visits: int
    """Settled visits."""
    wins: int
    """Settled visits whose credit is the challenger's."""
    losses: int
    ties: int
    """Settled visits with clicks, and credit for neither."""
    credit: float
    """Mean credit of the visits that brought any."""
    low: float
    high: float
    """Ends of its confidence sequence."""
    sessions_needed: int | None
    """Further searches until a verdict, if they are like those so far; None where nothing says."""
    left_out: str
    """Who was not counted; empty where nobody."""
    finding: Finding | None
    """The verdict; None: not yet."""
    reason: str

    @property
    def decided(self) -> int:
        """Visits that brought credit, by which it is judged."""
        return self.wins + self.losses


def standing_of(found: Visits, settings: ExperimentSettings, now_s: float, started_s: float) -> Standing:
    """Return where an experiment stands.

    Args:
        found: Its visits.
        settings: When it ends.
        now_s: The moment of the look, seconds since 1970.
        started_s: When it started.
    """
    settle_s = 2 * settings.settle_minutes * 60
    settled = [visit for visit in found.visits if visit.begun + settle_s <= now_s]
    values = [visit.value for visit in settled if visit.value is not None]
    counts = Counts.of(values)
    low, high = band(counts, settings.confidence)
    so_far = Counts.of([visit.value for visit in found.visits if visit.value is not None])
    finding, reason = _finding(counts, so_far, (low, high), settings, (now_s - started_s) / 86_400)
    wins, losses = sum(value > 0 for value in values), sum(value < 0 for value in values)
    return Standing(
        searches=found.searches,
        visits=len(settled),
        wins=wins,
        losses=losses,
        ties=sum(visit.clicked and not visit.value for visit in settled),
        credit=counts.mean,
        low=low,
        high=high,
        sessions_needed=None if finding else _needed(counts, settings, sum(visit.searches for visit in settled)),
        left_out=_left_out(found),
        finding=finding,
        reason=reason,
    )


def _finding(
    counts: Counts, so_far: Counts, ends: tuple[float, float], settings: ExperimentSettings, days: float
) -> tuple[Finding | None, str]:
    low, high = ends
    told = f"credit {counts.mean:+.3f} [{low:+.3f}, {high:+.3f}] in {counts.number:,} visits that decide"
    if (worst := highest(so_far, settings.harm_confidence)) < -settings.harm_bound:
        return "harm", (
            f"Users choose the champion's results: credit {so_far.mean:+.3f}, at most {worst:+.3f}, in "
            f"{so_far.number:,} visits; below {-settings.harm_bound:+.3f} an experiment ends at once."
        )
    if low > 0 and counts.number >= settings.minimum_visits:
        return "better", f"Users choose the challenger's results: {told}."
    if high < 0:
        return "worse", f"Users choose the champion's results: {told}."
    if -settings.equal_within < low and high < settings.equal_within:
        return "no difference", f"Users choose either's results alike: {told}."
    if days >= settings.most_days:
        return "no difference", f"None was found in {settings.most_days:g} days: {told}."
    return None, f"So far: {told}."


def _needed(counts: Counts, settings: ExperimentSettings, searches: int) -> int | None:
    times = times_needed(counts, settings.confidence)
    if times is None:
        return None
    if counts.number:
        times = max(times, settings.minimum_visits / counts.number)
    return max(0, math.ceil((times - 1) * searches))


def _left_out(found: Visits) -> str:
    said = [f"{number} clients for {reason}" for reason, number in sorted(found.implausible.items())]
    if found.beyond:
        said.append(f"{found.beyond} visits of clients that have more than count")
    return "; ".join(said)
