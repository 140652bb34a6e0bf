"""Plugins are found by file, load alone, and are reported by name when they do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from estudio_core.errors import PluginError
from estudio_core.plugin.discovery import import_plugin_file, read_card
from estudio_core.plugin.registry import PluginManager

GOOD = """
from estudio_core import PostgresItems, create_text_plugin

plugin = create_text_plugin(
    "{name}", items=PostgresItems(table="t", text="body"), model="some-model", description="about {name}"
)
"""

HEAVY_CLASS = """
import torch

from estudio_core.plugin.tutorial import FineTuningMethod, PluginMeta
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.run_params import FineTuneParams

raise RuntimeError("this file was imported while DAGs are parsed")


class Heavy(FineTuningMethod):
    meta = PluginMeta(name="HeavyPlugin", version="0.2.0", description="imports torch at its top")
    dag_settings = DagSettings(schedule="0 3 * * *", shards=7)
    fine_tune_params = FineTuneParams(min_sessions=10)
"""


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def forget_plugin_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("estudio_plugins")]:
        del sys.modules[name]


def test_plugins_of_the_folder_and_of_custom_are_found(tmp_path: Path) -> None:
    write(tmp_path, "shop", GOOD.format(name="shop"))
    write(tmp_path / "custom", "books", GOOD.format(name="books"))
    write(tmp_path, "_not_a_plugin", "raise RuntimeError")
    manager = PluginManager(tmp_path, used=[])
    assert manager.plugin_names == ["books", "shop"]
    assert manager.errors == {}
    assert manager.meta("books").description == "about books"
    assert manager.open_plugin("shop") is manager.get_plugin("shop")


def test_a_broken_plugin_is_named_and_leaves_the_others_alone(tmp_path: Path) -> None:
    write(tmp_path, "shop", GOOD.format(name="shop"))
    write(tmp_path, "broken", "x = 1\ndef f(:\n    pass\n")
    write(tmp_path, "failing", "x = 1\ny = x / 0\n")
    manager = PluginManager(tmp_path, used=[])
    assert manager.plugin_names == ["shop"]
    problems = sorted(manager.errors.values())
    assert "broken.py, line 2" in problems[0]
    assert "failing.py, line 2: ZeroDivisionError" in problems[1]


def test_an_unknown_plugin_is_none_and_required_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "shop", GOOD.format(name="shop"))
    manager = PluginManager(tmp_path, used=[])
    assert manager.get_plugin("shopp") is None
    with pytest.raises(PluginError, match="Did you mean 'shop'"):
        manager.open_plugin("shopp")


def test_the_list_of_used_plugins_restricts(tmp_path: Path) -> None:
    for name in ("shop", "books"):
        write(tmp_path, name, GOOD.format(name=name))
    manager = PluginManager(tmp_path, used=["books"])
    assert manager.plugin_names == ["books"]
    assert manager.get_plugin("shop") is None


def test_two_plugins_of_one_name_are_an_error_of_the_second_file(tmp_path: Path) -> None:
    write(tmp_path, "a", GOOD.format(name="shop"))
    write(tmp_path, "b", GOOD.format(name="shop"))
    manager = PluginManager(tmp_path, used=[])
    assert manager.plugin_names == ["shop"]
    assert "Two plugins are called 'shop'" in next(iter(manager.errors.values()))


def test_a_plugin_file_called_like_a_library_shadows_nothing(tmp_path: Path) -> None:
    file = write(tmp_path, "json", GOOD.format(name="shop"))
    module = import_plugin_file(file)
    import json

    assert module.__name__ == "estudio_plugins.json"
    assert json.loads("[1]") == [1]


def test_a_heavy_plugin_file_is_read_and_not_imported(tmp_path: Path) -> None:
    write(tmp_path / "custom", "heavy", HEAVY_CLASS)
    card = read_card("HeavyPlugin", tmp_path)
    assert card.meta.version == "0.2.0"
    assert card.dag_settings.shards == 7
    assert card.fine_tune_params.min_sessions == 10


def test_a_short_plugin_that_imports_torch_at_its_top_says_what_to_do(tmp_path: Path) -> None:
    write(tmp_path, "shop", "import torch\n" + GOOD.format(name="shop"))
    with pytest.raises(PluginError, match=r"imports torch at its top.*TextTraining\(loss=a function\)"):
        read_card("shop", tmp_path)


def test_a_card_of_a_missing_plugin_names_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, "shop", GOOD.format(name="shop"))
    with pytest.raises(PluginError, match="Legal names: 'shop'"):
        read_card("nothing", tmp_path)
