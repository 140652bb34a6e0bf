"""What a product is, as values: brand, kind, colour, sizes, printers it fits, features. Read from the catalog's fields.

A value that stands in a field counts; where there is none, the title is read. What neither says, a product does not
have: no query finds it by that value, and its indexed text does not hint at it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.quality.attributes.kinds import KINDS, Kind, kind_of
from benchmarks.quality.attributes.readers import READERS


class Value(NamedTuple):
    """One value of one attribute, such as `("colour", "black")`. Numbers are text in the attribute's unit."""

    attribute: str
    key: str


@dataclass(frozen=True)
class Record:
    """A product as its values.

    Attributes:
        id: Of the product.
        kind: None for what is of none of the kinds: it is only ever found wrongly.
        values: Brand, kind, and what is read of its kind.
        title: As the catalog has it.
    """

    id: str
    kind: str | None
    values: frozenset[Value]
    title: str

    def of(self, attribute: str) -> list[Value]:
        """Return its values of an attribute, sorted."""
        return sorted(value for value in self.values if value.attribute == attribute)


def record_of(product: Mapping[str, Any]) -> Record | None:
    """Return the record of a product as `estudio_core.demo.catalog.products` yields it.

    None where the rules are in doubt: its title speaks of a kind, but it may be an accessory or a service. Such
    products are not in the corpus at all, so that nothing in it is relevant unknown to the judgments.
    """
    kind = kind_of(product)
    if kind is None:
        return None
    rules = KINDS.get(kind, Kind("", ("colour",)))
    values = {Value("brand", product["supplier"])}
    if kind:
        values.add(Value("kind", kind))
    for attribute in rules.attributes:
        values.update(Value(attribute, key) for key in READERS[attribute](product, rules))
    return Record(product["id"], kind or None, frozenset(values), product["title"])
