"""Sessions in columns say what they said as objects: compared with the plain way of doing each step."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estudio_core.clickstream.actions import CLICK_IMPORTANCE
from estudio_core.clickstream.clients import MOST_SESSIONS_OF_CLIENT, counted_sessions
from estudio_core.clickstream.converter import ClickstreamSessionConverter, WholeLog
from estudio_core.clickstream.converting import StoredLog
from estudio_core.clickstream.fine_tuning_input import FineTuningInput
from estudio_core.clickstream.position_bias import Impressions
from estudio_core.clickstream.ranking_data import ItemsSet, RankingData, with_one_spelling
from estudio_core.clickstream.session_batch import SessionBatch, batch_of
from estudio_core.clickstream.session_files import StoredSessions, writing
from estudio_core.clickstream.session_table import Pairs
from estudio_core.clickstream.session_weights import SessionWeights
from estudio_core.clickstream.table_builder import table_of
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.errors import DataError
from estudio_core.sources.item_meta import ItemMeta

QUERIES = ["lamp", "Lamp ", "USB  cable", "usb cable", "Straße", "chair", " "]
METAS: list[Any] = [
    *[None] * 6,
    {"page": 2, "size": 10},
    {"from": 20},
    {"page": 3},
    {"sort": "price"},
    {"filter": {"in_stock": True}},
    {"release": "r2"},
    "text",
]


def odd_rows(count: int, seed: int) -> list[tuple[Any, ...]]:
    """Return rows as the database gives them, with all that logs have: doubles, gaps, pages, clicks on the unlisted."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        hits = [f"p{rng.randrange(30)}" for _ in range(rng.choice([0, 1, 2, 5, 10]))]
        scores = None if rng.random() < 0.3 else [round(rng.random(), 3) for _ in hits]
        clicks = [
            [f"e{number}/{place}", f"p{rng.randrange(34)}", rng.choice(["click", "purchase", "dwell"]), 100 + place,
             rng.choice([{}, {"importance": 2.5}, {"dwell_s": 90}, []]), rng.choice([None, 1, 3, 12])]
            for place in range(rng.choice([0, 0, 0, 1, 2, 4]))
        ]  # fmt: skip
        impressions = [[f"p{rng.randrange(40)}", rng.choice([None, 2, 15])] for _ in range(rng.choice([0, 0, 0, 3]))]
        client, visit, user = (
            f"{kind}{rng.randrange(6)}" if rng.random() < share else None
            for kind, share in (("c", 0.5), ("v", 0.7), ("u", 0.2))
        )
        rows.append(
            (f"s{number}", rng.choice(QUERIES), hits, scores, 1_700_000_000 + number, rng.choice(METAS), clicks or None,
             impressions or None, rng.random() < 0.1, rng.random() < 0.1, client, visit, user)
        )  # fmt: skip
    return rows


def stored(folder: Path, *batches: SessionBatch) -> StoredSessions:
    with writing(folder / "sessions.parquet") as file:
        for batch in batches:
            file.write(batch)
    return StoredSessions(folder / "sessions.parquet")


@pytest.mark.parametrize("seed", range(3))
def test_stored_sessions_are_converted_in_columns_as_one_by_one(tmp_path: Path, seed: int) -> None:
    rows = odd_rows(400, seed)
    log = stored(tmp_path, *(batch_of(rows[at : at + 70], CLICK_IMPORTANCE, 1) for at in range(0, 400, 70)))
    converter = ClickstreamSessionConverter(ItemMeta, event_weights={"purchase": 3.0})
    retriever = TextQueryRetriever()
    lost: Counter[str] = Counter()
    table = StoredLog(log, converter, retriever).table(lost)
    whole, plain, malformed = WholeLog.of(log), [], 0
    for session in log:
        try:
            plain.append(whole.applied(converter.convert(session, retriever).input, session))
        except DataError:
            malformed += 1
    assert table == plain
    assert (lost["malformed"], lost["repeated"]) == (malformed, 0)
    assert malformed > 0
    assert {session.by_relevance for session in plain} == {True, False}
    assert max(weight for session in plain for weight in session.click_weights) == 9.0  # a purchase, 3, times 3


def test_a_session_that_stands_twice_counts_once(tmp_path: Path) -> None:
    rows = odd_rows(50, 1)
    log = stored(tmp_path, *(batch_of(rows, CLICK_IMPORTANCE, 1) for _ in range(2)))
    lost: Counter[str] = Counter()
    table = StoredLog(log, ClickstreamSessionConverter(ItemMeta), TextQueryRetriever()).table(lost)
    assert lost["repeated"] == len(table) == len({session.session_id for session in table})


