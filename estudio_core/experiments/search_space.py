"""Which parameters a search tries: seeded draws from lists of values or Ray Tune domains."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from estudio_core.errors import ConfigurationError, suggest
from estudio_core.strict_model import StrictModel

_DRAWS_PER_TRIAL = 50
"""Draws after which a search gives up finding a combination that it has not had yet."""


class SearchSpace:
    """Parameter name -> list of values, Ray Tune domain (`tune.loguniform(1e-5, 1e-4)`), or one value.

    Args:
        space: In the style of `INITIAL_PARAMS`.
        params_type: Model that every combination has to satisfy, such as `FineTuningParams`.

    Raises:
        ConfigurationError: a list is empty, or a name is unknown to `params_type`.
    """

    def __init__(self, space: Mapping[str, Any], params_type: type[StrictModel] | None = None) -> None:
        self._params_type = params_type
        self._choices: dict[str, list[Any]] = {}
        self._domains: dict[str, Any] = {}
        legal = None if params_type is None else [*params_type.model_fields, *params_type.input_aliases]
        for name, values in sorted(space.items()):
            if legal is not None and name not in legal:
                raise ConfigurationError(f"The search space has an unknown parameter {name!r}. {suggest(name, legal)}")
            if _is_domain(values):
                self._domains[name] = values
                continue
            choices = _choices(values)
            if not choices:
                raise ConfigurationError(f"The search space gives no value for {name!r}: list at least one.")
            self._choices[name] = choices

    @property
    def size(self) -> float:
        """Number of combinations; infinite with a domain in it."""
        return math.inf if self._domains else math.prod(len(values) for values in self._choices.values())

    def sample(self, n: int, *, seed: int, warm_start: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """Return up to `n` different combinations: those of `warm_start` first, then draws.

        The same arguments give the same combinations. Fewer than `n` are returned where the space has no more.

        >>> space = SearchSpace({"margin": [0.1, 0.2], "examples_order": [[11]]})
        >>> space.sample(3, seed=1, warm_start=[{"margin": 0.3}])
        [{'margin': 0.3}, {'examples_order': [11], 'margin': 0.2}, {'examples_order': [11], 'margin': 0.1}]
        """
        if n < 1:
            raise ConfigurationError(f"A search of {n} trials was asked for; legal is 1 or more.")
        found: dict[str, dict[str, Any]] = {}
        for combination in itertools.chain(map(dict, warm_start), self._draws(n, seed)):
            if len(found) == n:
                break
            if self._params_type is not None:
                self._params_type.model_validate(combination)
            found.setdefault(json.dumps(combination, sort_keys=True), combination)
        return list(found.values())

    def _draws(self, n: int, seed: int) -> Iterator[dict[str, Any]]:
        rng = random.Random(seed)
        if self.size <= _DRAWS_PER_TRIAL * n:
            names = list(self._choices)
            everything = [
                dict(zip(names, values, strict=True)) for values in itertools.product(*self._choices.values())
            ]
            rng.shuffle(everything)
            yield from everything
            return
        import numpy as np

        domain_rng = np.random.default_rng(seed)
        for _ in range(_DRAWS_PER_TRIAL * n):
            drawn = {name: rng.choice(values) for name, values in self._choices.items()}
            drawn |= {name: _plain(domain.sample(random_state=domain_rng)) for name, domain in self._domains.items()}
            yield dict(sorted(drawn.items()))


def _is_domain(values: Any) -> bool:
    return callable(getattr(values, "sample", None)) and callable(getattr(values, "get_sampler", None))


def _choices(values: Any) -> list[Any]:
    if isinstance(values, Mapping) and set(values) == {"grid_search"}:
        values = values["grid_search"]
    if isinstance(values, str) or not isinstance(values, Sequence):
        return [values]
    return list(values)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
