"""A client who asks to be forgotten: out of the clickstream, and out of the vectors that were moved for them alone."""

from __future__ import annotations

from dataclasses import dataclass

from estudio_core import database


@dataclass(frozen=True)
class Forgotten:
    """What is gone."""

    queries: int
    events: int
    personal_vectors: int


def forget_client(client: str) -> Forgotten:
    """Delete a client's searches and events, and the personal vectors of the live releases.

    Trainings stay as their manifests say: their datasets hold no client's id. Run again after a failure, it goes on.

    Raises:
        ConfigurationError: the id is blank.
        DatabaseUnavailableError: the server does not answer.
    """
    from psycopg import sql

    from estudio_core.clickstream.forgetting import forget
    from estudio_core.vectordb.releases import list_releases
    from estudio_core.writing import delete

    with database.errors_named(), database.connect() as connection:
        database.require_schema(connection)
        gone = forget(connection, client, committed=connection.commit)
        personal: dict[str, list[str]] = {}
        for release in list_releases(connection):
            if release.state == "live":
                rows = connection.execute(
                    sql.SQL("SELECT object_id FROM {} WHERE user_id = %s").format(release.collection.objects), (client,)
                ).fetchall()
                personal[release.plugin] = [object_id for (object_id,) in rows]
        connection.commit()
        for plugin, object_ids in personal.items():
            if object_ids:
                delete(plugin, object_ids)
        connection.execute("DELETE FROM estudio.improved_objects WHERE user_id = %s", (client,))
    return Forgotten(gone.queries, gone.events, sum(len(ids) for ids in personal.values()))
