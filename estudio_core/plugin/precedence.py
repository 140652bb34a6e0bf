"""Who decides: installation < plugin < preset < form. What a later one leaves open, an earlier one says.

A search varies what is left: what stands in the form, whoever put it there, or in the preset is the same in all trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estudio_core.experiments.installation import training_of_installation
from estudio_core.plugin.run_params import PRESETS, FineTuneParams, FineTuneRun
from lightning_modules.config import TrainingConfig


def resolve(
    form: Mapping[str, Any],
    *,
    plugin: FineTuneParams | None = None,
    training: Mapping[str, Any] | None = None,
    installation: Mapping[str, Any] | None = None,
) -> FineTuneRun:
    """Return what a run of `fine_tune` does.

    >>> resolve({"preset": "thorough"}).trials, resolve({"preset": "thorough", "trials": 1}).trials
    (12, 1)
    >>> resolve({"preset": "quick"}, training={"num_epochs": 3, "margin": 0.1}).training.given
    {'num_epochs': 1, 'margin': 0.1}

    Args:
        form: Values of the form; None, or absent: not filled in.
        plugin: The plugin's defaults of the form.
        training: Parameters of training that the plugin sets.
        installation: Those that the installation sets; None: what environment and `.env` say.

    Raises:
        ConfigurationError: a name is unknown or a value illegal.
    """
    asked = FineTuneParams.model_validate(form)
    of_plugin = {} if plugin is None else plugin.filled_in
    preset = asked.filled_in.get("preset") or of_plugin.get("preset", "plugin")
    by_the_run = PRESETS[preset] | asked.filled_in
    fixed = of_plugin.keys() | by_the_run.keys()
    of_plugin = dict(training or {}) | of_plugin
    of_installation = training_of_installation() if installation is None else dict(installation)
    layers = of_installation | of_plugin | by_the_run
    parameters = TrainingConfig.model_fields
    return FineTuneRun(
        **{name: value for name, value in layers.items() if name not in parameters} | {"preset": preset},
        training=TrainingConfig(**{name: value for name, value in layers.items() if name in parameters}),
        of_plugin=tuple(sorted(of_plugin.keys() & parameters)),
        of_form=tuple(sorted(fixed & parameters.keys())),
    )
