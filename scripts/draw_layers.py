"""Draw the layers of [tool.importlinter] in pyproject.toml into docs/architecture.md, with what each part is.

    python scripts/draw_layers.py

What a part is, is the first line of its docstring.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- Made by scripts/draw_layers.py. -->\n", "<!-- End of what is made. -->\n"


def layers() -> list[list[str]]:
    """Return the parts of each layer, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    [contract] = [contract for contract in contracts if contract["type"] == "layers"]
    return [[part.strip() for part in layer.split("|")] for layer in contract["layers"]]


def drawing(rows: list[list[str]]) -> str:
    """Return `rows` as a tower of boxes, indented as Markdown's code is."""
    lines = ["  ".join(part.removeprefix("estudio_core.") for part in row) for row in rows]
    width = max(map(len, lines))
    floor = f"├{'─' * (width + 2)}┤"
    boxes = f"\n{floor}\n".join(f"│ {line:<{width}} │" for line in lines).splitlines()
    tower = [floor.replace("├", "┌").replace("┤", "┐"), *boxes, floor.replace("├", "└").replace("┤", "┘")]
    return "\n".join(f"    {line}" for line in tower)


def summary(part: str) -> str:
    """Return the first line of the docstring of a module or package."""
    file = ROOT / part.replace(".", "/")
    source = (file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def made() -> str:
    """Return what stands between the two marks."""
    rows = layers()
    table = [f"| `{part.removeprefix('estudio_core.')}` | {summary(part)} |" for row in rows for part in row]
    return "\n".join(["", drawing(rows), "", "| part | what it is |", "|---|---|", *table, "", ""])


def drawn(page: str) -> str:
    """Return `page` with everything between the two marks made anew."""
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}{made()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
