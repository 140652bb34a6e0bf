"""Whether the gate was right: what clicks alone said, beside what people's ratings say. They decided nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core.evaluation.bootstrap import Estimate
from estudio_core.evaluation.evaluate import FULL

if TYPE_CHECKING:
    from estudio_core.evaluation.gate import GateDecision


@dataclass(frozen=True)
class Truth:
    """A verdict of clicks beside the true gain of the same queries.

    Attributes:
        gain: In nDCG@10 full, by people's ratings, on the queries that training never saw.
        right: Whether the verdict holds; None where there was none, or it was "cannot tell".
        says: The comparison in a sentence.
    """

    gain: Estimate | None
    right: bool | None
    says: str


def truth_beside(decision: GateDecision) -> Truth:
    """Return whether the gate was right.

    "Better" is right where the true gain is above 0, "not better" where it is below the one that is worthwhile. Who
    simulated the clicks knows no other truth than the ratings: what nobody rated is of grade 0 to both.
    """
    unseen = next((group for group in decision.groups if group.group == "unseen"), None)
    compared = None if unseen is None else unseen.metric(FULL)
    if decision.clicks is None or compared is None:
        return Truth(None, None, "Nothing to compare: no held-out query was clicked, or none of them is rated.")
    verdict, gain = decision.clicks.verdict, compared.gain
    told = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    ratings = f"by people's ratings, which decided nothing, the same {gain.n} queries changed by {told}"
    if verdict == "cannot tell":
        return Truth(gain, None, f"Clicks could not tell; {ratings}.")
    worthwhile = decision.settings.worthwhile_gain
    right = gain.mean > 0 if verdict == "better" else gain.mean < worthwhile
    return Truth(gain, right, f"Clicks said “{verdict}”, and that was {'right' if right else 'wrong'}: {ratings}.")
