"""Trainables of the tests: a parabola whose best is at margin = 0.3, reported over some validations."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from estudio_core.errors import NotEnoughDataError
from estudio_core.experiments.trial import Trial


def train(config: dict[str, Any], trial: Trial) -> None:
    margin = trial.params["margin"]
    with (Path(config["ledger"]) / f"{trial.index}.runs").open("a") as ledger:
        ledger.write("x")
    if margin in config.get("broken", []):
        raise RuntimeError(f"margin {margin} is broken")
    if margin in config.get("killed", []):
        os.kill(os.getpid(), signal.SIGKILL)
    for number in range(1, config.get("validations", 3) + 1):
        trial.log({"train_loss": 1 / number}, step=number * 10 - 5)
        trial.report({"score": 1 - (margin - 0.3) ** 2 + number / 1000}, step=number * 10)
        (trial.folder / "model.txt").write_text(str(margin))
        time.sleep(config.get("pause_s", 0))
    if margin in config.get("fails_late", []):
        raise RuntimeError(f"margin {margin} has diverged")
    for left in config.get("left", []):
        trial.report({"score": left[trial.index]}, step=config["validations"] * 10, final=True)


def without_data(config: dict[str, Any], trial: Trial) -> None:
    raise NotEnoughDataError("3 sessions; 50 are needed")


def diverges(config: dict[str, Any], trial: Trial) -> None:
    trial.report({"score": float("nan")}, step=7)


def silent(config: dict[str, Any], trial: Trial) -> None:
    return
