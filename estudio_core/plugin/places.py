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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from estudio_core.errors import PluginError
from estudio_core.plugin.plugin import Plugin, being_made
from estudio_core.plugin.tutorial import FineTuningMethod

MODULE_PREFIX = "estudio_plugins"
ENTRY_POINT_GROUP = "estudio.plugins"

Definition = Plugin | FineTuningMethod | type[FineTuningMethod]
"""What a plugin file may define."""
_not_kept: dict[str, list[str]] = {}
"""By file, the names of plugins that it made when it was imported and that no variable of it holds."""


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
        except (Exception, SystemExit) as error:
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
        except (Exception, SystemExit) as error:
            raise _does_not_load(self.point, error) from error
        if isinstance(loaded, ModuleType):
            return definitions_in(loaded)
        if isinstance(loaded, Plugin | FineTuningMethod) or _is_plugin_class(loaded):
            return [loaded]
        raise PluginError(
            f"The entry point {self.label} gives {type(loaded).__name__}. Let it name a module that defines plugins, "
            f"or one plugin: {self.name} = {self.point.module}, or {self.name} = {self.point.module}:plugin"
        )

    def not_kept(self) -> list[str]:
        """Return the names of plugins that the file made when it was imported, and that no variable of it holds."""
        return _not_kept.get(str(self.path), [])

    def mentions(self, name: str) -> bool:
        """Whether its name, or the text of a file, has that of plugin `name` in it."""
        return name in self.name or name in self._text()

    def is_called(self, name: str) -> bool:
        """Whether its name is that of plugin `name`, or the same in small letters with underscores."""
        return self.name in (name, re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())

    def rank(self, name: str) -> tuple[bool, bool, bool]:
        """Return what sorts first those that probably define plugin `name`: called like it, then files quoting it."""
        called = self.is_called(name)
        quotes = called or re.search(rf"""["']{re.escape(name)}["']""", self._text()) is not None
        return not called, self.name != name, not quotes

    def _text(self) -> str:
        """Return the text of a file; nothing of one that cannot be read, which whoever imports it is told."""
        with suppress(OSError):
            return "" if self.path is None else self.path.read_text(encoding="utf-8", errors="replace")
        return ""


def places(path: Path) -> list[Place]:
    """Return where plugins may be: files below `path`, those of `custom/`, entry points; each sorted by name."""
    files = [Place(file.stem, str(file), path=file) for file in _plugin_files(path)]
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value))
    return files + [Place(point.name, point.value, point=point) for point in points]


def likeliest(path: Path, name: str) -> Iterator[Place]:
    """Yield all places in the order of `Place.rank`; files called otherwise are read only for whoever goes on.

    Whoever looks goes on until one defines the plugin: a mention alone hides nothing.
    """
    everything = places(path)
    yield from sorted((place for place in everything if place.is_called(name)), key=lambda place: place.rank(name))
    yield from sorted((place for place in everything if not place.is_called(name)), key=lambda place: place.rank(name))


def not_looked_at(path: Path, name: str) -> str:
    """Say of a folder called like a plugin, or of a file in such a folder, that no plugin is read from it."""
    folders = (path, path / "custom")
    packages = [folder / name for folder in folders if (folder / name).is_dir()]
    deeper = [file for folder in folders for file in sorted(folder.glob(f"*/{name}.py")) if file.parent not in folders]
    found = ", ".join(str(each) for each in [*packages, *deeper])
    return f" {found}: not looked at. A plugin is a file of {path} or {path / 'custom'}." if found else ""


class _Siblings(MetaPathFinder):
    """Lets a plugin file import another: `from estudio_plugins.other import plugin`, or `from .other import plugin`.

    Their folder is on no search path, where a file called `json.py` would stand in the way of others.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a file in one of the folders that plugins were imported from."""
        package, _, stem = fullname.rpartition(".")
        if package != MODULE_PREFIX:
            return None
        files = (Path(folder) / f"{stem}.py" for folder in path or ())
        return next((_spec(fullname, file) for file in files if file.is_file()), None)


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
    package = sys.modules.setdefault(MODULE_PREFIX, ModuleType(MODULE_PREFIX))
    package.__path__ = list(dict.fromkeys([str(file.parent), *getattr(package, "__path__", ())]))
    if not any(isinstance(finder, _Siblings) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Siblings())  # before Python's own, which keeps bytecode
    spec = _spec(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    made: list[Plugin] = []
    token = being_made.set(made)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[name]
        raise PluginError(f"{file}, line {error.lineno or '?'}: {error.msg}. Correct the line.") from error
    except (Exception, SystemExit) as error:  # a script that ends itself ends nobody else
        del sys.modules[name]
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(file)), "?"
        )
        raise PluginError(f"{file}, line {line}: {type(error).__name__}: {error}") from error
    finally:
        being_made.reset(token)
    lost = {plugin.meta.name for plugin in made} - {definition.meta.name for definition in definitions_in(module)}
    if lost:  # unless another file, which this one imports, has made them and keeps them
        siblings = [each for called, each in sys.modules.items() if called.startswith(f"{MODULE_PREFIX}.")]
        lost -= {definition.meta.name for sibling in siblings for definition in definitions_in(sibling)}
    _not_kept[str(file)] = sorted(lost)
    return module


def _spec(name: str, file: Path) -> ModuleSpec | None:
    return importlib.util.spec_from_file_location(name, file, loader=_FreshSource(name, str(file)))


def definitions_in(module: ModuleType) -> list[Definition]:
    """Return the plugins of a module: values, also in a list or a dict, and concrete classes with an own `meta`."""
    found: list[Definition] = []
    for given in vars(module).values():
        many = given.values() if type(given) is dict else given if type(given) in (list, tuple) else (given,)
        for value in many:
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
    """Return the plugin files, each once: a link to another one is that one."""
    files = [
        file
        for folder in (path.resolve(), path.resolve() / "custom")
        if folder.is_dir()
        for file in sorted(folder.glob("*.py"))
        if not file.name.startswith("_") and not file.is_dir()
    ]
    own = {file.resolve() for file in files if not file.is_symlink()}
    targets: dict[Path, Path] = {}
    for file in files:
        if not (file.is_symlink() and file.resolve() in own):
            targets.setdefault(file.resolve(), file)
    return list(targets.values())


def _does_not_load(point: EntryPoint, error: BaseException) -> PluginError:
    return PluginError(f"The entry point {point.value} does not load: {type(error).__name__}: {error}")
