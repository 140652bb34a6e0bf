"""Where search plugins stand: files of the plugins folder and of its `custom/`, and entry points of installed packages.

Commands, tasks and DAGs all look through `places`, or `likeliest` for one plugin. A file is imported as
`estudio_plugins.<file name>`, so that one called `mlflow.py` shadows nothing.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from estudio_core.errors import PluginError
from estudio_core.plugin.plugin import Plugin
from estudio_core.plugin.tutorial import FineTuningMethod

MODULE_PREFIX = "estudio_plugins"
ENTRY_POINT_GROUP = "estudio.plugins"

Definition = Plugin | FineTuningMethod | type[FineTuningMethod]
"""What a plugin file may define."""


@dataclass(frozen=True)
class Place:
    """A file of the plugins folder, or an entry point of an installed package."""

    name: str
    """File name without its ending, or name of the entry point."""
    label: str
    """How it is called in messages."""
    path: Path | None = None
    point: EntryPoint | None = None

    def file(self) -> Path | None:
        """Return the Python file behind it; of an entry point, packages above its module are imported for that."""
        if self.point is None:
            return self.path
        try:
            spec = importlib.util.find_spec(self.point.module)
        except Exception as error:
            raise _does_not_load(self.point, error) from error
        origin = "" if spec is None else spec.origin or ""
        return Path(origin) if origin.endswith(".py") else None

    def definitions(self) -> list[Definition]:
        """Import it and return the plugins that it defines.

        Raises:
            PluginError: it does not import, or an entry point names something else than a module or a plugin.
        """
        if self.point is None:
            assert self.path is not None
            return definitions_in(import_plugin_file(self.path))
        try:
            loaded = self.point.load()
        except Exception as error:
            raise _does_not_load(self.point, error) from error
        if isinstance(loaded, ModuleType):
            return definitions_in(loaded)
        if isinstance(loaded, Plugin | FineTuningMethod) or _is_plugin_class(loaded):
            return [loaded]
        raise PluginError(
            f"The entry point {self.label} gives {type(loaded).__name__}. Let it name a module that defines plugins, "
            f"or one plugin: {self.name} = {self.point.module}, or {self.name} = {self.point.module}:plugin"
        )

    def mentions(self, name: str) -> bool:
        """Whether its name, or the text of a file, has that of plugin `name` in it."""
        if name in self.name:
            return True
        return self.path is not None and name in self.path.read_text(encoding="utf-8", errors="replace")


def places(path: Path) -> list[Place]:
    """Return where plugins may be: files below `path`, those of `custom/`, entry points; each sorted by name."""
    files = [Place(file.stem, str(file), path=file) for file in _plugin_files(path)]
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))
    return files + [Place(point.name, point.value, point=point) for point in points]


def likeliest(path: Path, name: str) -> Iterator[Place]:
    """Yield all places, those first that probably define plugin `name`: called like it, then files that quote it.

    Whoever looks goes on until one defines it: a mention alone hides nothing.
    """
    everything = places(path)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    named = [place for called in dict.fromkeys((name, snake)) for place in everything if place.name == called]
    yield from named
    quoted = re.compile(rf"""["']{re.escape(name)}["']""")
    others = [place for place in everything if place not in named]
    quoting = [
        place
        for place in others
        if place.path is not None and quoted.search(place.path.read_text(encoding="utf-8", errors="replace"))
    ]
    yield from quoting
    yield from (place for place in others if place not in quoting)


class _FreshSource(SourceFileLoader):
    """A loader that compiles the source at every import and leaves no `__pycache__` in the plugins folder.

    Python takes cached bytecode by the second and the size of the source, so that an edit of one letter in the
    second of the last import would not be seen.
    """

    def path_stats(self, path: Any) -> Any:
        raise OSError("Bytecode of plugins is neither read nor written.")


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
    spec = importlib.util.spec_from_file_location(name, file, loader=_FreshSource(name, str(file)))
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
        is_own_class = _is_plugin_class(value) and value.__module__ == module.__name__
        if (is_own_class or isinstance(value, Plugin | FineTuningMethod)) and value not in found:
            found.append(value)
    return found


def _is_plugin_class(value: object) -> bool:
    return (
        inspect.isclass(value)
        and issubclass(value, FineTuningMethod)
        and "meta" in vars(value)
        and not inspect.isabstract(value)
    )


def _plugin_files(path: Path) -> list[Path]:
    return [
        file
        for folder in (path.resolve(), path.resolve() / "custom")
        if folder.is_dir()
        for file in sorted(folder.glob("*.py"))
        if not file.name.startswith("_")
    ]


def _does_not_load(point: EntryPoint, error: Exception) -> PluginError:
    return PluginError(f"The entry point {point.value} does not load: {type(error).__name__}: {error}")
