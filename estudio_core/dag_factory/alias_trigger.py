"""Watches the registry's aliases, in Airflow's triggerer: one look for all plugins."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Hashable
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

logger = logging.getLogger(__name__)

POLL_S = 10.0
"""Seconds between two looks: with the scheduler's own pace, a release starts well within a minute."""

RING_AGAIN_S = 300.0
"""Seconds after which a promotion that no run has taken up rings again: the run that the ring started has failed."""

Waiting = dict[str, tuple[int, str]]
"""Number and version of the promotion that waits for a release run, by plugin."""


class AliasTrigger(BaseEventTrigger):
    """Fires for each promotion that somebody asks for by moving an alias in MLflow.

    The event is a doorbell: the release run reads from `estudio.promotions` what it has to do. A promotion that no run
    has taken up rings again after `RING_AGAIN_S`, and after a restart of the triggerer.
    """

    def __init__(self, plugin: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow leaves these untyped
        self.plugin = plugin

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"plugin": self.plugin}

    def shared_stream_key(self) -> Hashable:
        """Return the same key for all plugins: the triggerer runs one loop for them."""
        return ("estudio", "aliases")

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Waiting]:
        """Yield what waits for a release run, again and again. A server that is away is asked again."""
        while True:
            try:
                yield await asyncio.to_thread(look)
            except Exception:
                logger.exception("The registry was not read; the next try is in %.0f s", POLL_S)
            await asyncio.sleep(POLL_S)

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Waiting]) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each new promotion of this plugin, and again for one that still waits."""
        rung, rung_at = 0, 0.0
        async for waiting in shared_stream:
            number, version = waiting.get(self.plugin, (0, ""))
            now = time.monotonic()
            if number > rung or (number == rung > 0 and now - rung_at >= RING_AGAIN_S):
                rung, rung_at = number, now
                yield TriggerEvent({"promotion": number, "version": version})  # type: ignore[no-untyped-call]

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Do the same without a shared loop."""
        async for event in self.filter_shared_stream(self.open_shared_stream({})):
            yield event


def look() -> Waiting:
    """Read the registry and write down what was asked for; return what waits."""
    from estudio_core import database
    from estudio_core.experiments.shared import mlflow_client
    from estudio_core.promotion.aliases import observe_all

    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        waiting = observe_all(connection, mlflow_client())
    return {promotion.plugin: (promotion.promotion_id, promotion.to_version) for promotion in reversed(waiting)}
