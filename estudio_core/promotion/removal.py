"""The end of a plugin: what an installation keeps for serving it goes, what people did and learned stays."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast, get_args

from estudio_core.comparing.ledger import end_all
from estudio_core.errors import EstudioError
from estudio_core.experiments.alias_audit import Alias
from estudio_core.experiments.model_registry import ModelRegistry
from estudio_core.promotion import ledger
from estudio_core.promotion.turns import one_at_a_time
from estudio_core.settings import get_settings
from estudio_core.vectordb import switching
from estudio_core.vectordb.locks import build_lock, sync_lock
from estudio_core.vectordb.releases import list_releases

if TYPE_CHECKING:
    import psycopg

    from estudio_core.experiments.mlflow_client import MLflowClientWrapper

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What an installation keeps for serving a plugin."""

    plugin: str
    live: int | None
    """Number of the release that serves."""
    releases: tuple[int, ...]
    """Numbers of the releases that have, or may get, a collection."""
    requests: int
    """Promotions that are under way or wait for a run."""
    models: tuple[str, ...]
    """Entries of the Triton repository."""
    aliases: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """What could not be looked at, or taken away."""

    @property
    def anything(self) -> bool:
        """Whether there is anything to take away."""
        return bool(self.releases or self.requests or self.models or self.aliases)


def kept_for(conn: psycopg.Connection, wrapper: MLflowClientWrapper, plugin: str) -> Kept:
    """Return what is kept for serving `plugin`. A registry that does not answer is told in `problems`."""
    from estudio_core.export.triton_repository import list_entries
    from estudio_core.inference.manifest import split_name
    from estudio_core.inference.model_store import stored_entries

    published = {entry.name for entry in list_entries(get_settings().triton_repository)}.union(stored_entries())
    releases = [release for release in list_releases(conn, plugin) if release.state not in {"retired", "failed"}]
    row = conn.execute(
        "SELECT count(*) FROM estudio.promotions WHERE plugin = %s AND outcome = 'open'", (plugin,)
    ).fetchone()
    aliases: dict[str, int] = {}
    problems: tuple[str, ...] = ()
    try:
        aliases = ModelRegistry(wrapper, plugin).aliases()
    except EstudioError as error:
        problems = (str(error),)
    return Kept(
        plugin,
        next((release.release_id for release in releases if release.state == "live"), None),
        tuple(sorted(release.release_id for release in releases)),
        row[0] if row else 0,
        tuple(sorted(name for name in published if split_name(name)[0] == plugin)),
        {alias: version for alias, version in aliases.items() if alias in get_args(Alias)},
        problems,
    )


def remove(conn: psycopg.Connection, wrapper: MLflowClientWrapper, plugin: str, actor: str) -> Kept:
    """Take away what is kept for serving `plugin`, and return it; repeated, it takes what an attempt before left.

    Searches find nothing live from the first step on. The clickstream, the audit trail, registered versions, runs and
    reports stay: they are what people did and what was learned, and a plugin of that name finds them again.

    Args:
        conn: Autocommit connection to Estudio's database.
        wrapper: MLflow.
        plugin: Name of the plugin; its file may be gone.
        actor: Who removes it, for the audit trail.

    Raises:
        ConcurrentReleaseError: a build, a sync or a write of it is under way; nothing was changed.
    """
    from estudio_core.export.triton_repository import remove_entry
    from estudio_core.inference.model_store import remove_stored
    from estudio_core.inference.opening import stop_serving

    with one_at_a_time(conn, plugin), build_lock(conn, plugin), sync_lock(conn, plugin):
        kept = kept_for(conn, wrapper, plugin)
        ledger.supersede(conn, plugin, f"The plugin was removed by {actor}.")
        end_all(conn, plugin, actor, "The plugin was removed.")
        left = switching.remove_releases(conn, plugin, actor=actor)
        problems = [*kept.problems, *(f"the collection of release {number} is in use just now" for number in left)]
        repository = get_settings().triton_repository
        for name in kept.models:
            try:
                stop_serving(name)
                remove_stored(name)
                remove_entry(repository, name)
            except EstudioError as error:
                problems.append(f"the model {name} stays: {error}")
        registry = ModelRegistry(wrapper, plugin)
        registry.forget_downloads()
        for alias in kept.aliases:
            try:
                registry.delete_alias(cast(Alias, alias), reason="the plugin was removed", actor=actor)
            except EstudioError as error:
                problems.append(f"the alias {alias} stays: {error}")
    return replace(kept, problems=tuple(problems))


def orphans(conn: psycopg.Connection, plugins: set[str]) -> list[str]:
    """Return the names of plugins that something is kept for, and that are none of `plugins`, sorted."""
    rows = conn.execute(
        "SELECT plugin FROM estudio.deployments WHERE state NOT IN ('retired', 'failed')"
        " UNION SELECT plugin FROM estudio.promotions WHERE outcome = 'open'"
    ).fetchall()
    return sorted({row[0] for row in rows} - plugins)