def test_what_is_stored_comes_back_as_it_was(tmp_path: Path) -> None:
    batch = batch_of(odd_rows(200, 5), CLICK_IMPORTANCE, 1)
    came = list(stored(tmp_path, batch))
    expected = [
        session.model_copy(update={"events": [event.model_copy(update={"meta": None}) for event in session.events]})
        for session in batch.sessions()
    ]
    assert came == expected


def test_nothing_readable_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "sessions.parquet").write_text("no log")
    with pytest.raises(DataError, match=r"sessions\.parquet.*Run the extract step again"):
        StoredSessions(tmp_path / "sessions.parquet")


def sessions(count: int, seed: int) -> list[FineTuningInput]:
    rng = random.Random(seed)
    found = []
    for number in range(count):
        results = tuple(rng.sample([f"p{place}" for place in range(12)], rng.randrange(6)))
        found.append(
            FineTuningInput(
                session_id=f"s{rng.random()}",
                query=rng.choice(QUERIES[:6]),
                results=results,
                positions=tuple(sorted(rng.sample(range(20), len(results)))),
                ranks=tuple(rng.choice([None, 0.5, 0.25]) for _ in results),
                click_weights=tuple(rng.choice([0.0, 0.0, 1.0, 2.5]) for _ in results),
                timestamp=1_700_000_000 + 60 * number,
                user_id=rng.choice([None, "u1", "u2"]),
                release=rng.choice([None, "r1"]),
                query_variants=rng.choice([(), ("lmap",)]),
                client_id=rng.choice([None, "c1", "c2", "c3"]),
                by_relevance=rng.random() < 0.8,
            )
        )
    return found


def test_a_table_is_the_sequence_that_it_was_made_of() -> None:
    given = sessions(300, 0)
    table = table_of(given)
    assert table == given
    assert [table[0], table[-1], *table[10:13]] == [given[0], given[-1], *given[10:13]]
    assert table + given[:2] == given + given[:2]
    places = np.array([5, 250, 5])
    assert table.take(places) == [given[place] for place in places]
    assert table.where(table.clicked) == [session for session in given if not session.is_clickless]
    assert table.query_keys() == list(dict.fromkeys(session.query_key for session in given))
    gone = np.array([name in {"p1", "p7"} for name in table.columns.items.texts])
    assert table.without_items(gone) == [session.without({"p1", "p7"}) for session in given]
    with pytest.raises(IndexError):
        table[300]


def test_caps_of_clients_are_those_of_counting_one_by_one() -> None:
    given = sessions(2_000, 1)
    kept, taken = [], Counter[Any]()
    for session in given:
        pair = (session.client, session.query_key)
        if session.client is None:
            kept.append(session)
        elif taken[pair] < MOST_SESSIONS_OF_CLIENT[0] and taken[session.client] < MOST_SESSIONS_OF_CLIENT[1]:
            taken.update([pair, session.client])
            kept.append(session)
    counted, left_out = counted_sessions(given, machines=True)
    assert counted == kept
    assert left_out.beyond_cap == len(given) - len(kept) > 0


def test_all_spellings_of_a_query_become_the_usual_one() -> None:
    given = sessions(500, 2)
    spelt: dict[str, Counter[str]] = {}
    for session in given:
        spelt.setdefault(session.query_key, Counter())[session.query] += 1
    usual = {key: found.most_common(1)[0][0] for key, found in spelt.items()}
    assert [session.query for session in with_one_spelling(given)] == [usual[session.query_key] for session in given]


SAID = {
    "session_id": "other",
    "query": "Lamp",
    "results": ("a", "c"),
    "positions": (0, 2),
    "ranks": (0.5, 0.25),
    "click_weights": (1.0, 0.5),
    "timestamp": 8,
    "user_id": "u2",
    "release": "r2",
    "query_variants": ("lmap", "lampp"),
    "client_id": None,
    "by_relevance": False,
}
"""Another value of each field of a session."""


