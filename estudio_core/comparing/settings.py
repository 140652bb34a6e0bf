"""What whoever starts an experiment may say of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from estudio_core.clickstream.sessions import SETTLE_MINUTES
from estudio_core.strict_model import StrictModel

Form = Literal["interleaving", "ab"]
"""`interleaving`: both releases' results in one list. `ab`: each client is served by one of the two."""


class ExperimentSettings(StrictModel):
    """When an experiment ends, and what counts in it. Credit: see `credit`; from -1, all to the champion, to 1."""

    confidence: float = Field(default=0.95, gt=0.5, le=0.999, title="Confidence")
    """Level of the verdict, whenever and however often it is looked at."""
    minimum_visits: int = Field(default=30, ge=1, le=1_000_000, title="Fewest visits")
    """Decided visits before a challenger may be called better. Worse or harmful it may be called before."""
    harm_bound: float = Field(default=0.1, gt=0, lt=1, title="Loss that ends it at once")
    """Credit below minus this is harm: the experiment ends as soon as that is likely (`harm_confidence`), by clicks
    that have not settled too. With simulated users, a loss of 0.10 in nDCG@10 is a credit of about -0.15 to -0.25."""
    harm_confidence: float = Field(default=0.9, gt=0.5, le=0.999, title="Confidence of harm")
    """Lower than that of the verdict: the champion goes on serving, which is what would be without an experiment."""
    equal_within: float = Field(default=0.01, ge=0, lt=1, title="Credit that makes no difference")
    """Once the band lies within this of zero on both sides, there is no difference worth a release. 0: never."""
    most_days: float = Field(default=28.0, gt=0, le=365, title="Most days")
    """Then it ends without a difference having been found, and the champion stays."""
    settle_minutes: float = Field(default=float(SETTLE_MINUTES), gt=0, le=10_080, title="Minutes to settle")
    """Time within which clicks on a search arrive, and the length of a visit."""
    share: float = Field(default=1.0, gt=0, le=1, title="Share that takes part")
    """Of searches (interleaving) or of clients (ab)."""
    event_weights: dict[str, float] = Field(default_factory=dict)
    """Of kinds of events, as the plugin's converter has them."""
    usual_success: float = Field(default=0.5, ge=0, le=1)
    """Of an `ab`: share of searches that are clicked, about. Near the truth, fewer visits are needed; never wrong."""
