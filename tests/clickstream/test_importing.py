"""Imports: the same rows give the same database however they come, and one that was stopped goes on."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from estudio_core import database
from estudio_core.cli import app
from estudio_core.clickstream.applications import declare
from estudio_core.clickstream.forgetting import Deleted, expire, forget
from estudio_core.clickstream.importing import Imported, import_log
from estudio_core.clickstream.log_rows import FIELDS, RowReader
from estudio_core.clickstream.refinements import is_by_relevance, offset_of
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.errors import ConfigurationError, DataError
from estudio_core.progress import Progress, progress_to
from tests.clickstream.test_logs import installation, url

__all__ = ["installation", "url"]

_NAMES = sorted(
    {name for names in FIELDS.values() for name in names}
    | {"query", "page", "object_ids", "event_type", "positions", "object_data", "_source", "doc", "dwell_ms"}
    | {"event_attributes.position.ordinal", "importance"}
)
MORNING = datetime(2024, 3, 1, 9, tzinfo=UTC)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    with database.connect(url) as connection:
        connection.execute(
            "TRUNCATE estudio.ubi_queries, estudio.ubi_events, estudio.clickstream_applications,"
            " estudio.clickstream_imports, estudio.forgotten_clients"
        )
        connection.commit()
        yield connection
        connection.rollback()


def rows(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Return all of the clickstream but when it was logged."""
    return connection.execute(
        "SELECT to_jsonb(q) - 'logged_at' FROM estudio.ubi_queries q"
        " UNION ALL SELECT to_jsonb(e) FROM estudio.ubi_events e"
        " UNION ALL SELECT to_jsonb(a) FROM estudio.clickstream_applications a ORDER BY 1"
    ).fetchall()


def log(sessions: int = 6, client: str = "c{}") -> list[dict[str, Any]]:
    """Return documents that depend on other rows: pages, double events, searches known by their events alone."""
    documents: list[dict[str, Any]] = []
    for number in range(sessions):
        at = MORNING + timedelta(minutes=number)
        who = {"application": f"app{number % 2}", "query_id": str(number // 2), "client_id": client.format(number)}
        hits = [f"i{number}{place}" for place in range(6)]
        asked = {**who, "user_query": f"query {number}"}
        if number % 3:
            for page in (0, 1, 0):
                documents.append(
                    {
                        **asked,
                        "timestamp": (at + timedelta(seconds=9 * page)).isoformat(),
                        "query_response_hit_ids": hits[3 * page : 3 * page + 3],
                    }
                )
        clicked = {"object": {"object_id": hits[4]}, "position": {"ordinal": 4}}
        event = {**asked, "action_name": "click", "timestamp": (at + timedelta(seconds=30)).isoformat()}
        documents += [{**event, "event_attributes": clicked}] * 2
        documents.append({**event, "action_name": "impression", "object_id": hits[0], "position": 0})
    return documents


def written(path: Path, documents: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return str(path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), pieces=st.integers(1, 12), commit=st.booleans(), whole_order=st.booleans())
def test_how_a_log_is_cut_ordered_and_committed_makes_no_difference(
    connection: psycopg.Connection, tmp_path: Path, seed: int, pieces: int, commit: bool, whole_order: bool
) -> None:
    chance, documents = random.Random(seed), log()
    tables = "estudio.ubi_queries, estudio.ubi_events, estudio.clickstream_applications"
    connection.execute(f"TRUNCATE {tables}")
    import_log(connection, written(tmp_path / "whole.ndjson", documents))
    expected = rows(connection)
    connection.execute(f"TRUNCATE {tables}")
    if not whole_order:
        chance.shuffle(documents)
    cuts = sorted(chance.randrange(1, len(documents)) for _ in range(pieces - 1))
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(documents)], strict=True)):
        if start < end:
            piece = written(tmp_path / f"{number}.ndjson", documents[start:end])
            import_log(connection, piece, commit=commit)
    assert rows(connection) == expected
    sessions = list(ClickstreamStore(connection).sessions("app1"))
    assert [result.object_id for result in sessions[0].search_results] == [f"i1{place}" for place in range(6)]
    assert [(e.object_id, e.importance) for e in sessions[0].events] == [("i14", 1.0)]


