"""The comparison with and without correction of position bias."""

from __future__ import annotations

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from lightning_modules.config import TrainingConfig
from lightning_modules.evidence import evidence_of


def test_without_correction_training_is_uncorrected_and_the_yardstick_of_dev_clicks_the_same() -> None:
    def session(name: str) -> FineTuningInput:
        return FineTuningInput(name, name, ("a", "b", "c"), (0, 1, 2), (None,) * 3, (0.0, 0.0, 1.0))

    data = RankingData({"train": [session("t")], "dev": [session("d")], "holdout": []}, ItemsSet({}))
    ours, plain = (evidence_of(data, TrainingConfig(), corrected=corrected) for corrected in (True, False))
    assert ours.click_propensity["d"] == plain.click_propensity["d"] == (1.0, 2.0, 3.0)
    assert ours.click_propensity["t"] == plain.click_propensity["t"] == (1.0, 1.0, 1.0), "posteriors correct ours"
    assert ours.confidences["t"] != plain.confidences["t"]
