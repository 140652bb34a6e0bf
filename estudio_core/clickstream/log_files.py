"""The documents of a log file, one after another in bounded memory, each with the place where it stands.

A file is what it looks like, whatever its name: documents of JSON (one a line, a list, or laid out over several lines),
a table with a header (commas, semicolons, tabs or bars), or Parquet; each of them packed or not.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from estudio_core.clickstream.log_rows import FIELDS
from estudio_core.clickstream.log_values import Unusable, field_name
from estudio_core.errors import DataError, EstudioError, MissingDependencyError
from estudio_core.redaction import redact, redact_in

LONGEST_DOCUMENT = 16 * 2**20
"""Characters of one line or field; a search answer with ten thousand hits has a few million."""
LONGEST_JSON = 256 * 2**20
"""Characters of one document over several lines, such as a whole answer of the engine."""
_CHUNK = 2**20
_NEAR_END = 64
"""Characters of the end of what was read, in which an error may only say that the rest is missing."""
_DELIMITERS = ",;\t|"
_TELLING = {
    *(name for field in ("query_id", "user_query", "hits", "action", "object", "clicked") for name in FIELDS[field]),
    "query",
    "object_ids",
}
"""Columns of which a table of searches or events has one at least."""
_LONGEST_ROW_LINES = 1_000
"""Of a table: a text between quotes may hold line breaks, and one whose quote is left open holds all other lines."""
_NOT_DECODED = "estudio-not-decoded"
"""Puts `_BROKEN` where bytes are none of the file's encoding, UTF-16 too, whose decoder cannot keep them."""
_BROKEN = "\udc80"
codecs.register_error(_NOT_DECODED, lambda error: (_BROKEN, error.end))  # type: ignore[attr-defined]
_PARQUET = b"PAR1"
_PARQUET_ROWS = 1_000
_BULK_ACTIONS = ("index", "create", "update", "delete")
_OF_UPDATE = {"doc", "doc_as_upsert", "upsert", "detect_noop"}


@dataclass(frozen=True)
class Document:
    """One document of a log, or why it cannot be read.

    Attributes:
        place: Where it stands: `line 7`.
        content: Its fields; empty where `problem` says why.
        problem: Why it cannot be read.
        done: What has been read when it is, of the source's `size`; as far as it can be told.
        cursor: From where an import that was stopped after it goes on.
    """

    place: str
    content: Mapping[str, Any]
    problem: Unusable | None
    done: int
    cursor: Any


