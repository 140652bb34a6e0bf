from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from estudio_core.errors import ConfigurationError
from lightning_modules.config import TrainingConfig, about
from lightning_modules.earlier_names import translated
from lightning_modules.example_kinds import ExampleKind
from lightning_modules.precision import choose_precision
from lightning_modules.ranking_module import rate_share

positive = st.floats(min_value=1e-9, max_value=1e9)
shares = st.floats(min_value=1e-6, max_value=1.0)
configs = st.builds(
    TrainingConfig,
    num_fixed_layers=st.integers(0, 100),
    learning_rate=st.floats(min_value=1e-12, max_value=1.0),
    weight_decay=st.floats(min_value=0.0, max_value=1.0),
    margin=st.none() | st.floats(0.0, 2.0) | st.integers(0, 2),
    not_irrelevant_only=st.booleans(),
    negative_downsampling=shares,
    max_negatives=st.none() | st.integers(1, 50),
    dropout=st.none() | st.floats(0.0, 0.9),
    min_abs_difference_threshold=st.none() | st.floats(0.0, 0.9),
    max_abs_difference_threshold=st.none() | st.floats(1.0, 2.0),
    examples_order=st.lists(st.sampled_from(ExampleKind), min_size=1, max_size=5),
    max_steps=st.none() | st.integers(1, 10_000),
    loss_form=st.none() | st.sampled_from(["softplus", "sigmoid"]),
    scale=st.none() | positive,
    shift=st.none() | st.floats(-100, 100),
    hardness_temperature=st.none() | positive,
    interpolation=st.none() | shares | st.lists(shares, min_size=1, max_size=4),
    position_bias=st.sampled_from(["ipw", "coec", "none"]),
    examination=st.sampled_from(["power_law", "em"]) | st.lists(shares, min_size=1, max_size=4),
)


@given(configs)
def test_parameters_survive_the_round_trip_through_mlflows_strings(config: TrainingConfig) -> None:
    strings = config.to_mlflow()
    assert set(strings) == set(TrainingConfig.model_fields)
    assert all(isinstance(value, str) for value in strings.values())
    back = TrainingConfig.from_mlflow(strings | {"something_else": "7"})
    assert back == config
    assert back.id == config.id


@given(configs, configs)
@settings(max_examples=50)
def test_ids_are_equal_exactly_where_the_parameters_are(one: TrainingConfig, other: TrainingConfig) -> None:
    assert (one.id == other.id) == (one == other)


def test_the_id_is_stable_across_versions_of_the_code_and_does_not_ask_who_set_a_default() -> None:
    config = TrainingConfig(num_fixed_layers=3, learning_rate=1e-4, margin=0.1)
    assert config.id == TrainingConfig(learning_rate=1e-4, margin=0.1).id
    assert config.id == "6926b3d93aa3d6ef0580a216874b8caa4541bed093f7c3076990a1069324666a"


def test_runs_of_earlier_versions_are_read() -> None:
    earlier = {"num_fixed_layers": "4", "query_lr": "1e-05", "items_lr": "3e-05", "query_weight_decay": "0.1",
               "items_weight_decay": "0.2", "not_irrelevant_only": "True", "examples_order": "3,11"}  # fmt: skip
    read = TrainingConfig.from_mlflow(earlier)
    assert (read.num_fixed_layers, read.learning_rate, read.weight_decay) == (4, 2e-5, pytest.approx(0.15))
    assert read.examples_order == (ExampleKind.SOFT_ALL, ExampleKind.ALL)


