"""Which parameters a search tries: seeded draws from lists of values or Ray Tune domains."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from estudio_core.errors import ConfigurationError, suggest
from lightning_modules.config import TrainingConfig

_DRAWS_PER_TRIAL = 50
"""Draws after which a search gives up finding a combination that it has not had yet."""


class SearchSpace:
    """Parameter name -> list of values, Ray Tune domain (`tune.loguniform(1e-5, 1e-4)`), or one value.

    Args:
        space: In the style of `INITIAL_PARAMS`; parameters that a search may vary, see `TrainingConfig.settable`.
        training: What all trials share; a combination goes before it, and has to be legal beside it.

    Raises:
        ConfigurationError: a list is empty, a name unknown, or a value illegal.
    """

    def __init__(self, space: Mapping[str, Any], training: TrainingConfig | None = None) -> None:
        self._training = training or TrainingConfig()
        self._choices: dict[str, list[Any]] = {}
        self._domains: dict[str, Any] = {}
        legal = TrainingConfig.settable("search")
        for name, values in sorted(space.items()):
            if name not in legal:
                raise ConfigurationError(f"The search space has an unknown parameter {name!r}. {suggest(name, legal)}")
            if _is_domain(values):
                self._domains[name] = values
                continue
            choices = _choices(values)
            if not choices:
                raise ConfigurationError(f"The search space gives no value for {name!r}: list at least one.")
            for value in choices:
                TrainingConfig.model_validate({name: value})
            self._choices[name] = choices

    @property
    def size(self) -> float:
        """Number of combinations; infinite with a domain in it."""
        return math.inf if self._domains else math.prod(len(values) for values in self._choices.values())

    def part_of(self, earlier: TrainingConfig) -> dict[str, Any]:
        """Return the parameters of an earlier trial that the space has. What it no longer has, the plugin says.

        >>> earlier = TrainingConfig(learning_rate=1e-4, margin=0.3, batch_size=8)
        >>> SearchSpace({"learning_rate": [1e-5, 1e-4], "margin": [0.1]}).part_of(earlier)
        {'learning_rate': 0.0001, 'margin': 0.3}
        """
        values = earlier.as_json()
        return {name: values[name] for name in sorted([*self._choices, *self._domains])}

    def beginning(self, of_plugin: Collection[str], of_loss: Mapping[str, Any]) -> dict[str, Any]:
        """Return the combination that a first iteration begins with.

        Of each list the value that the plugin sets; else the measured default, where the list has it; else its first.

        >>> space = SearchSpace({"margin": [0.1, 0.2], "batch_size": [8, 32]}, TrainingConfig(batch_size=16))
        >>> space.beginning(["batch_size"], {"margin": 0.2})
        {'batch_size': 16, 'margin': 0.2}

        Args:
            of_plugin: Names of the parameters that the plugin sets.
            of_loss: The loss's own values: they hold where what all trials share has None.
        """
        begun: dict[str, Any] = {}
        for name, values in self._choices.items():
            usual = getattr(self._training, name)
            usual = of_loss.get(name) if usual is None else usual
            same = [value for value in values if getattr(TrainingConfig.model_validate({name: value}), name) == usual]
            begun[name] = self._training.as_json()[name] if name in of_plugin else [*same, values[0]][0]
        return begun

    def sample(self, n: int, *, seed: int, warm_start: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
        """Return up to `n` different combinations: those of `warm_start` first, then draws.

        The same arguments give the same combinations. Fewer than `n` are returned where the space has no more.
        Combinations that are not legal together, such as a least above a most, are passed over.

        >>> space = SearchSpace({"margin": [0.1, 0.2], "examples_order": [[11]]})
        >>> space.sample(3, seed=1, warm_start=[{"margin": 0.3}])
        [{'margin': 0.3}, {'examples_order': [11], 'margin': 0.2}, {'examples_order': [11], 'margin': 0.1}]
        """
        if n < 1:
            raise ConfigurationError(f"A search of {n} trials was asked for; legal is 1 or more.")
        found: dict[str, dict[str, Any]] = {}
        refused: ConfigurationError | None = None
        for combination in itertools.chain(map(dict, warm_start), self._draws(n, seed)):
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
        return self._training.with_values(combination).model_dump_json()

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