def test_the_id_of_a_dataset_depends_on_everything_that_a_session_says_and_on_no_order() -> None:
    given = sessions(200, 3)
    asked = FineTuningInput(
        "s", "lamp", ("a", "b"), (0, 1), (0.5, None), (1.0, 0.0), 7, "u1", "r1", ("lmap",), "c1", True
    )
    assert SAID.keys() == {field.name for field in fields(FineTuningInput)}

    def id_of(train: list[FineTuningInput], dev: list[FineTuningInput]) -> str:
        return RankingData({"train": train, "dev": dev}, ItemsSet({})).dataset_id

    whole = id_of([*given, asked], given[:9])
    assert whole == id_of([asked, *given[::-1]], given[:9][::-1])
    changed = [id_of([*given, replace(asked, **{name: value})], given[:9]) for name, value in SAID.items()]
    others = [id_of([*given, asked], given[:8]), id_of(given, [*given[:9], asked]), id_of([*given, asked, asked], [])]
    swapped = replace(asked, results=("b", "a"))
    swapped_with_positions = replace(swapped, positions=(1, 0), ranks=(None, 0.5), click_weights=(0.0, 1.0))
    others += [id_of([*given, one], given[:9]) for one in (swapped, swapped_with_positions)]
    assert len({whole, *changed, *others}) == 1 + len(changed) + len(others)


def test_queries_are_drawn_by_their_texts_up_to_a_number_of_sessions() -> None:
    asked = [f"query {number % 50}" for number in range(500)] + ["head"] * 400
    table = table_of(FineTuningInput(str(n), query, (), (), (), ()) for n, query in enumerate(asked))
    some = table.some_queries(300)
    assert 250 < len(some) <= 300
    for query in some.query_keys():
        assert sum(one.query == query for one in some) == asked.count(query)
    more = table.some_queries(400)
    assert set(some.query_keys()) <= set(more.query_keys())
    again = table_of([*table][::-1]).some_queries(300)
    assert set(again.query_keys()) == set(some.query_keys())
    assert len(table.some_queries(1).query_keys()) == 1
    assert table.some_queries(900) is table


def test_impressions_are_counted_by_query_and_result() -> None:
    given = sessions(400, 4)
    expected: Counter[tuple[str, str]] = Counter()
    for session in given:
        expected.update((session.query_key, result) for result in session.results)
    table = table_of(given)
    pairs = Pairs.of(table, table.keys)
    names = [
        (table.columns.queries.keys[int(query)], table.columns.items[int(item)])
        for query, item in zip(pairs.query, pairs.item, strict=True)
    ]
    shown = np.bincount(pairs.of_result)
    assert dict(zip(names, shown.tolist(), strict=True)) == expected
    log = Impressions.of(given)
    assert np.bincount(log.pairs).tolist() == shown.tolist()
    assert log.sessions.tolist() == [number for number, one in enumerate(given) for _ in one.results]


def test_pairs_numbered_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(sessions(400, 5))
    at_once = Pairs.of(table, table.keys)
    monkeypatch.setattr("estudio_core.clickstream.session_table._TOGETHER", 50)
    in_pieces = Pairs.of(table, table.keys)
    for name in ("of_result", "query", "item"):
        assert (getattr(at_once, name) == getattr(in_pieces, name)).all()


def test_weights_of_two_tables_are_found_by_session() -> None:
    first, second = (table_of(sessions(50, seed)) for seed in (6, 7))
    both = SessionWeights.of(first, first.weights) | SessionWeights.of(second, second.weights)
    assert both[first[0].session_id]  # looked up: places are cached by hashes of this process
    assert pickle.loads(pickle.dumps(both)).__dict__.keys() == {"_tables"}
    assert dict(both) == {session.session_id: session.click_weights for session in (*first, *second)}
    assert both.get("nobody") is None


def test_a_session_takes_a_tenth_of_what_it_takes_as_an_object() -> None:
    results = tuple(f"p{place}" for place in range(10))
    given = [
        FineTuningInput(
            f"{number:032x}", f"q {number % 500}", results, tuple(range(10)), (0.5,) * 10, (1.0,) + (0.0,) * 9
        )
        for number in range(5_000)
    ]
    columns = table_of(given).columns
    arrays = [value for value in vars(columns).values() if isinstance(value, np.ndarray)]
    size = sum(array.nbytes for array in (*arrays, columns.ids.data, columns.ids.starts))
    assert size / len(given) < 300


def test_numbers_too_large_for_their_column_widen_it() -> None:
    far = [FineTuningInput(str(place), "q", ("a", "b"), (0, place), (None, None), (1.0, 0.0)) for place in (7, 900_000)]
    assert table_of(far) == far
    paid = [FineTuningInput(str(n), "q", ("a",), (0,), (None,), (1.0 + n / 8,)) for n in range(600)]
    assert table_of([*paid, *far]) == [*paid, *far]
