"""Is everything there that an index needs? Asked first, so that a mistake costs seconds and not an hour."""

from __future__ import annotations

from estudio_core import database
from estudio_core.errors import DataError
from estudio_core.pipeline.manifests import SourceManifest
from estudio_core.plugin.registry import open_plugin


def check_source(plugin_name: str) -> SourceManifest:
    """Check Estudio's tables and the item source, and count its rows.

    Raises:
        SchemaVersionError: Estudio's tables are missing or of another version.
        SourceSchemaError: a table or column does not exist.
        DataError: the source has no items.
        DatabaseUnavailableError: a database does not answer.
    """
    with database.connect() as connection:
        database.require_schema(connection)
    loader = open_plugin(plugin_name).loader
    loader.check()
    items = loader.total_count()
    if items == 0:
        raise DataError(f"The item source of plugin {plugin_name!r} has no rows. Fill the table, then run this again.")
    return SourceManifest(items=items)
