from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.search_space import SearchSpace
from lightning_modules.config import TrainingConfig

SPACE = {"margin": [0.05, 0.1, 0.2], "learning_rate": [1e-4, 1e-5], "examples_order": [[11], [3, 11]]}


@given(st.integers(1, 15), st.integers(0, 1000))
def test_combinations_differ_and_depend_on_the_seed_alone(n: int, seed: int) -> None:
    drawn = SearchSpace(SPACE).sample(n, seed=seed)
    assert drawn == SearchSpace(dict(reversed(SPACE.items()))).sample(n, seed=seed)
    assert len({str(one) for one in drawn}) == len(drawn) == min(n, 12)
    assert all(one[name] in SPACE[name] for one in drawn for name in SPACE)


def test_large_spaces_are_sampled_without_listing_them() -> None:
    whole = ("num_epochs", "batch_size", "num_fixed_layers", "max_steps", "sessions_per_query", "warmup_steps")
    counts = ("max_negatives", "max_positives", "patience", "mined_negatives")
    space = SearchSpace({name: list(range(1, 101)) for name in (*whole, *counts)})
    assert space.size == 100**10
    drawn = space.sample(20, seed=3)
    assert len({str(one) for one in drawn}) == 20
    assert drawn == space.sample(20, seed=3)
    assert drawn != space.sample(20, seed=4)


def test_ray_tune_domains_and_single_values_mix_with_lists() -> None:
    tune = pytest.importorskip("ray.tune")
    space = SearchSpace(
        {
            "learning_rate": tune.loguniform(1e-5, 1e-3),
            "batch_size": tune.randint(8, 64),
            "margin": tune.grid_search([0.1, 0.2]),
            "not_irrelevant_only": True,
        },
    )
    drawn = space.sample(10, seed=5)
    assert len(drawn) == 10
    assert drawn == space.sample(10, seed=5)
    assert all(1e-5 <= one["learning_rate"] <= 1e-3 and isinstance(one["batch_size"], int) for one in drawn)
    assert len({one["learning_rate"] for one in drawn}) == 10


def test_the_best_of_earlier_iterations_is_tried_first() -> None:
    best = TrainingConfig(margin=0.15).as_json()
    drawn = SearchSpace(SPACE).sample(3, seed=1, warm_start=[best, best])
    assert drawn[0] == best
    assert len(drawn) == 3
    assert SearchSpace(SPACE).sample(1, seed=1, warm_start=[best]) == [best]


def test_what_trains_alike_is_tried_once() -> None:
    earlier = TrainingConfig(margin=0.05, learning_rate=1e-4)
    space = SearchSpace({"margin": [0.05, 0.1], "learning_rate": [1e-4]})
    drawn = space.sample(4, seed=1, warm_start=[earlier.as_json()])
    assert [one["margin"] for one in drawn] == [0.05, 0.1]


def test_an_earlier_trial_is_tried_by_the_names_of_the_space() -> None:
    space = SearchSpace(SPACE)
    assert space.part_of(TrainingConfig(margin=0.3, learning_rate=1e-4, batch_size=8, scale=30)) == {
        "examples_order": [11],
        "learning_rate": 1e-4,
        "margin": 0.3,
    }


def test_a_search_begins_with_what_the_plugin_sets_else_with_the_measured_default() -> None:
    space = SearchSpace({"margin": [0.05, 0.1, 0.2], "learning_rate": [1e-5, 2e-4], "num_fixed_layers": [5, 6]})
    usual = space.beginning([], {"margin": 0.2})
    assert usual == {"learning_rate": 2e-4, "margin": 0.2, "num_fixed_layers": 5}  # 3 is not among the last
    of_plugin = TrainingConfig(margin=0.15, num_fixed_layers=2)
    begun = SearchSpace(SPACE | {"num_fixed_layers": [5, 6]}, of_plugin).beginning(["margin", "num_fixed_layers"], {})
    assert (begun["margin"], begun["num_fixed_layers"]) == (0.15, 2)
    several = SearchSpace({"interpolation": [0.75, 0.5], "examples_order": [[2, 11], [11]]})
    assert several.beginning([], {}) == {"examples_order": [11], "interpolation": 0.75}


def test_what_no_search_may_vary_is_refused() -> None:
    for name in ("devices", "seed", "metric"):
        with pytest.raises(ConfigurationError, match=f"unknown parameter '{name}'"):
            SearchSpace({name: [1, 2]})


def test_combinations_that_are_not_legal_together_are_passed_over() -> None:
    bounds = {"min_abs_difference_threshold": [0.1, 0.5], "max_abs_difference_threshold": [0.2, 0.8]}
    for seed in range(5):
        drawn = SearchSpace(bounds).sample(4, seed=seed)
        assert len(drawn) == 3
        assert SearchSpace(bounds).sample(1, seed=seed)[0] in drawn
    beside = SearchSpace({"mined_negatives": [2, 0]}, TrainingConfig(in_batch_negatives=False))
    assert beside.sample(2, seed=0, warm_start=[{"mined_negatives": 3}]) == [{"mined_negatives": 0}]
    none_left = {"min_abs_difference_threshold": [0.5], "max_abs_difference_threshold": [0.2]}
    with pytest.raises(ConfigurationError, match="difference_threshold"):
        SearchSpace(none_left).sample(1, seed=0)


def test_numbers_of_numpy_are_numbers() -> None:
    space = SearchSpace({"batch_size": list(np.array([8, 16])), "margin": np.float64(0.1)})
    assert json.loads(json.dumps(space.sample(2, seed=0))) == space.sample(2, seed=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'learning_rat'.*Did you mean 'learning_rate'"):
        SearchSpace({"learning_rat": [1e-4]})
    with pytest.raises(ConfigurationError, match="no value for 'margin'"):
        SearchSpace({"margin": []})
    with pytest.raises(ConfigurationError, match="margin = -1"):
        SearchSpace({"margin": [-1]}).sample(1, seed=0)
    with pytest.raises(ConfigurationError, match="0 trials"):
        SearchSpace(SPACE).sample(0, seed=0)
