"""Airflow connections as item sources."""

from __future__ import annotations


def use_airflow_connections() -> None:
    """Let `connection_id` of a plugin name an Airflow connection."""
    from estudio_core.sources.connections import set_connection_resolver

    set_connection_resolver(connection_fields)


def connection_fields(connection_id: str) -> str | None:
    """Return the fields of the Airflow connection `connection_id` as JSON, None where Airflow has none of that name."""
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    from estudio_core.sources.connections import fields_of

    try:
        return fields_of(BaseHook.get_connection(connection_id))
    except AirflowNotFoundException:
        return None
