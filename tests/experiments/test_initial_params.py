from __future__ import annotations

import itertools

import pytest

from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS as CLIP
from estudio_core.experiments.initial_params.text import INITIAL_PARAMS as TEXT
from lightning_modules.config import TrainingConfig


def test_there_are_spaces_for_clip_and_for_text_models_and_nobody_changes_them_for_others() -> None:
    assert CLIP != TEXT
    with pytest.raises(TypeError):
        CLIP["batch_size"] = (16, 32)  # type: ignore[index]


def test_every_combination_of_the_spaces_and_the_tutorials_update_is_legal() -> None:
    tutorial = {
        **CLIP,
        "not_irrelevant_only": [True],
        "negative_downsampling": [0.5],
        "examples_order": [[11]],
        "batch_size": [16, 32],
        "learning_rate": [1e-5, 3e-5],
    }
    for space in (tutorial, TEXT):
        made = {
            TrainingConfig.model_validate(dict(zip(space, values, strict=True)))
            for values in itertools.product(*space.values())
        }
        assert len(made) > 10
    # What the tutorial puts into the space reaches the parameters.
    rates = {
        TrainingConfig.model_validate(dict(zip(tutorial, values, strict=True))).learning_rate
        for values in itertools.product(*tutorial.values())
    }
    assert rates == {1e-5, 3e-5}
