"""What a loss over pairs of a clicked and another item has to offer: `forward`, and nothing else.

Any `torch.nn.Module` over similarities can be one. What it wants to know of the pairs, its `forward` names:

| argument | shape | what |
|---|---|---|
| `positive`, `negative` | float [n] | of query and clicked, query and other item: the first two, positional |
| `confidences` | float [n] | what each pair's evidence is worth: confidence times click weight |
| `click_weights` | float [n] | the clicked item's share of that: its confidence times click weight |
| `skip_confidences` | float [n] | how sure it is that each other item is worse; 1 for those of other queries |
| `positive_index` | int [n] | number of the clicked item (of a session) of each pair |
| `session_index` | int [n] | number of the session of each pair |
| `shown_margins` | float [n] | difference of the scores with which the session showed the two; NaN: it did not |
| `done` | float | share of the training that is over, 0 to 1: for what changes in its course |

It returns a scalar. Parameters that it has are trained with those of the model.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from estudio_core.errors import ConfigurationError, suggest
from lightning_modules.config import TrainingConfig, about

logger = logging.getLogger(__name__)

OPTIONAL_INPUTS = (
    *("confidences", "click_weights", "skip_confidences", "positive_index", "session_index", "shown_margins", "done"),
)
_OF_PAIRS = ("confidences", "positive_index", "session_index", "done")
"""What `forward(**inputs)` gets: mostly it hands them on to a loss of single pairs, which takes no others."""


@runtime_checkable
class Adjustable(Protocol):
    """A loss whose values the form, a plugin's settings or a search may change."""

    def with_values(self, **values: Any) -> Self:
        """Return a copy with other values of the constructor's arguments."""
        ...


@runtime_checkable
class HasMargin(Protocol):
    """A loss that tells its margin, against which a curriculum calls pairs hard or soft."""

    def margin_at(self, done: float) -> float:
        """Return the margin when the share `done` of the training is over."""
        ...


def configured(loss: nn.Module, config: TrainingConfig) -> nn.Module:
    """Return a copy of the loss with the values that the configuration gives it; trials share the given one.

    Raises:
        ConfigurationError: the loss has no such value, its `forward` asks for what there is not, or a curriculum of
            hard and soft pairs was asked for and it tells no margin.
    """
    inputs_of(loss)
    values = config.for_loss
    names = ", ".join(name for name in TrainingConfig.model_fields if about(name)["of_loss"] in values)
    if values and not isinstance(loss, Adjustable):
        raise _cannot_be_given(loss, names)
    try:
        made = loss.with_values(**values) if values and isinstance(loss, Adjustable) else copy.deepcopy(loss)
    except TypeError as error:  # it has no such argument
        raise _cannot_be_given(loss, names) from error
    if any(kind.difficulty for kind in config.examples_order) and not isinstance(made, HasMargin):
        raise ConfigurationError(
            f"examples_order {tuple(map(int, config.examples_order))} trains on hard or soft pairs, which are told by "
            f"the loss's margin, and {type(loss).__name__} has no method margin_at(done). Give it one, or leave out "
            "examples_order."
        )
    return made


def _cannot_be_given(loss: nn.Module, names: str) -> ConfigurationError:
    return ConfigurationError(
        f"{type(loss).__name__} cannot be given {names}: it has no with_values(...) that takes it. Set it where the "
        "loss is made, and leave it out of form, plugin and search space, or use CosineProbMarginRankingLoss."
    )


def loss_values(loss: nn.Module) -> dict[str, Any]:
    """Return the loss's own values of the parameters that it can be given, by the parameters' names."""
    arguments = {name: about(name)["of_loss"] for name in TrainingConfig.model_fields}
    return {name: getattr(loss, of) for name, of in arguments.items() if of and hasattr(loss, of)}


def inputs_of(loss: nn.Module) -> tuple[str, ...]:
    """Return which of `OPTIONAL_INPUTS` the loss asks for.

    Raises:
        ConfigurationError: it does not take two similarities, or needs what there is not.
    """
    parameters = list(inspect.signature(loss.forward).parameters.values())
    kinds = [parameter.kind for parameter in parameters]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise ConfigurationError(f"{type(loss).__name__}.forward has to take the similarities positive and negative.")
    further = [p for p in parameters if p not in positional[:2] and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for one in further:
        if one.name not in OPTIONAL_INPUTS and one.default is one.empty:
            raise ConfigurationError(
                f"{type(loss).__name__}.forward asks for {one.name!r}. {suggest(one.name, OPTIONAL_INPUTS)} Wrap a "
                "loss from elsewhere in a module whose forward takes positive and negative."
            )
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return _OF_PAIRS
    return tuple(one.name for one in further if one.name in OPTIONAL_INPUTS)


class PairLossCall:
    """Calls a loss with what it asks for.

    Raises:
        ConfigurationError: see `inputs_of`.
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss
        self._inputs = inputs_of(loss)
        if not {"confidences", "click_weights", "shown_margins"} & {*self._inputs}:
            logger.warning(
                "%s.forward takes no `confidences`, nor `click_weights`: all clicks and skips count alike, whatever "
                "the evidence says.",
                type(loss).__name__,
            )

    def __call__(self, positive: Tensor, negative: Tensor, inputs: Mapping[str, Tensor | float]) -> Tensor:
        """Return the loss of pairs, a scalar; `inputs` are all of `OPTIONAL_INPUTS`. Without pairs it is 0.

        It is computed where the loss has its tensors, such as a GPU while dev similarities are on the CPU.

        Raises:
            ConfigurationError: what the loss returns is no scalar.
        """
        if len(positive) == 0:
            return (positive.sum() + negative.sum()) * 0.0  # connected to the graph
        own = next(itertools.chain(self.loss.parameters(), self.loss.buffers()), positive)
        wanted = {name: inputs[name] for name in self._inputs}
        moved = {n: value.to(own.device) if isinstance(value, Tensor) else value for n, value in wanted.items()}
        found = self.loss(positive.to(own.device), negative.to(own.device), **moved)
        if not isinstance(found, torch.Tensor) or found.dim() != 0:
            shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ConfigurationError(f"{type(self.loss).__name__} returns {shape}; a scalar is needed: take the mean.")
        return found
