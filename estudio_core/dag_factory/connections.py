"""Airflow connections as item sources, through the postgres provider's hook."""

from __future__ import annotations


def use_airflow_connections() -> None:
    """Let `connection_id` of a plugin name an Airflow connection."""
    from estudio_core.sources.connections import set_connection_resolver

    set_connection_resolver(postgres_url)


def postgres_url(connection_id: str) -> str:
    """Return the URL of the Airflow connection `connection_id`.

    Raises:
        ConfigurationError: Airflow has no such connection, or it is not of type postgres.
    """
    from airflow.providers.postgres.hooks.postgres import PostgresHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from estudio_core.errors import ConfigurationError

    try:
        connection = PostgresHook.get_connection(connection_id)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"Airflow has no connection {connection_id!r}. Add it under Admin → Connections, "
            f"or run: airflow connections add {connection_id} --conn-uri postgresql://user:password@host:5432/database"
        ) from error
    if connection.conn_type not in {"postgres", "postgresql"}:
        raise ConfigurationError(
            f"The Airflow connection {connection_id!r} is of type {connection.conn_type!r}; "
            "items are read from connections of type postgres."
        )
    return str(PostgresHook(postgres_conn_id=connection_id).get_uri())
