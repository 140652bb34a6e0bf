"""Which server answers searches: the reader of the settings, while it is not too far behind, else the primary.

How far a replica is behind is told by what both servers say of their logs; no right beyond connecting is needed.

Every second at most, the primary is asked how far its log has come, and the replica how far it has replayed it. A
replica that has what the primary had two seconds ago is at most two seconds behind. A primary that does not answer
writes nothing; the replica has then what can be had.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque

import psycopg

from estudio_core import database
from estudio_core.errors import EstudioError
from estudio_core.postgres_url import postgres_url
from estudio_core.settings import get_settings

LOOK_S = 1.0
PATIENCE_S = 1.0
"""How long a look waits for a server."""
NEVER = float("-inf")
_MOST_SEEN = 600

logger = logging.getLogger(__name__)


class _Reader:
    """What is known of one reader."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: deque[tuple[float, int]] = deque(maxlen=_MOST_SEEN)
        self.asked_at = NEVER
        self.lag_s: float | None = None


_readers: dict[str, _Reader] = {}


def search_url() -> str:
    """Return the URL of the server that answers searches now.

    Raises:
        ConfigurationError: it is not PostgreSQL's, or cannot be read.
    """
    reader = get_settings().reader_url
    if reader is None:
        return database.database_url()
    url = postgres_url(reader.get_secret_value(), "ESTUDIO_READER_URL")
    return url if is_near(url) else database.database_url()


def search_url_may_wait() -> bool:
    """Return whether `search_url` may ask a server, or start one."""
    return get_settings().reader_url is not None or database.url_needs_a_start()


def is_near(url: str) -> bool:
    """Return whether the server at `url` is the primary itself, or a replica that is no further behind than allowed."""
    reader = _readers.setdefault(url, _Reader())
    if time.monotonic() - reader.asked_at >= LOOK_S and reader.lock.acquire(blocking=reader.asked_at == NEVER):
        try:
            if time.monotonic() - reader.asked_at >= LOOK_S:
                _look(reader, url)
        finally:
            reader.lock.release()
    return _near(reader)


def _look(reader: _Reader, url: str) -> None:
    now = time.monotonic()
    try:
        with database.connection(wait_s=PATIENCE_S) as primary:
            row = primary.execute(
                "SELECT CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_lsn() - '0/0')::numeric::bigint END"
            ).fetchone()
        if row is not None and row[0] is not None:
            reader.seen.append((now, row[0]))
    except (EstudioError, psycopg.Error) as error:
        logger.warning("How far the reader is behind is not known while the primary does not answer: %s", error)
    before = _near(reader)
    try:
        with database.connection(url=url, wait_s=PATIENCE_S) as replica:
            row = replica.execute(
                "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::numeric::bigint END"
            ).fetchone()
        assert row is not None
        if row[0] is None:
            reader.lag_s = 0.0  # another name of the primary
        else:
            has = [at for at, position in reader.seen if position <= row[0]]
            missing = [at for at, position in reader.seen if position > row[0]]
            if not missing:
                reader.lag_s = 0.0
            else:
                # What it lacks was there at the first of these moments, if not before; at the last of those it had all.
                reader.lag_s = now - (max(has) if has else missing[0]) + (0.0 if has else get_settings().reader_lag_s)
    except (EstudioError, psycopg.Error) as error:
        logger.warning("The reader does not answer: %s", error)
        reader.lag_s = None
    if before != _near(reader):
        logger.warning("Searches are answered by %s from now on.", "the reader" if _near(reader) else "the primary")
    reader.asked_at = time.monotonic()


def _near(reader: _Reader) -> bool:
    return reader.lag_s is not None and reader.lag_s <= get_settings().reader_lag_s


os.register_at_fork(after_in_child=_readers.clear)
