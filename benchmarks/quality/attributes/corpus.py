"""The corpus: which products, which training queries, and the held-out queries by what is new in them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, islice

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


@dataclass(frozen=True)
class Queries:
    """Queries with what they ask for.

    Attributes:
        training: By their text.
        held_out: By group, then by text.
    """

    training: dict[str, Combination]
    held_out: dict[str, dict[str, Combination]]


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
    records = records_of(products)
    relevance = Relevance(records)
    side: Side = "dev" if development else "test"
    drawn = draw(records, relevance, side, queries, held_out)
    unseen = {query: asked for of_group in drawn.held_out.values() for query, asked in of_group.items()}
    training, of_unseen = (
        Judgments({query: relevance.grades(asked) or {} for query, asked in asked_by.items()})
        for asked_by in (drawn.training, unseen)
    )
    return Corpus(
        name=f"attributes-{side}" + (f"-{products}" if products else ""),
        items={record.id: text_of(record) for record in records},
        judgments=training,
        seen=tuple(sorted(training, key=lambda query: chance("seen", query))[:_SEEN]),
        unseen=tuple(unseen),
        held_out=of_unseen,
        max_tokens=64,
        shown_judged_only=False,
        groups={group: tuple(of_group) for group, of_group in drawn.held_out.items()},
    )


def draw(records: Iterable[Record], relevance: Relevance, side: Side, queries: int, held_out: int) -> Queries:
    """Return up to `queries` training queries, and up to `held_out` of each group of a held-out side.

    Raises:
        ConfigurationError: no product answers any combination that fits.
    """
    sides = brand_sides()
    by_side: dict[Side, list[Combination]] = {"train": [], "dev": [], "test": []}
    by_brand: dict[Side, list[Combination]] = {"train": [], "dev": [], "test": []}
    for combination in _combinations(records):
        of_brand: Side = next((sides[value.key] for value in combination if value.attribute == "brand"), "train")
        of_pairs = pair_side(combination)
        if of_brand != "train":
            by_brand[of_brand].append(combination)
        elif of_pairs is not None:
            by_side[of_pairs].append(combination)
    training = dict(islice(_training(by_side["train"], relevance), queries))
    if not training:
        raise ConfigurationError("The products allow no query. Take 1,000 or more, or None for all of them.")

    known_words, known_values = words(training), {value for asked in training.values() for value in asked}
    taken = {query_key(query) for query in training}
    drawn: dict[str, dict[str, Combination]] = {group: {} for group in GROUPS}
    for group, found in drawn.items():
        for combination in by_brand[side] if group == "brands" else by_side[side]:
            query = phrase(combination, _rng(side, group, combination), side if group == "words" else "train")
            if len(found) == held_out or query is None or query_key(query) in taken:
                continue
            new_word = not words([query]) <= known_words
            fits = group == "brands" or (combination <= known_values and new_word == (group == "words"))
            if fits and relevance.grades(combination):
                taken.add(query_key(query))
                found[query] = combination
    return Queries(training, drawn)


@cache
def records_of(count: int | None = None) -> tuple[Record, ...]:
    """Return the records, or `count` of them by hash; where the rules are in doubt a product is left out."""
    if count is None:
        return tuple(record for product in all_products() if (record := record_of(product)) is not None)
    return tuple(sorted(records_of(), key=lambda record: chance("product", record.id))[:count])


def brand_sides() -> dict[str, Side]:
    """Return, for every brand, on which side the queries are that name it."""
    sizes = Counter(record.of("brand")[0].key for record in records_of() if record.kind)
    fewest, most = _BRAND_PRODUCTS
    return {
        brand: side_of(_BRAND_SIDES, "brand", brand) if fewest <= size <= most else "train"
        for brand, size in sizes.items()
    }


def _combinations(records: Iterable[Record]) -> list[Combination]:
    """Return the distinct combinations of all products in an order of their own."""
    found = {c for record in records if record.kind for c in combinations_of(record, _PER_PRODUCT)}
    return sorted(found, key=lambda combination: chance("combination", *sorted(combination)))


def pair_side(combination: Combination) -> Side | None:
    """Return the side: that of a held-out pair of values in it; None where pairs of both sides are."""
    sides = {side_of(_PAIR_SIDES, "pair", *pair) for pair in combinations(sorted(combination), 2)}
    if {"dev", "test"} <= sides:
        return None
    return "dev" if "dev" in sides else "test" if "test" in sides else "train"


def _training(asked: list[Combination], relevance: Relevance) -> Iterator[tuple[str, Combination]]:
    """Yield distinct training queries: one of every combination, then a second, and a third."""
    taken: set[str] = set()
    for number in range(_PHRASINGS):
        for combination in asked:
            query = phrase(combination, _rng("train", number, combination))
            if query and query_key(query) not in taken and relevance.grades(combination):
                taken.add(query_key(query))
                yield query, combination


def _rng(*parts: object) -> random.Random:
    # A set has no order of its own: its values are sorted.
    return random.Random(repr([sorted(part) if isinstance(part, frozenset) else part for part in parts]))
