"""Graded relevance judgments: for a query, how relevant each judged object is."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from estudio_core.clickstream.query_retriever import query_key
from estudio_core.errors import ConfigurationError, DataError, SourceSchemaError, shown
from estudio_core.evaluation.judgment_files import Judged, JudgmentFile, collect, read_judgments
from estudio_core.ids import as_id, listed

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger(__name__)


class Judgments(Mapping[str, Mapping[str, float]]):
    """Grades by query and object id. Grade 0 is irrelevant; an object without a grade counts as 0.

    >>> judgments = Judgments({"usb cable": {"7": 3, "9": 0}, "aa": {"7": 0}})
    >>> judgments["usb cable"]["7"]
    3.0
    >>> list(judgments.answerable())
    ['usb cable']

    Raises:
        DataError: a grade is no number, negative or not finite, or a query is blank.
        ConfigurationError: a query or an object id is neither a text nor an integer.
    """

    def __init__(self, grades: Mapping[str, Mapping[str, float]]) -> None:
        try:
            self._grades = {
                as_id(query, "A judged query"): {
                    as_id(object_id, "A judged object"): float(grade) for object_id, grade in of_query.items()
                }
                for query, of_query in grades.items()
            }
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(
                f"Judgments are {{query: {{object id: grade}}}}, grades numbers: {error!s:.200}."
            ) from error
        for query, of_query in self._grades.items():
            if not query.strip():
                raise DataError("A judged query is blank. Every judgment needs the text of its query.")
            wrong = {key: grade for key, grade in of_query.items() if not (math.isfinite(grade) and grade >= 0)}
            if wrong:
                raise DataError(f"Grades of {query!r} must be finite and at least 0; got {shown(wrong)}.")

    def __getitem__(self, query: str) -> Mapping[str, float]:
        """Return the grades of a query by object id; KeyError where it was not judged."""
        return self._grades[query]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the queries, in the order given."""
        return iter(self._grades)

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self._grades)

    @property
    def pairs(self) -> int:
        """Number of judged (query, object) pairs."""
        return sum(len(of_query) for of_query in self._grades.values())

    @property
    def object_ids(self) -> set[str]:
        """Ids of all judged objects."""
        return {object_id for of_query in self._grades.values() for object_id in of_query}

    def only(self, queries: Iterable[str]) -> Judgments:
        """Return the judgments of `queries`; those not judged are left out."""
        wanted = set(queries)
        return Judgments({query: grades for query, grades in self._grades.items() if query in wanted})

    def answerable(self) -> Judgments:
        """Return the judgments of queries with at least one object of a grade above 0."""
        return Judgments({query: grades for query, grades in self._grades.items() if any(grades.values())})

    def with_one_spelling(self) -> Judgments:
        """Return the judgments with a query's spellings joined under the first, see `query_key`.

        An object that several spellings grade gets the mean.

        >>> dict(Judgments({"Lamp": {"7": 3, "9": 1}, "lamp ": {"7": 1}}).with_one_spelling())
        {'Lamp': {'7': 2.0, '9': 1.0}}
        """
        grades: dict[str, dict[str, list[float]]] = {}
        first: dict[str, str] = {}
        for query, of_query in self._grades.items():
            joined = grades.setdefault(first.setdefault(query_key(query), query), {})
            for object_id, grade in of_query.items():
                joined.setdefault(object_id, []).append(grade)
        return Judgments({q: {o: sum(found) / len(found) for o, found in of.items()} for q, of in grades.items()})

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, str, float]]) -> Judgments:
        """Build from (query, object id, grade); what is left out or changed is logged, as of `from_csv`.

        Raises:
            DataError: a pair stands twice with different grades, a grade is no number, or a text is blank.
        """
        return cls._noted("The judgments", collect("The judgments", _judged(rows), "rows"))

    @classmethod
    def _noted(cls, source: object, found: JudgmentFile) -> Judgments:
        for note in found.notes:
            logger.warning("%s: %s", source, note)
        return cls(found.grades)

    @classmethod
    def from_csv(
        cls, path: Path | str, *, query: str = "query", object_id: str = "object_id", grade: str = "grade"
    ) -> Judgments:
        """Read a CSV file with a header; the arguments name its columns.

        Pairs without a grade are left out, grades below 0 count as 0; how many is logged. `judgment_files` reads other
        forms.

        Raises:
            DataError: the file cannot be read, a column is missing, a row has more or fewer columns than the header, or
                a grade is no number.
        """
        return cls.from_file(path, query=query, object_id=object_id, grade=grade)

    @classmethod
    def from_file(
        cls, path: Path | str, *, query: str | None = None, object_id: str | None = None, grade: str | None = None
    ) -> Judgments:
        """Read a file of any form that `judgment_files.read_judgments` knows; arguments and errors as of `from_csv`."""
        return cls._noted(path, read_judgments(Path(path), query=query, object_id=object_id, grade=grade))

    @classmethod
    def from_table(
        cls,
        connection: psycopg.Connection,
        table: str,
        *,
        schema: str | None = None,
        query: str = "query",
        object_id: str = "object_id",
        grade: str = "grade",
    ) -> Judgments:
        """Read a PostgreSQL table; the arguments name its columns. What is left out is logged, as of `from_csv`.

        Raises:
            SourceSchemaError: the table or a column does not exist.
            DataError: as `from_rows`.
        """
        import psycopg
        from psycopg import sql

        from estudio_core.database import errors_named

        for name in (table, query, object_id, grade, *([schema] if schema else [])):
            if not isinstance(name, str):
                raise ConfigurationError(f"Tables and columns have names that are texts; given {shown(name)}.")
        statement = sql.SQL("SELECT {}::text, {}::text, {}::text FROM {} ORDER BY 1, 2").format(
            sql.Identifier(query),
            sql.Identifier(object_id),
            sql.Identifier(grade),
            sql.Identifier(*([schema] if schema else []), table),
        )
        with errors_named():
            try:
                rows = connection.execute(statement).fetchall()
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                raise SourceSchemaError(f"Judgments cannot be read from {shown(table)}: {error!s:.300}.") from error
        return cls.from_rows(rows)


def _judged(rows: Iterable[tuple[str, str, float]]) -> Iterator[Judged]:
    for place, row in enumerate(listed(rows, "rows", "(query, object id, grade)"), start=1):
        try:
            query, object_id, grade = listed(row, "a row", "values")
        except (ConfigurationError, ValueError):
            raise DataError(f"Row {place} is no (query, object id, grade): {shown(row)}.") from None
        yield Judged(f"row {place} ({shown(query)}, {shown(object_id)})", query, object_id, grade)