class LogFile:
    """A log in a file or behind a URL that fsspec opens.

    Args:
        source: Path or URL.
        columns: Names of fields by those that the log gives them; a header is known by them too.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, source: str, columns: Mapping[str, str] | None = None) -> None:
        import fsspec

        self.source, self.columns = source, dict(columns or {})
        self._fsspec = fsspec
        try:
            self._fs, self._path = fsspec.core.url_to_fs(source)
            info = self._fs.info(self._path)
        except ImportError as error:
            raise MissingDependencyError(f"{redact(source)} needs a package that is not installed: {error}.") from None
        except Exception as error:
            raise DataError(f"The log {redact(source)} cannot be read: {self._told(error)}.") from error
        if info.get("type") == "directory":
            raise DataError(f"The log {redact(source)} is a folder. Give its files one after another.")
        self.size: int | None = info.get("size")

    def _told(self, error: Exception) -> str:
        return redact_in(" ".join(str(error).split()) or type(error).__name__, self.source)

    def head(self, size: int) -> bytes:
        """Return the first bytes as they are stored."""
        try:
            with self._fs.open(self._path, "rb") as file:
                return bytes(file.read(size))
        except OSError as error:
            raise DataError(f"The log {redact(self.source)} cannot be read: {self._told(error)}.") from error

    def documents(self, after: Any = None) -> Iterator[Document]:
        """Yield the documents in their order.

        Args:
            after: Cursor of the last one that is not wanted.

        Raises:
            DataError: it is no log of any form that is known, or ends in the middle of a packed block.
        """
        try:
            with self._fs.open(self._path, "rb") as stored:
                start = self.head(8)
                if start.startswith(_PARQUET):
                    yield from self._parquet(stored, int(after or 0))
                    return
                with _unpacked(stored, start) as file:
                    yield from self._texts(file, stored, int(after or 0))
        except EstudioError:
            raise
        except Exception as error:  # of whatever file system, packer or reader it went through
            raise DataError(f"The log {redact(self.source)} cannot be read: {self._told(error)}.") from error

    def _texts(self, file: IO[bytes], stored: Any, after: int) -> Iterator[Document]:
        start = file.read(_CHUNK)
        encoding = _encoding(start)
        whole = io.BufferedReader(_Rest(start, file), _CHUNK)
        text = io.TextIOWrapper(whole, encoding=encoding, errors=_NOT_DECODED, newline="")
        opening = start.decode(encoding, "replace").removeprefix("\ufeff").lstrip()
        if not opening:
            return
        if opening[0] == "[":
            yield from _values(text, stored, after)
        elif opening[0] == "{":
            first = opening.split("\n", 1)[0]
            by_line = _is_json(first) or len(first) == len(opening)
            yield from _lines(text, stored, after) if by_line else _values(text, stored, after)
        else:
            yield from self._table(text, stored, opening, after)

    def _table(self, text: io.TextIOWrapper, stored: Any, opening: str, after: int) -> Iterator[Document]:
        line = opening.split("\n", 1)[0].rstrip("\r")
        delimiter = max(_DELIMITERS, key=line.count)
        csv.field_size_limit(LONGEST_DOCUMENT)
        lines = _TableLines(text, delimiter)
        header: list[str] | None = None
        number = 0
        while (found := lines.row(None if header is None else len(header))) is not None:
            begun, row, problem = found
            if header is None:
                if problem is not None:
                    raise DataError(f"{redact(self.source)}, line {begun}, the header: {problem.reason}.")
                header = self._header(row, line)
                continue
            number += 1
            if number > after:
                content = {} if problem is not None else dict(zip(header, row, strict=True))
                yield Document(f"line {begun}", content, problem, _told_of(stored), number)

    def _header(self, row: list[str], line: str) -> list[str]:
        header = [name.strip() for name in row]
        mine = {self.columns.get(name) or field_name(name).split(".")[-1] for name in header}
        if not _TELLING & mine:
            raise DataError(
                f"The log {redact(self.source)} is neither JSON nor Parquet nor a table with a header that is known: "
                f"it begins with {line[:80]!r}. A table names its columns as User Behavior Insights does "
                f"(query_id, user_query, timestamp, action_name, object_id, position, …); others: --column OURS=YOURS."
            )
        self._refuse_twice(header)
        return header

    def _refuse_twice(self, columns: Sequence[str]) -> None:
        twice = {name for name in columns if columns.count(name) > 1}
        if twice:
            raise DataError(f"The log {redact(self.source)} has columns of one name: {', '.join(sorted(twice))}.")

    def _parquet(self, stored: Any, after: int) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(stored)
            self._refuse_twice(file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for content, problem in _parquet_rows(_in_utc(batch)):
                    number += 1
                    if number > after:
                        done = int((self.size or 0) * number / max(file.metadata.num_rows, 1))
                        yield Document(f"row {number}", content, problem, done, number)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"The log {redact(self.source)} is no Parquet file: {error}.") from error


def _in_utc(batch: Any) -> Any:
    """Return the rows with times in UTC, as Parquet stores them: what their zone is called may be known to nobody."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if pa.types.is_timestamp(field.type) and field.type.tz is not None:
            moments = batch.column(place).cast(pa.timestamp(field.type.unit, "UTC"))
            batch = batch.set_column(place, field.name, moments)
    return batch


def _parquet_rows(batch: Any) -> Iterator[tuple[dict[str, Any], Unusable | None]]:
    """Yield rows as Python has them; one with a value that Python has nothing for says so."""
    try:
        rows = batch.to_pylist()
    except Exception as error:  # pyarrow and the libraries of time zones raise what they like
        if batch.num_rows == 1:
            yield {}, Unusable("a value that cannot be read", str(error))
        else:
            for place in range(batch.num_rows):
                yield from _parquet_rows(batch.slice(place, 1))
    else:
        yield from ((_as_texts(row), None) for row in rows)


