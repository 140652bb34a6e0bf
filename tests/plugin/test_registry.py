"""Plugins are found by file, load alone, and are reported by name when they do not."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from estudio_core.errors import ConfigurationError, PluginError
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.discovery import read_card
from estudio_core.plugin.places import import_plugin_file
from estudio_core.plugin.registry import PluginManager
from estudio_core.plugin.validation import validate_plugin

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


def test_an_edit_of_one_letter_within_the_same_second_is_seen(tmp_path: Path) -> None:
    file = write(tmp_path, "shop", GOOD.format(name="shop"))
    written = file.stat()
    assert import_plugin_file(file).plugin.meta.description == "about shop"
    file.write_text(file.read_text().replace("about shop", "about shoe"))
    os.utime(file, ns=(written.st_atime_ns, written.st_mtime_ns))
    del sys.modules["estudio_plugins.shop"]
    assert import_plugin_file(file).plugin.meta.description == "about shoe"
    assert not (tmp_path / "__pycache__").exists()


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


def test_a_file_that_only_mentions_a_plugin_hides_nothing(tmp_path: Path) -> None:
    write(tmp_path, "a", GOOD.format(name="other").replace("about other", "unlike 'shop'") + '\nNAMES = ["shop"]\n')
    write(tmp_path, "b", "NAMES = ['shop'\n")
    write(tmp_path, "c", "import torch\n" + GOOD.format(name="heavy") + '\nNAMES = ["shop"]\n')
    write(tmp_path / "custom", "zz", GOOD.format(name="shop"))
    assert read_card("shop", tmp_path).source == "zz.py"
    assert PluginManager(tmp_path, used=[]).open_plugin("shop").meta.description == "about shop"


def test_commands_and_dags_find_a_plugin_whose_name_is_put_together(tmp_path: Path) -> None:
    made = GOOD.replace('"{name}"', 'PREFIX + "op"').replace("plugin =", 'PREFIX = "sh"\nplugin =')
    write(tmp_path, "composed", made.format(name="it"))
    assert read_card("shop", tmp_path).source == "composed.py"
    assert PluginManager(tmp_path, used=[]).open_plugin("shop").meta.name == "shop"


def install(site: Path, module: str, text: str, entry: str) -> None:
    """Put a package with one entry point where Python looks for installed ones."""
    write(site, module, text)
    info = site / "brought-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[estudio.plugins]\nbrought = {entry}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "plugins").mkdir()
    yield tmp_path / "site"
    sys.modules.pop("brought_along", None)


@pytest.mark.parametrize("entry", ["brought_along", "brought_along:plugin"])
def test_commands_and_dags_find_a_plugin_that_a_package_brings(tmp_path: Path, site: Path, entry: str) -> None:
    install(site, "brought_along", GOOD.format(name="shop"), entry)
    card = read_card("shop", tmp_path / "plugins")
    assert (card.meta.name, card.source) == ("shop", entry)
    for manager in (PluginManager(tmp_path / "plugins", used=[]), PluginManager(tmp_path / "plugins", used=[])):
        assert manager.open_plugin("shop").meta.description == "about shop"
    assert manager.plugin_names == ["shop"]


@pytest.mark.parametrize("entry", ["brought_along", "brought_along:Heavy"])
def test_a_heavy_module_of_a_package_is_read_and_not_imported(tmp_path: Path, site: Path, entry: str) -> None:
    install(site, "brought_along", HEAVY_CLASS, entry)
    assert read_card("HeavyPlugin", tmp_path / "plugins").dag_settings.shards == 7
    assert "brought_along" not in sys.modules


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("nowhere", r"The entry point nowhere does not load: ModuleNotFoundError"),
        ("brought_along:missing", r"The entry point brought_along:missing does not load: AttributeError"),
        ("brought_along:PostgresItems", r"gives \w+. Let it name a module .* or brought = brought_along:plugin"),
    ],
)
def test_an_entry_point_that_brings_no_plugin_is_named_by_commands_and_dags(
    tmp_path: Path, site: Path, entry: str, told: str
) -> None:
    install(site, "brought_along", GOOD.format(name="shop"), entry)
    write(tmp_path / "plugins", "books", GOOD.format(name="books"))
    with pytest.raises(PluginError, match=told):
        read_card("brought", tmp_path / "plugins")
    manager = PluginManager(tmp_path / "plugins", used=[])
    assert manager.plugin_names == ["books"]
    assert re.search(told, manager.errors[entry])


def test_a_plugin_of_a_package_is_looked_for_by_the_name_of_its_entry_point_first(tmp_path: Path, site: Path) -> None:
    install(site, "brought_along", GOOD.format(name="brought"), "brought_along")
    write(tmp_path / "plugins", "other", "raise RuntimeError('a task of one plugin imports no other')")
    assert PluginManager(tmp_path / "plugins", used=[]).open_plugin("brought").meta.name == "brought"
    assert "estudio_plugins.other" not in sys.modules


def test_two_plugins_of_one_name_in_a_file_and_a_package_are_told(tmp_path: Path, site: Path) -> None:
    install(site, "brought_along", GOOD.format(name="shop"), "brought_along")
    write(tmp_path / "plugins", "shop", GOOD.format(name="shop"))
    manager = PluginManager(tmp_path / "plugins", used=[])
    assert manager.plugin_names == ["shop"]
    assert "Two plugins are called 'shop'" in manager.errors["brought_along"]


def test_the_file_of_a_plugin_that_is_broken_is_named_with_its_line_and_others_do_not_distract(tmp_path: Path) -> None:
    write(tmp_path, "aa", "def f(:\n")
    write(tmp_path, "shop", "x = 1\ny = x / 0\n")
    with pytest.raises(PluginError, match=r"shop.py, line 2: ZeroDivisionError"):
        read_card("shop", tmp_path)
    with pytest.raises(PluginError, match=r"defines a plugin 'nothing'[^\0]*aa.py, line 1"):
        read_card("nothing", tmp_path)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("61 25 * * *", "minute is 61: out of range"),
        ("0 25 * * *", "hour is 25"),
        ("0 2 * * mon-fry", "day of the week is mon-fry"),
        ("*/0 * * * *", "step '0'"),
        ("0 2 * *", "4 fields, and 5 are needed"),
        ("0 0 2 * * *", "6 fields"),
        ("@dialy", "Did you mean '@daily'"),
        ("R 2 * * *", "another time at each parsing"),
        ("every 0 new sessions", "4 fields"),
        ("", "0 fields"),
    ],
)
def test_a_schedule_that_airflow_cannot_carry_out_is_refused_with_the_field(schedule: str, told: str) -> None:
    for name in ("schedule", "sync_schedule", "improve_schedule", "watch_schedule"):
        with pytest.raises(ConfigurationError, match=re.escape(told)):
            DagSettings(**{name: schedule})


def test_schedules_are_read_as_airflow_reads_them() -> None:
    from airflow.exceptions import AirflowTimetableInvalid
    from airflow.timetables.trigger import CronTriggerTimetable

    for schedule in (
        "30 2 * * *",
        "*/15 * * * mon-fri",
        "0 0 L * *",
        "0 0 * * 1#2",
        "@quarterly",
        "@daily",
        "0 0 29 2 *",
    ):
        assert DagSettings(sync_schedule=schedule).never == {}
        CronTriggerTimetable(schedule, timezone="UTC").validate()
    for schedule in ("61 25 * * *", "0 2 * * mon-fry", "@dialy", "*/0 * * * *"):
        with pytest.raises((AirflowTimetableInvalid, ValueError)):
            CronTriggerTimetable(schedule, timezone="UTC").validate()


def test_a_date_that_never_comes_is_warned_of(tmp_path: Path) -> None:
    text = GOOD.format(name="shop").replace("import Postgres", "import DagSettings, Postgres")
    text = text.replace("description=", 'dag=DagSettings(sync_schedule="0 0 31 4 *"), description=')
    write(tmp_path, "shop", text)
    checks = {check.what: check for check in validate_plugin(PluginManager(tmp_path, used=[]), "shop")}
    assert (checks["schedules"].passed, checks["schedules"].warns) == (True, True)
    assert "sync_schedule = '0 0 31 4 *' names a date that never comes" in checks["schedules"].detail
    assert DagSettings(schedule="every 500 new sessions").never == {}


def test_what_keeps_a_plugin_s_dags_away_fails_its_validation_too(tmp_path: Path) -> None:
    write(tmp_path, "shop", "import torch\n" + GOOD.format(name="shop"))
    checks = {check.what: check for check in validate_plugin(PluginManager(tmp_path, used=[]), "shop")}
    assert not checks["DAGs"].passed
    assert "imports torch at its top" in checks["DAGs"].detail
