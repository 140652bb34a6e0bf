from __future__ import annotations

import itertools

from lightning_modules.config import TrainingConfig


def test_each_import_has_a_copy_of_its_own() -> None:
    from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS as FIRST

    FIRST.update({"batch_size": [16, 32]})
    FIRST["margin"].append(9.0)
    from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS as SECOND

    assert "batch_size" not in SECOND
    assert 9.0 not in SECOND["margin"]


def test_there_are_spaces_for_clip_and_for_text_models() -> None:
    from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS as CLIP
    from estudio_core.experiments.initial_params.text import INITIAL_PARAMS as TEXT

    assert CLIP != TEXT


def test_every_combination_of_the_spaces_and_the_tutorials_update_is_legal() -> None:
    from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS as CLIP
    from estudio_core.experiments.initial_params.text import INITIAL_PARAMS as TEXT

    CLIP.update(
        {
            "not_irrelevant_only": [True],
            "negative_downsampling": [0.5],
            "examples_order": [[11]],
            "batch_size": [16, 32],
            "learning_rate": [1e-5, 3e-5],
        }
    )
    for space in (CLIP, TEXT):
        made = {
            TrainingConfig.model_validate(dict(zip(space, values, strict=True)))
            for values in itertools.product(*space.values())
            if isinstance(values, tuple)
        }
        assert len(made) > 10
    # What the tutorial puts into the space reaches the parameters.
    rates = {
        TrainingConfig.model_validate(dict(zip(CLIP, values, strict=True))).learning_rate
        for values in itertools.product(*CLIP.values())
    }
    assert rates == {1e-5, 3e-5}
