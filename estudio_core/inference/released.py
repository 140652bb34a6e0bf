"""Which models the releases need: what a server that holds several has to serve."""

from __future__ import annotations

import logging

import psycopg

from estudio_core import database
from estudio_core.errors import EstudioError
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import list_releases, live_release, previous_release

logger = logging.getLogger(__name__)


def released_models() -> dict[str, list[str]]:
    """Return by plugin the models of its live release, then those of the one before it, to which a rollback goes.

    Of a release, the model of queries comes first.

    Plugins without a live release are left out, and all of them where the database does not answer. An embedded
    database that does not run is not started.
    """
    settings = get_settings()
    if settings.database_url is None and not (settings.home / "postgres" / "postmaster.pid").exists():
        return {}
    try:
        with database.connect() as connection:
            models = {}
            for plugin in {release.plugin for release in list_releases(connection)}:
                releases = (live_release(connection, plugin), previous_release(connection, plugin))
                needed = [name for release in releases if release is not None for name in release.models]
                models[plugin] = list(dict.fromkeys(needed))
            return {plugin: names for plugin, names in models.items() if names}
    except psycopg.errors.UndefinedTable:
        return {}  # nothing was ever released here
    except EstudioError as error:
        logger.warning("Which models the releases need is not known: %s", error)
        return {}


def live_models() -> set[str]:
    """Return the models that encode queries of all live releases; none where the database does not answer."""
    return {names[0] for names in released_models().values()}
