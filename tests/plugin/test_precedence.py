"""installation < plugin < preset < form: what a later one leaves open, an earlier one says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from estudio_core import FineTuneParams, TextTraining
from estudio_core.errors import ConfigurationError
from estudio_core.experiments.installation import training_of_installation
from estudio_core.plugin.precedence import resolve

LAYERS: dict[str, Any] = {
    "installation": {"num_epochs": 2},
    "training": {"num_epochs": 3},
    "plugin": FineTuneParams(num_epochs=4),
    "preset": "quick",  # num_epochs 1
    "form": {"num_epochs": 5},
}
WINS = {"installation": 2, "training": 3, "plugin": 4, "preset": 1, "form": 5}


@pytest.mark.parametrize("layers", [c for n in range(6) for c in itertools.combinations(LAYERS, n)], ids="-".join)
def test_the_last_that_says_anything_decides(layers: tuple[str, ...]) -> None:
    form = {"preset": LAYERS["preset"]} if "preset" in layers else {}
    run = resolve(
        form | (LAYERS["form"] if "form" in layers else {"num_epochs": None}),
        **{name: LAYERS[name] for name in ("training", "plugin") if name in layers},
        installation=LAYERS["installation"] if "installation" in layers else {},
    )
    assert run.training.num_epochs == (WINS[layers[-1]] if layers else 6)


def test_a_number_of_trials_that_is_written_goes_before_the_preset() -> None:
    assert resolve({"preset": "thorough"}).trials == 12
    assert resolve({"preset": "thorough", "trials": 1}).trials == 1
    assert resolve({"preset": "thorough", "trials": None}, plugin=FineTuneParams(trials=3)).trials == 12
    assert resolve({}, plugin=FineTuneParams(trials=3)).trials == 3


def test_a_plugins_own_preset_holds_where_the_form_has_none() -> None:
    assert resolve({}, plugin=FineTuneParams(preset="quick")).max_sessions == 5000
    assert resolve({"preset": "plugin"}, plugin=FineTuneParams(preset="quick")).max_sessions == 50_000


def test_a_search_knows_what_run_and_plugin_have_set() -> None:
    run = resolve({"preset": "quick", "margin": 0.1}, training={"batch_size": 8, "margin": 0.2}, installation={})
    assert (run.of_form, run.of_plugin) == (("margin", "num_epochs"), ("batch_size", "margin"))
    by_plugin = resolve({}, plugin=FineTuneParams(learning_rate=1e-5), training={"margin": 0.2}, installation={})
    assert by_plugin.of_form == ("learning_rate",)


def test_an_installation_sets_what_is_its_own_and_misspelt_variables_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("ESTUDIO_TRAINING_DEVICES=2\nESTUDIO_TRAINING_THREADS=1\n")
    monkeypatch.setenv("ESTUDIO_TRAINING_THREADS", "3")
    monkeypatch.setenv("ESTUDIO_TRAINING_PRECISION", "")
    assert training_of_installation() == {"devices": 2, "threads": 3}
    monkeypatch.setenv("ESTUDIO_TRAINING_DEVICES", "")
    assert training_of_installation() == {"devices": 2, "threads": 3}
    monkeypatch.delenv("ESTUDIO_TRAINING_DEVICES")
    assert resolve({}).training.given == {"devices": 2, "threads": 3}
    monkeypatch.setenv("ESTUDIO_TRAINING_THREADS", "many")
    with pytest.raises(ConfigurationError, match=r"ESTUDIO_TRAINING_THREADS, in the environment .*threads"):
        training_of_installation()
    monkeypatch.setenv("ESTUDIO_TRAINING_THREADS", "3")
    for wrong in ("ESTUDIO_TRAINING_DEVICE", "ESTUDIO_TRAINING_MARGIN"):
        monkeypatch.setenv(wrong, "1")
        with pytest.raises(ConfigurationError, match=f"There is no variable {wrong}"):
            training_of_installation()
        monkeypatch.delenv(wrong)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threads": 2}, "as ESTUDIO_TRAINING_THREADS"),
        ({"metric": "dot"}, r"as TextIndex\(metric=\.\.\.\)"),
        ({"mined_negative": 2}, "Did you mean 'mined_negatives'"),
        ({"settings": {"margin": 0.1}, "margin": 0.2}, "margin given twice"),
        ({"search_space": {"margins": [0.1]}}, "unknown parameter 'margins'.*Did you mean 'margin'"),
        ({"search_space": {"margin": [-1]}}, "margin = -1"),
    ],
)
@pytest.mark.filterwarnings("ignore:TextTraining:DeprecationWarning")
def test_a_plugin_sets_what_is_its_own(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TextTraining(**given)
