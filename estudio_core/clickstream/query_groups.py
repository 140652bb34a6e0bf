"""Queries that ask for the same thing in other words: `tv` and `tvs`, `tv stand` and `stand for a tv`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import combinations

LARGEST_SHARE = 0.05
"""Share of all queries that may hold another one and go where it goes. What more of them hold is no query of its own
but the shop's subject: `dress` where dresses are sold would draw half of the log to one side."""
LEAST_LARGEST = 5
_MOST_WORDS = 6  # of longer queries, those that lack one or two of their words are looked for


def group_names(keys: Collection[str]) -> dict[str, str]:
    """Return the name of the group of each query: the key of the query that its side is decided by.

    Queries of the same words, in whatever order and number, are one group. A query that holds all words of another one
    that is asked too goes with it: of several, with the one that fewest queries hold. Groups are trees, so that nothing
    chains `desk lamp` to `desk` by way of `lamp`, and a new query seldom moves an old one.

    >>> group_names(["tv", "tvs", "samsung TVs", "radio"])
    {'tv': 'tv', 'tvs': 'tv', 'samsung TVs': 'tv', 'radio': 'radio'}

    Args:
        keys: Distinct queries, see `query_key`.
    """
    words = {key: stems(key) for key in keys}
    first: dict[frozenset[str], str] = {}
    for key in sorted(keys):
        first.setdefault(words[key], key)
    held = {of: [part for part in _parts(of) if part in first] for of in first if of}
    holders = Counter(part for parts in held.values() for part in parts)
    most = max(LEAST_LARGEST, LARGEST_SHARE * len(first))
    above = {
        of: min(parts, key=lambda part: (holders[part], first[part]))
        for of, found in held.items()
        if (parts := [part for part in found if holders[part] <= most])
    }
    names: dict[str, str] = {}
    for key in keys:
        root = words[key]
        while root in above:
            root = above[root]
        names[key] = first[root]
    return names


def stems(text: str) -> frozenset[str]:
    """Return the words of a text without case and plural.

    >>> sorted(stems("USB-C batteries, glasses & TVs"))
    ['battery', 'c', 'glass', 'tv', 'usb']
    """
    return frozenset(_stem(word) for word in re.findall(r"\w+", text.casefold()))


def _stem(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss") and len(word) > 2:
        return word[:-1]
    return word


def _parts(words: frozenset[str]) -> Iterator[frozenset[str]]:
    """Yield the proper subsets of a query's words; of a long one the largest and the smallest."""
    count = len(words)
    sizes = range(1, count) if count <= _MOST_WORDS else (1, count - 2, count - 1)
    for size in sizes:
        yield from map(frozenset, combinations(sorted(words), size))
