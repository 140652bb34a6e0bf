"""When a candidate may replace the champion: what a plugin may set of the gate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from estudio_core.strict_model import StrictModel


class GateSettings(StrictModel):
    """When a candidate may replace the champion."""

    metric: Literal["ndcg@10", "mrr@10", "recall@10"] = "ndcg@10"
    minimum_gain: float = Field(default=0.0, ge=-1, le=1, title="Least gain")
    """What the gain has to exceed for certain (lower end of its confidence interval), in units of the metric."""
    maximum_loss: float = Field(default=0.03, ge=0, le=1, title="Largest loss that may remain possible")
    """For queries training never saw, beside enough that it did: their mean gain has to exceed `minimum_gain`, and its
    interval has to rule out a loss of more than this, in units of the metric. A few dozen judged queries can seldom
    prove a gain, and can prove that nothing is ruined. 0: the gain has to be certain there too. Where people's ratings
    judge, neither the full nor the judged nDCG@10 may lose more than this for certain, in any group."""
    maximum_tax: float = Field(default=0.02, ge=0, le=1, title="Largest mean loss of queries that were answered well")
    """The tax: queries whose first result had their highest grade may not lose more than this of the full or the judged
    nDCG@10 for certain, in any group with `minimum_queries` of them. Such queries are chosen by the champion's success,
    so that a change that is for nothing costs them about as much by chance. Measured on Chorus with 3,000 unrated
    products (simulated clicks, one seed, 27 such queries that nobody asked), full and judged: noise of a tenth of the
    weights' spread -0.013 and -0.016; the demo's training +0.051 and +0.004; that of the defaults +0.019 and -0.004;
    four times the trained change, where vectors collapse, -0.143 [-0.265, -0.039] and -0.049 [-0.114, -0.017], which
    0.02 refuses and 0.03 does not. 1: whatever it costs."""
    confidence: float = Field(default=0.95, gt=0.5, le=0.999)
    """Level of the paired bootstrap interval, and of the randomisation test that has to confirm it."""
    minimum_queries: int = Field(default=10, ge=2)
    """Fewer evaluated queries than this in a group, and the group decides nothing. Whatever they gain, fewer than six
    are never certain at 95 %."""
    told_gain: float = Field(default=0.03, gt=0, le=1, title="Gain that clicks have to be enough to find")
    """From it follows how many held-out sessions a decision needs: those with which a gain of this size, in nDCG@10 on
    what was shown, is found in 80 % of cases. Clicks on irrelevant results make gains look smaller: with one in five of
    those that are looked at, a true 0.05 looks like 0.035 (`make bench-gate`)."""
    worthwhile_gain: float = Field(default=0.01, ge=0, le=1, title="Gain below which a candidate is not better")
    """Clicks call a candidate not better where a gain of this size is ruled out. With 0, an equal one is never told."""
    maximum_unshown: float = Field(default=0.2, ge=0, le=1, title="Most of the top ten that nobody may have seen")
    """Share of the candidate's top ten, weighted by discount, that held-out sessions never showed. With more, clicks
    cannot call it better, however well it ranks again what was shown."""
    decided_by: Literal["ratings", "clicks"] = "ratings"
    """Who decides where a plugin has people's ratings and held-out clicks. `clicks`: the ratings are told beside the
    verdict of clicks and change nothing, as where they are too few or too old to be trusted. Without ratings clicks
    decide anyway."""
