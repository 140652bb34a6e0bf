from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.fine_tuning_params import ExamplesType, FineTuningParams

rates = st.floats(min_value=1e-12, max_value=1.0)
decays = st.floats(min_value=0.0, max_value=1.0)
positive = st.floats(min_value=1e-9, max_value=1e9)
params = st.builds(
    FineTuningParams,
    num_fixed_layers=st.integers(0, 100),
    query_lr=rates,
    items_lr=rates,
    query_weight_decay=decays,
    items_weight_decay=decays,
    margin=st.none() | st.floats(0.0, 2.0) | st.integers(0, 2),
    not_irrelevant_only=st.booleans(),
    negative_downsampling=st.floats(min_value=1e-6, max_value=1.0),
    min_abs_difference_threshold=st.none() | st.floats(0.0, 0.9),
    max_abs_difference_threshold=st.none() | st.floats(1.0, 2.0),
    examples_order=st.lists(st.sampled_from(ExamplesType), min_size=1, max_size=5),
    batch_size=st.none() | st.integers(1, 4096),
    num_epochs=st.none() | st.integers(1, 100),
    loss_form=st.none() | st.sampled_from(["softplus", "sigmoid"]),
    scale=st.none() | positive,
    shift=st.none() | st.floats(-100, 100),
    hardness_temperature=st.none() | positive,
    interpolation=st.none() | st.floats(0.0, 1.0, exclude_min=True),
)


@given(params)
def test_parameters_survive_the_round_trip_through_mlflows_strings(given_params: FineTuningParams) -> None:
    strings = given_params.to_mlflow()
    assert all(isinstance(value, str) for value in strings.values())
    back = FineTuningParams.from_mlflow(strings)
    assert back == given_params
    assert back.id == given_params.id


@given(params)
def test_parameters_survive_plain_str_of_every_value(given_params: FineTuningParams) -> None:
    strings = {name: str(value) for name, value in given_params.model_dump().items() if name != "examples_order"}
    strings["examples_order"] = str([int(stage) for stage in given_params.examples_order])
    assert FineTuningParams.from_mlflow(strings) == given_params


@given(params, params)
@settings(max_examples=50)
def test_ids_are_equal_exactly_where_the_parameters_are(one: FineTuningParams, other: FineTuningParams) -> None:
    assert (one.id == other.id) == (one == other)


def test_the_id_is_stable_across_versions_of_the_code() -> None:
    given_params = FineTuningParams(num_fixed_layers=3, learning_rate=1e-4, margin=0.1)
    assert given_params.id == "d0d02db324005756d1aebc6dc192b281001d7637fd674057a454e3c4bffa7f8c"


def test_integers_are_accepted_for_floats_and_give_the_same_id() -> None:
    assert FineTuningParams(margin=1, query_weight_decay=0).id == FineTuningParams(
        margin=1.0, query_weight_decay=0.0
    ).id  # fmt: skip


def test_learning_rate_sets_both_towers_unless_they_are_given() -> None:
    both = FineTuningParams(learning_rate=3e-5)
    assert (both.query_lr, both.items_lr, both.learning_rate) == (3e-5, 3e-5, 3e-5)
    one = FineTuningParams(learning_rate=3e-5, items_lr=1e-5)
    assert (one.query_lr, one.items_lr) == (3e-5, 1e-5)


def test_a_rate_or_decay_that_is_given_for_one_tower_alone_is_that_of_both() -> None:
    rates = FineTuningParams(items_lr=3e-5)
    assert (rates.query_lr, rates.learning_rate) == (3e-5, 3e-5)
    for decay in ({"query_weight_decay": 0.2}, {"items_weight_decay": 0.2}):
        assert FineTuningParams.model_validate(decay).weight_decay == 0.2
    assert FineTuningParams(query_weight_decay=0.0, items_weight_decay=0.2).weight_decay == 0.1


@pytest.mark.parametrize("given_order", [[11], (11,), "11", "[11]", 11, "all_examples", "ExamplesType.all_examples"])
def test_examples_order_is_read_from_what_people_and_mlflow_write(given_order: object) -> None:
    assert FineTuningParams.model_validate({"examples_order": given_order}).examples_order == (
        ExamplesType.all_examples,
    )


def test_an_unknown_name_is_refused_with_the_nearest_legal_one() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown name 'batch_sise'.*Did you mean 'batch_size'"):
        FineTuningParams.model_validate({"batch_sise": 3})
    with pytest.raises(ConfigurationError, match="Did you mean 'learning_rate'"):
        FineTuningParams.model_validate({"learning_rat": 3})


@pytest.mark.parametrize(
    "wrong",
    [
        {"negative_downsampling": 0},
        {"negative_downsampling": 1.5},
        {"margin": -0.1},
        {"query_lr": float("nan")},
        {"query_lr": "fast"},
        {"examples_order": [12]},
        {"examples_order": []},
        {"batch_size": 0},
        {"max_abs_difference_threshold": 0.5, "min_abs_difference_threshold": 0.5},
    ],
)
def test_illegal_values_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        FineTuningParams.model_validate(wrong)


def test_parameters_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        FineTuningParams().margin = 0.3  # type: ignore[misc]  # the point of the test
