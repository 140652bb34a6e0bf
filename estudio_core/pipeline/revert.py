"""All that was moved in the live release is taken back."""

from __future__ import annotations

from datetime import UTC, datetime

from estudio_core import database
from estudio_core.errors import ReleaseError
from estudio_core.improvement import ledger
from estudio_core.vectordb.releases import live_release


def revert(plugin_name: str, run_id: str, actor: str) -> int:
    """Give all moved vectors of the live release back what the model gave them; return how many there were.

    A run that has done so and is cleared takes nothing back a second time: what was moved since is not its business.

    Raises:
        ReleaseError: nothing is live.
    """
    with database.connect() as connection:
        database.ensure_schema(connection)
        release = live_release(connection, plugin_name)
        if release is None:
            raise ReleaseError(
                f"Nothing is live for plugin {plugin_name!r}. Run its DAG {plugin_name}__initialize first."
            )
        done = next((done for done in ledger.history(connection, plugin_name) if done.run_id == run_id), None)
        if done is not None:
            return done.objects
        objects = ledger.take_back(connection, release)
        ledger.record(
            connection, release, run_id, "reverted", datetime.now(UTC), objects, {}, f"Taken back by {actor}."
        )
        connection.commit()
    return objects
