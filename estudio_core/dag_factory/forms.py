"""Airflow's parameter forms, from the plugin's typed parameters."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param
from pydantic import BaseModel

_KEPT = ("title", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "pattern", "section")


def form(defaults: BaseModel) -> dict[str, Param]:
    """Return one Param per field of `defaults`: its value is the default, its constraints are the form's.

    >>> from estudio_core.plugin.run_params import ReleaseParams
    >>> params = form(ReleaseParams())
    >>> params["keep_releases"].schema["minimum"], params["version"].resolve()
    (2, 'challenger')
    """
    properties = type(defaults).model_json_schema()["properties"]
    values = defaults.model_dump(mode="json")
    left_empty = getattr(type(defaults), "left_empty", {})
    for name, usual in left_empty.items():
        otherwise = "the loss's own" if usual is None else usual
        whose = f"{otherwise}, where no preset and no plugin says otherwise" if values[name] is None else values[name]
        properties[name]["description"] += f" Empty: {whose}."
    return {
        name: _param(None if name in left_empty else values[name], properties[name])
        for name in type(defaults).model_fields
    }


def _param(value: Any, schema: dict[str, Any]) -> Param:
    branches = schema.get("anyOf", [schema])
    types = sorted({branch["type"] for branch in branches if "type" in branch}, key=lambda t: t != "null")
    options = {key: branch[key] for branch in branches for key in _KEPT if key in branch}
    options |= {key: schema[key] for key in _KEPT if key in schema}
    if "enum" in options and "null" in types:
        options["enum"] = [*options["enum"], None]  # may be left empty
    return Param(
        value,
        type=types if len(types) > 1 else types[0],
        description_md=schema.get("description"),
        **options,
    )
