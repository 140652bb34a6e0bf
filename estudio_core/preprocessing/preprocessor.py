"""From what a loader returns to the text of an item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from estudio_core.errors import ConfigurationError, ItemError


class ItemPreprocessor:
    r"""Turns the data of an item into its text. What the data is decides how.

    A text stays as it is. A dict becomes its fields, joined; empty ones are left out. Whitespace at both ends goes.

    Args:
        transform: Makes the text of the data instead, for instance to strip markup or to choose words.
        fields: Fields of a dict that are read, in this order; None: all, in the order given.
        separator: Between two fields.
        field_names: Whether `name: ` stands before the value of a field.

    Raises:
        ConfigurationError: `fields` is one text.

    >>> ItemPreprocessor()("  A lamp.\n")
    'A lamp.'
    >>> ItemPreprocessor(separator=" ")({"title": "Lamp", "color": None, "tags": ["desk", "led"]})
    'title: Lamp tags: desk, led'
    >>> ItemPreprocessor(fields=("title", "maker"), separator=". ", field_names=False)(
    ...     {"maker": "Lumo", "price": 5, "title": "Lamp"}
    ... )
    'Lamp. Lumo'
    """

    def __init__(
        self,
        *,
        transform: Callable[[Any], str] | None = None,
        fields: Sequence[str] | None = None,
        separator: str = "\n",
        field_names: bool = True,
    ) -> None:
        if isinstance(fields, str):
            raise ConfigurationError(f"fields={fields!r} is one text: give a list of field names, as [{fields!r}].")
        self.transform = transform
        self.fields = fields
        self.separator = separator
        self.field_names = field_names

    def __call__(self, item: Any) -> str:
        """Return the text of `item`, the data that a loader gives; empty where it has none.

        Raises:
            ItemError: it is neither a text nor a dict.
        """
        if item is None:
            return ""
        if self.transform:
            return self.transform(item).strip()
        if isinstance(item, str):
            return item.strip()
        if isinstance(item, Mapping):
            chosen = item if self.fields is None else {name: item[name] for name in self.fields if name in item}
            return dict_to_text(chosen, self.separator, self.field_names)
        raise ItemError(
            f"A text or a dict of fields is expected, got {type(item).__name__}. Have the loader give one of them, or "
            "give the preprocessor a transform."
        )


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