def _as_texts(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with bytes as the texts that they are: many writers do not say that their columns hold texts."""
    for name, value in row.items():
        if isinstance(value, bytes):
            row[name] = value.decode(errors=_NOT_DECODED)
    return row


class _TableLines:
    """The lines of a table, of which rows are made: those of a row that is none are read again, one by one."""

    def __init__(self, text: io.TextIOWrapper, delimiter: str) -> None:
        self._lines, self._back, self._taken = _no_mark(text), deque[str](), list[str]()
        self._number, self._delimiter = 0, delimiter
        self._reader = self._new_reader()

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self, delimiter=self._delimiter, strict=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._taken) == _LONGEST_ROW_LINES:
            raise csv.Error(f"a row of more than {_LONGEST_ROW_LINES:,} lines")
        line = self._back.popleft() if self._back else next(self._lines)
        self._number += 1
        self._taken.append(line)
        return line

    def row(self, width: int | None) -> tuple[int, list[str], Unusable | None] | None:
        """Return the next row that is not blank: its first line, its cells, and why they cannot be used.

        A quote that is left open would take the rows behind it along. Only the line that it stands in is left out.
        """
        while True:
            self._taken.clear()
            begun, problem = self._number + 1, None
            try:
                row = next(self._reader, None)
            except csv.Error as error:
                row, problem = [], Unusable("no row of a table", str(error))
                self._reader = self._new_reader()  # the old one holds what it has read of the row
            if row is None:
                return None
            if problem is None and not any(cell.strip() for cell in row):
                continue
            if problem is None and width is not None and len(row) != width:
                problem = Unusable(f"not as many columns as the header has ({width})", row)
            if problem is not None and len(self._taken) > 1:
                self._back.extendleft(reversed(self._taken[1:]))
                self._number = begun
            if problem is None and any(_is_broken(cell) for cell in row):
                problem = Unusable("a text is not UTF-8", None)
            return begun, row, problem


class _Rest(io.RawIOBase):
    """What was read of a file already, then the rest of it."""

    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self._start, self._file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._start[: len(buffer)] if self._start else self._file.read(len(buffer))
        self._start = self._start[len(found) :] if self._start else b""
        buffer[: len(found)] = found
        return len(found)


def _unpacked(stored: Any, start: bytes) -> Any:
    """Return the file's content, unpacked where it is packed."""
    if start[:2] == b"\x1f\x8b":
        return gzip.open(stored)
    if start[:3] == b"BZh":
        return bz2.open(stored)
    if start[:6] == b"\xfd7zXZ\x00":
        return lzma.open(stored)
    if start[:4] == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return pa.input_stream(stored, compression="zstd")
    if start[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(stored)
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if len(names) != 1:
            raise DataError(f"The archive holds {len(names)} files; one is wanted. Unpack it.")
        return archive.open(names[0])
    return io.BufferedReader(_Rest(b"", stored), _CHUNK)


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _told_of(stored: Any) -> int:
    try:
        return int(stored.tell())
    except (OSError, ValueError):
        return 0


def _no_mark(text: io.TextIOWrapper) -> Iterator[str]:
    for line in _bounded_lines(text):
        yield line if line is not None else ""


def _bounded_lines(text: io.TextIOWrapper) -> Iterator[str | None]:
    """Yield lines with their ends; None for one that is longer than `LONGEST_DOCUMENT`, which is read over."""
    while line := text.readline(LONGEST_DOCUMENT):
        if len(line) < LONGEST_DOCUMENT or line.endswith("\n"):
            yield line
            continue
        while (more := text.readline(LONGEST_DOCUMENT)) and not more.endswith("\n"):
            pass
        yield None


def _lines(text: io.TextIOWrapper, stored: Any, after: int) -> Iterator[Document]:
    for number, line in enumerate(_bounded_lines(text), start=1):
        if number <= after or (line is not None and not line.strip()):
            continue
        place, done = f"line {number}", _told_of(stored)
        if line is None:
            yield Document(place, {}, Unusable(f"longer than {LONGEST_DOCUMENT} characters"), done, number)
        elif _is_broken(line):
            yield Document(place, {}, Unusable("a text is not UTF-8", line[:80]), done, number)
        else:
            try:
                value = json.loads(line.rstrip().removesuffix(","), parse_constant=_refused)
            except (ValueError, RecursionError):
                yield Document(place, {}, Unusable("no JSON", line[:80]), done, number)
                continue
            yield from documents_in(value, place, done, number)


def _values(text: io.TextIOWrapper, stored: Any, after: int) -> Iterator[Document]:
    """Yield the elements of a list, or documents one after another, wherever their lines break."""
    decoder = json.JSONDecoder(parse_constant=_refused)
    buffer, at, number, indent, ended, in_list = "", 0, 0, 0, False, False
    while True:
        while at < len(buffer) and (buffer[at].isspace() or buffer[at] == "," or (buffer[at] == "]" and in_list)):
            at += 1
        if at < len(buffer) and buffer[at] == "[" and not number and not in_list:
            in_list, at = True, at + 1
            continue
        if (line := buffer.rfind("\n", 0, at)) >= 0:
            indent = at - line - 1
        try:
            if at >= len(buffer):
                raise ValueError
            value, at = decoder.raw_decode(buffer, at)
        except (ValueError, RecursionError) as error:
            if at < len(buffer) and not _may_be_cut(error, len(buffer)):
                following = re.compile(rf"\n[ \t]{{{indent}}}(?=\{{)").search(buffer, at + 1)
                if following is not None:
                    number += 1
                    if number > after:
                        problem = Unusable("no JSON", buffer[at : at + 80])
                        yield Document(f"document {number}", {}, problem, _told_of(stored), number)
                    at = following.end()
                    continue
            chunk = "" if ended else text.read(max(_CHUNK, len(buffer) - at))
            ended = not chunk
            if ended:
                if at < len(buffer):
                    number += 1
                    yield Document(f"document {number}", {}, Unusable("no JSON", buffer[at : at + 80]), 0, number)
                return
            buffer, at = buffer[at:] + chunk, 0
            if len(buffer) > LONGEST_JSON:
                raise DataError(
                    f"Document {number + 1} is longer than {LONGEST_JSON} characters. Write one document a line."
                ) from None
            continue
        number += 1
        if at > _CHUNK:
            buffer, at = buffer[at:], 0
        if number > after:
            yield from documents_in(value, f"document {number}", _told_of(stored), number)


def _may_be_cut(error: Exception, length: int) -> bool:
    """Return whether a document that cannot be read may only lack its end, which is still to come."""
    if not isinstance(error, json.JSONDecodeError):  # nested too deeply, or a number that is none
        return False
    return error.msg.startswith("Unterminated string") or error.pos > length - _NEAR_END


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_broken(text: str) -> bool:
    """Return whether bytes of it were no UTF-8, which is how they were kept."""
    return not text.isascii() and _BROKEN in text


def documents_in(value: Any, place: str, done: int, cursor: Any) -> Iterator[Document]:
    """Yield what a JSON value holds: itself, its elements, or what an engine or a collector has wrapped it in."""
    if isinstance(value, list):
        for index, element in enumerate(value, start=1):
            yield from documents_in(element, f"{place}, element {index}", done, cursor)
        return
    if not isinstance(value, Mapping):
        yield Document(place, {}, Unusable("no JSON object", value), done, cursor)
        return
    name = next(iter(value), None) if len(value) == 1 else None
    if name in _BULK_ACTIONS and (value[name] is None or isinstance(value[name], Mapping)):
        if name == "delete":
            yield Document(place, {}, Unusable("a deletion: what was logged stays"), done, cursor)
        return  # the document follows on its own line, and says itself what it is
    if isinstance(value.get("doc"), Mapping) and set(value) <= _OF_UPDATE:
        value = value["doc"]
    answer = value.get("hits")
    if isinstance(answer, Mapping) and isinstance(answer.get("hits"), list) and "query_id" not in value:
        for index, hit in enumerate(answer["hits"], start=1):
            yield from documents_in(hit, f"{place}, hit {index}", done, cursor)
        return
    for wrapper in ("events", "queries"):
        if isinstance(value.get(wrapper), list) and len(value) <= 2:
            yield from documents_in(value[wrapper], place, done, cursor)
            return
    if isinstance(value.get("_source"), Mapping):
        yield Document(place, {**value["_source"], "_index": str(value.get("_index") or "")}, None, done, cursor)
        return
    yield Document(place, value, None, done, cursor)
