"""Sessions to train on, from the demo's catalogue: simulated searches whose result lists overlap as real ones do."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from estudio_core.clickstream.ranking_data import FineTuningInput, ItemsSet, RankingData
from estudio_core.demo.catalog import products

SHOWN = 8
"""Results of a session: one clicked, the others skipped."""
SESSIONS_PER_QUERY = 10
"""Mean number of sessions that ask the same query; few ask most of them (Zipf)."""
QUERY_WORDS = (2, 4)


@dataclass(frozen=True)
class Search:
    """A query and the products that every search for it shows, the wanted one among them."""

    query: str
    shown: tuple[str, ...]
    wanted: str


def product_texts() -> dict[str, str]:
    """Return title, description and attributes of every product, by id; most have over 64 tokens."""
    texts = {}
    for product in products():
        attributes = ", ".join(f"{name[2:].replace('_', ' ')} {value}" for name, value in product["attributes"].items())
        parts = (product["title"], product["short_description"] or "", attributes)
        texts[str(product["id"])] = ". ".join(part for part in parts if part)
    return texts


def workload(sessions: int, seed: int, shown: int = SHOWN, clicks: int = 1) -> RankingData:
    """Return `sessions` simulated sessions as a training split, with the products they show.

    Args:
        sessions: Searches.
        seed: Of the simulation.
        shown: Results of a session.
        clicks: Of a session: that on the wanted product, and further ones on others, drawn anew.

    A query is some words of a product's title; beside that product it shows its neighbours by number, which are of
    its kind. Each query has one list, so that the same texts return, as they do in a log.
    """
    rng = random.Random(seed)
    texts = product_texts()
    searches = list(_searches(texts, max(1, sessions // SESSIONS_PER_QUERY), shown, rng))
    popularity = [1 / rank for rank in range(1, len(searches) + 1)]
    drawn = rng.choices(searches, popularity, k=sessions)
    train = [
        FineTuningInput(
            session_id=str(number),
            query=search.query,
            results=search.shown,
            positions=tuple(range(shown)),
            ranks=(None,) * shown,
            click_weights=tuple(float(product in clicked) for product in search.shown),
        )
        for number, search in enumerate(drawn)
        for clicked in [{search.wanted, *(rng.sample(search.shown, clicks - 1) if clicks > 1 else ())}]
    ]
    of_all = dict.fromkeys(product for search in dict.fromkeys(drawn) for product in search.shown)
    return RankingData({"train": train, "dev": [], "holdout": []}, ItemsSet({p: [texts[p]] for p in of_all}))


def _searches(texts: dict[str, str], count: int, shown: int, rng: random.Random) -> Iterator[Search]:
    ids = list(texts)
    for _ in range(count):
        start = rng.randrange(len(ids) - shown)
        listed = ids[start : start + shown]
        wanted = rng.choice(listed)
        words = texts[wanted].split(". ")[0].split()
        rng.shuffle(words)
        yield Search(" ".join(words[: rng.randint(*QUERY_WORDS)]), tuple(listed), wanted)
