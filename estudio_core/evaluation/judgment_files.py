"""Judgments and rankings in the forms of others: TREC, Quepid, OpenSearch's Search Relevance Workbench, tables.

What a form leaves open is said by `JudgmentFile`: pairs without a grade are left out and counted, negative ones (TREC's
for junk) are 0 and counted. A row of another shape than its file refuses the file, with its line: what stands in
its columns cannot be known, and a table that is shifted in one row may be in more.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TextIO

from estudio_core.errors import ConfigurationError, DataError, shown, suggest
from estudio_core.ids import as_id

Form = Literal["csv", "qrels", "quepid", "workbench"]
FORMS: tuple[Form, ...] = ("csv", "qrels", "quepid", "workbench")

QUERY_NAMES = ("query", "query_text", "querytext", "user_query", "search_term", "keyword", "keywords", "q")
OBJECT_NAMES = ("object_id", "docid", "doc_id", "document_id", "documentid", "doc", "product_id", "item_id", "id")
GRADE_NAMES = ("grade", "rating", "relevance", "judgment", "judgement", "score", "label")
RATER_NAMES = ("rater", "user", "username", "judge", "annotator", "rated_by")

_DELIMITERS = ",;\t|"
_LARGEST = 1 << 30
_QRELS = re.compile(r"^\S+[ \t]+\S+[ \t]+\S+[ \t]+[+-]?\d+$")
_UNRATED = frozenset({"", "null", "none", "nan", "-", "n/a", "unrated"})
_QUERY_FILE = ".queries.tsv"
_JSON_BLANKS = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 16
_NEAR_END = 16
"""Letters before the end of what was read of a JSON text in which an error may only be that its rest is missing."""


@dataclass(frozen=True)
class JudgmentFile:
    """Judgments as a file holds them.

    Attributes:
        grades: Grades by query and object, as `Judgments` takes them.
        form: What the file is.
        unrated: Pairs without a grade, which were left out.
        negative: Grades below 0, which count as 0.
        averaged: Pairs that several raters graded, which have the mean.
    """

    grades: dict[str, dict[str, float]]
    form: str
    unrated: int = 0
    negative: int = 0
    averaged: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or changed, a sentence each."""
        said = (
            (self.unrated, "pairs have no grade and were left out"),
            (self.negative, "grades are negative and count as 0"),
            (self.averaged, "pairs were graded by several and have the mean"),
        )
        return tuple(f"{count} {what}." for count, what in said if count)


@dataclass(frozen=True)
class Judged:
    """A row of judgments as it was given, and where it stands."""

    where: str
    query: Any
    object_id: Any
    grade: Any
    rater: str | None = None


def read_judgments(
    path: Path,
    *,
    query: str | None = None,
    object_id: str | None = None,
    grade: str | None = None,
    queries: Mapping[str, str] | None = None,
) -> JudgmentFile:
    """Read judgments from a file, whatever form it has.

    Args:
        path: TREC qrels; CSV with commas, semicolons, tabs or bars, with a header or (query, object, grade) without
            one; JSON of the Workbench or of Quepid's cases and books, or a list of objects.
        query: Column or field of the query, where it has another name than those that are known.
        object_id: Likewise of the object's id.
        grade: Likewise of the grade.
        queries: Texts of queries by the ids that qrels name. Without them `<path>.queries.tsv` is read, where it
            stands (id, tab, text); else an id is its own text.

    Raises:
        DataError: the file cannot be read, a row has another shape than the others, a grade is no number, or a pair
            stands twice with different grades.
    """
    names = (query, object_id, grade)
    first = _first_line(path)
    if not first:
        raise DataError(f"The judgments {path} are empty.")
    if first.lstrip()[0] in "[{":
        return collect(path, _json_rows(path, names), "JSON")
    if not any(names) and _QRELS.match(first.strip()):
        return collect(path, _qrels_rows(path, _query_texts(path) if queries is None else queries), "qrels")
    return collect(path, _table_rows(path, names), "table")


