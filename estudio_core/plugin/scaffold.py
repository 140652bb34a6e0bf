"""`estudio plugins new`: a working plugin file and its DAG stub."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from estudio_core.errors import ConfigurationError
from estudio_core.plugin.plugin import PluginMeta
from estudio_core.plugin.specs import PostgresItems

_PLUGIN = '''"""Search plugin `{name}`."""

from estudio_core import PostgresItems, create_text_plugin

plugin = create_text_plugin(
    name="{name}",
    items=PostgresItems(
        table={table},
        id_column={id_column},
        text={text},
        payload={payload},  # columns to show, filter and sort by
        {source}
    ),
    model={model},
)
'''

_STUB = '''"""Airflow DAGs of the search plugin `{name}`."""

from estudio_core.dag_factory import build_dags

globals().update(build_dags("{name}"))
'''


@dataclass(frozen=True)
class NewPlugin:
    """A plugin to write: where its items are, and the model that it starts from."""

    name: str
    table: str
    text: tuple[str, ...]
    model: str
    id_column: str = "id"
    payload: tuple[str, ...] = ()
    """Columns to show; empty: the first text column."""
    connection_id: str | None = None


def write_plugin(new: NewPlugin, *, plugins_path: Path, dags_path: Path) -> tuple[Path, Path]:
    """Write `<plugins_path>/custom/<name>.py` and `<dags_path>/<name>.py`; return both paths.

    Raises:
        ConfigurationError: the name is not usable, or a file of that name exists.
    """
    _require_free(dags_path / f"{new.name}.py")
    plugin_file = write_plugin_file(new, plugins_path)
    dags_path.mkdir(parents=True, exist_ok=True)
    return plugin_file, write_stub(new.name, dags_path)


def write_plugin_file(new: NewPlugin, plugins_path: Path) -> Path:
    """Write `<plugins_path>/custom/<name>.py`; return its path. Raises: as `write_plugin`."""
    PluginMeta(name=new.name)
    PostgresItems(
        table=new.table,
        text=new.text,
        id_column=new.id_column,
        payload=new.payload,
        connection_id=new.connection_id,
    )
    if not new.model:
        raise ConfigurationError("The name of the base model is empty: give a folder, a package or a hub name.")
    plugin_file = plugins_path / "custom" / f"{new.name}.py"
    _require_free(plugin_file, plugins_path / f"{new.name}.py")
    source = (
        f"connection_id={_quoted(new.connection_id)},  # an Airflow connection of type postgres"
        if new.connection_id
        else "# connection_id=... or url=... say where the table is; without them, it is Estudio's own database"
    )
    columns = [_quoted(column) for column in new.text]
    content = _PLUGIN.format(
        name=new.name,
        table=_quoted(new.table),
        id_column=_quoted(new.id_column),
        payload=f"({', '.join(_quoted(column) for column in new.payload or new.text[:1])},)",
        text=columns[0] if len(columns) == 1 else f"({', '.join(columns)})",
        source=source,
        model=_quoted(new.model),
    )
    plugin_file.parent.mkdir(parents=True, exist_ok=True)
    plugin_file.write_text(content, encoding="utf-8")
    return plugin_file


def _require_free(*files: Path) -> None:
    for file in files:
        if file.exists():
            raise ConfigurationError(f"{file} exists already. Choose another name, or delete it first.")


def write_stub(name: str, dags_path: Path) -> Path:
    """Write `<dags_path>/<name>.py`, from which Airflow gets the DAGs of plugin `name`; return its path."""
    stub = dags_path / f"{name}.py"
    stub.write_text(stub_text(name), encoding="utf-8")
    return stub


def stub_text(name: str) -> str:
    """Return the file that gives Airflow the DAGs of plugin `name`."""
    return _STUB.format(name=name)


def find_stub(name: str, dags_path: Path) -> Path | None:
    """Return a file below `dags_path` that builds the DAGs of plugin `name`, under whatever name it has."""
    builds = re.compile(rf"""build_dags\(\s*["']{re.escape(name)}["']""")
    for file in sorted(dags_path.rglob("*.py")):
        with suppress(OSError):  # a link to nowhere, or a folder that is called like a file
            if builds.search(file.read_text(encoding="utf-8", errors="replace")):
                return file
    return None


def _quoted(text: str) -> str:
    r"""Return `text` as a Python literal in double quotes.

    >>> print(_quoted('the "blue" one'))
    "the \"blue\" one"
    """
    return json.dumps(text, ensure_ascii=False)
