"""List the parameters of training in docs/settings.md, from their one declaration in lightning_modules/config.py.

python scripts/list_parameters.py
"""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lightning_modules.config import TrainingConfig, about  # noqa: E402 (the path is set first)

PAGE = ROOT / "docs" / "settings.md"
BEGIN, END = "<!-- Made by scripts/list_parameters.py. -->\n", "<!-- End of what is made. -->\n"
_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def written(value: Any) -> str:
    """Return a value as people write it."""
    if isinstance(value, tuple):
        return ", ".join(map(written, value))
    return str(value.value if isinstance(value, Enum) else value)


def legal(name: str) -> str:
    """Return what values a parameter takes: its choices, or its range."""
    schema = TrainingConfig.model_json_schema()["properties"][name]
    choices = [choice for branch in schema.get("anyOf", [schema]) for choice in branch.get("enum", [])]
    if choices:
        return ", ".join(map(str, choices))
    limits = TrainingConfig.model_fields[name].metadata
    found = [text.format(written(getattr(limit, key))) for limit in limits for key, text in _BOUNDS.items()
             if hasattr(limit, key)]  # fmt: skip
    return " and ".join(found)


def row(name: str) -> str:
    """Return a parameter's line of the table."""
    field, extra = TrainingConfig.model_fields[name], about(name)
    says = " ".join(part for part in (field.description, extra["measured"]) if part)
    unit = "" if field.default is None else extra["unit"]
    default = f"{written(field.default)} {unit}".strip()
    return f"| `{name}` | {default} | {legal(name)} | {', '.join(extra['where'])} | {says} |"


def made() -> str:
    """Return what stands between the two marks."""
    head = ["", "| parameter | default | legal | set by | what |", "|---|---|---|---|---|"]
    return "\n".join([*head, *map(row, TrainingConfig.model_fields), "", ""])


def listed(page: str) -> str:
    """Return `page` with everything between the two marks made anew."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}{made()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(listed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
