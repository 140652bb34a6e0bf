"""Graded judgments from files and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from estudio_core import database
from estudio_core.errors import ConfigurationError, DataError, SourceSchemaError
from estudio_core.evaluation.judgments import Judgments


def test_a_csv_file_with_columns_of_any_name(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text('query,docid,rating\n"cable, usb",7,3\n"cable, usb",8,0\nmouse,7,1.5\n')
    judgments = Judgments.from_csv(file, object_id="docid", grade="rating")
    assert {query: dict(grades) for query, grades in judgments.items()} == {
        "cable, usb": {"7": 3.0, "8": 0.0},
        "mouse": {"7": 1.5},
    }
    assert judgments.pairs == 3
    assert judgments.object_ids == {"7", "8"}


def test_a_csv_file_of_a_spreadsheet(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_bytes("\ufeffquery,object_id,grade\r\nKäse,7,3\r\n".encode())
    assert dict(Judgments.from_csv(file)) == {"Käse": {"7": 3.0}}
    file.write_bytes("query,object_id,grade\nKäse,7,3\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read"):
        Judgments.from_csv(file)


def test_a_missing_column_and_a_grade_that_is_no_number_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ratings.csv"
    file.write_text("query,object_id,grades\nq,1,high\n")
    with pytest.raises(DataError, match=r"no column 'grade'\. Did you mean 'grades'"):
        Judgments.from_csv(file)
    with pytest.raises(DataError, match="line 2: the grade 'high'"):
        Judgments.from_csv(file, grade="grades")
    with pytest.raises(DataError, match="cannot be read"):
        Judgments.from_csv(tmp_path / "absent.csv")


def test_a_table_with_columns_of_any_name(estudio_home: Path) -> None:
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Human ratings" ("text" text, item bigint, stars int)')
        connection.execute("""INSERT INTO "Human ratings" VALUES ('mouse', 7, 3), ('mouse', 9, 0), ('cable', 7, 2)""")
        columns = {"query": "text", "object_id": "item", "grade": "stars"}
        judgments = Judgments.from_table(connection, "Human ratings", schema="public", **columns)
        assert dict(judgments["mouse"]) == {"7": 3.0, "9": 0.0}
        assert list(judgments) == ["cable", "mouse"]
        with pytest.raises(SourceSchemaError, match="grade"):
            Judgments.from_table(connection, "Human ratings", query="text", object_id="item")


def test_a_table_with_odd_rows(estudio_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with database.connect() as connection:
        connection.execute("CREATE TABLE ratings (query text, object_id text, grade text)")
        rows = "('mouse', '7', '2.5'), ('mouse', '8', NULL), ('mouse', '9', '-1'), ('cable', '7', 'n/a')"
        connection.execute(f"INSERT INTO ratings VALUES {rows}")
        judgments = Judgments.from_table(connection, "ratings")
        assert {query: dict(of) for query, of in judgments.items()} == {"mouse": {"7": 2.5, "9": 0.0}}
        assert "2 pairs have no grade" in caplog.text
        assert "1 grades are negative" in caplog.text
        for query, grade, reason in (("NULL", "'1'", "the query is None"), ("'x'", "'high'", "'high' is no number")):
            with connection.transaction(force_rollback=True):
                connection.execute(f"INSERT INTO ratings VALUES ({query}, 'a', {grade})")
                with pytest.raises(DataError, match=reason):
                    Judgments.from_table(connection, "ratings")


@pytest.mark.parametrize(
    "odd",
    [{"mouse": {"7": "high"}}, {"mouse": {"7": None}}, {"mouse": 7}, {"mouse": {"7": 10**400}}, {None: {"7": 1}},
     {"mouse": {7.5: 1}}],
)  # fmt: skip
def test_what_is_no_judgment_is_refused(odd: Any) -> None:
    with pytest.raises((DataError, ConfigurationError)):
        Judgments(odd)
    assert dict(Judgments({"mouse": {7: 1}})["mouse"]) == {"7": 1.0}  # type: ignore[dict-item]


@pytest.mark.parametrize("grade", [-1.0, float("nan"), float("inf")])
def test_grades_are_finite_and_not_negative(grade: float) -> None:
    with pytest.raises(DataError, match="'mouse'"):
        Judgments({"mouse": {"7": grade}})


def test_blank_queries_and_contradictions_are_refused() -> None:
    with pytest.raises(DataError, match="blank"):
        Judgments({" ": {"7": 1}})
    with pytest.raises(DataError, match="3 and 1"):
        Judgments.from_rows([("q", "7", 3), ("q", "8", 1), ("q", "7", 1)])


def test_parts_of_the_queries() -> None:
    judgments = Judgments({"a": {"1": 3}, "b": {"1": 0}, "c": {"2": 1}})
    assert list(judgments.only(["c", "a", "absent"])) == ["a", "c"]
    assert list(judgments.answerable()) == ["a", "c"]
