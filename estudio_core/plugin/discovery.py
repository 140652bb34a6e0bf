"""Plugin files: which there are, what they define, and what the DAG factory may know without importing them.

A module is imported as `estudio_plugins.<file name>`, so that a plugin file called `mlflow.py` shadows nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from estudio_core.errors import PluginError, suggest
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.plugin import Plugin, PluginMeta
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.plugin.tutorial import FineTuningMethod
from estudio_core.settings import get_settings

MODULE_PREFIX = "estudio_plugins"

Definition = Plugin | FineTuningMethod | type[FineTuningMethod]
"""What a plugin file may define."""

HEAVY_MODULES = frozenset(
    [
        "torch",
        "lightning",
        "lightning_modules",
        "transformers",
        "sentence_transformers",
        "ray",
        "mlflow",
        "onnx",
        "onnxruntime",
        "pandas",
        "pyarrow",
        "tritonclient",
    ]
)
"""A plugin file that imports one of these at its top is read, not imported, while DAGs are parsed."""


@dataclass(frozen=True)
class PluginCard:
    """What the DAG factory needs of a plugin, known without building it."""

    meta: PluginMeta
    dag_settings: DagSettings
    fine_tune_params: FineTuneParams
    source: str
    pretrain: bool = False
    """Whether `initialize` adapts the base model to the catalog."""


def plugin_files(path: Path) -> list[Path]:
    """Return the plugin files below `path`: its own, then those of `custom/`, each sorted by name."""
    return [
        file
        for folder in (path.resolve(), path.resolve() / "custom")
        if folder.is_dir()
        for file in sorted(folder.glob("*.py"))
        if not file.name.startswith("_")
    ]


def find_plugin_file(path: Path, name: str) -> Path | None:
    """Return the file that defines plugin `name`: by its file name, else by what stands in it."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    for stem in dict.fromkeys((name, snake)):
        for folder in (path.resolve(), path.resolve() / "custom"):
            file = folder / f"{stem}.py"
            if file.is_file():
                return file
    quoted = re.compile(rf"""["']{re.escape(name)}["']""")
    for file in plugin_files(path):
        if quoted.search(file.read_text(encoding="utf-8", errors="replace")):
            return file
    return None


def import_plugin_file(file: Path) -> ModuleType:
    """Import a plugin file as `estudio_plugins.<stem>`; an import that stands is used again.

    Raises:
        PluginError: the file does not import; the message holds file, line and reason.
    """
    name = f"{MODULE_PREFIX}.{file.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    if MODULE_PREFIX not in sys.modules:
        package = ModuleType(MODULE_PREFIX)
        package.__path__ = []
        sys.modules[MODULE_PREFIX] = package
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[name]
        raise PluginError(f"{file}, line {error.lineno}: {error.msg}. Correct the line.") from error
    except Exception as error:
        del sys.modules[name]
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(file)), "?"
        )
        raise PluginError(f"{file}, line {line}: {type(error).__name__}: {error}") from error
    return module


def definitions_in(module: ModuleType) -> list[Definition]:
    """Return the plugins a module defines: values, and concrete classes with a `meta` of their own."""
    found: list[Definition] = []
    for value in vars(module).values():
        is_own_class = (
            inspect.isclass(value)
            and issubclass(value, FineTuningMethod)
            and value.__module__ == module.__name__
            and "meta" in vars(value)
            and not inspect.isabstract(value)
        )
        if (is_own_class or isinstance(value, Plugin | FineTuningMethod)) and value not in found:
            found.append(value)
    return found


def read_card(name: str, path: Path | None = None) -> PluginCard:
    """Return the card of plugin `name`, importing nothing heavy.

    A light plugin file is imported. A file that imports heavy modules at its top is only read: its
    `meta`, `dag_settings` and `fine_tune_params` have to be written as literal calls.

    Raises:
        PluginError: no file defines that plugin, or it cannot be read.
    """
    root = path or get_settings().plugins_path
    file = find_plugin_file(root, name)
    if file is None:
        names = [f.stem for f in plugin_files(root)]
        raise PluginError(f"No file in {root} defines a plugin {name!r}. {suggest(name, names)}")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise PluginError(f"{file}, line {error.lineno}: {error.msg}. Correct the line.") from error
    if not _top_level_imports(tree) & HEAVY_MODULES:
        for definition in definitions_in(import_plugin_file(file)):
            if definition.meta.name == name:
                return _card_of(definition, file.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            card = _card_from_class(node, file)
            if card is not None and card.meta.name == name:
                return card
    heavy = _top_level_imports(tree) & HEAVY_MODULES
    if heavy and any(isinstance(node, ast.Name) and node.id == "create_text_plugin" for node in ast.walk(tree)):
        raise PluginError(
            f"{file} calls create_text_plugin and imports {', '.join(sorted(heavy))} at its top, which would slow down "
            "every parsing of DAGs. Import inside the functions that need it, such as TextTraining(loss=a function)."
        )
    raise PluginError(
        f"{file} mentions {name!r} and defines no plugin of that name: give a FineTuningMethod subclass "
        f"`meta = PluginMeta(name={name!r}, ...)`, or call create_text_plugin(name={name!r}, ...)."
    )


def _card_of(definition: Definition, source: str) -> PluginCard:
    if isinstance(definition, Plugin):
        adapted = definition.pretrain is not None
        return PluginCard(definition.meta, definition.dag, definition.fine_tune, source, adapted)
    return PluginCard(definition.meta, definition.dag_settings, definition.fine_tune_params, source)


def _card_from_class(node: ast.ClassDef, file: Path) -> PluginCard | None:
    values: dict[str, dict[str, object]] = {}
    for statement in node.body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name) and target.id in {"meta", "dag_settings", "fine_tune_params"}:
                try:
                    values[target.id] = {
                        keyword.arg or "": ast.literal_eval(keyword.value) for keyword in statement.value.keywords
                    }
                except ValueError as error:
                    raise PluginError(
                        f"{file}, line {statement.lineno}: {target.id} has to be written with literal values, "
                        "because this file imports heavy modules and is read, not imported, while DAGs are parsed."
                    ) from error
    if "meta" not in values:
        return None
    return PluginCard(
        PluginMeta.model_validate(values["meta"]),
        DagSettings.model_validate(values.get("dag_settings", {})),
        FineTuneParams.model_validate(values.get("fine_tune_params", {})),
        source=file.name,
    )


def _top_level_imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names
