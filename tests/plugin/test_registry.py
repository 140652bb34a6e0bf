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
from estudio_core.plugin.discovery import defining_files, read_card
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


def test_plugins_that_a_file_makes_and_does_not_keep_are_named(tmp_path: Path) -> None:
    head = "from estudio_core import PostgresItems, create_text_plugin\nitems = PostgresItems(table='t', text='b')\n"
    loop = "for name in ('north', 'south', 'east'):\n    {}create_text_plugin(name, items=items, model='m'){}\n"
    (tmp_path / "regions.py").write_text(head + loop.format("plugin = ", ""))
    (tmp_path / "towns.py").write_text(
        head + "kept = []\n" + loop.replace("th'", "th_town'").replace("east", "east_town").format("kept.append(", ")")
    )
    manager = PluginManager(tmp_path)
    with pytest.raises(
        PluginError, match=r"(?s)no plugin 'north'.*regions.py: It makes 'north', 'south' and keeps none"
    ):
        manager.open_plugin("north")
    assert manager.plugin_names == ["east", "east_town", "north_town", "south_town"]
    assert manager.errors == {
        str(
            tmp_path / "regions.py"
        ): "It makes 'north', 'south' and keeps none of them: a variable that is bound again "
        "holds the last one alone. Collect them in a list or a dict."
    }


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
        ("*/90 * * * *", "minute is */90: a step beyond 60 is 60"),
        ("0 */48 * * *", "hour is */48"),
        ("0 2 1/40 * *", "day of the month is 1/40"),
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
        "*/60 */24 * * *",
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


HEAVY_PART = """
import torch

from estudio_core import create_text_plugin, PostgresItems
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.tutorial import FineTuningMethod, PluginMeta
"""


def found_by_both(folder: Path, name: str = "shop") -> tuple[str, str | None]:
    """Return file and description by which DAGs and commands, whether or not these looked at all files, know a plugin.

    They have to be the same.
    """
    card = read_card(name, folder)
    one, all_of_them = PluginManager(folder, used=[]), PluginManager(folder, used=[])
    assert name in all_of_them.plugin_names
    for manager in (one, all_of_them):
        assert manager.meta(name) == card.meta
        assert Path(manager.place(name)).name == card.source
    return card.source, card.meta.description


@pytest.mark.parametrize("order", [("a", "shop"), ("shop", "zz"), ("shop", "custom/shop")])
def test_of_two_files_that_define_one_plugin_all_use_the_same_and_name_the_other(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    for place in order:
        file = write((tmp_path / place).parent, Path(place).name, GOOD.format(name="shop"))
        file.write_text(file.read_text().replace("about shop", f"of {place}"))
    assert found_by_both(tmp_path) == ("shop.py", "of shop")
    manager = PluginManager(tmp_path, used=[])
    [(other, told)] = manager.errors.items()
    assert other.endswith(f"{next(place for place in order if place != 'shop')}.py")
    assert "Two plugins are called 'shop'" in told
    assert "The first is used" in told


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD.format(name="shop"),
        "# -*- coding: latin-1 -*-\n# \xe9\n" + GOOD.format(name="shop"),
        GOOD.format(name="shop").replace("plugin = ", "plugins = [") + "]\n",
        GOOD.format(name="shop").replace("plugin = ", "plugins = {1: ") + "}\n",
        GOOD.replace('"{name}"', "name").replace("plugin = ", "for name in ('a', 'shop'): globals()[name] = "),
        GOOD.format(name="shop") + GOOD.format(name="shop").replace("plugin =", "second =").replace("about", "not"),
        "class Odd:\n    def __eq__(self, other): raise ValueError\nodd = Odd()\n" + GOOD.format(name="shop"),
    ],
    ids=["byte order mark", "latin-1", "list", "dict", "loop", "twice", "odd value"],
)
def test_commands_and_dags_read_a_file_alike(tmp_path: Path, text: str) -> None:
    file = tmp_path / "goods.py"
    file.write_bytes(text.encode("latin-1" if "latin-1" in text else "utf-8"))
    described = "about {name}" if "{name}" in text else "about shop"
    assert found_by_both(tmp_path) == ("goods.py", described)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise SystemExit('no settings')", "line 1: SystemExit: no settings"),
        ("x = 'shop'\nimport sys; sys.exit(3)", "line 2: SystemExit: 3"),
        ("def f(): f()\nf()", "RecursionError"),
        ("x = " + "-" * 100_000 + "1", "MemoryError"),
        ("x = 1\n\0", "null bytes"),
        ("# shop\nx = '\udce9'\n", "can't decode byte 0xe9"),
        (HEAVY_PART + "class Other(FineTuningMethod):\n    meta = PluginMeta(nam='shop')\n", ""),
    ],
    ids=["exit", "exit in line 2", "recursion", "nesting", "NUL", "no UTF-8", "odd heavy class"],
)
def test_an_odd_file_beside_it_hides_no_plugin_and_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "aa.py").write_bytes(text.encode("utf-8", "surrogateescape"))
    write(tmp_path, "zz", GOOD.format(name="shop"))
    assert found_by_both(tmp_path) == ("zz.py", "about shop")
    assert told in PluginManager(tmp_path, used=[]).errors[str(tmp_path / "aa.py")]
    assert [file.name for file in defining_files(tmp_path, "shop")] == ["zz.py"]


