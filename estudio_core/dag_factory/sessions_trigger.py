"""Starts fine-tuning when enough new sessions have come, from Airflow's triggerer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

logger = logging.getLogger(__name__)

POLL_S = 60.0
"""Seconds between two counts; each is one indexed query."""


class SessionsTrigger(BaseEventTrigger):
    """Fires when `every` clicked sessions have come since the last training, and again at each multiple.

    A training moves the mark from which sessions are counted. One that failed is tried again after `every` more. The
    event is a doorbell: after a restart of the triggerer it may ring again for the same sessions, and the run counts
    for itself (`pipeline.extract`).
    """

    def __init__(self, plugin: str, every: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves these untyped
        self.plugin = plugin
        self.every = every

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        arguments = {"plugin": self.plugin, "every": self.every}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Count again and again; a database that is away is asked again."""
        rung = 0
        while True:
            try:
                sessions = await asyncio.to_thread(count, self.plugin)
                rung = min(rung, sessions // self.every)
                if sessions // self.every > rung:
                    rung = sessions // self.every
                    yield TriggerEvent({"sessions": sessions})  # type: ignore[no-untyped-call]
            except Exception:
                logger.exception("Sessions of %s were not counted; the next try is in %.0f s", self.plugin, POLL_S)
            await asyncio.sleep(POLL_S)


def count(plugin: str) -> int:
    """Return the number of clicked sessions since the last training."""
    from estudio_core import database
    from estudio_core.promotion.trainings import new_sessions

    with database.connect() as connection:
        database.ensure_schema(connection)
        return new_sessions(connection, plugin)
