"""Items, queries and judgments of the corpora, and which queries are trained on; `attributes` makes a third."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from estudio_core.clickstream.query_retriever import query_key
from estudio_core.demo.catalog import load_judgments, products
from estudio_core.errors import ConfigurationError
from estudio_core.evaluation.judgments import Judgments

NFCORPUS_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "nfcorpus"
RESERVED = 40
"""Queries of Chorus that no development partition reads."""
OTHER_PRODUCTS = 3_000
"""Unrated products beside the rated ones: enough to be found wrongly, few enough to rank in seconds."""


@dataclass(frozen=True)
class Corpus:
    """What is ranked, who asked, and what is relevant, by people's judgment or by attributes.

    Attributes:
        name: Of the table's column.
        items: Texts by object id.
        judgments: Grades of the training queries: clicks are drawn from these.
        seen: Queries trained on and judged afterwards; empty where they are not of interest.
        unseen: Queries that no training reads.
        held_out: Grades of the unseen queries, which only the final figure reads.
        max_tokens: Where texts are cut.
        shown_judged_only: True: simulated users are shown judged items only, because nobody knows whether they would
            have clicked on the others.
    """

    name: str
    items: dict[str, str]
    judgments: Judgments
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    held_out: Judgments
    max_tokens: int
    shown_judged_only: bool
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def judged(self) -> dict[str, tuple[tuple[str, ...], Judgments]]:
        """Queries with their grades, by the group that figures are shown for; none is empty."""
        unseen = self.groups or {"unseen": self.unseen}
        found = {"seen": (self.seen, self.judgments)} | {name: (of, self.held_out) for name, of in unseen.items()}
        return {name: group for name, group in found.items() if group[0]}


def chorus(partition: int, *, development: bool) -> Corpus:
    """Return the rated electronics products and 3,000 others, some of the 116 queries unseen.

    Args:
        partition: Which queries are unseen. 0: the 40 reserved ones. 1, 2, ...: one half of these
            by hash, then the other, while their counterpart joins the queries trained on.
        development: Leave out those 40 altogether and hold out 24 of the other 76: hyper-parameters were chosen on
            these partitions, and on no query that a test partition holds out.
    """
    judgments = load_judgments().answerable()
    queries = _by_hash(judgments, salt="")
    reserved, queries = queries[:RESERVED], queries[RESERVED:]
    if development:
        shuffled = _by_hash(queries, salt=str(partition))
        unseen, seen = sorted(shuffled[:24]), sorted(shuffled[24:])
    else:
        shuffled = _by_hash(reserved, salt=str((partition + 1) // 2))
        start, half = (partition + 1) % 2 * RESERVED // 2, RESERVED // 2
        unseen = sorted(shuffled[start : start + half] if partition else reserved)
        seen = sorted({*queries, *reserved} - {*unseen})
    texts, rated = _texts(), judgments.object_ids
    others = _by_hash((key for key in texts if key not in rated), salt="")[:OTHER_PRODUCTS]
    kept = {*others, *rated}
    return Corpus(
        name=f"chorus-{'dev' if development else 'test'}-{partition}",
        items={key: text for key, text in texts.items() if key in kept},
        judgments=judgments.only(seen),
        seen=tuple(seen),
        unseen=tuple(unseen),
        held_out=judgments.only(unseen),
        max_tokens=64,
        shown_judged_only=True,
    )


@cache
def _texts() -> dict[str, str]:
    """Return title and description of every product of the demo's catalog, by id."""
    return {
        str(row["id"]): ". ".join(text for text in (row["title"], row["short_description"]) if text)
        for row in products()
    }


def nfcorpus(*, development: bool, folder: Path = NFCORPUS_FOLDER) -> Corpus:
    """Return the medical abstracts of NFCorpus with its own division of title queries.

    Args:
        development: Hold out the `dev` queries; else the `test` queries.
        folder: Where its files are.

    Raises:
        ConfigurationError: the folder does not hold them.
    """
    if not (folder / "train.titles.queries").is_file():
        raise ConfigurationError(
            f"NFCorpus is not in {folder}, and its licence (academic use) forbids shipping it: its part is skipped. "
            "Put the files of the NFCorpus archive there to measure on it."
        )
    items = {key: text for split in ("dev", "test") for key, text in _tab_separated(folder / f"{split}.docs")}
    test, dev = _qrels(folder, "test", items), _qrels(folder, "dev", items)
    # Some titles stand in several splits under different numbers.
    dev = _without(dev, test)
    train = _without(_without(_qrels(folder, "train", items), test), dev)
    split, held_out = ("dev", dev) if development else ("test", test)
    return Corpus(
        name=f"nfcorpus-{split}",
        items=items,
        judgments=train,
        seen=(),
        unseen=tuple(held_out),
        held_out=held_out,
        max_tokens=64,
        shown_judged_only=False,
    )


def _qrels(folder: Path, split: str, items: dict[str, str]) -> Judgments:
    """Return the grades of title queries by their text; two queries of the same text are one."""
    texts = dict(_tab_separated(folder / f"{split}.titles.queries"))
    grades: dict[str, dict[str, float]] = {}
    with (folder / f"{split}.3-2-1.qrel").open(encoding="utf-8") as lines:
        for line in lines:
            query, _, item, grade = line.split()
            if query in texts and item in items:
                of_query = grades.setdefault(texts[query], {})
                of_query[item] = max(of_query.get(item, 0.0), float(grade))
    return Judgments(grades).answerable()


def _without(judgments: Judgments, others: Judgments) -> Judgments:
    """Return the judgments of queries that do not stand in `others`, case and whitespace aside."""
    known = {query_key(query) for query in others}
    return judgments.only(query for query in judgments if query_key(query) not in known)


def _tab_separated(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            key, _, text = line.rstrip("\n").partition("\t")
            yield key, text


def _by_hash(keys: Iterable[str], salt: str) -> list[str]:
    return sorted(keys, key=lambda key: hashlib.sha256(f"{salt}{key}".encode()).hexdigest())
