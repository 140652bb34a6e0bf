from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.fine_tuning_params import FineTuningParams
from estudio_core.experiments.search_space import SearchSpace

SPACE = {"margin": [0.05, 0.1, 0.2], "learning_rate": [1e-4, 1e-5], "examples_order": [[11], [3, 11]]}


@given(st.integers(1, 15), st.integers(0, 1000))
def test_combinations_differ_and_depend_on_the_seed_alone(n: int, seed: int) -> None:
    drawn = SearchSpace(SPACE, FineTuningParams).sample(n, seed=seed)
    assert drawn == SearchSpace(dict(reversed(SPACE.items())), FineTuningParams).sample(n, seed=seed)
    assert len({str(one) for one in drawn}) == len(drawn) == min(n, 12)
    assert all(one[name] in SPACE[name] for one in drawn for name in SPACE)


def test_large_spaces_are_sampled_without_listing_them() -> None:
    space = SearchSpace({f"p{i}": list(range(10)) for i in range(30)})
    assert space.size == 10**30
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
        FineTuningParams,
    )
    drawn = space.sample(10, seed=5)
    assert len(drawn) == 10
    assert drawn == space.sample(10, seed=5)
    assert all(1e-5 <= one["learning_rate"] <= 1e-3 and isinstance(one["batch_size"], int) for one in drawn)
    assert len({one["learning_rate"] for one in drawn}) == 10


def test_the_best_of_earlier_iterations_is_tried_first() -> None:
    best = FineTuningParams(margin=0.15).to_json()
    drawn = SearchSpace(SPACE, FineTuningParams).sample(3, seed=1, warm_start=[best, best])
    assert drawn[0] == best
    assert len(drawn) == 3
    assert SearchSpace(SPACE).sample(1, seed=1, warm_start=[best]) == [best]


def test_what_trains_alike_is_tried_once() -> None:
    earlier = FineTuningParams(margin=0.05, learning_rate=1e-4)
    space = SearchSpace({"margin": [0.05, 0.1], "learning_rate": [1e-4]}, FineTuningParams)
    drawn = space.sample(4, seed=1, warm_start=[earlier.to_json()])
    assert [one["margin"] for one in drawn] == [0.05, 0.1]


def test_an_earlier_trial_is_tried_by_the_names_of_the_space() -> None:
    space = SearchSpace(SPACE, FineTuningParams)
    assert space.part_of(FineTuningParams(margin=0.3, learning_rate=1e-4, batch_size=8, scale=30)) == {
        "examples_order": [11],
        "learning_rate": 1e-4,
        "margin": 0.3,
    }
    apart = space.part_of(FineTuningParams(query_lr=1e-4, items_lr=1e-5))
    assert (apart["query_lr"], apart["items_lr"], "learning_rate" in apart) == (1e-4, 1e-5, False)


def test_combinations_that_are_not_legal_together_are_passed_over() -> None:
    bounds = {"min_abs_difference_threshold": [0.1, 0.5], "max_abs_difference_threshold": [0.2, 0.8]}
    for seed in range(5):
        drawn = SearchSpace(bounds, FineTuningParams).sample(4, seed=seed)
        assert len(drawn) == 3
        assert SearchSpace(bounds, FineTuningParams).sample(1, seed=seed)[0] in drawn
    none_left = {"min_abs_difference_threshold": [0.5], "max_abs_difference_threshold": [0.2]}
    with pytest.raises(ConfigurationError, match="difference_threshold"):
        SearchSpace(none_left, FineTuningParams).sample(1, seed=0)


def test_numbers_of_numpy_are_numbers() -> None:
    space = SearchSpace({"batch_size": list(np.array([8, 16])), "margin": np.float64(0.1)}, FineTuningParams)
    assert json.loads(json.dumps(space.sample(2, seed=0))) == space.sample(2, seed=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'learning_rat'.*Did you mean 'learning_rate'"):
        SearchSpace({"learning_rat": [1e-4]}, FineTuningParams)
    with pytest.raises(ConfigurationError, match="no value for 'margin'"):
        SearchSpace({"margin": []})
    with pytest.raises(ConfigurationError, match="margin = -1"):
        SearchSpace({"margin": [-1]}, FineTuningParams).sample(1, seed=0)
    with pytest.raises(ConfigurationError, match="0 trials"):
        SearchSpace(SPACE).sample(0, seed=0)
