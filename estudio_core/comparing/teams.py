"""Team-draft interleaving: two rankings in one list, and the team that each result plays for.

Two captains pick by turns, each the best result of its ranking that is not picked yet; in each round a coin says who
picks first (Radlinski, Kurup, Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008). The coins
are bits of a hash of experiment and search: the same search is drafted the same way again, on every machine.

Where both captains would pick the same result, it stands there without a coin, and plays for `both`: clicks on it say
nothing of the rankings. So every round is a pair: the champion's next result and the challenger's, one behind the
other, and the coin says which comes first. Whoever does not tell the rankings apart, and looks at places alone, brings
either side the same on average, pair by pair.

What a click on a pair counts, is how much the two rankings differ about it: the root of half the discount that the
challenger would move from the one result to the other, with the discounts of nDCG, 1 / log2(place + 2). A swap at the
top counts more than one far down, as it does to users; both results of a pair count the same, so that it stays fair.

The first `DEPTH` results are drafted. Behind them the champion's ranking goes on, without what was drafted: pages of
one search hold each result once, and all that the champion finds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["champion", "challenger"]
Team = Literal["champion", "challenger", "both"]
DEPTH = 50
"""Results that are drafted: more than people look at."""


@dataclass(frozen=True)
class Draft:
    """Drafted results in order, the team of each, and what a click on it counts (0 for `both`)."""

    order: tuple[str, ...]
    teams: dict[str, Team]
    worth: dict[str, float]

    def page(self, champion: Sequence[str], start: int, size: int) -> list[str]:
        """Return results `start` to `start + size` of the whole list.

        Args:
            champion: The champion's ranking, its first `max(DEPTH, start + size)` results, or all there are.
            start: Results before the page.
            size: Most results of the page.
        """
        whole = [*self.order, *(result for result in champion if result not in self.teams)]
        return whole[start : start + size]


def seed_of(experiment_id: str, asked: str) -> int:
    """Return 256 bits that belong to an experiment and a search, or a client."""
    return int.from_bytes(hashlib.sha256(f"{experiment_id}\x1f{asked}".encode("utf-8", "replace")).digest(), "big")


def takes_part(seed: int, share: float) -> bool:
    """Return whether a search or client of this seed is among the `share` that take part."""
    return (seed >> 192) / 2**64 < share


def arm(seed: int) -> Side:
    """Return which release serves a client of this seed."""
    return "challenger" if seed & 1 else "champion"


def draft(champion: Sequence[str], challenger: Sequence[str], seed: int, depth: int = DEPTH) -> Draft:
    """Return the first `depth` results of two rankings, each of which has a result once; as far as both have some.

    >>> found = draft(["a", "b", "c"], ["a", "c", "b"], seed=0b1)
    >>> found.order, found.teams
    (('a', 'c', 'b'), {'a': 'both', 'c': 'challenger', 'b': 'champion'})
    >>> {result: round(worth, 2) for result, worth in found.worth.items()}
    {'a': 0.0, 'c': 0.36, 'b': 0.36}
    """
    teams: dict[str, Team] = {}
    worth: dict[str, float] = {}
    of_champion, of_challenger = _discounts(champion), _discounts(challenger)
    one, other = _Captain(champion, teams), _Captain(challenger, teams)
    rounds = 0
    while len(teams) < depth:
        first, second = one.best(), other.best()
        if first is None or second is None:
            break
        if first == second:
            teams[first], worth[first] = "both", 0.0
            continue
        if len(teams) == depth - 1:  # half a pair would be no comparison
            break
        moved = [of_challenger.get(each, 0.0) - of_champion.get(each, 0.0) for each in (first, second)]
        counts = math.sqrt((moved[1] - moved[0]) / 2)
        pair: list[tuple[str, Team]] = [(first, "champion"), (second, "challenger")]
        for result, team in reversed(pair) if seed >> rounds & 1 else pair:
            teams[result], worth[result] = team, counts
        rounds += 1
    return Draft(tuple(teams), teams, worth)


class _Captain:
    """Whoever picks from a ranking what nobody has picked yet."""

    def __init__(self, ranking: Sequence[str], picked: dict[str, Team]) -> None:
        self._left: Iterator[str] = iter(ranking)
        self._picked = picked
        self._next: str | None = next(self._left, None)

    def best(self) -> str | None:
        while self._next in self._picked:
            self._next = next(self._left, None)
        return self._next


def _discounts(ranking: Sequence[str]) -> dict[str, float]:
    return {result: 1 / math.log2(place + 2) for place, result in enumerate(ranking)}
