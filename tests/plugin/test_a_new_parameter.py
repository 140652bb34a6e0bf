"""A further parameter of training is one declaration: all that derives from it has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

DECLARATION = """    sharpness: float = parameter(
        0.5, "How sharp.", *("installation", "plugin", "form", "search"), title="Sharpness", unit="degrees", gt=0, le=1
    )

    # --- the loss"""

USE = """
import os, sys
sys.path.insert(0, sys.argv[1])
sys.path.insert(1, sys.argv[2])
from airflow.sdk import Param
from estudio_core import FineTuneParams, TextTraining
from estudio_core.dag_factory.forms import form
from estudio_core.errors import ConfigurationError
from estudio_core.experiments.installation import training_of_installation
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.plugin.precedence import resolve
from lightning_modules.config import TrainingConfig

shown = form(FineTuneParams())["sharpness"].schema
assert (shown["title"], shown["section"]) == ("Sharpness", "Training")
assert (shown["exclusiveMinimum"], shown["maximum"]) == (0, 1)
assert TextTraining(sharpness=0.1).given == {"sharpness": 0.1}
assert SearchSpace({"sharpness": [0.2, 0.3]}).size == 2
assert TrainingConfig.from_mlflow(TrainingConfig(sharpness=0.3).to_mlflow()).sharpness == 0.3
assert TrainingConfig(margin=0.1).id == sys.argv[3], "ids of earlier trainings stay"
os.environ["ESTUDIO_TRAINING_SHARPNESS"] = "0.7"
assert training_of_installation() == {"sharpness": 0.7}
assert resolve({}).training.sharpness == 0.7
assert resolve({"sharpness": 0.2}).training.sharpness == 0.2
try:
    TextTraining(sharpnes=1)
except ConfigurationError as error:
    assert "Did you mean 'sharpness'" in str(error)
else:
    raise AssertionError("a misspelt name was accepted")
sys.path.insert(0, sys.argv[2] + "/scripts")
import list_parameters
line = "| `sharpness` | 0.5 degrees | > 0 and ≤ 1 | installation, plugin, form, search | How sharp. |"
assert line in list_parameters.made()
"""


def test_a_new_parameter_is_one_declaration(tmp_path: Path) -> None:
    from lightning_modules.config import TrainingConfig

    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "lightning_modules", tmp_path / "lightning_modules", ignore=ignored)
    declared = tmp_path / "lightning_modules" / "config.py"
    text = declared.read_text(encoding="utf-8")
    assert text.count("    # --- the loss") == 1
    declared.write_text(text.replace("    # --- the loss", DECLARATION), encoding="utf-8")
    known = TrainingConfig(margin=0.1).id
    command = [sys.executable, "-c", USE, str(tmp_path), str(PROJECT), known]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
