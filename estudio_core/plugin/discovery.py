"""What the DAG factory may know of a plugin without importing anything heavy: its card."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from estudio_core.errors import ConfigurationError, PluginError, suggest
from estudio_core.plugin.dag_settings import DagSettings
from estudio_core.plugin.places import ENTRY_POINT_GROUP, Definition, Place, likeliest, not_looked_at
from estudio_core.plugin.plugin import Plugin, PluginMeta
from estudio_core.plugin.run_params import FineTuneParams
from estudio_core.settings import get_settings

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


def defining_files(path: Path, name: str) -> list[Path]:
    """Return the files that define plugin `name`, or are named like it and do not load."""
    found = []
    for place in likeliest(path, name):
        if place.path is None:
            continue
        try:
            defines = name in _cards_of(place, name)
        except PluginError:
            defines = place.name == name
        if defines:
            found.append(place.path)
    return found


def read_card(name: str, path: Path | None = None) -> PluginCard:
    """Return the card of plugin `name`, importing nothing heavy.

    A light plugin file is imported. A file that imports heavy modules at its top is only read: its
    `meta`, `dag_settings` and `fine_tune_params` have to be written as literal calls.

    Raises:
        PluginError: nothing defines that plugin, or it cannot be read.
    """
    root = path or get_settings().plugins_path
    problems: list[PluginError] = []
    likely: list[PluginError] = []
    names: list[str] = []
    for place in likeliest(root, name):
        try:
            cards = _cards_of(place, name)
        except PluginError as error:
            (likely if place.mentions(name) else problems).append(error)
            continue
        if name in cards:
            return cards[name]
        names += cards
    if likely:
        raise likely[0]
    broken = "".join(f"\n{problem}" for problem in problems)
    raise PluginError(
        f"No file in {root}, and no installed package by an entry point of the group {ENTRY_POINT_GROUP}, defines "
        f"a plugin {name!r}. {suggest(name, names)} Give a FineTuningMethod subclass "
        f"`meta = PluginMeta(name={name!r}, ...)`, or call create_text_plugin(name={name!r}, ...)."
        f"{not_looked_at(root, name)}{broken}"
    )


def _cards_of(place: Place, name: str) -> dict[str, PluginCard]:
    """Return the cards of a place by plugin, importing it unless that is heavy; `name` is what is looked for."""
    file = place.file()
    if file is None:
        return _cards_in(place, place.label)
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))  # bytes: the file may say in what it is encoded
    except SyntaxError as error:
        raise PluginError(f"{file}, line {error.lineno or '?'}: {error.msg}. Correct the line.") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise PluginError(f"{file} cannot be read: {error or type(error).__name__}") from error
    heavy = _top_level_imports(tree) & HEAVY_MODULES
    if not heavy:
        source = place.label if place.path is None else file.name
        return _cards_in(place, source)
    found = [_card_from_class(node, file) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    cards = {card.meta.name: card for card in reversed(found) if card is not None}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == "create_text_plugin"]
    if name not in cards and any(_names_plugin(call, name) for call in calls):
        raise PluginError(
            f"{file} calls create_text_plugin and imports {', '.join(sorted(heavy))} at its top, which would slow down "
            "every parsing of DAGs. Import inside the functions that need it, such as TextTraining(loss=a function)."
        )
    return cards


def _cards_in(place: Place, source: str) -> dict[str, PluginCard]:
    """Return the cards of a place that is imported; of two plugins of one name the first, as `PluginManager` does."""
    return {d.meta.name: _card_of(d, source) for d in reversed(place.definitions())}


def _called(call: ast.Call) -> str | None:
    """Return the name of the function that is called, with or without its module."""
    return getattr(call.func, "id", getattr(call.func, "attr", None))


def _names_plugin(call: ast.Call, name: str) -> bool:
    """Whether a call gives the plugin's name, or one that is only known when it runs."""
    named = [keyword.value for keyword in call.keywords if keyword.arg == "name"]
    given = next(iter([*named, *call.args]), None)
    return not isinstance(given, ast.Constant) or given.value == name


def _card_of(definition: Definition, source: str) -> PluginCard:
    if isinstance(definition, Plugin):
        adapted = definition.pretrain is not None
        return PluginCard(definition.meta, definition.dag, definition.fine_tune, source, adapted)
    return PluginCard(definition.meta, definition.dag_settings, definition.fine_tune_params, source)


def _card_from_class(node: ast.ClassDef, file: Path) -> PluginCard | None:
    values: dict[str, dict[str, object]] = {}
    for statement in node.body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            if isinstance(target, ast.Name) and target.id in {"meta", "dag_settings", "fine_tune_params"}:
                try:
                    values[target.id] = _literal_arguments(statement.value)
                except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
                    raise PluginError(
                        f"{file}, line {statement.lineno}: {target.id} has to be written with literal values, "
                        "because this file imports heavy modules and is read, not imported, while DAGs are parsed."
                    ) from error
    if "meta" not in values:
        return None
    try:
        return PluginCard(
            PluginMeta.model_validate(values["meta"]),
            DagSettings.model_validate(values.get("dag_settings", {})),
            FineTuneParams.model_validate(values.get("fine_tune_params", {})),
            source=file.name,
        )
    except ConfigurationError as error:
        raise PluginError(f"{file}, class {node.name}: {error}") from error


def _literal_arguments(written: ast.expr) -> dict[str, object]:
    """Return the arguments of a call by name. Raises: ValueError and others that `ast.literal_eval` raises."""
    if not isinstance(written, ast.Call) or written.args:
        raise ValueError("no call with named arguments")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in written.keywords}


def _top_level_imports(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names
