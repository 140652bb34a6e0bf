"""Weights between the base model and the trained one: cheap insurance against forgetting.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (arXiv:2109.01903): theta = (1-a)*base + a*trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lightning_modules.click_evidence import ClickEvidence
from lightning_modules.ranking_module import put_weights


@dataclass(frozen=True)
class Interpolation:
    """The share of trained weights that was chosen, and the value of each share tried.

    A share of 0 is the model as it came: dev clicks did not speak for what training changed, see `evidence`.
    """

    share: float
    values: dict[float, float]
    evidence: ClickEvidence | None = None


HALF_TRUSTED = 150
"""Distinct queries at which half of what was learned is kept."""


def share_of_log(queries: int) -> float:
    """Return the share of the trained weights for a log in which so many distinct queries have clicks.

    What the clicks of a query teach holds for that query; how far it holds for others shows in how many queries say the
    same. So it is shrunk as the estimate of a mean from n groups is, by n / (n + k), k being the variance within groups
    over that between them (Morris 1983, "Parametric Empirical Bayes Inference").

    >>> [round(share_of_log(queries), 2) for queries in (50, 150, 2_000)]
    [0.25, 0.5, 0.93]
    """
    return queries / (queries + HALF_TRUSTED)


def mixed(base: dict[str, Tensor], trained: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return (1 - share) * base + share * trained, by name.

    >>> import torch
    >>> mixed({"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}, 0.25)["w"].tolist()
    [1.0]
    """
    return {name: base[name].lerp(trained[name], share) for name in trained}


def choose_share(
    model: nn.Module,
    base: dict[str, Tensor],
    trained: dict[str, Tensor],
    shares: Sequence[float],
    measure: Callable[[], float],
) -> Interpolation:
    """Put the best mix of weights into `model`; among equal values the largest share wins.

    Args:
        model: Changed in place.
        base: Weights before training, of the trained parameters.
        trained: Weights after it.
        shares: Shares of the trained weights to try, in (0, 1].
        measure: Value of the model's present weights on the dev split; larger is better.
    """
    values: dict[float, float] = {}
    for share in sorted(set(shares)):
        put_weights(model, mixed(base, trained, share))
        values[share] = measure()
    best = max(values, key=lambda share: (values[share], share))
    put_weights(model, mixed(base, trained, best))
    return Interpolation(best, values)
