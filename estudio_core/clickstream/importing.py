"""A log into the clickstream's tables: streamed, in batches that are whole, going on where an import was stopped."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.clickstream.actions import CLICK_IMPORTANCE, KNOWN_ACTIONS
from estudio_core.clickstream.appending import INSERT_BATCH, Logged, append_events, append_queries
from estudio_core.clickstream.applications import (
    ApplicationFacts,
    application_facts,
    check_declaration,
    declare,
    find_first_position,
)
from estudio_core.clickstream.forgetting import forgotten_among
from estudio_core.clickstream.log_files import Document, LogFile
from estudio_core.clickstream.log_rows import NO_OBJECT, RowReader
from estudio_core.clickstream.log_values import Unusable
from estudio_core.clickstream.opensearch import SCHEME, OpenSearchLog
from estudio_core.clickstream.ubi import UbiEvent, UbiQuery
from estudio_core.errors import DataError
from estudio_core.progress import report
from estudio_core.redaction import redact
from estudio_core.streams import batched

if TYPE_CHECKING:
    import psycopg

MOST_REASONS = 200
"""Distinct reasons, and distinct unknown actions, that are kept apart: a log of garbage stays a short table."""
OTHER = "other"
CONTRADICTION = "the query id is that of a search for something else"
FORGOTTEN = "of a client that was forgotten"
_HEAD = 4096  # bytes that tell a log from another of its name: rotated, it begins otherwise
_EXAMPLE = 120


@dataclass(frozen=True)
class Declared:
    """What whoever imports says of the applications in a log; see `applications.declare`."""

    first_position: int | None = None
    clicks: Mapping[str, float] = field(default_factory=dict)
    impressions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no application can mean, before anything is read."""
        check_declaration(self.first_position, self.clicks)

    def __bool__(self) -> bool:
        """Return whether anything is said."""
        return self.first_position is not None or bool(self.clicks) or bool(self.impressions)


@dataclass
class Skipped:
    """How many documents were left out for one reason, and the first of them."""

    count: int
    example: str


@dataclass(frozen=True)
class ApplicationSeen:
    """What a log said of one application."""

    name: str
    searches: int
    events: int
    clicks: int
    facts: ApplicationFacts
    contradiction: str | None
    """What its positions say against what was declared."""


@dataclass(frozen=True)
class Imported:
    """What an import brought.

    Attributes:
        source: Where it came from, without passwords.
        documents: Documents that were read.
        queries: What became of the searches among them.
        events: What became of the events.
        left_out: Documents by the reason why they were left out.
        notes: What was assumed, or left out of rows that were kept, and how often.
        unknown_actions: Actions that are neither clicks nor impressions, and how often they occur.
        applications: What it said of each application.
        resumed: Documents that an earlier run had read, which was stopped.
        seconds: How long this run took.
    """

    source: str
    documents: int
    queries: Logged
    events: Logged
    left_out: Mapping[str, Skipped]
    notes: Mapping[str, int]
    unknown_actions: Mapping[str, int]
    applications: tuple[ApplicationSeen, ...]
    resumed: int
    seconds: float

    @property
    def skipped(self) -> tuple[str, ...]:
        """Why documents were left out, a line a reason."""
        return tuple(f"{reason}: {found.count}, as {found.example}" for reason, found in self.left_out.items())


@dataclass
class _Tally:
    """Counts of an import, which live as long as it does, whatever runs it takes."""

    documents: int = 0
    queries: list[int] = field(default_factory=lambda: [0, 0, 0])
    events: list[int] = field(default_factory=lambda: [0, 0])
    left_out: dict[str, Skipped] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    applications: dict[str, list[int]] = field(default_factory=dict)
    """Searches and events."""
    acted: dict[str, dict[str, int]] = field(default_factory=dict)
    """Events that name an item, by application and action."""

    def leave_out(self, document: Document, reason: str, given: object = None) -> None:
        if reason not in self.left_out and len(self.left_out) >= MOST_REASONS:
            reason = OTHER
        if (known := self.left_out.get(reason)) is not None:
            known.count += 1
        else:
            texts = [_shortened(what) for what in (given, document.content) if what not in (None, {})]
            self.left_out[reason] = Skipped(1, f"{document.place}: {' in '.join(texts)}".rstrip(": "))

    def to_json(self) -> str:
        return json.dumps(
            {
                **vars(self),
                "left_out": {reason: [found.count, found.example] for reason, found in self.left_out.items()},
            }
        )

    @classmethod
    def of(cls, stored: dict[str, Any]) -> _Tally:
        return cls(
            **{
                **stored,
                "left_out": {reason: Skipped(*found) for reason, found in stored["left_out"].items()},
                "notes": Counter(stored["notes"]),
                "actions": Counter(stored["actions"]),
            }
        )


