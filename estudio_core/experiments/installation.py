"""Parameters of training that an installation sets: `ESTUDIO_TRAINING_<NAME>`, from the environment or `.env`."""

from __future__ import annotations

import os
from typing import Any

from dotenv import dotenv_values

from estudio_core.errors import ConfigurationError, suggest
from lightning_modules.config import TrainingConfig

PREFIX = "ESTUDIO_TRAINING_"


def training_of_installation() -> dict[str, Any]:
    """Return the parameters of training that this installation sets, by name; an empty variable sets none.

    Raises:
        ConfigurationError: a variable names no parameter that an installation may set, or its value is not legal.
    """
    legal = {PREFIX + name.upper(): name for name in TrainingConfig.settable("installation")}
    found: dict[str, Any] = {}
    environment = {variable: value for variable, value in os.environ.items() if value}
    for variable, value in {**dotenv_values(".env"), **environment}.items():
        if not variable.upper().startswith(PREFIX) or not value:
            continue
        name = legal.get(variable.upper())
        if name is None:
            raise ConfigurationError(f"There is no variable {variable}. {suggest(variable.upper(), legal)}")
        try:
            found[name] = getattr(TrainingConfig.model_validate({name: value}), name)
        except ConfigurationError as error:
            raise ConfigurationError(f"{variable}, in the environment or in .env: {error}") from None
    return found
