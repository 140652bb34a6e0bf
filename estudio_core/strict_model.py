"""The base of settings that people write: immutable, and unknown names are refused with the nearest legal one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from estudio_core.errors import ConfigurationError, suggest


class StrictModel(BaseModel):
    """A frozen pydantic model that names the nearest legal field when an unknown one is given."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_names(cls, values: Any) -> Any:
        if isinstance(values, dict):
            legal = set(cls.model_fields) | {f.alias for f in cls.model_fields.values() if f.alias}
            for name in values:
                if name not in legal:
                    raise ConfigurationError(f"{cls.__name__} has no field {name!r}. {suggest(str(name), legal)}")
        return values
