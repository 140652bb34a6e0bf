"""The search plugins of an installation: those in the plugins folder, in its `custom/` folder, and entry points.

A plugin that cannot be loaded is reported by name and leaves the others alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from estudio_core.errors import PluginError, suggest
from estudio_core.plugin.places import Definition, Place, likeliest, not_looked_at, places
from estudio_core.plugin.plugin import Plugin, PluginMeta
from estudio_core.plugin.tutorial import FineTuningMethod, adapt
from estudio_core.settings import get_settings


class PluginManager:
    """The plugins of an installation. Files are looked at on first use; plugins are built on `get_plugin`.

    Args:
        plugins_path: Folder to look in; `settings.plugins_path` by default.
        used: Names to restrict to; `settings.inference_used_plugins` by default, empty for all.
    """

    def __init__(self, plugins_path: Path | None = None, used: list[str] | None = None) -> None:
        self._path = plugins_path
        self._used = used
        self._definitions: dict[str, tuple[Definition, str]] | None = None
        self._errors: dict[str, str] = {}
        self._built: dict[str, Plugin | FineTuningMethod] = {}
        self._opened: dict[str, Plugin] = {}

    @property
    def path(self) -> Path:
        """Folder that plugins are read from."""
        return self._path or get_settings().plugins_path

    @property
    def plugin_names(self) -> list[str]:
        """Names of the plugins that could be loaded, sorted."""
        return sorted(self._discovered())

    @property
    def errors(self) -> dict[str, str]:
        """What is wrong by file or entry point, for everything that could not be loaded."""
        self._discovered()
        return dict(self._errors)

    def meta(self, name: str) -> PluginMeta:
        """Return name, version and description of a plugin, without building it.

        Raises:
            PluginError: there is no such plugin.
        """
        return self._required(name)[0].meta

    def place(self, name: str) -> str:
        """Return the file, or the entry point, that plugin `name` was read from.

        Raises:
            PluginError: there is no such plugin.
        """
        return self._required(name)[1]

    def get_plugin(self, name: str) -> Plugin | FineTuningMethod | None:
        """Return what its author calls the plugin `name`: a value, or an instance of a class with ten methods.

        It is built once per manager. None where there is none.

        Raises:
            PluginError: the plugin exists and cannot be built.
        """
        if name not in self._built:
            found = self._find(name)
            if found is None:
                return None
            definition, source = found
            try:
                self._built[name] = definition() if isinstance(definition, type) else definition
            except (Exception, SystemExit) as error:
                raise PluginError(f"Plugin {name!r} ({source}) cannot be built: {error}") from error
        return self._built[name]

    def open_plugin(self, name: str) -> Plugin:
        """Return the plugin called `name`, once per manager.

        Raises:
            PluginError: there is none, or it cannot be built.
            ConfigurationError: it is a class whose methods contradict each other (see `tutorial.adapt`).
        """
        if name not in self._opened:
            found = self.get_plugin(name)
            if found is None:
                raise self._unknown(name)
            self._opened[name] = found if isinstance(found, Plugin) else adapt(found)
        return self._opened[name]

    def _required(self, name: str) -> tuple[Definition, str]:
        found = self._find(name)
        if found is None:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> PluginError:
        broken = [f"\n{file}: {_last_line(text)}" for file, text in sorted(self.errors.items())]
        return PluginError(
            f"There is no plugin {name!r} in {self.path} or in installed packages. "
            f"{suggest(name, self.plugin_names)}{not_looked_at(self.path, name)}{''.join(broken)}"
        )

    def _find(self, name: str) -> tuple[Definition, str] | None:
        """Look in the likeliest places first, so that a task imports one plugin, not all."""
        if self._definitions is None and not self._restricts(name):
            for place in likeliest(self.path, name):
                try:
                    definitions = place.definitions()
                except PluginError:
                    continue  # told by `errors`, where nothing else defines it
                for definition in definitions:
                    if definition.meta.name == name:
                        return definition, place.label
        return self._discovered().get(name)

    def _restricts(self, name: str) -> bool:
        used = self._used if self._used is not None else get_settings().inference_used_plugins
        return bool(used) and name not in used

    def _discovered(self) -> dict[str, tuple[Definition, str]]:
        if self._definitions is None:
            defined: dict[str, list[tuple[Definition, Place]]] = {}
            for place in places(self.path):
                try:
                    definitions = place.definitions()
                except PluginError as error:
                    self._errors[place.label] = str(error)
                    continue
                if lost := place.not_kept():
                    self._errors[place.label] = (
                        f"It makes {', '.join(map(repr, lost))} and keeps none of them: a variable that is bound again "
                        "holds the last one alone. Collect them in a list or a dict."
                    )
                for definition in definitions:
                    if not self._restricts(definition.meta.name):
                        defined.setdefault(definition.meta.name, []).append((definition, place))
            self._definitions = {name: self._one(name, found) for name, found in sorted(defined.items())}
        return self._definitions

    def _one(self, name: str, found: list[tuple[Definition, Place]]) -> tuple[Definition, str]:
        """Return which of the definitions of one name is used, the likeliest; the others are errors of their places."""
        (used, place), *others = sorted(found, key=lambda each: each[1].rank(name))
        for definition, other in others:
            if definition is not used:  # one file may import the plugin of another
                told = f"Two plugins are called {name!r}: {place.label} and {other.label}. The first is used."
                self._errors.setdefault(other.label, told)
        return used, place.label


@cache
def plugin_manager() -> PluginManager:
    """Return the search plugins of this installation, as its settings say, once per process."""
    return PluginManager()


def open_plugin(name: str) -> Plugin:
    """Return the plugin called `name` of this installation. Raises: as `PluginManager.open_plugin`."""
    return plugin_manager().open_plugin(name)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""
