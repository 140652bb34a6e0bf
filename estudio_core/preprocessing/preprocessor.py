"""From what a loader returns to the text of an item."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ItemError
from estudio_core.preprocessing.fields_normalizer import ID_COLUMN, ITEM_COLUMN, DatasetFieldsNormalizer

if TYPE_CHECKING:
    import pyarrow as pa


class ItemsDatasetDictPreprocessor(ABC):
    """Turns items into texts: one item by calling it, a loaded table by `convert`.

    Args:
        field_normalizer: Names the columns of a loaded table; needed for `convert` only where a
            table does not already have `item` and `item_id`.
    """

    def __init__(self, field_normalizer: DatasetFieldsNormalizer | None = None) -> None:
        self.field_normalizer = field_normalizer or DatasetFieldsNormalizer(ITEM_COLUMN, ID_COLUMN)

    @abstractmethod
    def __call__(self, item: Any) -> str:
        """Return the text of `item`, stripped; empty where it has none.

        Raises:
            ItemError: the item is not of the kind this preprocessor reads.
        """

    def convert(self, table: pa.Table) -> pa.Table:
        """Return `table` with its columns normalised, and `item` turned to text.

        Raises:
            DataError: a column is missing.
            ItemError: an item is not of the kind this preprocessor reads; names its id.
        """
        import pyarrow as pa

        table = self.field_normalizer(table)
        texts = []
        for item_id, item in zip(table[ID_COLUMN].to_pylist(), table[ITEM_COLUMN].to_pylist(), strict=True):
            try:
                texts.append(self(item))
            except ItemError as error:
                raise ItemError(f"Item {item_id!r}: {error}", [item_id]) from error
        place = table.column_names.index(ITEM_COLUMN)
        return table.set_column(place, ITEM_COLUMN, pa.array(texts, type=pa.string()))


class TextItemsPreprocessor(ItemsDatasetDictPreprocessor):
    r"""Items that are a text: whitespace at both ends goes, the rest stays.

    Args:
        field_normalizer: See the base class.
        transform: Applied to the text first, for instance to strip markup.

    >>> TextItemsPreprocessor()("  A lamp.\n")
    'A lamp.'
    """

    def __init__(
        self,
        field_normalizer: DatasetFieldsNormalizer | None = None,
        transform: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(field_normalizer)
        self.transform = transform

    def __call__(self, item: Any) -> str:
        """Return the text."""
        if item is None:
            return ""
        if not isinstance(item, str):
            raise ItemError(f"A text is expected, got {type(item).__name__}. For several columns use a dict manager.")
        return (self.transform(item) if self.transform else item).strip()


class DictItemsPreprocessor(ItemsDatasetDictPreprocessor):
    """Items that are dicts, as one `name: value` line per field.

    Args:
        field_normalizer: See the base class.
        transform: Makes the text instead of `dict_to_text`.
        separator: Between two fields.
        field_names: False: values alone, without `name: `.

    >>> DictItemsPreprocessor(separator=" ")({"title": "Lamp", "color": None, "tags": ["desk", "led"]})
    'title: Lamp tags: desk, led'
    """

    def __init__(
        self,
        field_normalizer: DatasetFieldsNormalizer | None = None,
        transform: Callable[[Mapping[str, Any]], str] | None = None,
        separator: str = "\n",
        field_names: bool = True,
    ) -> None:
        super().__init__(field_normalizer)
        self.transform = transform
        self.separator = separator
        self.field_names = field_names

    def __call__(self, item: Any) -> str:
        """Return the fields in the order given; empty ones are left out."""
        if item is None:
            return ""
        if not isinstance(item, Mapping):
            raise ItemError(f"A dict is expected, got {type(item).__name__}. For a single text use a text manager.")
        if self.transform:
            return self.transform(item).strip()
        return dict_to_text(item, self.separator, self.field_names)


def dict_to_text(item: Mapping[str, Any], separator: str = "\n", field_names: bool = True) -> str:
    r"""Return `name: value` of each field that has a value, joined by `separator`, in the order given.

    >>> dict_to_text({"title": "Lamp", "size": {"w": 3, "h": 4}, "note": " "})
    'title: Lamp\nsize: w: 3; h: 4'
    >>> dict_to_text({"title": "Lamp", "size": {"w": 3, "h": 4}}, ". ", field_names=False)
    'Lamp. w: 3; h: 4'
    """
    fields = ((str(name), _value_to_text(value)) for name, value in item.items())
    return separator.join(f"{name}: {text}" if field_names else text for name, text in fields if text)


def _value_to_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return dict_to_text(value, "; ")
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return ", ".join(text for text in map(_value_to_text, value) if text)
    return str(value).strip()
