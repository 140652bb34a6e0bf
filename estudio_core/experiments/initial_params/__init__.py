"""Search spaces to start from, one module per kind of model: lists of values to choose from.

`from estudio_core.experiments.initial_params.text import INITIAL_PARAMS` yields a new deep copy at each
import statement, so that a plugin may update what it got. `FineTuningMethod` copies once more when a plugin
assigns it to `self.initial_params`: plugins that share one import stay apart, too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

CHOICES = Mapping[str, list[Any]]


def own_copy(space: CHOICES) -> dict[str, list[Any]]:
    """Return a copy that shares nothing with `space`.

    >>> space = {"margin": [0.05]}
    >>> mine = own_copy(space)
    >>> mine["margin"].append(0.1)
    >>> space
    {'margin': [0.05]}
    """
    return copy.deepcopy(dict(space))
