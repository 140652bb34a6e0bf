"""The direction of imports: every part has its layer, and no file comes back to itself."""

from __future__ import annotations

import graphlib
import pkgutil
from collections import Counter

import grimp

import estudio_core
from scripts.draw_layers import PAGE, drawn, layers


def test_every_package_and_module_has_one_layer() -> None:
    parts = Counter(f"estudio_core.{module.name}" for module in pkgutil.iter_modules(estudio_core.__path__))
    expected, placed = parts + Counter(["lightning_modules"]), Counter(part for layer in layers() for part in layer)
    assert sorted((expected - placed) + (placed - expected)) == [], (
        "each part stands once in `layers` of pyproject.toml; a new one in the lowest line above all it imports"
    )


def test_no_import_leads_back_to_its_file() -> None:
    graph = grimp.build_graph("estudio_core", "lightning_modules")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports["estudio_core.cli"]) > 5
    graphlib.TopologicalSorter(imports).prepare()  # a CycleError names the files of the circle


def test_the_drawing_of_the_layers_is_what_the_contract_says() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert drawn(page) == page, "run `python scripts/draw_layers.py`"
