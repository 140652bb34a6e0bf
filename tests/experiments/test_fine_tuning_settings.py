from __future__ import annotations

import pytest
from pydantic import ValidationError

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.fine_tuning_settings import FineTuningSettings

LOSS = object()


def test_the_tutorials_call_works() -> None:
    settings = FineTuningSettings(loss_func=LOSS, step_size=35, test_each_n_sessions=0.5, num_epochs=3)
    assert settings.loss_func is LOSS
    assert (settings.step_size, settings.num_epochs) == (35, 3)


def test_test_each_n_inputs_is_another_name_for_test_each_n_sessions() -> None:
    settings = FineTuningSettings.model_validate({"loss_func": LOSS, "test_each_n_inputs": 40})
    assert settings.test_each_n_sessions == 40


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "often"])
def test_a_validation_interval_that_is_neither_share_nor_number_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="test_each_n_sessions"):
        FineTuningSettings.model_validate({"loss_func": LOSS, "test_each_n_sessions": wrong})


def test_position_bias_is_a_choice_and_what_is_no_chance_is_refused() -> None:
    default = FineTuningSettings(loss_func=LOSS)
    assert (default.position_bias, default.examination, default.examination_exponent) == ("ipw", "power_law", None)
    given = FineTuningSettings.model_validate({"loss_func": LOSS, "position_bias": "coec", "examination": [1, 0.5]})
    assert given.examination == (1.0, 0.5)
    for wrong in ((), (0.0,), (1.0, 1.5), (float("nan"),)):
        with pytest.raises(ConfigurationError, match="chances above 0 and at most 1"):
            FineTuningSettings(loss_func=LOSS, examination=wrong)
    with pytest.raises(ConfigurationError, match="harvesting"):
        FineTuningSettings.model_validate({"loss_func": LOSS, "examination": "harvest"})
    with pytest.raises(ConfigurationError, match="exponent of examination='power_law'"):
        FineTuningSettings(loss_func=LOSS, examination="em", examination_exponent=1.0)


def test_a_missing_loss_and_an_unknown_name_are_named() -> None:
    with pytest.raises(ConfigurationError, match="loss_func is required"):
        FineTuningSettings.model_validate({})
    with pytest.raises(ConfigurationError, match="Did you mean 'num_epochs'"):
        FineTuningSettings.model_validate({"loss_func": LOSS, "num_epoch": 3})


def test_settings_cannot_be_changed_in_place() -> None:
    settings = FineTuningSettings(loss_func=LOSS)
    with pytest.raises(ValidationError, match="frozen"):
        settings.num_epochs = 9  # type: ignore[misc]  # the point of the test
