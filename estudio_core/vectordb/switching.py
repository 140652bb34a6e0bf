"""Blue and green: one pointer per plugin, moved in one transaction, and back in one.

A build holds `build_lock` (shards share it) and goes start_release → copy_objects → build_index → catch_up →
mark_built → verify_release → switch → retire_releases. A kill between or inside any of these leaves the live release
serving; the same calls made again finish the work. A release over the live collection goes from start_release to
verify_release at once.
"""

from __future__ import annotations

import logging

import psycopg
from psycopg import sql

from estudio_core.errors import ConcurrentReleaseError, ModelError, ReleaseError, UnavailableError
from estudio_core.vectordb.catching_up import apply, catch_up, mark_applied, pending, prune
from estudio_core.vectordb.change_log import EmbedWrites
from estudio_core.vectordb.cluster import settle_cluster
from estudio_core.vectordb.locks import lock_timeout, own_start, own_switch
from estudio_core.vectordb.releases import (
    DEFAULT_ACTOR,
    Release,
    State,
    get_release,
    list_releases,
    live_release,
    previous_release,
    record_event,
    require_state,
    set_state,
)

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 30.0
"""How long a switch waits for writers to end."""
EMBEDDED_UNDER_LOCK = (0, 0, 0, 0, 16, 16, 16, 256)
"""Most items that are embedded while writers wait, by round of catching up. The first rounds allow none: what they find
is embedded after the lock is given back, which also opens the model. A source that is being synced all the time leaves
one batch of 128 in every round; the last one takes it."""
DROP_TIMEOUT_S = 5.0
"""How long dropping a collection waits for searches in it; it is tried again at the next clean-up."""
_DROPPED: tuple[State, ...] = ("retired", "failed")
"""States whose collection serves nobody, for good or until its run begins again."""


