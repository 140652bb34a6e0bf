"""Whatever a program logs or judges: stored as it is, as the id that a number stands for, or refused by its name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest

from estudio_core import database
from estudio_core.clickstream.store import ClickstreamStore
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import EstudioError
from estudio_core.evaluation.judgments import Judgments

NOW = datetime(2026, 2, 3, tzinfo=UTC)
QUERY: dict[str, Any] = {"query_id": "q", "user_query": "lamp", "timestamp": NOW, "application": "shop",
                         "query_response_hit_ids": ("a",)}  # fmt: skip
EVENT: dict[str, Any] = {"event_id": "e", "action_name": "click", "query_id": "q", "timestamp": NOW,
                         "application": "shop"}  # fmt: skip


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("says nothing of itself")


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


ODD: list[Any] = [
    None, True, "", " ", "\0", "\ud800", "x" * 2_000_000, b"x", bytearray(b"x"), 0, -1, 10**5000, 2**63, 1.5, math.nan,
    math.inf, np.int64(3), np.float32(2.5), np.str_("x"), np.True_, np.array([1, 2]), np.array(3), Decimal("sNaN"),
    Decimal("1e5000"), Fraction(1, 3), 1j, NOW.date(), UUID(int=7), Path("x"), object(), [], {}, (), set(), [[]],
    nested(5_000), range(3), type, Unspeakable(), {"a": 10**5000}, [math.nan], [Unspeakable()], ["w"] * 33_000,
]  # fmt: skip


def require_taken_or_refused(asked: Mapping[str, Callable[[Any], object]]) -> None:
    """Give each odd value to each of `asked`: it is taken, or refused by an error of ours in few words."""
    raw: list[tuple[str, str, str]] = []
    for what, ask in asked.items():
        for odd in ODD:
            try:
                ask(odd)
            except EstudioError as error:
                if len(str(error)) > 5_000:
                    raw.append((what, type(odd).__name__, "a long message"))
            except Exception as error:
                raw.append((what, type(odd).__name__, repr(error)[:200]))
    assert raw == [], "\n".join(map(str, raw))


@pytest.fixture
def connection(estudio_home: object) -> Iterator[psycopg.Connection]:
    with database.connect(autocommit=True) as connection:
        yield connection


def test_any_value_of_any_field_is_taken_or_refused_by_us(connection: psycopg.Connection, tmp_path: Path) -> None:
    store = ClickstreamStore(connection)
    asked: dict[str, Callable[[Any], object]] = {
        "queries": lambda odd: store.log_queries(odd),
        "a query": lambda odd: store.log_queries([odd]),
        "events": lambda odd: store.log_events(odd),
        "an event": lambda odd: store.log_events([odd]),
        "irrelevant": lambda odd: store.mark_irrelevant(odd),
        "sessions": lambda odd: list(store.sessions(odd)),
        "since": lambda odd: list(store.sessions("shop", since=odd)),
        "limit": lambda odd: list(store.sessions("shop", limit=odd)),
        "count": lambda odd: store.count_sessions(odd),
        "judgments": lambda odd: Judgments(odd),
        "of a query": lambda odd: Judgments({"q": odd}),
        "a grade": lambda odd: Judgments({"q": {"a": odd}}),
        "rows": lambda odd: Judgments.from_rows(odd),
        "a row": lambda odd: Judgments.from_rows([odd]),
        "its query": lambda odd: Judgments.from_rows([(odd, "a", 1)]),
        "its object": lambda odd: Judgments.from_rows([("q", odd, 1)]),
        "its grade": lambda odd: Judgments.from_rows([("q", "a", odd)]),
        "a table": lambda odd: Judgments.from_table(connection, odd),
        "a column": lambda odd: Judgments.from_table(connection, "pg_class", grade=odd),
    }
    for name in (*UbiQuery.__dataclass_fields__,):
        asked[f"query {name}"] = lambda odd, name=name: store.log_queries([UbiQuery(**QUERY | {name: odd})])
    for name in (*UbiEvent.__dataclass_fields__,):
        asked[f"event {name}"] = lambda odd, name=name: store.log_events([UbiEvent(**EVENT | {name: odd})])
    require_taken_or_refused(asked)


@pytest.mark.parametrize(
    ("kind", "field", "given", "stored"),
    [
        (UbiQuery, "query_id", 7, "7"), (UbiQuery, "application", np.int64(7), "7"),
        (UbiQuery, "client_id", UUID(int=7), str(UUID(int=7))), (UbiQuery, "query_response_scores", [0.5], [0.5]),
        (UbiQuery, "query_response_scores", np.array([0.5]), [0.5]), (UbiEvent, "event_id", 7, "7"),
        (UbiEvent, "object_id", 2**70, str(2**70)), (UbiEvent, "position_ordinal", np.int32(3), 3),
        (UbiQuery, "user_query", 7, "user_query of a UbiQuery is a text; given 7"),
        (UbiQuery, "query_id", True, "given True"), (UbiQuery, "query_id", 1.5, "given 1.5"),
        (UbiQuery, "query_id", None, "given None"), (UbiQuery, "user_id", {"a": 1}, "given {'a': 1}"),
        (UbiQuery, "timestamp", "2026-01-01", "is a datetime"), (UbiQuery, "query_attributes", None, "an object"),
        (UbiEvent, "event_attributes", "x", "an object"), (UbiEvent, "position_ordinal", True, "is an integer"),
        (UbiEvent, "position_ordinal", 1.0, "is an integer"), (UbiEvent, "object_id", ["a"], "given ['a']"),
        (UbiEvent, "action_name", b"click", "is a text"), (UbiQuery, "query_response_scores", "0.5", "is a list"),
    ],
)  # fmt: skip
def test_a_value_is_stored_as_what_it_stands_for_or_refused_by_name(
    connection: psycopg.Connection, kind: type[UbiQuery] | type[UbiEvent], field: str, given: Any, stored: Any
) -> None:
    store = ClickstreamStore(connection)
    log, table, base = (
        (store.log_queries, "ubi_queries", QUERY) if kind is UbiQuery else (store.log_events, "ubi_events", EVENT)
    )
    refused = isinstance(stored, str) and " " in stored
    if refused:
        with pytest.raises(EstudioError) as caught:
            log([kind(**base), kind(**base | {field: given})])  # type: ignore[arg-type]
        assert stored in str(caught.value)
        assert connection.execute(f"SELECT count(*) FROM estudio.{table}").fetchone() == (0,)
    else:
        assert log([kind(**base | {field: given})]).inserted == 1  # type: ignore[arg-type]
        assert connection.execute(f"SELECT {field} FROM estudio.{table}").fetchone() == (stored,)


def test_judgments_of_numpy_and_from_a_path_that_is_a_text(tmp_path: Path) -> None:
    rows = np.array([["lamp", 7, 3], ["lamp", 9, 0.5]], dtype=object)
    assert dict(Judgments.from_rows(rows)) == {"lamp": {"7": 3.0, "9": 0.5}}
    rows = [("lamp", np.int64(7), np.int64(3)), ("lamp", 9.0, np.float32(0.5))]  # type: ignore[assignment]
    assert dict(Judgments.from_rows(rows)) == {"lamp": {"7": 3.0, "9": 0.5}}
    (tmp_path / "grades.csv").write_text("query,object_id,grade\nlamp,7,3\n")
    assert dict(Judgments.from_csv(str(tmp_path / "grades.csv"))) == {"lamp": {"7": 3.0}}