def _shortened(what: object) -> str:
    """Return something in one line that any terminal shows."""
    is_plain = isinstance(what, str | Decimal)
    text = str(what) if is_plain else json.dumps(what, default=str, ensure_ascii=False)
    shown = " ".join(text.encode("utf-8", "replace").decode().replace("\x00", "\\0").split())
    return shown[:_EXAMPLE] + ("…" if len(shown) > _EXAMPLE else "")


def import_log(
    connection: psycopg.Connection,
    source: str,
    *,
    reader: RowReader | None = None,
    declared: Declared | None = None,
    commit: bool = False,
    from_start: bool = False,
) -> Imported:
    """Append the rows of a log. Importing it again, in whatever pieces, changes nothing.

    Args:
        connection: An open connection to a database with Estudio's schema.
        source: Path or URL of a file (`LogFile`), or `opensearch://…` (`OpenSearchLog`).
        reader: How rows are made of its documents.
        declared: What holds for the applications in it.
        commit: Commit each batch, together with how far it got: an import that is stopped goes on from there. Else
            the caller commits, all of it.
        from_start: Do not go on where an earlier import of this log was stopped.

    Raises:
        DataError: the log cannot be read, or is none.
        UnavailableError: the server that holds it does not answer.
    """
    begun = time.monotonic()
    reader, declared = reader or RowReader(), declared or Declared()
    log: LogFile | OpenSearchLog = (
        OpenSearchLog(source) if source.startswith(SCHEME) else LogFile(source, reader.columns)
    )
    state = _State(connection, log, reader)
    tally, after = state.found() if commit and not from_start else (_Tally(), None)
    resumed = tally.documents
    reader.notes = tally.notes
    report("Import", 0, log.size, "bytes" if isinstance(log, LogFile) else "documents")
    for batch in batched(log.documents(after), INSERT_BATCH):
        _append(connection, batch, reader, tally)
        if commit:
            state.keep(tally, batch[-1].cursor)
            connection.commit()
        report("Import", batch[-1].done, log.size, "bytes" if isinstance(log, LogFile) else "documents")
    if not tally.documents:
        raise DataError(f"The log {redact(source)} is empty: no document stands in it.")
    applications = tuple(
        _seen(connection, name, counts, tally.acted.get(name, {}), declared)
        for name, counts in sorted(tally.applications.items())
    )
    if commit:
        state.end()
        connection.commit()
    known = KNOWN_ACTIONS.union(*(({*a.facts.clicks, *a.facts.impressions}) for a in applications))
    return Imported(
        source=redact(source),
        documents=tally.documents,
        queries=Logged(tally.queries[0], tally.queries[1], tally.queries[2]),
        events=Logged(tally.events[0], tally.events[1]),
        left_out=dict(sorted(tally.left_out.items(), key=lambda found: -found[1].count)),
        notes=dict(tally.notes.most_common()),
        unknown_actions={action: count for action, count in tally.actions.most_common() if action not in known},
        applications=applications,
        resumed=resumed,
        seconds=time.monotonic() - begun,
    )


