"""Estudio's own training: the defaults that a plugin gets."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.quality.task import Outcome, Task, base_model
from lightning_modules.config import TrainingConfig
from lightning_modules.evidence import evidence_of
from lightning_modules.fit import fit

LONGER = ("num_epochs", "query_passes", "max_steps")
"""What bounds a training by default."""


def ours(task: Task) -> Outcome:
    """Train with the defaults."""
    return _train(task, corrected=True)


def ours_uncorrected(task: Task) -> Outcome:
    """Train with the defaults, but take every click and skip at face value, wherever it stood.

    Weights are chosen on dev clicks weighed as `ours` weighs them: when training stops is no part of the comparison.
    """
    return _train(task, corrected=False)


def ours_queries(task: Task) -> Outcome:
    """Train queries alone, with the defaults: items keep the vectors of the base model."""
    return _train(task, corrected=True, train="query")


def _train(task: Task, *, corrected: bool, train: Literal["both", "query"] = "both") -> Outcome:
    config = TrainingConfig(seed=task.seed, train=train, **longer_training(task.times))
    evidence = evidence_of(task.data, config, corrected=corrected)
    model = base_model(task)
    result = fit(
        model,
        task.data,
        config,
        click_propensity=evidence.click_propensity,
        confidences=evidence.confidences,
    )
    return Outcome(
        model,
        tokens=result.tokens,
        sessions=result.sessions,
        seconds=result.seconds,
        weight=result.fusion.weight,
        stated={"share": result.interpolation.share},
        keeps_items=train == "query",
    )


def longer_training(times: int) -> dict[str, Any]:
    """Return what lets a training encode so many times the tokens of the defaults; dev queries do not end it then."""
    if times == 1:
        return {}
    defaults = TrainingConfig()
    return {name: times * getattr(defaults, name) for name in LONGER} | {"patience": 0}
