from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest

from estudio_core.clickstream.examination_curve import PowerLaw
from estudio_core.errors import ConfigurationError, DataError
from estudio_core.experiments.fine_tuning_params import FineTuningParams
from estudio_core.experiments.fine_tuning_settings import FineTuningSettings
from estudio_core.experiments.training_config import to_examination, to_loss, to_training_config
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo
from lightning_modules.config import TrainingConfig
from lightning_modules.losses import CosineProbMarginRankingLoss


def settings(**given: object) -> FineTuningSettings:
    return FineTuningSettings.model_validate({"loss_func": CosineProbMarginRankingLoss(), **given})


def test_every_parameter_of_a_trial_reaches_training() -> None:
    params = FineTuningParams(
        num_fixed_layers=2,
        query_lr=2e-5,
        items_lr=4e-5,
        query_weight_decay=0.1,
        items_weight_decay=0.2,
        margin=0.3,
        not_irrelevant_only=False,
        negative_downsampling=0.5,
        min_abs_difference_threshold=0.01,
        max_abs_difference_threshold=1.5,
        examples_order=[3, 11],
        batch_size=8,
        num_epochs=7,
        interpolation=0.6,
    )
    config = to_training_config(settings(), params)
    # The models' one tower takes the means.
    assert (config.tower_lr, config.items_weight_decay) == (pytest.approx(3e-5), pytest.approx(0.15))
    assert (config.num_fixed_layers, config.margin, config.batch_size, config.num_epochs) == (2, 0.3, 8, 7)
    assert (config.not_irrelevant_only, config.negative_downsampling) == (False, 0.5)
    assert (config.min_abs_difference_threshold, config.max_abs_difference_threshold) == (0.01, 1.5)
    assert config.examples_order == (3, 11)
    assert config.interpolation_shares == (0.6,)


def test_settings_decide_where_a_trial_says_nothing() -> None:
    given = settings(num_epochs=4, batch_size=12, test_each_n_sessions=0.5, patience=5, precision="32", seed=9)
    config = to_training_config(given, FineTuningParams())
    assert (config.num_epochs, config.batch_size, config.test_each_n_sessions) == (4, 12, 0.5)
    assert (config.patience, config.precision, config.seed) == (5, "32", 9)
    assert to_training_config(given, FineTuningParams(), seed=1, threads=2).seed == 1


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("sessions_per_query", 2, 2), ("max_negatives", 7, 7), ("max_negatives", "all", None), ("max_positives", 1, 1),
        ("max_positives", "all", None), ("in_batch_negatives", False, False), ("mined_negatives", 3, 3),
        ("false_negative_guard", -0.1, -0.1), ("drift_penalty", 0.5, 0.5), ("gradient_cache", True, True),
        ("dropout", 0.2, 0.2), ("dropout", "model", None),
        ("compile", "off", "off"), ("encode_batch_tokens", 512, 512), ("cache_frozen_mb", 0, 0),
        ("cache_frozen_disk_mb", 5, 5),
    ],
)  # fmt: skip
def test_every_knob_of_training_is_a_setting_whose_default_is_that_of_training(
    name: str, given: object, expected: object
) -> None:
    default = getattr(TrainingConfig(), name)
    assert getattr(to_training_config(settings(), FineTuningParams()), name) == default != expected
    assert getattr(to_training_config(settings(**{name: given}), FineTuningParams()), name) == expected


def test_no_field_of_training_is_out_of_a_plugins_reach() -> None:
    reached = {*FineTuningSettings.model_fields, *FineTuningParams.model_fields, *FineTuningParams.input_aliases}
    elsewhere = {
        "aggregation", "metric",  # of the index
        "monitor",  # the manager's
        "threads", "devices",  # of the installation
        "decay",  # `step_size` and `gamma`
        "interpolation_shares",  # `interpolation`
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(TrainingConfig)} - reached == elsewhere


@pytest.mark.parametrize("space", ["text", "clip"])
def test_every_dimension_of_the_spaces_changes_training(space: str) -> None:
    values = importlib.import_module(f"estudio_core.experiments.initial_params.{space}").INITIAL_PARAMS
    for name, choices in values.items():
        made = {to_training_config(settings(), FineTuningParams.model_validate({name: value})) for value in choices}
        assert len(made) == len(choices), name


def test_similarity_and_aggregation_are_those_of_the_index() -> None:
    index = SearchIndexInfo(
        dimensions=384, metric_type=MetricType.COSINE, metric_aggregation_type=MetricAggregationType.AVG
    )
    config = to_training_config(settings(), FineTuningParams(), index=index, monitor="test_loss")
    assert (config.metric, config.aggregation, config.monitor) == (
        MetricType.COSINE,
        MetricAggregationType.AVG,
        "test_loss",
    )


def test_gamma_of_one_keeps_the_rate_and_a_smaller_one_lets_it_fall() -> None:
    assert to_training_config(settings(step_size=35), FineTuningParams()).decay == "linear"
    assert to_training_config(settings(step_size=35, gamma=1), FineTuningParams()).decay == "constant"


def test_examination_is_what_the_settings_say_and_even_without_a_correction() -> None:
    places = np.arange(3)
    given = (1.0, 0.5, 0.2)
    assert to_examination(settings(examination=given), []).at(places).tolist() == list(given)
    assert to_examination(settings(examination_exponent=2.0), []) == PowerLaw.given(2.0)
    assert "assumed" in str(to_examination(settings(), []))
    assert to_examination(settings(examination="em", position_bias="none"), []).is_even
    with pytest.raises(DataError, match="needed to tell position and attraction apart"):
        to_examination(settings(examination="em"), [])


def test_the_loss_of_a_trial_is_a_copy_with_what_the_trial_tries() -> None:
    given = settings()
    before = (given.loss_func.scale, given.loss_func.form)
    loss = to_loss(given, FineTuningParams(loss_form="sigmoid", scale=400, shift=6, hardness_temperature=0.2))
    assert (loss.form, loss.scale, loss.shift, loss.temperature) == ("sigmoid", 400.0, 6.0, 0.2)
    assert (given.loss_func.scale, given.loss_func.form) == before
    assert to_loss(given, FineTuningParams()).scale == given.loss_func.scale


def test_a_loss_without_what_the_space_varies_is_refused() -> None:
    class Plain:
        margin = 0.1

    with pytest.raises(ConfigurationError, match="Plain has no scale"):
        to_loss(FineTuningSettings(loss_func=Plain()), FineTuningParams(scale=3))