def test_links_and_folders_that_end_like_a_file_hide_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "aa.py").symlink_to(tmp_path / "gone")
    (tmp_path / "shop.py").mkdir()
    write(tmp_path, "zz", GOOD.format(name="shop"))
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "again.py").symlink_to("../zz.py")
    assert found_by_both(tmp_path) == ("zz.py", "about shop")
    assert list(PluginManager(tmp_path, used=[]).errors) == [str(tmp_path / "aa.py")]
    assert defining_files(tmp_path, "shop") == [tmp_path / "zz.py"]
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "shop.py").symlink_to(tmp_path / "zz.py")
    assert found_by_both(mounted) == ("shop.py", "about shop")


@pytest.mark.parametrize("written", ["estudio_plugins.zz", ".zz"])
def test_a_plugin_file_may_import_another_and_defines_its_own_alone(tmp_path: Path, written: str) -> None:
    write(tmp_path, "zz", GOOD.format(name="shop"))
    write(tmp_path, "books", f"from {written} import plugin as shop\n" + GOOD.format(name="books"))
    assert found_by_both(tmp_path, "books") == ("books.py", "about books")
    assert found_by_both(tmp_path) == ("zz.py", "about shop")
    assert PluginManager(tmp_path, used=[]).errors == {}
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize("place", ["shop/__init__", "custom/shop/__init__", "custom/team/shop"])
def test_a_folder_in_place_of_a_file_is_said_to_be_none(tmp_path: Path, place: str) -> None:
    write((tmp_path / place).parent, Path(place).name, GOOD.format(name="shop"))
    with pytest.raises(PluginError, match=r"shop(\.py)?: not looked at. A plugin is a file of"):
        read_card("shop", tmp_path)
    with pytest.raises(PluginError, match=r"shop(\.py)?: not looked at. A plugin is a file of"):
        PluginManager(tmp_path, used=[]).open_plugin("shop")


def test_names_that_differ_by_case_are_two_plugins(tmp_path: Path) -> None:
    write(tmp_path, "a", GOOD.format(name="Shop"))
    write(tmp_path, "b", GOOD.format(name="shop"))
    assert found_by_both(tmp_path, "Shop") == ("a.py", "about Shop")
    assert found_by_both(tmp_path) == ("b.py", "about shop")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("meta = PluginMeta(name='shop')\n    dag_settings = SETTINGS", "line 8: dag_settings has to be written"),
        ("meta = PluginMeta(name='shop')\n    dag_settings = DagSettings(**SETTINGS)", "line 8: dag_settings"),
        ("meta = PluginMeta('shop')", "line 7: meta has to be written with literal values"),
        ("meta = PluginMeta(name='shop')\n    dag_settings = DagSettings(schedul='@daily')", "mean 'schedule'"),
    ],
)
def test_what_cannot_be_read_of_a_heavy_file_is_said_with_its_place(tmp_path: Path, body: str, told: str) -> None:
    write(tmp_path, "shop", f"{HEAVY_PART}class Shop(FineTuningMethod):\n    {body}\n".lstrip("\n"))
    with pytest.raises(PluginError, match=told) as raised:
        read_card("shop", tmp_path)
    assert "shop.py" in str(raised.value)


def test_annotated_settings_of_a_heavy_file_are_read(tmp_path: Path) -> None:
    body = "meta: PluginMeta = PluginMeta(name='shop')\n    dag_settings: DagSettings = DagSettings(shards=7)"
    write(tmp_path, "shop", f"{HEAVY_PART}class Shop(FineTuningMethod):\n    {body}\n")
    assert read_card("shop", tmp_path).dag_settings.shards == 7


def test_a_call_by_its_module_in_a_heavy_file_says_what_to_do(tmp_path: Path) -> None:
    called = GOOD.format(name="shop").replace("= create", "= estudio_core.create")
    write(tmp_path, "shop", "import torch\nimport estudio_core\n" + called)
    with pytest.raises(PluginError, match="imports torch at its top"):
        read_card("shop", tmp_path)