@contextmanager
def _opened(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a text for the block; what cannot be read becomes a `DataError`, also while it is read."""
    try:
        with path.open("rb") as file:
            encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with path.open(encoding=encoding, newline=newline) as text:
            yield text
    except (OSError, UnicodeError) as error:
        raise DataError(f"The judgments {path} cannot be read: {error}. They have to be UTF-8.") from error


def _lines(path: Path) -> Iterator[str]:
    """Yield lines without their ends: not `splitlines`, which also breaks at what a text may hold, such as U+2028."""
    with _opened(path) as text:
        for line in text:
            yield line.rstrip("\n")


def _first_line(path: Path) -> str:
    """Return the first line that is not blank, or its beginning where it may be the whole file; "" of an empty one."""
    with _opened(path) as text:
        while line := text.readline(_CHUNK):
            if line.strip():
                return line.rstrip("\n")
    return ""


def collect(source: object, rows: Iterable[Judged], form: str) -> JudgmentFile:
    """Return the judgments of rows of `source`. Raises: as `read_judgments`, for one of them."""
    grades: dict[str, dict[str, dict[str | int | None, float]]] = {}
    unrated = negative = 0
    for place, row in enumerate(rows):
        asked, object_id = _name(row.query, row, source, "query"), _name(row.object_id, row, source, "object id")
        if row.grade is None or (isinstance(row.grade, str) and row.grade.strip().lower() in _UNRATED):
            unrated += 1
            continue
        value = number(row.grade, f"{source}, {row.where}")
        if value < 0:
            negative += 1
            value = 0.0
        of_pair = grades.setdefault(asked, {}).setdefault(object_id, {})
        rater = place if row.rater is not None and not row.rater.strip() else row.rater  # nobody is known: each is one
        if (before := of_pair.setdefault(rater, value)) != value:
            by = "" if row.rater is None else f" by {row.rater!r}"
            raise DataError(
                f"{source}, {row.where}: ({asked!r}, {object_id!r}) is judged {before:g} and {value:g}{by}. Give each "
                "pair one grade."
            )
    averaged = sum(len(found) > 1 for of_query in grades.values() for found in of_query.values())
    means = {
        asked: {o: math.fsum(found.values()) / len(found) for o, found in of.items()} for asked, of in grades.items()
    }
    return JudgmentFile(means, form, unrated, negative, averaged)


def _name(value: Any, row: Judged, source: object, what: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        text = str(value) if isinstance(value, float) else as_id(value)
    except ConfigurationError:
        text = ""
    if not text.strip():
        raise DataError(f"{source}, {row.where}: the {what} is {shown(value)}; a text is needed.")
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{source}, {row.where}: the {what} holds NUL or half of a surrogate pair.")
    return text


def number(given: Any, where: str) -> float:
    """Return a grade as a number.

    Raises:
        DataError: it is none, or not finite.
    """
    if isinstance(given, bool) or not isinstance(given, str | Real):
        raise DataError(f"{where}: the grade {shown(given)} is no number.")
    text = given.strip() if isinstance(given, str) else given
    if isinstance(text, str) and re.fullmatch(r"[+-]?\d+,\d+", text):
        text = text.replace(",", ".")  # as spreadsheets of many countries write it, beside semicolons
    try:
        value = float(text)
    except (ValueError, OverflowError):
        raise DataError(f"{where}: the grade {shown(given)} is no number.") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: the grade {shown(given)} is not finite.")
    return value


def table(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table with the lines at which they begin; blank ones are left out.

    Raises:
        DataError: a row has not as many columns as the first one.
    """
    first = _first_line(path)
    delimiter = max(_DELIMITERS, key=first.count)
    csv.field_size_limit(_LARGEST)
    width = None
    with _opened(path, newline="") as text:
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            begun = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{path}, line {begun}: {error}.") from error
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                continue
            width = width or len(row)
            if len(row) != width:
                raise DataError(
                    f"{path}, line {begun} has {len(row)} columns where the first line has {width}: "
                    f"{delimiter.join(row)!r:.120}. "
                    f"A text that holds {delimiter!r} stands between quotes."
                )
            yield begun, row


def _table_rows(path: Path, names: Sequence[str | None]) -> Iterator[Judged]:
    rows = table(path)
    begun, header = next(rows)
    tidy = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in header]
    places = []
    for given, known in zip(names, (QUERY_NAMES, OBJECT_NAMES, GRADE_NAMES), strict=True):
        if given is not None:
            if given not in (stripped := [cell.strip() for cell in header]):
                raise DataError(f"{path} has no column {given!r}. {suggest(given, stripped)}")
            places.append(stripped.index(given))
        else:
            places.append(next((tidy.index(name) for name in known if name in tidy), -1))
    rater = next((tidy.index(name) for name in RATER_NAMES if name in tidy), None)
    if min(places) < 0:
        if any(names) or max(places) >= 0 or len(header) != 3 or not _is_grade(header[2]):
            missing = [w for place, w in zip(places, ("query", "object id", "grade"), strict=True) if place < 0]
            raise DataError(
                f"{path} has no column that is known as {' and '.join(missing)}; its first line is {header!r:.200}. "
                f"Known are, for the query, {', '.join(QUERY_NAMES)}; the object, {', '.join(OBJECT_NAMES)}; the "
                f"grade, {', '.join(GRADE_NAMES)}. Without a header there are three columns in this order."
            )
        places, rater = [0, 1, 2], None
        yield Judged(f"line {begun}", header[0], header[1], header[2])
    for line, row in rows:
        query, object_id, grade = (row[place] for place in places)
        yield Judged(f"line {line}", query, object_id, grade, None if rater is None else row[rater])


