"""`estudio plugins new`: a working plugin file and its DAG stub."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from estudio_core.errors import ConfigurationError
from estudio_core.plugin.plugin import PluginMeta

_PLUGIN = '''"""Search plugin `{name}`."""

from estudio_core import PostgresItems, create_text_plugin

plugin = create_text_plugin(
    name="{name}",
    items=PostgresItems(
        table={table},
        id_column={id_column},
        text={text},
        payload=(),  # columns to show, filter and sort by
        {source}
    ),
    model={model},
)
'''

_STUB = '''"""Airflow DAGs of the search plugin `{name}`."""

from estudio_core.dag_factory import build_dags

globals().update(build_dags("{name}"))
'''


def write_plugin(
    name: str,
    *,
    plugins_path: Path,
    dags_path: Path,
    table: str,
    id_column: str,
    text: list[str],
    model: str,
    connection_id: str | None,
) -> tuple[Path, Path]:
    """Write `<plugins_path>/custom/<name>.py` and `<dags_path>/<name>.py`; return both paths.

    Raises:
        ConfigurationError: the name is not usable, or a file of that name exists.
    """
    try:
        PluginMeta(name=name)
    except (ValidationError, ConfigurationError) as error:
        raise ConfigurationError(str(error)) from error
    plugin_file = plugins_path / "custom" / f"{name}.py"
    stub = dags_path / f"{name}.py"
    for file in (plugin_file, plugins_path / f"{name}.py", stub):
        if file.exists():
            raise ConfigurationError(f"{file} exists already. Choose another name, or delete it first.")
    source = (
        f"connection_id={_quoted(connection_id)},  # an Airflow connection of type postgres"
        if connection_id
        else "# connection_id=... or url=... say where the table is; without them, it is Estudio's own database"
    )
    columns = [_quoted(column) for column in text]
    content = _PLUGIN.format(
        name=name,
        table=_quoted(table),
        id_column=_quoted(id_column),
        text=columns[0] if len(columns) == 1 else f"({', '.join(columns)})",
        source=source,
        model=_quoted(model),
    )
    plugin_file.parent.mkdir(parents=True, exist_ok=True)
    dags_path.mkdir(parents=True, exist_ok=True)
    plugin_file.write_text(content, encoding="utf-8")
    stub.write_text(_STUB.format(name=name), encoding="utf-8")
    return plugin_file, stub


def _quoted(text: str) -> str:
    r"""Return `text` as a Python literal in double quotes.

    >>> print(_quoted('the "blue" one'))
    "the \"blue\" one"
    """
    return json.dumps(text, ensure_ascii=False)
