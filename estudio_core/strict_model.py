"""Pydantic models whose mistakes are `ConfigurationError`s that name the nearest legal field."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from estudio_core.errors import ConfigurationError, suggest


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields and says which one was probably meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict):
            data = cls._as_fields(data)
            if truths := [name for name in cls._numbers() if isinstance(data.get(name), bool)]:
                raise ConfigurationError(f"{cls.__name__}: {truths[0]} = {data[truths[0]]}: Input should be a number")
        try:
            made = handler(data)
        except ValidationError as error:
            raise ConfigurationError(cls._message(error)) from None
        if contradiction := made._contradiction():
            raise ConfigurationError(f"{cls.__name__}: {contradiction}.")
        return made

    @classmethod
    @cache
    def _numbers(cls) -> tuple[str, ...]:
        """Return the fields that hold numbers, for which pydantic would take True as 1."""
        kinds = {name: set(_kinds(field.annotation)) for name, field in cls.model_fields.items()}
        return tuple(name for name, of in kinds.items() if of & {int, float} and bool not in of)

    def _contradiction(self) -> str | None:
        """Say what two fields cannot both be; None where they can."""
        return None

    @classmethod
    def _as_fields(cls, data: dict[Any, Any]) -> dict[Any, Any]:
        """Return what was given under the names of the fields; for subclasses that understand other names too."""
        return data

    @classmethod
    def _message(cls, error: ValidationError) -> str:
        legal = list(cls.model_fields)
        parts = []
        for problem in error.errors(include_url=False):
            name = ".".join(str(step) for step in problem["loc"]) or "value"
            if problem["type"] == "extra_forbidden":
                parts.append(f"unknown name {name!r}. {suggest(name, legal)}")
            elif problem["type"] == "missing":
                parts.append(f"{name} is required")
            else:
                parts.append(f"{name} = {problem['input']!r}: {problem['msg']}")
        return f"{cls.__name__}: " + "; ".join(parts)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)
