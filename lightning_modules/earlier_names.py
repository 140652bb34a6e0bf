"""Names that the plugin tutorial and earlier versions gave to parameters of training, and what they are now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import product
from typing import Any

from estudio_core.errors import ConfigurationError

logger = logging.getLogger(__name__)

TOWERS = {"learning_rate": ("query_lr", "items_lr"), "weight_decay": ("query_weight_decay", "items_weight_decay")}
"""Parameters of the one tower, and their names for queries and items apart: the mean of both is taken."""

RENAMED = {"test_each_n_inputs": "test_each_n_sessions", "interpolation_shares": "interpolation"}


def translated(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values`, or lists of values to search, under the names of `TrainingConfig`; others stay as they are.

    A rate given for one tower alone is that of both, and goes before `learning_rate`. `step_size` and `gamma` become
    `decay`; where a step schedule was asked for, a warning says that its steps are smoothed out.

    Raises:
        ConfigurationError: two towers or a step schedule are to be searched over what has no mean.

    >>> translated({"query_lr": 1e-5, "items_lr": 3e-5, "margin": 0.1})
    {'margin': 0.1, 'learning_rate': 2e-05}
    >>> translated({"learning_rate": [1e-4], "items_lr": [1e-5, 3e-5]})
    {'learning_rate': [1e-05, 3e-05]}
    """
    left = {RENAMED.get(name, name): value for name, value in values.items()}
    for name, towers in TOWERS.items():
        found = {tower: left.pop(tower) for tower in towers if tower in left}
        if found:
            left[name] = _mean_of(found, name)
    step_size, gamma = left.pop("step_size", None), left.pop("gamma", None)
    if step_size is not None or gamma is not None:
        left.setdefault("decay", _decay(step_size, gamma))
    return left


def _mean_of(towers: Mapping[str, Any], name: str) -> Any:
    one, *others = towers.values()
    if not others or one == others[0]:
        return one
    if not all(isinstance(value, int | float | str | list | tuple) for value in towers.values()):
        raise ConfigurationError(f"{' and '.join(towers)}: one tower serves queries and items. Search {name} instead.")
    return _mean(one, others[0])


def _mean(one: Any, other: Any) -> Any:
    if isinstance(one, list | tuple) or isinstance(other, list | tuple):
        ones, others = (value if isinstance(value, list | tuple) else [value] for value in (one, other))
        return list(dict.fromkeys(_mean(a, b) for a, b in product(ones, others)))
    return one if one == other else (float(one) + float(other)) / 2


def _decay(step_size: Any, gamma: Any) -> str:
    if not all(value is None or isinstance(value, int | float | str) for value in (step_size, gamma)):
        raise ConfigurationError("step_size and gamma are no parameters to search: search decay instead.")
    if step_size is None:
        logger.warning("gamma = %s means nothing without step_size: the rate falls linearly after warm-up.", gamma)
    elif gamma is not None and float(gamma) == 1:
        return "constant"
    else:
        logger.warning(
            "step_size = %s is no step schedule here: the rate falls linearly after warm-up. Give decay = 'constant', "
            "'linear' or 'cosine' to choose.",
            step_size,
        )
    return "linear"
