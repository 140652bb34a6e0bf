"""The clickstream in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore, Logged
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import DataError

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def connection(estudio_home: Path) -> Iterator[psycopg.Connection]:
    with database.connect() as connection:
        yield connection


@pytest.fixture
def store(connection: psycopg.Connection) -> ClickstreamStore:
    return ClickstreamStore(connection)


def query(number: int, hits: tuple[str, ...] = ("a", "b", "c"), **fields: Any) -> UbiQuery:
    defaults: dict[str, Any] = {
        "query_id": f"q{number}",
        "user_query": f"query {number}",
        "timestamp": START + timedelta(minutes=number),
        "application": "shop",
        "query_response_hit_ids": hits,
    }
    return UbiQuery(**(defaults | fields))


def event(number: int, object_id: str | None, action: str = "click", **fields: Any) -> UbiEvent:
    defaults: dict[str, Any] = {
        "event_id": f"q{number}/{action}/{object_id}",
        "action_name": action,
        "query_id": f"q{number}",
        "timestamp": START + timedelta(minutes=number, seconds=5),
        "application": "shop",
        "object_id": object_id,
    }
    return UbiEvent(**(defaults | fields))


def test_attributes_of_another_shape_stop_no_session(store: ClickstreamStore, connection: psycopg.Connection) -> None:
    store.log_queries([query(1, query_attributes={"release": 7}), query(2)])
    for number, wrong in enumerate(["high", -1, True, 2.5]):
        store.log_events([event(1, "abc"[number % 3], "click" if number < 3 else "purchase",
                                event_attributes={"importance": wrong})])  # fmt: skip
    store.log_events([event(2, "a")])
    connection.execute("UPDATE estudio.ubi_events SET event_attributes = '[1]' WHERE query_id = 'q2'")
    connection.execute("UPDATE estudio.ubi_queries SET query_attributes = '[1]' WHERE query_id = 'q2'")
    first, second = store.sessions("shop")
    assert first.release == "7"
    assert sorted(e.importance for e in first.events) == [1.0, 1.0, 1.0, 2.5]
    assert (second.release, [e.importance for e in second.events]) == (None, [1.0])


def test_a_session_keeps_positions_scores_release_and_clicks(store: ClickstreamStore) -> None:
    store.log_queries(
        [query(1, query_response_scores=(0.9, 0.8, 0.7), query_attributes={"release": "r7"}, client_id="phone")]
    )
    store.log_events(
        [event(1, "b", position_ordinal=2, session_id="evening", user_id="ana"), event(1, "c", "purchase")]
    )

    (session,) = store.sessions("shop")

    assert session.session_id == "q1"
    assert session.query == "query 1"
    assert session.created_at == int((START + timedelta(minutes=1)).timestamp())
    assert [(r.object_id, r.position, r.rank) for r in session.search_results] == [
        ("a", 0, 0.9),
        ("b", 1, 0.8),
        ("c", 2, 0.7),
    ]
    assert session.release == "r7"
    assert (session.client_id, session.visit_id, session.user_id) == ("phone", "evening", "ana")
    assert not session.is_refined
    assert [(e.object_id, e.event_type, e.importance) for e in session.events] == [
        ("b", "click", 1.0),
        ("c", "purchase", 3.0),
    ]
    assert not session.is_irrelevant


def test_a_list_that_its_user_filtered_or_sorted_is_told(store: ClickstreamStore) -> None:
    actions = ["brand_filter", "product_sort", "click", "sorting", "filtered", "resort_view"]
    store.log_queries([query(number) for number in range(len(actions))])
    store.log_events([event(number, "a", action) for number, action in enumerate(actions)])
    refined = [actions[int(s.session_id[1:])] for s in store.sessions("shop") if s.is_refined]
    assert refined == ["brand_filter", "product_sort", "sorting", "filtered"]


def test_of_a_log_with_more_sessions_all_queries_and_all_times_are_drawn(store: ClickstreamStore) -> None:
    # 300 searches for one query, then 60 for as many others, then 300 for the one again.
    texts = ["tv"] * 300 + [f"lamp {number}" for number in range(60)] + ["TV "] * 300
    store.log_queries([query(number, user_query=text) for number, text in enumerate(texts)])
    drawn = list(store.sessions("shop", limit=80, by_query=True))
    assert len(drawn) == 80
    of_head = [int(s.session_id[1:]) for s in drawn if s.query.strip().lower() == "tv"]
    assert len(of_head) == 20
    assert min(of_head) < 300 <= 360 <= max(of_head)
    assert drawn == list(store.sessions("shop", limit=80, by_query=True))
    assert [s.created_at for s in drawn] == sorted(s.created_at for s in drawn)
    assert len(list(store.sessions("shop", limit=200, by_query=True))) == 200  # no place stays empty
    newest = {s.query for s in store.sessions("shop", limit=80)}
    assert newest == {"TV "}


def test_duplicates_are_ignored_and_counted(store: ClickstreamStore) -> None:
    assert store.log_queries([query(1), query(2), query(1)]) == Logged(inserted=2, duplicates=1)
    assert store.log_queries([query(2, user_query="changed"), query(3)]) == Logged(inserted=1, duplicates=1)
    assert store.log_events([event(1, "a")]) == Logged(inserted=1, duplicates=0)
    assert store.log_events([event(1, "a")]) == Logged(inserted=0, duplicates=1)
    assert [s.query for s in store.sessions("shop")] == ["query 1", "query 2", "query 3"]


def test_an_event_may_come_before_its_query(store: ClickstreamStore) -> None:
    store.log_events([event(1, "a")])
    assert list(store.sessions("shop")) == []
    store.log_queries([query(1)])
    (session,) = store.sessions("shop")
    assert [e.object_id for e in session.events] == ["a"]


def test_limit_keeps_the_newest_and_returns_them_in_time_order(store: ClickstreamStore) -> None:
    store.log_queries([query(n) for n in (4, 1, 3, 2, 5)])
    assert [s.session_id for s in store.sessions("shop", limit=3)] == ["q3", "q4", "q5"]
    since, until = START + timedelta(minutes=2), START + timedelta(minutes=4)
    assert [s.session_id for s in store.sessions("shop", since=since, until=until)] == ["q2", "q3"]
    assert store.count_sessions("shop", until=until) == 3


def test_sessions_count_from_when_they_were_logged_whatever_their_own_time(
    store: ClickstreamStore, connection: psycopg.Connection
) -> None:
    store.log_queries([query(1), query(2)])
    connection.execute("UPDATE estudio.ubi_queries SET logged_at = NULL WHERE query_id = 'q1'")  # of an older version
    between = datetime.now(UTC)
    store.log_queries([query(3)])
    assert store.count_sessions("shop", logged_since=START) == 3
    assert store.count_sessions("shop", logged_since=START + timedelta(minutes=1, seconds=1)) == 2
    assert store.count_sessions("shop", logged_since=between) == 1


def test_searches_at_the_same_moment_have_one_order(store: ClickstreamStore) -> None:
    store.log_queries([query(n, timestamp=START) for n in (3, 1, 2)])
    assert [s.session_id for s in store.sessions("shop")] == ["q1", "q2", "q3"]
    assert [s.session_id for s in store.sessions("shop", limit=2)] == ["q2", "q3"]


def test_impressions_and_hovers_are_no_clicks(store: ClickstreamStore) -> None:
    store.log_queries([query(1), query(2)])
    store.log_events([event(1, "a", "impression"), event(1, "a", "product_hover"), event(2, "a"), event(2, None)])
    first, second = store.sessions("shop")
    assert first.events == []
    assert [e.object_id for e in second.events] == ["a"]
    assert store.count_sessions("shop") == 2
    assert store.count_sessions("shop", clicked_only=True) == 1


def test_what_counts_as_a_click_is_a_choice(connection: psycopg.Connection) -> None:
    store = ClickstreamStore(connection, click_importance={"download": 4.0})
    store.log_queries([query(1)])
    store.log_events([event(1, "a", "download"), event(1, "b")])
    (session,) = store.sessions("shop")
    assert [(e.object_id, e.importance) for e in session.events] == [("a", 4.0)]
    with pytest.raises(DataError, match="above 0"):
        ClickstreamStore(connection, click_importance={"impression": 0.0})


def test_impressions_stand_in_where_no_hits_were_logged(store: ClickstreamStore) -> None:
    store.log_queries([query(1, hits=())])
    store.log_events(
        [
            event(1, "late", "impression", position_ordinal=2),
            event(1, "early", "impression", position_ordinal=1),
            event(1, "somewhere", "impression"),
        ]
    )
    (session,) = store.sessions("shop")
    assert [(r.object_id, r.position) for r in session.search_results] == [("early", 0), ("late", 1), ("somewhere", 2)]


def test_a_result_that_stands_twice_keeps_its_first_position(store: ClickstreamStore) -> None:
    store.log_queries([query(1, hits=("a", "b", "a"))])
    (session,) = store.sessions("shop")
    assert [(r.object_id, r.position) for r in session.search_results] == [("a", 0), ("b", 1)]


def test_a_session_can_be_marked_irrelevant_more_than_once(store: ClickstreamStore) -> None:
    store.log_queries([query(1), query(2)])
    store.mark_irrelevant("q2")
    store.mark_irrelevant("q2")
    assert [s.is_irrelevant for s in store.sessions("shop")] == [False, True]
    with pytest.raises(DataError, match="'q9'"):
        store.mark_irrelevant("q9")


def test_applications_do_not_see_each_other(store: ClickstreamStore) -> None:
    store.log_queries([query(1), query(2, application="blog")])
    store.log_events([event(2, "a", application="blog")])
    assert [s.session_id for s in store.sessions("blog")] == ["q2"]
    assert store.count_sessions("shop", clicked_only=True) == 0


def test_the_caller_may_commit_while_reading(store: ClickstreamStore, connection: psycopg.Connection) -> None:
    store.log_queries([query(n, timestamp=START + timedelta(seconds=n)) for n in range(1200)])
    connection.commit()
    seen = 0
    for session in store.sessions("shop"):
        if seen == 10:
            store.log_events([event(int(session.session_id[1:]), "a")])
            connection.commit()
        seen += 1
    assert seen == 1200


def test_reading_takes_the_same_statements_however_many_sessions(
    store: ClickstreamStore, connection: psycopg.Connection, tmp_path: Path
) -> None:
    store.log_queries([query(n) for n in range(50)])
    store.log_events([event(n, "a") for n in range(50)])

    def statements(limit: int) -> int:
        protocol = tmp_path / f"protocol-{limit}"
        connection.commit()
        with protocol.open("wb") as file:
            connection.pgconn.trace(file.fileno())
            sessions = list(store.sessions("shop", limit=limit))
            connection.pgconn.untrace()
        assert [len(s.events) for s in sessions] == [1] * limit
        return sum("\tParse\t" in line or "\tQuery\t" in line for line in protocol.read_text().splitlines())

    assert 0 < statements(1) == statements(50)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (query(1, timestamp=datetime(2026, 3, 1)), "no time zone"),
        (query(1, query_response_scores=(0.1, float("nan"), 0.2)), "JSON"),
        (query(1, query_attributes={"price": object()}), "JSON"),
        (query(1, user_query="nul \x00 character"), "refuses a row"),
        (query(1, user_query=None), "user_query of a UbiQuery is a text"),
    ],
)
def test_rows_that_cannot_be_stored_are_refused_and_nothing_is_logged(
    store: ClickstreamStore, row: UbiQuery, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        store.log_queries([query(2), row])
    assert store.count_sessions("shop") == 0


def test_scores_have_to_match_the_hits() -> None:
    with pytest.raises(DataError, match="3 hits and 2 scores"):
        query(1, query_response_scores=(0.1, 0.2))


def test_texts_are_values_not_sql(store: ClickstreamStore) -> None:
    hostile = "'); DROP TABLE estudio.ubi_queries; --"
    store.log_queries([query(1, user_query=hostile, application=hostile, hits=(hostile,))])
    (session,) = store.sessions(hostile)
    assert session.query == hostile
    assert session.search_results[0].object_id == hostile


def test_a_ubi_file_is_imported_once(store: ClickstreamStore) -> None:
    first = store.import_ubi(FIXTURES / "ubi_sample.ndjson")
    assert first.queries == Logged(inserted=5, duplicates=2, merged=2)
    assert first.events == Logged(inserted=44, duplicates=0)
    assert first.skipped == ()
    again = store.import_ubi(FIXTURES / "ubi_sample.ndjson")
    assert (again.queries, again.events) == (Logged(0, 9), Logged(0, 44))

    sessions = {s.query: s for s in store.sessions("esci_ubi_sample")}
    ps4 = sessions["ps4"]
    assert [r.position for r in ps4.search_results] == [0, 1, 2, 3, 4]
    assert [(e.object_id, e.event_type) for e in ps4.events] == [("B08GPZW3FB", "click")]
    assert ps4.search_results[2].object_id == "B08GPZW3FB"

    gold = next(s for s in store.sessions("Chorus") if s.query == "gold")
    assert [r.object_id for r in gold.search_results][:2] == ["B01MRYG53O", "B07Q26JMD9"]


def test_blanks_make_no_other_query_when_searches_are_drawn(connection: psycopg.Connection) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    texts = [*["sea  voyage", "sea voyage", " Sea voyage"] * 20, "as", "ass"]
    store = ClickstreamStore(connection)
    store.log_queries([UbiQuery(str(n), text, at, "shop", ("1", "2")) for n, text in enumerate(texts)])
    drawn = [str(session.query) for session in store.sessions("shop", limit=22, by_query=True)]
    assert {"as", "ass"} < set(drawn)
    assert len(drawn) == 22
