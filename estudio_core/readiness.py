"""Whether searches of this process would be answered rightly: what probes of an application, or the service, ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from estudio_core.errors import EstudioError

if TYPE_CHECKING:
    from estudio_core.vectordb.releases import Release


@dataclass(frozen=True)
class PluginReadiness:
    """A plugin's live release, and what is wrong with it.

    Attributes:
        release_id: The release.
        model_version: Of the registry.
        why: Type of the error with which its model does not encode as it should; None: it does.
    """

    release_id: int
    model_version: str
    why: str | None = None


@dataclass(frozen=True)
class Readiness:
    """What was found.

    Attributes:
        database: Whether it answers.
        plugins: By name, those that have a live release.
    """

    database: bool
    plugins: dict[str, PluginReadiness] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return self.database and all(each.why is None for each in self.plugins.values())

    def told(self) -> dict[str, Any]:
        """Return it as JSON tells it."""
        return {
            "status": _word(self.ready),
            "database": "ready" if self.database else "away",
            "plugins": {name: _told(each) for name, each in self.plugins.items()},
        }


def readiness() -> Readiness:
    """Look at the pointers of all plugins, and encode the golden texts of what is live with what encodes queries.

    A model that is not open yet is opened, which takes seconds: ask in a thread of its own. It never raises.
    """
    from estudio_core import database
    from estudio_core.vectordb.releases import list_releases

    try:
        with database.errors_named(), database.connection() as connection:
            live = [release for release in list_releases(connection) if release.state == "live"]
    except EstudioError:
        return Readiness(database=False)
    return Readiness(True, {release.plugin: _of(release) for release in live})


def _of(release: Release) -> PluginReadiness:
    from estudio_core.inference.golden import check_golden
    from estudio_core.inference.model_store import entry_of
    from estudio_core.inference.opening import open_search_embedder

    why = None
    try:
        manifest = entry_of(release.model_name)
        check_golden(open_search_embedder(release.model_name), manifest, "this process")
    except EstudioError as error:
        why = type(error).__name__
    return PluginReadiness(release.release_id, release.model_version, why)


def _told(found: PluginReadiness) -> dict[str, Any]:
    state = {"status": _word(found.why is None), "release": found.release_id, "model_version": found.model_version}
    return state if found.why is None else {**state, "why": found.why}


def _word(ready: bool) -> str:
    return "ready" if ready else "unready"