def zipped(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("log.ndjson", content)


PACKED: dict[str, Callable[[Path, bytes], Any]] = {
    "gz": lambda path, content: path.write_bytes(gzip.compress(content)),
    "bz2": lambda path, content: path.write_bytes(bz2.compress(content)),
    "xz": lambda path, content: path.write_bytes(lzma.compress(content)),
    "zst": lambda path, content: path.write_bytes(pa.compress(content, codec="zstd", asbytes=True)),
    "zip": zipped,
    "utf-16": lambda path, content: path.write_bytes(content.decode().encode("utf-16")),
    "without a name for it": lambda path, content: path.write_bytes(gzip.compress(content)),
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_log_may_be_packed_in_any_way(connection: psycopg.Connection, tmp_path: Path, kind: str) -> None:
    content = "".join(json.dumps(document) + "\n" for document in log(2)).encode()
    path = tmp_path / f"log.{kind}"
    PACKED[kind](path, content)
    found = import_log(connection, str(path))
    assert (found.documents, found.queries.inserted, found.events.inserted) == (9, 1, 4)


def test_a_parquet_file_with_columns_of_every_kind(connection: psycopg.Connection, tmp_path: Path) -> None:
    searches = pa.table(
        {
            "query_id": pa.array([1, 2], pa.int64()),
            "user_query": ["lamp", "bulb"],
            "query_response_hit_ids": pa.array([["a", "b"], ["c"]]),
            "timestamp": pa.array([MORNING.replace(tzinfo=None)] * 2, pa.timestamp("ms")),
        }
    )
    events = pa.table(
        {
            "action_name": ["click", "click"],
            "query_id": pa.array([1.0, None]),
            "object_id": ["b", "c"],
            "position": pa.array([2, 1], pa.int16()),
            "timestamp": pa.array([1709283620, 1709283620]),
        }
    )
    pq.write_table(searches, tmp_path / "searches")
    pq.write_table(events, tmp_path / "events")
    first = import_log(connection, str(tmp_path / "searches"), reader=RowReader(application="shop"))
    second = import_log(connection, str(tmp_path / "events"), reader=RowReader(application="shop"))
    assert (first.queries.inserted, second.events.inserted) == (2, 1)
    assert second.left_out.keys() == {"no query id"}
    lamp, bulb = ClickstreamStore(connection).sessions("shop")
    assert ([r.object_id for r in lamp.search_results], [e.object_id for e in lamp.events]) == (["a", "b"], ["b"])
    assert (bulb.session_id, bulb.events) == ("2", [])


def test_an_import_that_was_stopped_goes_on_and_counts_all_of_it(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    documents = log(1800, "somebody who has a long name, so that the file has several pages {}")
    content = "".join(json.dumps(document) + "\n" for document in documents).encode()
    path = tmp_path / "log.ndjson.gz"
    packed = gzip.compress(content)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    with pytest.raises(DataError, match="cannot be read"):
        import_log(connection, str(path), commit=True)
    connection.rollback()
    before = len(rows(connection))
    assert before > 500
    path.write_bytes(packed)
    seen: list[Progress] = []
    with progress_to(seen.append):
        found = import_log(connection, str(path), commit=True)
    assert 2000 <= found.resumed < found.documents == len(documents)
    assert (found.queries.inserted, found.events.inserted) == (1200, 3600)
    assert (seen[-1].total, seen[-1].done) == (len(packed), len(packed))
    again = import_log(connection, str(path), commit=True)  # it ended: nothing to go on with
    assert (again.resumed, again.queries.inserted, again.events.inserted) == (0, 0, 0)


def test_another_log_under_the_same_name_is_read_from_its_start(connection: psycopg.Connection, tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(d) + "\n" for d in log(700)).encode())[:-2000])
    with pytest.raises(DataError):
        import_log(connection, str(path), commit=True)
    connection.rollback()
    path.write_bytes(gzip.compress("".join(json.dumps(d) + "\n" for d in log(40, "another {}")).encode()))
    assert import_log(connection, str(path), commit=True).resumed == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>404</body></html>", r"neither JSON nor Parquet nor a table .* begins with '<html>"),
        (b"\x00\x01\x02\x03" * 50, "neither JSON nor Parquet nor a table"),
        (b"", "is empty"),
        (b"  \n\n", "is empty"),
        (b"name,price\nlamp,30\n", "neither JSON nor Parquet nor a table"),
        (b"query_id,query_id,user_query\n1,2,lamp\n", "columns of one name: query_id"),
        (b"PAR1 and nothing else", "is no Parquet file"),
        (b"\x1f\x8b and nothing else", "cannot be read"),
        (b"PK\x03\x04 and nothing else", "cannot be read"),
        (b"BZh and nothing else", "cannot be read"),
    ],
)
def test_what_is_no_log_is_refused_by_name(
    connection: psycopg.Connection, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        import_log(connection, str(path))
    assert str(path) in str(caught.value)


def test_a_log_that_is_not_there_and_a_folder_are_named(connection: psycopg.Connection, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.ndjson cannot be read"):
        import_log(connection, str(tmp_path / "absent.ndjson"))
    with pytest.raises(DataError, match="is a folder"):
        import_log(connection, str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        import_log(connection, "nowhere://host/log")
    with pytest.raises(DataError) as caught:
        import_log(connection, "http://reader:s3cret@127.0.0.1:1/log")
    assert "s3cret" not in str(caught.value)


_TABLE = ["query_id,user_query,timestamp,application,hits", "g1,lamp,1709283600,odd,1|2", "g2,chair,1709283600,odd,1"]
_SEARCH_LINE = '{"query_id": "%s", "user_query": "%s", "timestamp": %s, "application": "odd", "hits": ["1"]}'
_GOOD_LINES = [_SEARCH_LINE % ("g1", "lamp", 1709283600), _SEARCH_LINE % ("g2", "chair", 1709283600)]


def _between(first: str, odd: str, last: str) -> str:
    return "\n".join([first, odd, last, ""])


@pytest.mark.parametrize(
    ("content", "reason", "place"),
    [
        (_between("\n".join(_TABLE[:2]), 'b,"red lamp,1709283600,odd,1', _TABLE[2]), "no row of a table", "line 3"),
        (_between("\n".join(_TABLE[:2]), 'b,"5" nail",1709283600,odd,1', _TABLE[2]), "no row of a table", "line 3"),
        (_between("\n".join(_TABLE[:2]), 'b,"red\nlamp",odd,1', _TABLE[2]), "not as many columns", "line 3"),
        (_between(_GOOD_LINES[0], _SEARCH_LINE % ("b", "x", '"1e99999999"'), _GOOD_LINES[1]), "implausible", "line 2"),
        (_between(_GOOD_LINES[0], _SEARCH_LINE % ("b", "x", '"1e999999999999999999999"'), _GOOD_LINES[1]),
         "implausible", "line 2"),
    ],
)  # fmt: skip
def test_one_bad_row_is_left_out_and_its_neighbours_are_taken(
    connection: psycopg.Connection, tmp_path: Path, content: str, reason: str, place: str
) -> None:
    path = tmp_path / "log"
    path.write_text(content)
    found = import_log(connection, str(path))
    [(why, skipped), *_] = sorted(found.left_out.items(), key=lambda each: place not in each[1].example)
    assert reason in why
    assert skipped.example.startswith(f"{place}: ")
    asked = connection.execute("SELECT query_id, user_query FROM estudio.ubi_queries ORDER BY 1").fetchall()
    assert asked == [("g1", "lamp"), ("g2", "chair")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_text_that_is_none_of_its_encoding_is_its_row_s_fault(
    connection: psycopg.Connection, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "log"
    text = _between(_GOOD_LINES[0], _SEARCH_LINE % ("b", "la\ud800mp", 1709283600), _GOOD_LINES[1])
    path.write_bytes(text.encode(encoding, "surrogatepass") + b"x")
    found = import_log(connection, str(path))
    assert {why: skipped.count for why, skipped in found.left_out.items()} == {"a text is not UTF-8": 2}
    assert found.queries.inserted == 2


def test_a_value_of_a_parquet_file_that_python_has_nothing_for_is_its_row_s_fault(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    moments = [1709283600_000_000, 2**62, 1709283601_000_000]
    columns = {"query_id": ["g1", "b", "g2"], "user_query": ["x", "y", "z"], "application": [b"odd"] * 3}
    pq.write_table(pa.table({**columns, "timestamp": pa.array(moments, pa.timestamp("us", "UTC"))}), path)
    found = import_log(connection, str(path))
    assert found.skipped == ("a value that cannot be read: 1, as row 2: date value out of range",)
    asked = connection.execute('SELECT query_id, application, "timestamp" FROM estudio.ubi_queries ORDER BY 1')
    assert [(key, of, at.timestamp() * 1e6) for key, of, at in asked] == [
        ("g1", "odd", moments[0]), ("g2", "odd", moments[2]),
    ]  # fmt: skip
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["query_id", "query_id"])
    pq.write_table(twice, path)
    with pytest.raises(DataError, match="columns of one name: query_id"):
        import_log(connection, str(path))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "Z", "+05:30", "Europe/Kyiv"])
def test_times_of_a_parquet_file_are_right_whatever_their_zone_is_called(
    connection: psycopg.Connection, tmp_path: Path, zone: str
) -> None:
    at = pa.array([1709283600_000_000, 1709283601_000_000], pa.timestamp("us", zone))
    table = pa.table({"query_id": ["a", "b"], "user_query": ["x", "y"], "application": ["shop"] * 2, "timestamp": at})
    pq.write_table(table, tmp_path / "log.parquet")
    assert import_log(connection, str(tmp_path / "log.parquet")).skipped == ()
    assert [at for (at,) in connection.execute('SELECT "timestamp" FROM estudio.ubi_queries ORDER BY 1')] == [
        MORNING, MORNING + timedelta(seconds=1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "value", "told"), [(6, 1, "encrypted"), (8, 99, "compression method is not supported|compression type 99")]
)
def test_an_archive_that_cannot_be_opened_is_named(
    connection: psycopg.Connection, tmp_path: Path, what: int, value: int, told: str
) -> None:
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("log", _GOOD_LINES[0])
    stored = bytearray(path.read_bytes())
    for place in (stored.find(b"PK\x03\x04") + what, stored.find(b"PK\x01\x02") + what + 2):
        stored[place] = value
    path.write_bytes(stored)
    with pytest.raises(DataError, match=rf"log\.zip cannot be read: .*({told})"):
        import_log(connection, str(path))


_VALUES = ["1", "q", "2024-03-01T09:00:00Z", 1709283600, "click", 10**400, 1e308, "\\u0000", "\ud800", "[1,", "{}"]
_ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(_VALUES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_SEARCH = {"application": "a", "query_id": "q", "timestamp": 1709283600, "user_query": "lamp"}
_CLICK = {"application": "a", "query_id": "q", "timestamp": 1709283600, "action_name": "click", "object_id": "x"}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    documents=st.lists(
        st.builds(
            lambda odd, usual: {**usual, **odd},
            st.dictionaries(st.sampled_from(_NAMES), _ODD, max_size=6),
            st.sampled_from([_SEARCH, _CLICK, {}]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_a_document_holds_it_is_taken_or_left_out_and_counted(
    connection: psycopg.Connection, tmp_path: Path, documents: list[dict[str, Any]]
) -> None:
    found = import_log(connection, written(tmp_path / "log.ndjson", documents))
    left_out = sum(skipped.count for skipped in found.left_out.values())
    assert found.documents >= len(documents)
    assert "unreadable" not in " ".join(found.left_out)
    assert left_out <= found.documents
    for session in ClickstreamStore(connection).sessions("a"):
        assert session.query.strip()
    connection.rollback()


def test_columns_and_applications_may_have_names_of_their_own(connection: psycopg.Connection, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("suche;wort;artikel;platz;aktion;zeit;app\n7;Lampe;L1;1;Klick;2024-03-01T10:00:00;web\n")
    command = ["clickstream", "import", str(path), "--rename", "web=lamps", "--click", "Klick=2.5"]
    names = {"query_id": "suche", "user_query": "wort", "object_id": "artikel", "position": "platz", "action": "aktion"}
    for ours, theirs in {**names, "timestamp": "zeit"}.items():
        command += ["--column", f"{ours}={theirs}"]
    answer = CliRunner().invoke(app, [*command, "--timezone", "Europe/Berlin"])
    assert answer.exit_code == 0, answer.output
    (session,) = ClickstreamStore(connection).sessions("lamps")
    assert (session.query, session.created_at) == ("Lampe", int(MORNING.timestamp()))
    assert [(e.object_id, e.importance) for e in session.events] == [("L1", 2.5)]
    wrong = [
        ["--column", "querry=q"],
        ["--column", "query_id"],
        ["--timezone", "Mars"],
        ["--click", "x=y"],
        ["--click", "x=0"],
    ]
    for options in wrong:
        answer = CliRunner().invoke(app, ["clickstream", "import", str(path), "-a", "x", *options])
        assert answer.exit_code == 1, options
        assert isinstance(answer.exception, SystemExit), options


def test_what_an_application_declares_holds_for_old_rows_too(connection: psycopg.Connection, tmp_path: Path) -> None:
    search = {"application": "shop", "query_id": 1, "user_query": "lamp", "timestamp": MORNING.isoformat()}
    tap = {
        "application": "shop",
        "query_id": 1,
        "action_name": "tap",
        "timestamp": MORNING.isoformat(),
        "object_id": "c",
    }
    import_log(connection, written(tmp_path / "log.ndjson", [search, {**tap, "position": 2}]))
    store = ClickstreamStore(connection)
    assert (store.count_sessions("shop", clicked_only=True), next(store.sessions("shop")).search_results) == (0, [])
    declare(connection, "shop", first_position=0, clicks={"tap": 1.5})
    (session,) = store.sessions("shop")
    assert [(r.object_id, r.position) for r in session.search_results] == [("c", 2)]
    assert [(e.object_id, e.importance) for e in session.events] == [("c", 1.5)]
    assert store.count_sessions("shop", clicked_only=True) == 1
    declare(connection, "shop", clicks={"press": 1})  # what was said before stays
    assert next(store.sessions("shop")).events[0].importance == 1.5
    (seen,) = import_log(connection, str(tmp_path / "log.ndjson")).applications
    assert (seen.events, seen.clicks) == (1, 1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_how_a_list_was_asked_for_is_said_of_its_first_page(
    connection: psycopg.Connection, tmp_path: Path, order: tuple[int, ...]
) -> None:
    search = {"application": "shop", "query_id": 1, "user_query": "lamp"}
    pages = [
        {**search, "timestamp": (MORNING + timedelta(seconds=number)).isoformat()}
        | {"query_response_hit_ids": [f"{number}{place}" for place in range(3)]}
        | ({"query_attributes": {"pageNumber": number + 1, "size": 3, "device": f"d{number}"}} if number else {})
        for number in range(3)
    ]
    import_log(connection, written(tmp_path / "log.ndjson", [pages[number] for number in order]))
    (session,) = ClickstreamStore(connection).sessions("shop")
    assert [result.object_id for result in session.search_results] == [f"{n}{p}" for n in range(3) for p in range(3)]
    assert (offset_of(session), is_by_relevance(session)) == (0, True)
    assert session.search_meta == {"device": "d1"}


def test_how_an_engine_was_asked_is_kept_by_any_of_its_names(connection: psycopg.Connection, tmp_path: Path) -> None:
    search = {"application": "shop", "timestamp": MORNING.isoformat(), "hits": ["a", "b"]}
    asked = [{"hitsPerPage": 2, "page": 1}, {"facetFilters": [["brand:acme"]]}, {"orderBy": "price"}, {}]
    rows = [{**search, "query_id": number, "query": f"lamp {number}", **said} for number, said in enumerate(asked)]
    import_log(connection, written(tmp_path / "log.ndjson", rows))
    found = {str(session.query): session for session in ClickstreamStore(connection).sessions("shop")}
    assert [is_by_relevance(found[f"lamp {number}"]) for number in range(4)] == [False, False, False, True]
    assert offset_of(found["lamp 0"]) == 2


@pytest.mark.parametrize("broken", ['{"query_id": 1, "user_query" "lamp"}', '{"query_id": NaN}', '{"a": [1, }'])
def test_what_follows_a_broken_document_is_read(connection: psycopg.Connection, tmp_path: Path, broken: str) -> None:
    search = {"application": "shop", "timestamp": MORNING.isoformat(), "user_query": "lamp", "hits": ["a", "b"]}
    laid_out = [json.dumps({**search, "query_id": number}, indent=2) for number in range(40)]
    laid_out[3] = broken
    for name, text in (("list", "[\n" + ",\n".join(laid_out) + "\n]"), ("one after another", "\n".join(laid_out))):
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        found = import_log(connection, str(path))
        assert (found.documents, sum(each.count for each in found.left_out.values())) == (40, 1), name
        assert "document 4" in next(iter(found.left_out.values())).example


def test_a_client_is_forgotten_and_no_old_log_brings_them_back(connection: psycopg.Connection, tmp_path: Path) -> None:
    documents = [
        *log(6, "c{}"),
        {
            "application": "app1",
            "query_id": "0",
            "action_name": "click",
            "timestamp": MORNING.isoformat(),
            "object_id": "i13",
        },
    ]
    path = written(tmp_path / "log.ndjson", documents)
    import_log(connection, path)
    before = rows(connection)
    gone = forget(connection, "c1")
    assert gone == Deleted(queries=1, events=3)  # one of them names no client, and follows that client's search
    left = rows(connection)
    assert len(left) == len(before) - 4
    assert "c1" not in {row[0].get("client_id") for row in left}
    again = import_log(connection, path)
    assert again.left_out["of a client that was forgotten"].count == 6
    assert not [row for row in rows(connection) if row[0].get("client_id") == "c1"]
    assert "c1" not in json.dumps(connection.execute("SELECT digest FROM estudio.forgotten_clients").fetchall())
    # Somebody who comes back is a new client.
    later = {"application": "app1", "query_id": "new", "client_id": "c1", "user_query": "lamp"}
    later["timestamp"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert import_log(connection, written(tmp_path / "later.ndjson", [later])).queries.inserted == 1
    with pytest.raises(ConfigurationError, match="blank"):
        forget(connection, " ")


def test_old_rows_expire(connection: psycopg.Connection, tmp_path: Path) -> None:
    import_log(connection, written(tmp_path / "log.ndjson", log(6)))
    new = {"application": "app0", "query_id": "new", "user_query": "lamp", "timestamp": datetime.now(UTC).isoformat()}
    import_log(connection, written(tmp_path / "new.ndjson", [new]))
    assert expire(connection, 30, "app1") == Deleted(queries=3, events=6)
    assert expire(connection, 30) == Deleted(queries=3, events=6)
    assert [session.session_id for session in ClickstreamStore(connection).sessions("app0")] == ["new"]
    connection.commit()
    answer = CliRunner().invoke(app, ["clickstream", "expire"])
    assert answer.exit_code == 1
    assert "ESTUDIO_CLICKSTREAM_DAYS" in answer.output


def test_the_table_of_an_import_is_json_for_programs(connection: psycopg.Connection, tmp_path: Path) -> None:
    path = written(tmp_path / "log.ndjson", [*log(2), {"application": "app0", "user_query": "no id"}])
    answer = CliRunner().invoke(app, ["clickstream", "import", path, "--json"])
    (found,) = json.loads(answer.output)
    assert (found["documents"], found["searches"]["inserted"], found["events"]) == (
        10,
        1,
        {"inserted": 4, "duplicates": 2},
    )
    assert found["left_out"]["no query id"]["count"] == 1
    assert re.match("line 10: ", found["left_out"]["no query id"]["example"])
    (check,) = json.loads(CliRunner().invoke(app, ["clickstream", "check", "app1", "--json"]).output)
    assert (check["verdict"], check["facts"]["searches"]) == ("wait", 1)


def test_an_import_without_a_commit_is_the_callers(connection: psycopg.Connection, tmp_path: Path) -> None:
    found: Imported = ClickstreamStore(connection).import_ubi(Path(written(tmp_path / "log.ndjson", log(2))))
    assert found.queries.inserted == 1
    connection.rollback()
    assert rows(connection) == []
