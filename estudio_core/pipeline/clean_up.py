"""Releases that are kept, and those that are dropped."""

from __future__ import annotations

from typing import Any

from estudio_core import database
from estudio_core.pipeline.manifests import CleanUpManifest
from estudio_core.settings import get_settings
from estudio_core.vectordb import releases, switching


def clean_up(plugin_name: str, params: dict[str, Any]) -> CleanUpManifest:
    """Drop collections older than those to keep, and the published models that only such releases used.

    A model without a release is left alone: it was published just now, for a release that is about to begin.

    Raises:
        ReleaseError: fewer than two releases were to be kept.
        RepositoryError: the model repository cannot be written.
    """
    from estudio_core.export.triton_repository import list_entries, remove_entry, sweep_unfinished
    from estudio_core.inference.manifest import split_name
    from estudio_core.inference.model_store import remove_stored, stored_entries
    from estudio_core.inference.opening import stop_serving

    keep = int(params.get("keep_releases") or get_settings().keep_releases)
    with database.connect(autocommit=True) as connection:
        retired = switching.retire_releases(connection, plugin_name, keep)
        every = releases.list_releases(connection, plugin_name)
        live = releases.live_release(connection, plugin_name)
    newest = live.release_id if live is not None else 0
    over = [r for r in every if r.state == "retired" or (r.state == "failed" and r.release_id < newest)]
    kept = [r for r in every if r.state not in {"retired", "failed"}]
    unused = {name for r in over for name in r.models} - {name for r in kept for name in r.models}
    removed = []
    repository = get_settings().triton_repository
    for name in sorted({entry.name for entry in list_entries(repository)}.union(stored_entries())):
        if split_name(name)[0] == plugin_name and name in unused:
            stop_serving(name)
            remove_stored(name)
            remove_entry(repository, name)
            removed.append(name)
    sweep_unfinished(repository)
    return CleanUpManifest(retired_releases=[release.release_id for release in retired], removed_models=removed)
