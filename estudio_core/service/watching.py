"""The service looks at running experiments, so that one that harms ends at once, whatever Airflow does meanwhile."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import psycopg

from estudio_core import database
from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import Experiment
from estudio_core.comparing.looking import look
from estudio_core.errors import EstudioError
from estudio_core.vectordb.locks import lock_key

LOOK_S = 10.0
SHARE = 0.05
"""Most of the time of one process that looks take: a log of a million searches takes long to read."""

logger = logging.getLogger(__name__)


async def watch() -> None:
    """Look at all running experiments, again and again, until cancelled. Of several processes one looks."""
    while True:
        began = time.monotonic()
        try:
            await asyncio.to_thread(look_at_all)
        except (EstudioError, psycopg.Error) as error:
            logger.warning("Experiments were not looked at: %s", error)
        except Exception:
            logger.exception("Experiments were not looked at.")
        await asyncio.sleep(max(LOOK_S, (time.monotonic() - began) / SHARE))


def look_at_all() -> None:
    """Look at all running experiments, unless another process does just now."""
    with database.errors_named(), database.connection() as connection:
        if not _due(connection):
            return
    with database.errors_named(), database.connect(autocommit=True) as connection:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key("look at experiments"),)).fetchone()
        if row == (True,):
            for experiment in _due(connection):  # another process may have looked just before
                try:
                    look(connection, experiment)
                except (EstudioError, psycopg.Error) as error:
                    logger.warning("Experiment %s was not looked at: %s", experiment.experiment_id, error)


def _due(connection: psycopg.Connection) -> list[Experiment]:
    """Return the running experiments that nobody has looked at within `LOOK_S`."""
    lately = datetime.now(UTC) - timedelta(seconds=LOOK_S * 0.9)
    found = [each for each in ledger.all_under_way(connection) if each.state == "running"]
    return [each for each in found if each.looked_at is None or each.looked_at < lately]
