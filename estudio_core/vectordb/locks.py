"""Advisory locks of the release protocol.

Five kinds, taken always in this order:

    sync     (session)                 one process brings the items of a plugin up to date
    start    (transaction)             a release begins, or the change log is pruned
    build    (session or transaction)  one release of a plugin is built at a time; its shards share it
    switch   (transaction)             writers share it until they commit; a switch has it alone
    objects  (transaction)             writers of the same object follow each other
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from estudio_core.errors import ConcurrentReleaseError

_BUCKETS = 4_096
"""Locks shared by all objects of a scope. A batch of 128 takes 126 of them, so that two such rarely meet; of the 6,400
that PostgreSQL has room for by default, a batch of 500 takes 470."""
SWITCH_TRY_S = 0.2
"""How long one try of a switch waits for writers: others wait behind it. Between two tries they go on."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0


def lock_key(*names: str) -> int:
    """Return the signed 64-bit advisory lock key of a name.

    >>> lock_key("switch", "shop") == lock_key("switch", "shop"), lock_key("switch", "shop") == lock_key("switchshop")
    (True, False)
    """
    digest = hashlib.sha256("\x1f".join(("estudio", *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def share_switch(conn: psycopg.Connection, plugin: str) -> None:
    """Hold off switches of `plugin` until this transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock_shared(%s)", (lock_key("switch", plugin),))


@contextmanager
def lock_timeout(conn: psycopg.Connection, timeout_s: float) -> Iterator[None]:
    """Wait for locks no longer than this inside the block, which is in a transaction that an error rolls back."""
    before = conn.execute("SELECT current_setting('lock_timeout')").fetchone()
    conn.execute("SELECT set_config('lock_timeout', %s, true)", (f"{int(timeout_s * 1000)}ms",))
    yield
    conn.execute("SELECT set_config('lock_timeout', %s, true)", before)


def own_switch(conn: psycopg.Connection, plugin: str, timeout_s: float) -> None:
    """Hold off writers and other switches of `plugin` until this transaction ends.

    It is tried for short moments, with pauses: whoever writes in an open transaction keeps the switch waiting, and not
    all other writers behind it.

    Raises:
        ConcurrentReleaseError: a writer or another switch did not end within `timeout_s` seconds.
    """
    until = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            with conn.transaction(), lock_timeout(conn, max(0.001, min(SWITCH_TRY_S, until - time.monotonic()))):
                conn.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("switch", plugin),))
            return
        except psycopg.errors.LockNotAvailable as error:
            if time.monotonic() + pause_s > until:
                raise ConcurrentReleaseError(
                    f"A write or switch of plugin {plugin!r} is still open after {timeout_s:g} s. "
                    "Nothing was changed; try again."
                ) from error
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def lock_objects(conn: psycopg.Connection, scope: str, object_ids: Iterable[str]) -> None:
    """Let writers of the same objects of `scope` follow each other until they commit.

    The keys are taken in ascending order, so that two batches never wait for each other.
    """
    keys = {lock_key("objects", scope, str(lock_key(object_id) % _BUCKETS)) for object_id in object_ids}
    if keys:
        conn.execute("SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", (sorted(keys),))


def own_start(conn: psycopg.Connection, plugin: str) -> None:
    """Hold off starts of releases and the pruning of the change log of `plugin` until this transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("start", plugin),))


def try_own_build(conn: psycopg.Connection, plugin: str) -> None:
    """Hold off builders of `plugin` until this transaction ends.

    Raises:
        ConcurrentReleaseError: somebody is building.
    """
    row = conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (lock_key("build", plugin),)).fetchone()
    if row != (True,):
        raise _building(plugin)


@contextmanager
def build_lock(conn: psycopg.Connection, plugin: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the build of `plugin` on this session until the block ends, the connection breaks or the process dies.

    Args:
        conn: The session that holds the lock; no other session can release it.
        plugin: Name of the plugin.
        shared: True for the shards of one release, which may work at the same time.

    Raises:
        ConcurrentReleaseError: somebody else is building.
    """
    with _session_lock(conn, lock_key("build", plugin), "_shared" if shared else "", _building(plugin)):
        yield


@contextmanager
def sync_lock(conn: psycopg.Connection, plugin: str) -> Iterator[None]:
    """Hold the sync of `plugin` on this session until the block ends, the connection breaks or the process dies.

    Raises:
        ConcurrentReleaseError: somebody else is syncing.
    """
    busy = ConcurrentReleaseError(
        f"The items of plugin {plugin!r} are being synced by another process. Wait for it, or stop it and try again."
    )
    with _session_lock(conn, lock_key("sync", plugin), "", busy):
        yield


@contextmanager
def _session_lock(
    conn: psycopg.Connection, key: int, suffix: LiteralString, busy: ConcurrentReleaseError
) -> Iterator[None]:
    kind = sql.SQL(suffix)
    with conn.transaction():
        row = conn.execute(sql.SQL("SELECT pg_try_advisory_lock{}(%s)").format(kind), (key,)).fetchone()
    if row != (True,):
        raise busy
    try:
        yield
    finally:
        # A session that broke has given its locks back already.
        with suppress(psycopg.OperationalError):
            if conn.info.transaction_status == TransactionStatus.INERROR:
                conn.rollback()
            with conn.transaction():
                conn.execute(sql.SQL("SELECT pg_advisory_unlock{}(%s)").format(kind), (key,))


def _building(plugin: str) -> ConcurrentReleaseError:
    return ConcurrentReleaseError(
        f"A release of plugin {plugin!r} is being built by another process. Wait for it, or stop it and try again."
    )
