"""Columns of a loaded table under the names that the rest of preprocessing expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estudio_core.errors import DataError, suggest

if TYPE_CHECKING:
    import pyarrow as pa

ITEM_COLUMN = "item"
ID_COLUMN = "item_id"


class DatasetFieldsNormalizer:
    """Renames two columns of a table to `item` and `item_id`, and makes ids texts.

    Args:
        item_field_name: Column with the item's data.
        id_field_name: Column with the item's id, of any type that has a text form.
    """

    def __init__(self, item_field_name: str, id_field_name: str) -> None:
        self.item_field_name = item_field_name
        self.id_field_name = id_field_name

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return `table` with columns `item` and `item_id` (string); other columns are kept.

        Raises:
            DataError: a column is missing, an id is null, or another column already has one of the two names.
        """
        import pyarrow as pa

        names = {self.item_field_name: ITEM_COLUMN, self.id_field_name: ID_COLUMN}
        for given in names:
            if given not in table.column_names:
                raise DataError(f"The loaded table has no column {given!r}. {suggest(given, table.column_names)}")
        renamed = [names.get(name, name) for name in table.column_names]
        twice = [name for name in (ITEM_COLUMN, ID_COLUMN) if renamed.count(name) > 1]
        if twice:
            raise DataError(
                f"After renaming {self.item_field_name!r} and {self.id_field_name!r}, column {twice[0]!r} stands twice "
                f"in {table.column_names}. Drop or rename the other column."
            )
        table = table.rename_columns(renamed)
        place = table.column_names.index(ID_COLUMN)
        ids = table.column(ID_COLUMN)
        if ids.null_count:
            raise DataError(f"{ids.null_count} of {len(ids)} ids in column {self.id_field_name!r} are null.")
        if pa.types.is_string(ids.type):
            return table
        texts = pa.array([str(value) for value in ids.to_pylist()], type=pa.string())
        return table.set_column(place, ID_COLUMN, texts)