@pytest.mark.parametrize(
    ("names", "now"),
    [
        ({"query_lr": 1e-5}, {"learning_rate": 1e-5}),
        ({"learning_rate": 1e-4, "items_lr": 1e-5, "query_lr": 3e-5}, {"learning_rate": 2e-5}),
        ({"query_weight_decay": 0.0, "items_weight_decay": 0.2}, {"weight_decay": 0.1}),
        ({"items_lr": [1e-5, 3e-5]}, {"learning_rate": [1e-5, 3e-5]}),
        ({"query_lr": [1.0, 3.0], "items_lr": [1.0]}, {"learning_rate": [1.0, 2.0]}),
        ({"test_each_n_inputs": 40}, {"test_each_n_sessions": 40}),
        ({"step_size": 35, "gamma": 1}, {"decay": "constant"}),
    ],
)
def test_names_of_the_tutorial_mean_what_they_say(names: dict[str, Any], now: dict[str, Any]) -> None:
    assert translated(names) == now


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"query_lr": object(), "items_lr": [1e-5]}, "query_lr and items_lr: one tower .* Search learning_rate"),
        ({"step_size": [20, 35]}, "search decay instead"),
    ],
)
def test_what_has_no_mean_is_refused_by_name(names: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        translated(names)


def test_what_says_nothing_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert translated({"step_size": None, "margin": 0.1}) == {"margin": 0.1}
    assert not caplog.text


@pytest.mark.parametrize("name", ["max_steps", "margin", "dropout", "max_negatives"])
def test_a_word_that_means_none_means_it_where_it_has_a_meaning(name: str) -> None:
    for word in ("None", "", "all", "model"):
        legal = word in ("None", "") or (name, word) in (("dropout", "model"), ("max_negatives", "all"))
        if legal:
            assert getattr(TrainingConfig.model_validate({name: word}), name) is None
        else:
            with pytest.raises(ConfigurationError, match=name):
                TrainingConfig.model_validate({name: word})


@pytest.mark.parametrize("names", [{"step_size": 35}, {"step_size": 35, "gamma": 0.9}, {"gamma": 0.9}])
def test_a_name_of_the_tutorial_that_means_nothing_here_is_warned_of(
    names: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert translated(names) == {"decay": "linear"}
    assert "the rate falls linearly" in caplog.text


def test_every_parameter_says_what_it_means_and_where_it_may_be_set() -> None:
    for name, field in TrainingConfig.model_fields.items():
        assert (field.description or "").endswith("."), name
        assert about(name)["where"], name
    assert all(TrainingConfig.model_fields[name].title for name in TrainingConfig.settable("form"))


def test_other_values_are_validated_and_what_was_given_is_known() -> None:
    config = TrainingConfig(margin=0.1).with_values({"batch_size": 8})
    assert config.given == {"margin": 0.1, "batch_size": 8}
    with pytest.raises(ConfigurationError, match="batch_size"):
        config.with_values({"batch_size": 0})
    with pytest.raises(ValidationError, match="frozen"):
        config.margin = 0.3  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize("order", [[11], (11,), "11", "[11]", 11, "all_examples", "ExamplesType.all_examples", "ALL"])
def test_examples_order_is_read_from_what_people_and_mlflow_write(order: object) -> None:
    assert TrainingConfig.model_validate({"examples_order": order}).examples_order == (ExampleKind.ALL,)


def test_an_unknown_name_is_refused_with_the_nearest_legal_one() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'batch_size'"):
        TrainingConfig(batch_sise=3)  # type: ignore[call-arg]  # wrong on purpose


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_epochs", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", "fast"),
        ("negative_downsampling", 0.0),
        ("negative_downsampling", 1.1),
        ("max_negatives", 0),
        ("num_fixed_layers", -1),
        ("interpolation", ()),
        ("interpolation", (0.0,)),
        ("examples_order", (12,)),
        ("examples_order", ()),
        ("decay", "linaer"),
        ("compile", "yes"),
        ("precision", "fp32"),
        ("monitor", "test_qualty"),
        ("batch_size", 2.5),
        ("seed", -1),
        ("margin", float("nan")),
        ("margin", -0.1),
        ("learning_rate", float("inf")),
        ("examination", "harvest"),
        ("examination", (1.0, 1.5)),
        ("examination", ()),
        ("examination", (float("nan"),)),
        ("test_each_n_sessions", 1.5),
        ("test_each_n_sessions", 0),
        ("dropout", 1.0),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        TrainingConfig.model_validate({name: value})


@pytest.mark.parametrize(
    "together",
    [
        {"max_abs_difference_threshold": 0.5, "min_abs_difference_threshold": 0.5},
        {"mined_negatives": 2, "in_batch_negatives": False},
        {"activations_mb": 512, "devices": 2},
        {"examination_exponent": 1.0, "examination": "em"},
    ],
)
def test_values_that_contradict_each_other_are_refused(together: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(together))):
        TrainingConfig.model_validate(together)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_rate_warms_up_and_ends_at_zero(decay: str) -> None:
    shares = [rate_share(step, 50, 5, decay) for step in range(51)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert shares[50] == pytest.approx(0)


def test_a_short_training_warms_up_for_a_tenth_of_it() -> None:
    assert rate_share(0, 20, 10, "constant") == 0.5
    assert rate_share(2, 20, 10, "constant") == 1.0


def test_precision_follows_the_processor() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this host computes on its GPU")
    assert choose_precision("auto", {"avx512f", "amx_bf16"}) == "bf16-mixed"
    assert choose_precision("auto", {"avx512f", "avx512_bf16"}) == "bf16-mixed"
    assert choose_precision("auto", {"avx512f"}) == "32-true"
    assert choose_precision("bf16", set()) == "bf16-mixed"
    assert choose_precision("32", {"amx_bf16"}) == "32-true"
