"""Items that are one text column."""

from __future__ import annotations

from typing import Any

from estudio_core.sources.generator_factory import GeneratorArgument
from estudio_core.sources.paging import Row
from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader
from estudio_core.sources.query_generator import QueryGenerator
from estudio_core.sources.texts import text_of


class PgsqlTextLoader(PgsqlDataLoader):
    """Loads one text column; the data of an item is a string.

    Args:
        connection_string: As in `PgsqlDataLoader`, and so are all arguments that are not named here.
        query_generator: As in `PgsqlDataLoader`.
        text_column: Column or label with the text; NULL and blank texts are reported as invalid.
        encoding: Of a bytea column.
        **source: Further arguments of `PgsqlDataLoader`.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        query_generator: GeneratorArgument = QueryGenerator,
        text_column: str = "content",
        encoding: str = "utf-8",
        **source: Any,
    ) -> None:
        super().__init__(connection_string, query_generator, **source)
        self.text_column = text_column
        self.encoding = encoding

    @property
    def item_columns(self) -> tuple[str, ...]:
        """The text column."""
        return (self.text_column,)

    def to_item(self, row: Row) -> str:
        """Return the text."""
        return text_of(row[self.text_column], self.text_column, self.encoding)