def _append(connection: psycopg.Connection, batch: Sequence[Document], reader: RowReader, tally: _Tally) -> None:
    queries: list[tuple[UbiQuery, Document]] = []
    events: list[tuple[UbiEvent, Document]] = []
    for document in batch:
        tally.documents += 1
        if document.problem is not None:
            tally.leave_out(document, document.problem.reason, document.problem.given)
            continue
        try:
            for row in reader.rows(document.content):
                if isinstance(row, UbiQuery):
                    queries.append((row, document))
                else:
                    events.append((row, document))
        except Unusable as problem:
            tally.leave_out(document, problem.reason, problem.given)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, DataError) as error:
            tally.leave_out(document, f"unreadable ({type(error).__name__})", str(error))
    rows: list[UbiQuery | UbiEvent] = [*(row for row, _ in queries), *(row for row, _ in events)]
    people = {person for row in rows for person in (row.client_id, row.user_id) if person}
    gone = forgotten_among(connection, people)
    if gone:
        queries = [(row, document) for row, document in queries if not _is_gone(row, document, gone, tally)]
        events = [(row, document) for row, document in events if not _is_gone(row, document, gone, tally)]
    logged = append_queries(connection, (row for row, _ in queries))
    for slot, count in enumerate((logged.inserted, logged.duplicates - len(logged.contradictions), logged.merged)):
        tally.queries[slot] += count
    # Of several rows under one id it is the later ones that contradict.
    last = {(row.application, row.query_id): document for row, document in queries}
    for key in logged.contradictions:
        tally.leave_out(last[key], CONTRADICTION)
    done = append_events(connection, (row for row, _ in events))
    tally.events[0] += done.inserted
    tally.events[1] += done.duplicates
    for row, _ in queries:
        tally.applications.setdefault(row.application, [0, 0])[0] += 1
    for row, _ in events:
        tally.applications.setdefault(row.application, [0, 0])[1] += 1
        action = row.action_name
        if action in CLICK_IMPORTANCE and row.object_id is None:
            tally.notes[NO_OBJECT] += 1
        known = action in tally.actions or len(tally.actions) < MOST_REASONS
        named = action if known else OTHER
        tally.actions[named] += 1
        if row.object_id is not None:
            acted = tally.acted.setdefault(row.application, {})
            acted[named] = acted.get(named, 0) + 1


def _is_gone(row: UbiQuery | UbiEvent, document: Document, gone: Mapping[str, Any], tally: _Tally) -> bool:
    until = max((gone[person] for person in (row.client_id, row.user_id) if person and person in gone), default=None)
    if until is None or row.timestamp > until:
        return False
    tally.leave_out(Document(document.place, {}, None, 0, None), FORGOTTEN, "not shown")
    return True


def _seen(
    connection: psycopg.Connection,
    name: str,
    counts: Sequence[int],
    acted: Mapping[str, int],
    declared: Declared,
) -> ApplicationSeen:
    if declared:
        declare(
            connection,
            name,
            first_position=declared.first_position,
            clicks=declared.clicks,
            impressions=declared.impressions,
        )
    seen = find_first_position(connection, name)
    facts = application_facts(connection, name)
    against = seen.against(facts.first_position) if facts.basis == "declared" else None
    clicks = sum(count for action, count in acted.items() if action in CLICK_IMPORTANCE or action in facts.clicks)
    return ApplicationSeen(name, counts[0], counts[1], clicks, facts, against)


class _State:
    """How far the import of one log is, in the database that it goes to."""

    def __init__(self, connection: psycopg.Connection, log: LogFile | OpenSearchLog, reader: RowReader) -> None:
        self._connection = connection
        path = Path(log.source)
        self._source = str(path.resolve()) if "://" not in log.source and path.exists() else redact(log.source)
        how = json.dumps(
            [reader.application, dict(reader.renamed), str(reader.zone), dict(reader.columns)], sort_keys=True
        )
        self._fingerprint = hashlib.sha256(log.head(_HEAD) + how.encode()).hexdigest()

    def found(self) -> tuple[_Tally, Any]:
        """Return counts and cursor of an import of the same log that was stopped."""
        row = self._connection.execute(
            "SELECT counts, place FROM estudio.clickstream_imports WHERE source = %s AND fingerprint = %s",
            (self._source, self._fingerprint),
        ).fetchone()
        return (_Tally(), None) if row is None else (_Tally.of(row[0]), row[1]["cursor"])

    def keep(self, tally: _Tally, cursor: Any) -> None:
        self._connection.execute(
            """
            INSERT INTO estudio.clickstream_imports (source, fingerprint, place, counts) VALUES (%s, %s, %s, %s)
            ON CONFLICT (source) DO UPDATE SET fingerprint = excluded.fingerprint, place = excluded.place,
                counts = excluded.counts, updated_at = clock_timestamp()
            """,
            (self._source, self._fingerprint, json.dumps({"cursor": cursor}), tally.to_json()),
        )

    def end(self) -> None:
        self._connection.execute("DELETE FROM estudio.clickstream_imports WHERE source = %s", (self._source,))
