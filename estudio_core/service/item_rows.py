"""Items as applications write them: in Estudio's own form, or as rows of the table that they come from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from estudio_core.errors import PluginError
from estudio_core.service.refusals import as_request, named, refuse
from estudio_core.service.schemas import ItemBody, read
from estudio_core.vectordb.change_log import ItemWrite

if TYPE_CHECKING:
    from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader

logger = logging.getLogger(__name__)


def read_item(document: Any, object_id: str, loader: Callable[[], PgsqlDataLoader | None]) -> ItemWrite:
    """Return an item as it is written; `loader` knows the columns of its table, see `row_loader`.

    A document with `data` is one of Estudio's own form. Any other is a row of the item's table: the plugin says which
    of its columns are embedded, and which are kept beside the vectors.

    Raises:
        Refused: it is neither, or has a column that the plugin does not read.
    """
    if not isinstance(document, dict):
        raise refuse("An item is a JSON object.", "parsing_exception")
    if "data" in document and not set(document) - set(ItemBody.model_fields):
        body = read(ItemBody, document, "An item")
        payload = body.payload if body.payload is not None or body.user_id is not None else {}
        with as_request():
            return ItemWrite(object_id, body.data, payload, body.user_id, body.original_id)
    data, payload = _of_row(loader(), document)
    return ItemWrite(object_id, data, payload)


def row_loader(plugin: str) -> PgsqlDataLoader | None:
    """Return what loads the items of a plugin from its table; None where its file is not here, or it has no table."""
    from estudio_core.plugin.registry import open_plugin
    from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader

    try:
        loader = open_plugin(plugin).loader
    except (PluginError, ModuleNotFoundError) as error:
        logger.warning("Rows of plugin %s cannot be read as items: %s", plugin, error)
        return None
    return loader if isinstance(loader, PgsqlDataLoader) else None


def _of_row(loader: PgsqlDataLoader | None, row: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    if loader is None:
        raise refuse(
            "Write the item as {data: what is embedded, payload: what is shown}: its columns are not known here."
        )
    columns = dict.fromkeys([*loader.item_columns, *loader.payload_columns])
    if unknown := [name for name in row if name not in columns]:
        raise refuse(f"The column [{named(unknown[0])}] is none that the plugin reads: {', '.join(columns)}.")
    if not any(name in row for name in loader.item_columns):
        raise refuse(f"The item has none of the columns that are embedded: {', '.join(loader.item_columns)}.")
    try:
        data = loader.to_item({name: row.get(name) for name in loader.item_columns})
    except ValueError as error:  # the loader's own words
        raise refuse(f"The item cannot be embedded: {error}.") from None
    except (TypeError, AttributeError, KeyError) as error:
        logger.warning("An item cannot be embedded", exc_info=error)
        raise refuse("The item cannot be embedded: a column holds what the plugin does not take.") from None
    return data, {name: row[name] for name in loader.payload_columns if name in row}
