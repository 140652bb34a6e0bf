"""Items that are a JSON object in one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estudio_core.errors import ConfigurationError
from estudio_core.sources.generator_factory import GeneratorArgument
from estudio_core.sources.paging import Row
from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader
from estudio_core.sources.query_generator import QueryGenerator


class PgsqlJSONBLoader(PgsqlDataLoader):
    """Loads a jsonb (or json) column; the data of an item is a dict.

    A column that is NULL, not an object, or has none of the fields is reported as invalid.

    Args:
        connection_string: As in `PgsqlDataLoader`, and so are all arguments that are not named here.
        query_generator: As in `PgsqlDataLoader`.
        jsonb_column: Column or label with the object.
        fields_to_keep: Top-level fields of the item, in this order; None: all. Absent ones are left out.
        **source: Further arguments of `PgsqlDataLoader`.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        query_generator: GeneratorArgument = QueryGenerator,
        jsonb_column: str = "jsonb_data",
        fields_to_keep: Sequence[str] | None = None,
        **source: Any,
    ) -> None:
        if isinstance(fields_to_keep, str):
            raise ConfigurationError(f"fields_to_keep={fields_to_keep!r} is one text: give a list of field names.")
        super().__init__(connection_string, query_generator, **source)
        self.jsonb_column = jsonb_column
        self.fields_to_keep = None if fields_to_keep is None else tuple(fields_to_keep)

    @property
    def item_columns(self) -> tuple[str, ...]:
        """The JSON column."""
        return (self.jsonb_column,)

    def to_item(self, row: Row) -> dict[str, Any]:
        """Return the kept fields."""
        value = row[self.jsonb_column]
        if value is None:
            raise ValueError(f"{self.jsonb_column!r} is NULL")
        if not isinstance(value, dict):
            raise ValueError(f"{self.jsonb_column!r} is {type(value).__name__}, not a JSON object")
        kept = value if self.fields_to_keep is None else {f: value[f] for f in self.fields_to_keep if f in value}
        if not kept:
            fields = "no field" if self.fields_to_keep is None else f"none of the fields {list(self.fields_to_keep)}"
            raise ValueError(f"{self.jsonb_column!r} has {fields}")
        return kept
