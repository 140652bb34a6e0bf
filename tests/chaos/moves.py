"""The database moves to another cluster, or back to an earlier point, while applications write: what is lost?

Writers put and delete items all the time, each its own, and note what was acknowledged. An operation that failed was
not; either outcome is right then. They are not stopped for a move: the old cluster is fenced, and they go on with the
new one as soon as they are told where it is.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import psycopg
from psycopg import sql

from estudio_core import database
from estudio_core.database import migrate
from estudio_core.errors import EstudioError, ReleaseError
from estudio_core.vectordb.catching_up import catch_up
from estudio_core.vectordb.change_log import ItemWrite, write
from estudio_core.vectordb.index_build import build_index
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.objects import IndexedObject
from estudio_core.vectordb.releases import Release, get_release, live_release, mark_built, start_release
from estudio_core.vectordb.switching import keep_log_short, retire_releases, rollback, switch
from estudio_core.vectordb.verification import verify_release
from tests.chaos.clusters import Cluster

Kind = Literal["dump and restore", "back to an earlier point", "replication to another major version"]
Moment = Literal["in the middle of a build", "before a rollback"]
KINDS: tuple[Kind, ...] = ("dump and restore", "back to an earlier point", "replication to another major version")
MOMENTS: tuple[Moment, ...] = ("in the middle of a build", "before a rollback")
INFO = SearchIndexInfo(dimensions=8)
ITEMS, WRITERS = 60, 2
_GONE = ""
"""Stands for an item that is not there."""


@dataclass
class Outcome:
    """What a move gave: writes that were acknowledged, before and after it, and every one that is not there."""

    kind: Kind
    moment: Moment
    before: int
    after: int
    violations: list[str]


@dataclass
class Writers:
    """Applications that write; each item belongs to one.

    Attributes:
        url: Where the database is now.
        source: What the application's own table of items holds: each operation goes there first.
        allowed: By item, the contents that are right: one that was acknowledged, and later ones that failed.
        acknowledged: How many operations were.
        tried: By item, contents that were tried since this was cleared.
        known: By item, those that were right when the first of these was tried.
    """

    url: str
    source: dict[str, str]
    allowed: dict[str, set[str]]
    acknowledged: int = 0
    tried: dict[str, set[str]] = field(default_factory=dict)
    known: dict[str, set[str]] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Writers:
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, count: int = 15) -> None:
        """Wait until so many further operations were acknowledged."""
        wanted, deadline = self.acknowledged + count, time.monotonic() + 60
        while self.acknowledged < wanted:
            assert time.monotonic() < deadline, "nothing is acknowledged any more"
            time.sleep(0.01)

    def _work(self, number: int) -> None:
        lot = random.Random(number)
        turn = 0
        while not self._stopped.is_set():
            try:
                with database.connect(self.url, autocommit=True) as connection:
                    while not self._stopped.wait(0.005):
                        turn += 1
                        self._operate(
                            connection, str(lot.randrange(ITEMS * 2) * WRITERS + number), f"{number}/{turn}", lot
                        )
            except (psycopg.Error, EstudioError):
                self._stopped.wait(0.05)

    def _operate(self, connection: psycopg.Connection, item: str, text: str, lot: random.Random) -> None:
        new = _GONE if lot.random() < 0.3 else text
        right = self.allowed.setdefault(item, {_GONE})
        if item not in self.tried:
            self.known[item] = set(right)
        self.tried.setdefault(item, set()).add(new)
        right.add(new)
        if new:
            self.source[item] = new
        else:
            self.source.pop(item, None)
        write(connection, "shop", [ItemWrite(item, new)] if new else [], [] if new else [item], embed)
        self.allowed[item] = {new}
        self.acknowledged += 1


def exercise(kind: Kind, moment: Moment) -> Outcome:
    """Move a database at a moment, with writers running; return what became of their writes."""
    # Not in a folder of the caller's: run by root, PostgreSQL works as another user, who may not read there.
    folder = Path(tempfile.mkdtemp(prefix="estudio-moves-"))
    folder.chmod(0o755)
    clusters = [Cluster(folder / "old", 16 if kind.startswith("replication") else 18)]
    try:
        old = clusters[0]
        migrate(old.url)
        source = {str(number): f"first {number}" for number in range(ITEMS)}
        writers = Writers(old.url, source, {item: {text} for item, text in source.items()})
        with database.connect(old.url, autocommit=True) as connection:
            _live(connection, "one", source)
        with writers:
            writers.go_on()
            with database.connect(old.url, autocommit=True) as connection:
                if moment == "before a rollback":
                    _live(connection, "two", source)
                    keep_log_short(connection, "shop", embed)
                else:
                    building = _begun(connection, "two", source)
            writers.go_on()
            before = writers.acknowledged
            new = _moved(kind, old, folder / "new", writers, clusters)
            writers.url = new.url
            writers.go_on()
            violations = []
            with database.connect(new.url, autocommit=True) as connection:
                if moment == "before a rollback":
                    keep_log_short(connection, "shop", embed)
                    writers.go_on()
                    rollback(connection, "shop", embed)
                else:
                    violations += _ended(connection, building, source, fails=kind != "back to an earlier point")
                retire_releases(connection, "shop", 2)
            writers.go_on()
        with database.connect(new.url, autocommit=True) as connection:
            violations += _compared(connection, writers.allowed)
            rollback(connection, "shop", embed)
            violations += _compared(connection, writers.allowed)
        return Outcome(kind, moment, before, writers.acknowledged - before, violations)
    finally:
        for cluster in clusters:
            cluster.throw_away()


def _moved(kind: Kind, old: Cluster, folder: Path, writers: Writers, clusters: list[Cluster]) -> Cluster:
    if kind == "back to an earlier point":
        writers.tried.clear()
        old.copied_to(folder)
        writers.go_on()  # lost with the cluster, as everything behind the point is
        old.stop("immediate")
        new = Cluster(folder, made=True)
        clusters.append(new)
        for item, contents in writers.tried.items():  # what was written while it was copied may be there or not
            writers.allowed[item] |= contents | writers.known[item]
        return new
    new = Cluster(folder)
    clusters.append(new)
    if kind == "dump and restore":
        old.fence()
        old.dumped_into(new)
    else:
        old.replicate_into(new)
        writers.go_on()
        old.fence()
        old.replicated_into(new)
    return new


def _begun(connection: psycopg.Connection, run: str, source: dict[str, str]) -> Release:
    """Start a release and load half of it."""
    release = start_release(connection, "shop", f"shop_{run}", run, INFO, run)
    _load(connection, release, source, lambda item: int(item) % 2 == 1)
    return release


def _ended(connection: psycopg.Connection, release: Release, source: dict[str, str], *, fails: bool) -> list[str]:
    """Go on with a build after the move: it has to fail aloud in another cluster, and is made anew then."""
    try:
        _load(connection, release, source, lambda item: int(item) % 2 == 0)
        build_index(connection, release.collection)
        _switched(connection, mark_built(connection, release), source)
    except ReleaseError as error:
        if not fails or "moved to another cluster" not in str(error):
            return [f"The build failed: {error}"]
        _live(connection, "three", source)
        return []
    return ["A build went on in another cluster."] if fails else []


def _live(connection: psycopg.Connection, run: str, source: dict[str, str]) -> None:
    release = start_release(connection, "shop", f"shop_{run}", run, INFO, run)
    _load(connection, release, source, lambda item: True)
    build_index(connection, release.collection)
    _switched(connection, mark_built(connection, release), source)


def _load(
    connection: psycopg.Connection, release: Release, source: dict[str, str], wanted: Callable[[str], bool]
) -> None:
    """Load what the table of items holds now, after the release has begun."""
    now = [ItemWrite(item, text) for item, text in dict(source).items() if wanted(item)]
    release.collection.copy_objects(connection, embed(release, now, {}))


def _switched(connection: psycopg.Connection, release: Release, source: dict[str, str]) -> None:
    catch_up(connection, release, embed)
    vectors = np.vstack([_vector(text, release.model_name) for text in dict(source).values()])
    verify_release(connection, release, vectors, release.collection.stats(connection).objects)
    switch(connection, get_release(connection, release.release_id), embed)


def _compared(connection: psycopg.Connection, allowed: Mapping[str, set[str]]) -> list[str]:
    """Return what the live collection has otherwise than acknowledged: rows, words and vectors."""
    release = live_release(connection, "shop")
    assert release is not None
    rows = connection.execute(
        sql.SQL(
            "SELECT o.object_id, o.content_hash, count(p.part), min(p.embedding::text) FROM {} o LEFT JOIN {} p"
            " USING (object_id) GROUP BY 1, 2"
        ).format(release.collection.objects, release.collection.parts)
    ).fetchall()
    found = {row[0]: row[1] for row in rows}
    violations = [
        f"Item {item} is {found.get(item, _GONE)!r}; acknowledged: {sorted(contents)}"
        for item, contents in allowed.items()
        if found.get(item, _GONE) not in contents
    ]
    violations += [f"Item {item} is there; nobody wrote it." for item in found if item not in allowed]
    for item, text, parts, stored in rows:
        own = _vector(text, release.model_name)[0]
        if parts != 1 or not np.allclose(np.array(stored.strip("[]").split(","), float), own, atol=1e-5):
            violations.append(f"Item {item} has {parts} vectors, or one of another text.")
    words = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(release.collection.words)).fetchone()
    if words != (len(rows),):
        violations.append(f"{words} items have words, of {len(rows)}.")
    return violations


def embed(release: Release, writes: Sequence[ItemWrite], stored: Mapping[str, str]) -> list[IndexedObject]:
    """Return objects whose content hash is their text, with a vector that follows from it and the model."""
    return [
        IndexedObject(each.object_id, each.payload, each.data, _vector(each.data, release.model_name), text=each.data)
        for each in writes
    ]


def _vector(text: str, model: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(f"{model}:{text}".encode()).digest()[:4], "big")
    return np.random.default_rng(seed).normal(size=(1, INFO.dimensions)).astype(np.float32)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return what became of the writes, Markdown."""
    head = "| the database moves | when | writes before | writes after | lost or wrong |\n|---|---|---:|---:|---:|"
    rows = [f"| {o.kind} | {o.moment} | {o.before} | {o.after} | {len(o.violations)} |" for o in outcomes]
    return "\n".join([head, *rows])


def all_moves(say: Callable[[str], None]) -> list[Outcome]:
    """Exercise each kind of move at each moment."""
    outcomes = []
    for kind in KINDS:
        for moment in MOMENTS:
            say(f"the database moves by {kind} {moment}")
            outcomes.append(exercise(kind, moment))
    return outcomes
