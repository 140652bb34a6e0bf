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
        ConfigurationError: a list is empty, or a name or value is unknown to `params_type`.
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
            if params_type is not None:
                for value in choices:
                    params_type.model_validate({name: value})
            self._choices[name] = choices

    @property
    def size(self) -> float:
        """Number of combinations; infinite with a domain in it."""
        return math.inf if self._domains else math.prod(len(values) for values in self._choices.values())

    def part_of(self, params: StrictModel) -> dict[str, Any]:
        """Return the parameters of an earlier trial that the space has, by the names that it has for them.

        What it no longer has is left to the plugin's settings.

        >>> from estudio_core.experiments.fine_tuning_params import FineTuningParams
        >>> earlier = FineTuningParams(learning_rate=1e-4, margin=0.3, batch_size=8)
        >>> SearchSpace({"learning_rate": [1e-5, 1e-4], "margin": [0.1]}, FineTuningParams).part_of(earlier)
        {'learning_rate': 0.0001, 'margin': 0.3}
        """
        plain = params.model_dump(mode="json", exclude_none=True)
        names = [*self._choices, *self._domains]
        taken = {name: plain[name] for name in names if name in plain}
        for name in set(names) & set(params.input_aliases):
            values = {one: plain[one] for one in params.input_aliases[name] if one in plain}
            # Two values that one name cannot give are named both.
            taken |= {name: next(iter(values.values()))} if len({*values.values()}) == 1 else values
        return dict(sorted(taken.items()))

    def sample(self, n: int, *, seed: int, warm_start: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """Return up to `n` different combinations: those of `warm_start` first, then draws.

        The same arguments give the same combinations. Fewer than `n` are returned where the space has no more. Drawn
        combinations that are not legal together, such as a least above a most, are passed over.

        >>> space = SearchSpace({"margin": [0.1, 0.2], "examples_order": [[11]]})
        >>> space.sample(3, seed=1, warm_start=[{"margin": 0.3}])
        [{'margin': 0.3}, {'examples_order': [11], 'margin': 0.2}, {'examples_order': [11], 'margin': 0.1}]
        """
        if n < 1:
            raise ConfigurationError(f"A search of {n} trials was asked for; legal is 1 or more.")
        found = {self._identity(combination): combination for combination in map(dict, warm_start)}
        refused: ConfigurationError | None = None
        for combination in self._draws(n, seed):
            if len(found) >= n:
                break
            try:
                found.setdefault(self._identity(combination), combination)
            except ConfigurationError as error:
                refused = error
        if not found and refused is not None:
            raise refused
        return list(found.values())[:n]

    def _identity(self, combination: Mapping[str, Any]) -> str:
        """Return what two combinations share that train alike: all parameters, those that are not named among them."""
        if self._params_type is None:
            return json.dumps(combination, sort_keys=True)
        return self._params_type.model_validate(combination).model_dump_json()

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
        return [_plain(values)]
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as Python's: it is written as JSON."""
    return value.item() if hasattr(value, "item") else value
