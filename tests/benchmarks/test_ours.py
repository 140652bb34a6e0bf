"""The comparison with and without correction of position bias."""

from __future__ import annotations

from benchmarks.quality.contenders.ours import weights
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.experiments.fine_tuning_settings import FineTuningSettings


def test_without_correction_training_is_uncorrected_and_the_yardstick_of_dev_clicks_the_same() -> None:
    def session(name: str) -> FineTuningInput:
        return FineTuningInput(name, name, ("a", "b", "c"), (0, 1, 2), (None,) * 3, (0.0, 0.0, 1.0))

    data = RankingData({"train": [session("t")], "dev": [session("d")], "holdout": []}, ItemsSet({}))
    settings = FineTuningSettings(loss_func=None)
    (ours, sure), (plain, plainly_sure) = (weights(data, settings, corrected=corrected) for corrected in (True, False))
    assert ours["d"] == plain["d"] == (1.0, 2.0, 3.0)
    assert (ours["t"], plain["t"]) == ((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    assert sure["t"] != plainly_sure["t"]
