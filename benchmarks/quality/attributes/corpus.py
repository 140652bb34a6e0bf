"""The corpus: which products, which training queries, and the held-out queries by what is new in them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import combinations as pairs_of

from benchmarks.quality.attributes.queries import (
    Combination,
    Side,
    chance,
    combinations_of,
    phrase,
    side_of,
    words,
)
from benchmarks.quality.attributes.records import Record, record_of
from benchmarks.quality.attributes.relevance import Relevance
from benchmarks.quality.attributes.texts import text_of
from benchmarks.quality.corpora import Corpus
from estudio_core.clickstream.query_retriever import query_key
from estudio_core.demo.catalog import products as all_products
from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.judgments import Judgments

GROUPS = ("combinations", "words", "brands")
"""Of the held-out queries: values that training knows, in a combination that it does not; besides, a word
(abbreviation, synonym, misspelling) that no training query has; a brand that no training query names."""
_PER_PRODUCT = 40
"""Combinations drawn of each product."""
_PHRASINGS = 3
"""Most training queries with the same combination."""
_PAIR_SIDES = {"dev": 0.06, "test": 0.06}
"""Shares of the pairs of values that training queries never name together."""
_BRAND_SIDES = {"dev": 0.15, "test": 0.15}
_BRAND_PRODUCTS = (15, 700)
"""How many products a brand that is held out has: enough for queries, and not a fifth of the catalog."""
_SEEN = 300
"""Training queries that are judged again afterwards."""


def attributes(*, development: bool, products: int | None = None, queries: int = 20_000, held_out: int = 200) -> Corpus:
    """Return products and attribute queries with complete judgments, see the package.

    Args:
        development: Hold out the queries that choose settings; else those that report. Training queries are the same.
        products: How many, drawn by hash; all where None.
        queries: Most distinct training queries. Fewer come where the products do not allow so many.
        held_out: Most queries of each held-out group.

    Raises:
        ConfigurationError: so few products that no query is left.
    """
    records = _records(products)
    relevance = Relevance(records)
    brands = _brand_sides(_records(None))
    by_side: dict[Side, list[Combination]] = {"train": [], "dev": [], "test": []}
    by_brand: dict[Side, list[Combination]] = {"train": [], "dev": [], "test": []}
    for combination in _combinations(records):
        of_brand: Side = next((brands[value.key] for value in combination if value.attribute == "brand"), "train")
        of_pairs = _pair_side(combination)
        if of_brand != "train":
            by_brand[of_brand].append(combination)
        elif of_pairs is not None:
            by_side[of_pairs].append(combination)

    grades: dict[str, dict[str, float]] = {}
    for query, combination in _training(by_side["train"], relevance):
        if len(grades) == queries:
            break
        grades[query] = relevance.grades(combination) or {}
    if not grades:
        raise ConfigurationError(f"No queries for {products} products. Take 1,000 or more, or None for all of them.")

    side: Side = "dev" if development else "test"
    known, values = words(grades), {value for c in by_side["train"] for value in c}
    taken = {query_key(query) for query in grades}
    unseen: dict[str, dict[str, dict[str, float]]] = {}
    for group in GROUPS:
        found: dict[str, dict[str, float]] = {}
        for combination in by_brand[side] if group == "brands" else by_side[side]:
            asked = phrase(combination, _rng(side, group, combination), side if group == "words" else "train")
            if len(found) == held_out or asked is None or query_key(asked) in taken:
                continue
            new_word = not words([asked]) <= known
            graded = relevance.grades(combination)
            if graded and (group == "brands" or (combination <= values and new_word == (group == "words"))):
                taken.add(query_key(asked))
                found[asked] = graded
        unseen[group] = found
    name = f"attributes-{side}" + (f"-{products}" if products else "")
    return Corpus(
        name=name,
        items={record.id: text_of(record) for record in records},
        judgments=Judgments(grades),
        seen=tuple(sorted(grades, key=lambda query: chance("seen", query))[:_SEEN]),
        unseen=tuple(query for of_group in unseen.values() for query in of_group),
        held_out=Judgments({query: graded for of_group in unseen.values() for query, graded in of_group.items()}),
        max_tokens=64,
        shown_judged_only=False,
        groups={group: tuple(of_group) for group, of_group in unseen.items()},
    )


@cache
def _records(count: int | None) -> tuple[Record, ...]:
    """Return the records, or `count` of them by hash; where the rules are in doubt a product is left out."""
    if count is None:
        return tuple(record for product in all_products() if (record := record_of(product)) is not None)
    return tuple(sorted(_records(None), key=lambda record: chance("product", record.id))[:count])


def _brand_sides(records: Iterable[Record]) -> dict[str, Side]:
    """Return, for every brand, on which side its queries are."""
    sizes: dict[str, int] = {}
    for record in records:
        for value in record.of("brand"):
            sizes[value.key] = sizes.get(value.key, 0) + (record.kind is not None)
    fewest, most = _BRAND_PRODUCTS
    return {
        brand: side_of(_BRAND_SIDES, "brand", brand) if fewest <= size <= most else "train"
        for brand, size in sizes.items()
    }


def _combinations(records: Iterable[Record]) -> list[Combination]:
    """Return the distinct combinations of all products in an order of their own."""
    found = {c for record in records if record.kind for c in combinations_of(record, _PER_PRODUCT)}
    return sorted(found, key=lambda combination: chance("combination", *sorted(combination)))


def _pair_side(combination: Combination) -> Side | None:
    """Return the side: that of a held-out pair of values in it; None where pairs of both sides are."""
    sides = {side_of(_PAIR_SIDES, "pair", *pair) for pair in pairs_of(sorted(combination), 2)}
    if {"dev", "test"} <= sides:
        return None
    return "dev" if "dev" in sides else "test" if "test" in sides else "train"


def _training(combinations: list[Combination], relevance: Relevance) -> Iterator[tuple[str, Combination]]:
    """Yield distinct training queries: one of every combination, then a second, and a third."""
    taken: set[str] = set()
    for number in range(_PHRASINGS):
        for combination in combinations:
            query = phrase(combination, _rng("train", number, combination))
            if query and query_key(query) not in taken and relevance.grades(combination):
                taken.add(query_key(query))
                yield query, combination


def _rng(*parts: object) -> random.Random:
    # A set has no order of its own: its values are sorted.
    return random.Random(repr([sorted(part) if isinstance(part, frozenset) else part for part in parts]))