def switch(
    conn: psycopg.Connection,
    release: Release,
    embed: EmbedWrites,
    *,
    actor: str = DEFAULT_ACTOR,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Release:
    """Make a verified release, or a challenger, live.

    Last entries of the change log, states, pointer and audit are one transaction. Switching to the live release does
    nothing.

    Raises:
        ReleaseError: the release is neither; nothing was changed.
        ConcurrentReleaseError: a writer or another switch did not end in time, or writes came faster than they could be
            applied; nothing was changed.
    """
    return _point_to(conn, release, ("verified", "challenger"), "switched", embed, actor, lock_timeout_s)


def rollback(
    conn: psycopg.Connection,
    plugin: str,
    embed: EmbedWrites,
    target: Release | None = None,
    *,
    actor: str = DEFAULT_ACTOR,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Release:
    """Make a release that was live before live again, with all writes since; nothing else is embedded.

    Args:
        conn: Connection.
        plugin: Name of the plugin.
        embed: Embeds items with the model of a release.
        target: Where to go; None takes the release before the live one. Rolling back twice comes back.
        actor: For the audit trail.
        lock_timeout_s: How long to wait for writers, seconds.

    Raises:
        ReleaseError: there is nothing to go back to, or `target` is not one that was live.
        ConcurrentReleaseError: as for `switch`.
    """
    with conn.transaction():
        goal = target or previous_release(conn, plugin)
    if goal is None or goal.plugin != plugin:
        raise ReleaseError(f"Plugin {plugin!r} has no such release to go back to. See: estudio releases")
    return _point_to(conn, goal, ("previous",), "rolled back", embed, actor, lock_timeout_s)


def _point_to(
    conn: psycopg.Connection,
    release: Release,
    allowed: tuple[State, ...],
    event: str,
    embed: EmbedWrites,
    actor: str,
    lock_timeout_s: float,
) -> Release:
    settle_cluster(conn)
    done: frozenset[int] = frozenset()
    for most_embedded in EMBEDDED_UNDER_LOCK:
        with conn.transaction():
            current = require_state(conn, release, (*allowed, "live"))
        if current.state == "live":
            return current
        done = catch_up(conn, release, embed, done)
        with conn.transaction():
            own_switch(conn, release.plugin, lock_timeout_s)
            if get_release(conn, release.release_id).state != "live":
                entries = pending(conn, release, done)
                if sum(entry.write is not None for entry in entries) > most_embedded:
                    continue
                if entries:  # writers wait for every round trip from here on
                    apply(conn, release, entries, embed)
                _move_pointer(conn, release, allowed, event, actor)
            return get_release(conn, release.release_id)
    raise ConcurrentReleaseError(
        f"Plugin {release.plugin!r} is written to faster than release {release.release_id} can follow: after "
        f"{len(EMBEDDED_UNDER_LOCK)} rounds it still lacks more than {EMBEDDED_UNDER_LOCK[-1]} items. Nothing was "
        "changed; try again when fewer writes come in."
    )


def _move_pointer(
    conn: psycopg.Connection, release: Release, allowed: tuple[State, ...], event: str, actor: str
) -> None:
    """Under the exclusive switch lock, with the log applied: states, marks, pointer, audit."""
    mark_applied(conn, release)
    before = live_release(conn, release.plugin)
    if before is not None:
        set_state(conn, before, "previous", ("live",))
        mark_applied(conn, before)  # as the live one it got every write itself
    set_state(conn, release, "live", allowed)
    conn.execute(
        "INSERT INTO estudio.pointers (plugin, release_id, previous_release_id, switched_by) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (plugin) DO UPDATE SET release_id = EXCLUDED.release_id,"
        " previous_release_id = EXCLUDED.previous_release_id, switched_by = EXCLUDED.switched_by,"
        " switched_at = clock_timestamp()",
        (release.plugin, release.release_id, before.release_id if before else None, actor),
    )
    record_event(conn, release, event, actor, {"from": before.release_id if before else None})


def retire_releases(conn: psycopg.Connection, plugin: str, keep: int, *, actor: str = DEFAULT_ACTOR) -> list[Release]:
    """Drop collections that nothing refers to, prune the change log, and return the releases whose ones are gone.

    Kept: the live release, the one before it, and further ones that were live last, up to `keep` in all; a challenger;
    and all that are being built. Collections of failed releases are dropped. One that is in use just now is left for
    the next time. Writers wait for the change of state alone, not for the tables.

    Raises:
        ReleaseError: `keep` is below 2, so that no rollback would be left; or a table is not ours.
    """
    if keep < 2:
        raise ReleaseError(f"keep={keep} would leave nothing to roll back to. Keep 2 or more releases.")
    settle_cluster(conn)
    with conn.transaction():
        candidates = [release for release in list_releases(conn, plugin) if release.state in ("previous", *_DROPPED)]
        kept = _kept(conn, plugin, keep)
    retired = []
    for candidate in candidates:
        if candidate.release_id in kept:
            continue
        if candidate.state == "previous":
            _retire(conn, candidate, keep)
        try:
            if _drop(conn, candidate, actor):
                retired.append(get_release(conn, candidate.release_id))
        except psycopg.errors.LockNotAvailable:
            continue
    with conn.transaction():
        own_start(conn, plugin)
        prune(conn, plugin)
    return retired


def drop_challenger(conn: psycopg.Connection, release: Release, *, actor: str = DEFAULT_ACTOR) -> Release:
    """Retire a challenger; its collection goes at the next clean-up. One that is none any more stays as it is.

    Raises:
        ConcurrentReleaseError: a write or switch did not end in time; nothing was changed.
    """
    with conn.transaction():
        own_switch(conn, release.plugin, LOCK_TIMEOUT_S)  # it does not become live meanwhile
        if get_release(conn, release.release_id).state == "challenger":
            current = set_state(conn, release, "retired", ("challenger",))
            record_event(conn, current, "challenger dropped", actor)
        return get_release(conn, release.release_id)


def remove_releases(conn: psycopg.Connection, plugin: str, *, actor: str = DEFAULT_ACTOR) -> list[int]:
    """Take the pointer of a plugin away, retire all its releases and drop their collections; writes to it are over.

    Repeated, it does what is left.

    Returns:
        The numbers of the releases whose collection is in use just now: call it again.

    Raises:
        ConcurrentReleaseError: a write or switch did not end in time; nothing was changed.
    """
    with conn.transaction():
        own_switch(conn, plugin, LOCK_TIMEOUT_S)
        own_start(conn, plugin)
        for release in list_releases(conn, plugin):
            if release.state not in _DROPPED:
                record_event(conn, release, "removed with its plugin", actor, {"state": release.state})
        conn.execute("DELETE FROM estudio.pointers WHERE plugin = %s", (plugin,))
        conn.execute(
            "UPDATE estudio.deployments SET state = 'retired', retired_at = clock_timestamp()"
            " WHERE plugin = %s AND state <> ALL(%s)",
            (plugin, list(_DROPPED)),
        )
        for table in ("change_log", "sync_state"):
            conn.execute(
                sql.SQL("DELETE FROM {} WHERE plugin = %s").format(sql.Identifier("estudio", table)), (plugin,)
            )
    left = []
    for release in list_releases(conn, plugin):
        try:
            _drop(conn, release, actor)
        except psycopg.errors.LockNotAvailable:
            left.append(release.release_id)
    return sorted(left)


def keep_log_short(conn: psycopg.Connection, plugin: str, embed: EmbedWrites) -> int:
    """Bring challengers and the releases that a rollback may go to up to date, and shorten the change log.

    What nobody needs any more of it is deleted. So a rollback embeds what was written since the last time this was
    done, and the log is as long as that. A release whose model cannot be used just now is left as it is, and so is what
    it lacks.

    Returns:
        How many entries were deleted.
    """
    settle_cluster(conn)
    with conn.transaction():
        kept = [release for release in list_releases(conn, plugin) if release.state in ("previous", "challenger")]
    collections = set()
    for release in kept:
        if release.collection_id in collections:
            continue
        collections.add(release.collection_id)
        try:
            catch_up(conn, release, embed)
        except (ModelError, UnavailableError, psycopg.errors.UndefinedTable) as error:
            logger.warning("Release %d stays behind the live one for now: %s", release.release_id, error)
    with conn.transaction():
        own_start(conn, plugin)
        return prune(conn, plugin)


def _retire(conn: psycopg.Connection, release: Release, keep: int) -> None:
    with conn.transaction():
        own_switch(conn, release.plugin, LOCK_TIMEOUT_S)  # none becomes live meanwhile
        current = get_release(conn, release.release_id)
        if current.state == "previous" and current.release_id not in _kept(conn, release.plugin, keep):
            release.collection.exists(conn)  # a table that is not ours changes no state
            set_state(conn, current, "retired", ("previous",))


def _drop(conn: psycopg.Connection, release: Release, actor: str) -> bool:
    with conn.transaction():
        own_start(conn, release.plugin)  # no release begins again while its collection is dropped
        current = get_release(conn, release.release_id)
        if current.state not in _DROPPED or _is_named(conn, current) or not current.collection.exists(conn):
            return False
        with lock_timeout(conn, DROP_TIMEOUT_S):
            current.collection.drop(conn)
        record_event(conn, current, "collection dropped", actor, {"collection": current.collection_id})
        return True


def _is_named(conn: psycopg.Connection, release: Release) -> bool:
    """Return whether another release that is kept, or being prepared, has the collection of this one."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM estudio.deployments WHERE collection_id = %s AND state <> ALL(%s))",
        (release.collection_id, list(_DROPPED)),
    ).fetchone()
    return row == (True,)


def _kept(conn: psycopg.Connection, plugin: str, keep: int) -> set[int]:
    rows = conn.execute(
        "SELECT d.release_id FROM estudio.deployments d LEFT JOIN estudio.pointers p ON p.plugin = d.plugin"
        " WHERE d.plugin = %s AND d.state IN ('live', 'previous')"
        " ORDER BY d.release_id = p.release_id DESC, d.release_id = p.previous_release_id DESC NULLS LAST,"
        " d.live_at DESC LIMIT %s",
        (plugin, keep),
    )
    return {row[0] for row in rows}
