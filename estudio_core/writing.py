"""Writes as an application makes them: items of the live release, findable when the call returns.

The item source stays the truth. An application that writes an item to its table may write it here as well, so as not
to wait for the next sync; what is here and not in the source goes with the next sync or the next release. Personal
rows (`ItemWrite.user_id`) are the exception: they live here alone, until they or their originals are deleted.

    from estudio_core.writing import ItemWrite, delete, refresh, upsert

    upsert("shop", [ItemWrite("42", {"title": "Red lamp"}, {"price": 30})])
    delete("shop", ["41"])
    refresh("shop", ["42", "43"])  # or: as they are in the table now
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from estudio_core import database, telemetry
from estudio_core.errors import ConfigurationError, NothingLiveError, shown
from estudio_core.ids import id_list, listed
from estudio_core.vectordb.change_log import ItemWrite, WriteResult
from estudio_core.vectordb.objects import check_text
from estudio_core.vectordb.search import LONGEST_NAME, check_given

if TYPE_CHECKING:
    from estudio_core.pipeline.items.writer import WriteCounts

__all__ = ["ItemWrite", "WriteResult", "delete", "refresh", "upsert"]


def upsert(plugin: str, items: Iterable[ItemWrite]) -> WriteResult:
    """Write items: into the live collection and, by the change log, into every other one.

    Batches are written one after another, each as a whole; when this returns, no build, switch or rollback loses any.
    Writing the same items again changes nothing, so a call that failed is simply made again.

    Args:
        plugin: Name of the search plugin.
        items: Each id once; `data` is what the plugin's loader gives for an item: a text, or the dict of its columns.

    Raises:
        ConfigurationError: what is given is no list of items.
        ItemError: an item cannot be embedded or stored, with its id; its batch was not written.
        NothingLiveError: the plugin has no live release.
        DatabaseUnavailableError, InferenceUnavailableError: a server does not answer.
    """
    wanted = listed(items, "items", "ItemWrite(...)")
    for item in wanted:
        if not isinstance(item, ItemWrite):
            raise ConfigurationError(f"Each of items is an ItemWrite(object_id, data, payload); given {shown(item)}.")
    return _written(plugin, wanted, [])


def delete(plugin: str, object_ids: Iterable[str | int | UUID]) -> WriteResult:
    """Delete items, and the personal rows that stand for them, everywhere; those that are not there are no error.

    Raises: as `upsert`.
    """
    return _written(plugin, [], id_list(object_ids, "object_ids"))


def refresh(plugin: str, object_ids: Iterable[str | int | UUID]) -> WriteCounts:
    """Bring these items to the state of the plugin's source; those that it does not have are deleted.

    Raises: as `upsert`, and what the source raises.
    """
    from estudio_core.pipeline.items.writer import ItemWriter
    from estudio_core.plugin.registry import open_plugin

    check_given(plugin, "plugin", LONGEST_NAME)
    wanted = id_list(object_ids, "object_ids")
    for object_id in wanted:
        check_text(object_id, "id", object_id)
    with _measured(plugin, "refresh", len(wanted)), database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        writer = ItemWriter(connection, plugin, open_plugin(plugin).loader)
        writer.refresh(wanted)
    return writer.counts


def _written(plugin: str, items: Sequence[ItemWrite], object_ids: Sequence[str]) -> WriteResult:
    from estudio_core.pipeline.items.writer import write_items

    check_given(plugin, "plugin", LONGEST_NAME)
    operation, number = ("upsert", len(items)) if items else ("delete", len(object_ids))
    with _measured(plugin, operation, number), database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        return write_items(connection, plugin, items, object_ids)


@contextmanager
def _measured(plugin: str, operation: str, items: int) -> Iterator[None]:
    """Measure a write; it counts for its plugin unless that may be the name of nothing."""
    attributes: dict[str, telemetry.Value] = {"estudio.operation": operation, "estudio.items": items}
    with telemetry.measured(telemetry.WRITE, attributes) as told:
        known = True
        try:
            with database.errors_named():
                yield
        except (ConfigurationError, NothingLiveError):
            known = False
            raise
        finally:
            if known:
                told.tell(telemetry.PLUGIN, plugin)
