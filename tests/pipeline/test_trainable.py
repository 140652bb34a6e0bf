"""What a trial of a fine-tuning reports and keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estudio_core.clickstream.dataset_files import write_dataset
from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.errors import DataError
from estudio_core.experiments.trial import Report, Trial, read_reports
from estudio_core.lexical.settings import Fusion
from estudio_core.models.storage import load_model, save_model
from estudio_core.pipeline.training.trainable import train_trial
from lightning_modules.config import TrainingConfig
from tests.pipeline.conftest import KINDS, forget_plugins

PLUGIN = """
from estudio_core import PostgresItems, TextModel, create_text_plugin

plugin = create_text_plugin(
    "shop",
    items=PostgresItems(table="products", text="title", url="postgresql://nowhere/shop"),
    model=TextModel(name={model!r}, max_tokens=48),
)
"""


def sessions(split: str, count: int, clicks: bool = True) -> list[FineTuningInput]:
    rng = np.random.default_rng(len(split))
    made = []
    for number in range(count):
        wanted = int(rng.integers(len(KINDS)))
        shown = tuple(KINDS[i] for i in rng.permutation(len(KINDS)))
        clicked = tuple(float(clicks and kind == KINDS[wanted]) for kind in shown)
        places = tuple(range(len(shown)))
        made.append(FineTuningInput(f"{split}-{number}", f"{split} {wanted}", shown, places, (None,) * 6, clicked))
    return made


def data_of(dev: list[FineTuningInput]) -> RankingData:
    items = ItemsSet({kind: [f"a {kind}"] for kind in KINDS})
    return RankingData({"train": sessions("train", 40), "dev": dev, "holdout": []}, items)


SHORT = TrainingConfig(num_fixed_layers=1, num_epochs=2, batch_size=4, seed=1, threads=1)


@pytest.fixture
def config(
    small_model: Callable[..., Any], small_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """What trials of a small shop get, but for the dataset."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(PLUGIN.format(model=str(small_model_folder)))
    forget_plugins()
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path))
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(tmp_path / "plugins"))
    save_model(small_model(seed=1), tmp_path / "base")
    yield {
        "plugin": "shop", "dataset": str(tmp_path / "dataset"), "model": str(tmp_path / "base"),
        "training": SHORT.as_json(),
    }  # fmt: skip
    forget_plugins()


def run(config: dict[str, Any], data: RankingData, folder: Path, **params: Any) -> tuple[Trial, list[Report]]:
    Path(config["dataset"]).mkdir(exist_ok=True)
    write_dataset(data, Path(config["dataset"]))
    folder.mkdir()
    trial = Trial(0, {"num_fixed_layers": 1, **params}, folder, "test_quality", lambda report: None)
    train_trial(config, trial)
    return trial, read_reports(folder)


def test_the_untrained_model_is_no_report_and_the_last_one_is_of_the_model_that_is_kept(
    config: dict[str, Any], tmp_path: Path
) -> None:
    trial, reports = run(config, data_of(sessions("dev", 12)), tmp_path / "trial", interpolation=0.5)
    assert [report.validation.step > 0 for report in reports] == [True] * len(reports)
    assert len(reports) > 2
    assert 0 in [point.step for point in reports[0].between if "test_quality" in point.metrics]
    [clicks] = [
        p.metrics["train_effective_clicks"] for p in reports[0].between if "train_effective_clicks" in p.metrics
    ]
    assert clicks > 1
    assert [report.final for report in reports] == [False] * (len(reports) - 1) + [True]
    fitted = json.loads((trial.folder / "fit.json").read_text())
    assert reports[-1].validation.metrics == fitted["metrics"]
    # Of the mix of trained and untrained weights, which no validation has measured.
    assert fitted["metrics"]["test_loss"] not in [report.validation.metrics["test_loss"] for report in reports[:-1]]
    assert load_model(str(trial.folder / "model")).encode_queries(["lamp"]).shape == (1, 32)
    assert Fusion.of_model(trial.folder / "model").weight == fitted["fusion"]["weight"]
    assert fitted["steps"] == reports[-1].validation.step <= (TrainingConfig().max_steps or 0)


def test_the_choice_of_position_bias_weighs_dev_clicks_too(config: dict[str, Any], tmp_path: Path) -> None:
    untrained: list[float] = []
    for number, chance in enumerate((0.9, 0.25)):
        config["training"] = SHORT.with_values({"examination": (1.0, chance), "max_steps": 1}).as_json()
        trial, reports = run(config, data_of(sessions("dev", 12)), tmp_path / f"trial-{number}")
        untrained.append(next(p.metrics["test_loss"] for p in reports[0].between if "test_loss" in p.metrics))
        fitted = json.loads((trial.folder / "fit.json").read_text())
        assert (fitted["position_bias"], fitted["examination"]) == (
            "ipw", f"1.00, {chance:.2f} by position, given by the plugin",
        )  # fmt: skip
    assert untrained[0] != untrained[1]


def test_a_dev_split_without_clicks_is_named(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test_quality.*none of its 3 sessions has a click"):
        run(config, data_of(sessions("dev", 3, clicks=False)), tmp_path / "trial")
