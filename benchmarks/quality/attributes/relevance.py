"""Which products answer a combination, by their values alone: complete for every product of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.quality.attributes.queries import Combination
from benchmarks.quality.attributes.readers import metres
from benchmarks.quality.attributes.records import Record, Value

ALL, NEARLY, ALL_BUT_ONE = 3.0, 2.0, 1.0
"""Grades: has every value; has them but for a length or a capacity that differs by a tenth at most; is of the kind and
has all but one of the other values, where there are two of these or more."""
NEAR = 0.1
MOST_RELEVANT = 50
"""A combination that more products have, in full or nearly, is no query: nobody can say which ten are the best."""
MOST_PARTIAL = 100
"""Likewise of those that have all but one value."""
_SIZES: dict[str, Callable[[str], float]] = {"length": metres, "memory": float, "ram": float, "capacity": float}


class Relevance:
    """An index from values to the products that have them."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._having: dict[Value, set[str]] = {}
        for record in records:
            for value in record.values:
                self._having.setdefault(value, set()).add(record.id)
        self._near: dict[Value, set[str]] = {}

    def grades(self, combination: Combination) -> dict[str, float] | None:
        """Return the grades above 0 by product; None where too many products, or none, are relevant.

        >>> cable = [Value("kind", "usb cable"), Value("length", "2 m"), Value("colour", "red")]
        >>> longer = [cable[0], Value("length", "7 ft"), cable[2]]
        >>> of = [cable, longer, cable[:2]]
        >>> found = Relevance(Record(str(n), "", frozenset(values), "") for n, values in enumerate(of))
        >>> found.grades(frozenset(cable))
        {'0': 3.0, '1': 2.0, '2': 1.0}
        """
        values = sorted(combination, key=lambda value: (value.attribute != "kind", value))
        full = set.intersection(*(self._having[value] for value in values))
        near = set.intersection(*(self._nearly(value) for value in values)) - full
        if not full or len(full) + len(near) > MOST_RELEVANT:
            return None
        partial: set[str] = set()
        if len(values) > 2:
            for left_out in values[1:]:
                partial |= set.intersection(*(self._having[value] for value in values if value != left_out))
            partial -= full | near
        if len(partial) > MOST_PARTIAL:
            return None
        return {
            key: grade for keys, grade in ((full, ALL), (near, NEARLY), (partial, ALL_BUT_ONE)) for key in sorted(keys)
        }

    def _nearly(self, value: Value) -> set[str]:
        """Return the products that have the value or, of a size, one that differs by a tenth of it at most."""
        size = _SIZES.get(value.attribute)
        if size is None:
            return self._having[value]
        if value not in self._near:
            wanted = size(value.key)
            self._near[value] = {
                key
                for other, keys in self._having.items()
                if other.attribute == value.attribute and abs(size(other.key) / wanted - 1) <= NEAR
                for key in keys
            }
        return self._near[value]