def _is_grade(text: str) -> bool:
    return text.strip().lower() in _UNRATED or re.fullmatch(r"[+-]?\d+([.,]\d+)?", text.strip()) is not None


def _qrels_rows(path: Path, queries: Mapping[str, str]) -> Iterator[Judged]:
    for line, content in enumerate(_lines(path), start=1):
        if not content.strip():
            continue
        if not _QRELS.match(content.strip()):
            raise DataError(
                f"{path}, line {line} is not of qrels: {content!r:.120}. Four columns: query, 0, object, grade."
            )
        topic, _, object_id, grade = content.split()
        yield Judged(f"line {line}", queries.get(topic, topic), object_id, grade)


def _query_texts(path: Path) -> dict[str, str]:
    file = Path(f"{path}{_QUERY_FILE}")
    if not file.exists():
        return {}
    return dict(line.split("\t", 1) for line in _lines(file) if "\t" in line)


def _json_rows(path: Path, names: Sequence[str | None]) -> Iterator[Judged]:
    with _opened(path) as text:
        for number, value in enumerate(_JsonText(path, text).values(), start=1):
            yield from _json_in(path, value, f"document {number}", names)


class _JsonText:
    """JSON values one after another, or the elements of lists of them, read as they come, wherever lines break."""

    def __init__(self, path: Path, text: TextIO) -> None:
        self._path, self._text = path, text
        self._buffer, self._at, self._line = "", 0, 1
        self._decoder = json.JSONDecoder()

    def values(self) -> Iterator[Any]:
        """Yield them. Raises: DataError, with the line, for something else."""
        while sign := self._next():
            if sign != "[":
                yield self._value()
                continue
            self._at += 1
            if self._next() == "]":
                self._at += 1
                continue
            while True:
                yield self._value()
                if (sign := self._next()) not in (",", "]"):
                    raise self._error("',' or ']' expected", self._at)
                self._at += 1
                if sign == "]":
                    break

    def _next(self) -> str:
        """Go to what is not blank and return its first letter; none at the end."""
        while True:
            self._at = _JSON_BLANKS.match(self._buffer, self._at).end()  # type: ignore[union-attr]  # or of none
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except RecursionError:
                raise self._error("it is nested too deeply", self._at) from None
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._buffer) - _NEAR_END
                behind = error.pos - self._at  # reading on moves both
                if cut and self._more():
                    continue
                raise self._error(error.msg, self._at + behind) from error
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on, at least as much as is kept of it; return whether there was more."""
        self._line += self._buffer.count("\n", 0, self._at)
        read = self._text.read(max(_CHUNK, len(self._buffer) - self._at))
        self._buffer, self._at = self._buffer[self._at :] + read, 0
        return bool(read)

    def _error(self, reason: str, at: int) -> DataError:
        line = self._line + self._buffer.count("\n", 0, at)
        return DataError(f"{self._path}, line {line} is no JSON: {reason}: {self._buffer[at:]!r:.80}")


def _json_in(path: Path, value: Any, where: str, names: Sequence[str | None]) -> Iterator[Judged]:
    if isinstance(value, list):
        for index, element in enumerate(value, start=1):
            yield from _json_in(path, element, f"{where} {index}", names)
        return
    if not isinstance(value, Mapping):
        raise DataError(f"{path}, {where} is no JSON object: {value!r:.120}")
    for wrapper in ("_source", "hits", "judgments", "judgmentRatings", "judgmentScores", "queries", "query_doc_pairs"):
        if isinstance(value.get(wrapper), Mapping | list):
            yield from _json_in(path, value[wrapper], f"{where}, {wrapper}", names)
            return
    asked = _first(value, names[0], QUERY_NAMES)
    if asked is None and isinstance(placeholders := value.get("placeholders"), Mapping):  # Rated Ranking Evaluator
        asked = next(iter(placeholders.values()), None)
    for several in ("ratings", "relevant_documents", "judgements", "judgments"):
        found = value.get(several)
        if isinstance(found, Mapping):
            for name, inner in found.items():
                if isinstance(inner, list):  # grade: ids
                    for object_id in inner:
                        yield Judged(f"{where}, {several}", asked, object_id, name)
                else:  # id: grade, or what was said of it
                    grade = _first(inner, names[2], GRADE_NAMES) if isinstance(inner, Mapping) else inner
                    if grade is None and isinstance(inner, Mapping):
                        grade = inner.get("gain")
                    yield Judged(f"{where}, {several}", asked, name, grade)
            return
        if isinstance(found, list):
            own = _first(value, names[1], OBJECT_NAMES)
            for index, inner in enumerate(found, start=1):
                place = f"{where}, {several} {index}"
                if not isinstance(inner, Mapping):
                    raise DataError(f"{path}, {place} is no JSON object: {inner!r:.120}")
                object_id = _first(inner, names[1], ("docId", *OBJECT_NAMES)) if own is None else own
                rater = None if own is None else str(_first(inner, None, RATER_NAMES) or index)
                yield Judged(place, asked, object_id, _first(inner, names[2], GRADE_NAMES), rater)
            return
    if _first(value, names[1], ("docId", *OBJECT_NAMES)) is None:
        raise DataError(
            f"{path}, {where} holds no judgments: its fields are {', '.join(map(str, value))[:200]}. Give objects with "
            "query, object_id and grade, or an export of the Workbench or of Quepid."
        )
    yield Judged(where, asked, _first(value, names[1], ("docId", *OBJECT_NAMES)), _first(value, names[2], GRADE_NAMES))


def _first(value: Mapping[str, Any], given: str | None, names: Sequence[str]) -> Any:
    if given is not None:
        return value.get(given)
    return next((value[name] for name in names if value.get(name) is not None), None)


def write_judgments(judgments: Mapping[str, Mapping[str, float]], path: Path, form: Form = "csv") -> None:
    """Write judgments in the form of others.

    `csv` has the columns query, object_id, grade; `quepid` query, docid, rating; `workbench` is the JSON that Search
    Relevance Workbench imports; `qrels` is TREC's, with ids of queries (`topic_id`) and their texts in
    `<path>.queries.tsv`, which `read_judgments` finds there.

    Raises:
        DataError: qrels hold neither a grade that is no whole number nor an id with a blank.
    """
    if form == "workbench":
        rated = [
            {"query": query, "ratings": [{"docId": o, "rating": shown_grade(grade)} for o, grade in of_query.items()]}
            for query, of_query in judgments.items()
        ]
        content = {"name": path.stem, "description": "Exported from Estudio", "type": "IMPORT_JUDGMENT"}
        path.write_text(json.dumps({**content, "judgmentRatings": rated}, ensure_ascii=False, indent=1), "utf-8")
        return
    if form == "qrels":
        lines = []
        for query, of_query in judgments.items():
            for object_id, grade in of_query.items():
                if grade != int(grade) or re.search(r"\s", object_id):
                    raise DataError(
                        f"qrels cannot hold grade {grade:g} of {object_id!r} for {query!r}: grades are whole numbers, "
                        "and ids have no blanks. Write csv."
                    )
                lines.append(f"{topic_id(query)} 0 {object_id} {int(grade)}\n")
        path.write_text("".join(lines), "utf-8")
        write_queries(judgments, path)
        return
    header = ("query", "docid", "rating") if form == "quepid" else ("query", "object_id", "grade")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            (query, object_id, shown_grade(grade))
            for query, of_query in judgments.items()
            for object_id, grade in of_query.items()
        )


def shown_grade(grade: float) -> str:
    """Return a grade as text that gives the same number again.

    >>> shown_grade(3.0), shown_grade(7 / 3)
    ('3', '2.3333333333333335')
    """
    return str(int(grade)) if grade.is_integer() else repr(grade)


def topic_id(query: str) -> str:
    """Return the id of a query in TREC's files: the text where it has no blanks, else a hash of it.

    >>> topic_id("usb"), topic_id("usb cable")
    ('usb', 'qeb0fe9886a')
    """
    if re.fullmatch(r"[\w.-]+", query):
        return query
    return "q" + hashlib.blake2b(query.encode(), digest_size=5).hexdigest()


def write_queries(queries: Iterable[str], path: Path) -> None:
    """Write the texts of queries beside a file of TREC, by their ids."""
    lines = (f"{topic_id(query)}\t{' '.join(query.split())}\n" for query in queries)
    Path(f"{path}{_QUERY_FILE}").write_text("".join(lines), "utf-8")


def write_run(rankings: Mapping[str, Sequence[tuple[str, float]]], path: Path, tag: str) -> None:
    """Write rankings as a TREC run: query, Q0, object, rank from 1, score, tag; texts beside it as `write_judgments`.

    Args:
        rankings: (object id, score) by query, best first.
        path: File to write.
        tag: Name of the run.

    Raises:
        DataError: an id has a blank.
    """
    lines = []
    for query, ranking in rankings.items():
        for rank, (object_id, score) in enumerate(ranking, start=1):
            if re.search(r"\s", object_id):
                raise DataError(f"A run cannot hold the id {object_id!r}: it has a blank.")
            lines.append(f"{topic_id(query)} Q0 {object_id} {rank} {score:.9g} {re.sub(chr(92) + 's+', '-', tag)}\n")
    path.write_text("".join(lines), "utf-8")
    write_queries(rankings, path)


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Read a TREC run: (object id, score) by query, best first, as their scores say.

    Raises:
        DataError: the file cannot be read, or a line is none of a run.
    """
    texts = _query_texts(path)
    found: dict[str, list[tuple[str, float]]] = {}
    for line, content in enumerate(_lines(path), start=1):
        if not content.strip():
            continue
        parts = content.split()
        if len(parts) != 6:
            raise DataError(
                f"{path}, line {line} is not of a run: {content!r:.120}. Six columns: query, Q0, object, rank, "
                "score, tag."
            )
        score = number(parts[4], f"{path}, line {line}")
        found.setdefault(texts.get(parts[0], parts[0]), []).append((parts[2], score))
    return {query: sorted(ranking, key=lambda each: -each[1]) for query, ranking in found.items()}
