"""Items that are several text columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estudio_core.errors import ConfigurationError
from estudio_core.sources.generator_factory import GeneratorArgument
from estudio_core.sources.paging import Row
from estudio_core.sources.pgsql_data_loader import PgsqlDataLoader
from estudio_core.sources.query_generator import QueryGenerator
from estudio_core.sources.texts import text_of


class PgsqlMultiTextColumnLoader(PgsqlDataLoader):
    """Loads several text columns; the data of an item is a dict from column to text, in the order given.

    A NULL or blank column is an empty text; a row in which all are is reported as invalid.

    Args:
        connection_string: As in `PgsqlDataLoader`, and so are all arguments that are not named here.
        query_generator: As in `PgsqlDataLoader`.
        text_columns: Columns or labels with text, at least one.
        encoding: Of bytea columns.
        **source: Further arguments of `PgsqlDataLoader`.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        query_generator: GeneratorArgument = QueryGenerator,
        text_columns: Sequence[str] = (),
        encoding: str = "utf-8",
        **source: Any,
    ) -> None:
        if not text_columns or isinstance(text_columns, str):
            raise ConfigurationError(
                f"text_columns={text_columns!r}: give a list of one or more column names, as ['title', 'content']."
            )
        super().__init__(connection_string, query_generator, **source)
        self.text_columns = tuple(text_columns)
        self.encoding = encoding

    @property
    def item_columns(self) -> tuple[str, ...]:
        """The text columns."""
        return self.text_columns

    def to_item(self, row: Row) -> dict[str, str]:
        """Return the texts by column."""
        texts = {name: self._text(row, name) for name in self.text_columns}
        if not any(texts.values()):
            raise ValueError(f"all of {list(self.text_columns)} are NULL or blank")
        return texts

    def _text(self, row: Row, name: str) -> str:
        value = row[name]
        empty = value is None or (isinstance(value, str | bytes) and not value.strip())
        return "" if empty else text_of(value, name, self.encoding)
