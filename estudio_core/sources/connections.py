"""From what a plugin says about its database (a URL or an Airflow connection id) to connection parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg

from estudio_core.database import database_url
from estudio_core.errors import ConfigurationError
from estudio_core.postgres_url import postgres_url, require_postgres, with_libpq_scheme

ConnectionResolver = Callable[[str], str | None]
"""From an Airflow connection id to its URI (Airflow's or libpq's spelling); None where it is not known."""

_resolver: ConnectionResolver | None = None


def set_connection_resolver(resolver: ConnectionResolver | None) -> None:
    """Set what looks up Airflow connections in this process; None: environment variables only."""
    global _resolver
    _resolver = resolver


def resolve_url(connection_string: str | None = None, connection_id: str | None = None) -> str:
    """Return the PostgreSQL URL of a source; Estudio's own database where nothing is given.

    A connection id is looked up with the registered resolver, then in `AIRFLOW_CONN_<ID>` (URI or JSON).

    Raises:
        ConfigurationError: both are given, the id is unknown, or it is not a PostgreSQL connection.
    """
    if connection_string and connection_id:
        raise ConfigurationError(
            f"connection_string and connection_id={connection_id!r} are both given. Give one of them."
        )
    if connection_string:
        return postgres_url(connection_string, "connection_string")
    if connection_id:
        return _connection_url(connection_id)
    return database_url()


def _connection_url(connection_id: str) -> str:
    variable = f"AIRFLOW_CONN_{connection_id.upper()}"
    found = (_resolver(connection_id) if _resolver is not None else None) or os.environ.get(variable)
    if not found:
        raise ConfigurationError(
            f"The connection {connection_id!r} is not defined. Add it in the Airflow UI (Admin, Connections), "
            f"run: airflow connections add {connection_id} --conn-uri postgresql://user:password@host:5432/database, "
            f"or set the environment variable {variable} to that URI."
        )
    source = f"the connection {connection_id!r}"
    return _from_json(found, source) if found.lstrip().startswith("{") else _from_airflow_uri(found, source)


def _from_airflow_uri(uri: str, source: str) -> str:
    """Return `uri` without the extras that only Airflow's hooks understand."""
    base, _, query = with_libpq_scheme(uri, source).partition("?")
    extra: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    nested = _json_object(extra.pop("__extra__", "{}"), source)
    return base + _query_string(extra | nested)


def _from_json(text: str, source: str) -> str:
    fields = _json_object(text, source)
    require_postgres(str(fields.get("conn_type", "")), source)
    extra = fields.get("extra") or {}
    if isinstance(extra, str):
        extra = _json_object(extra, source)

    def part(name: str, before: str = "") -> str:
        value = fields.get(name)
        return "" if value in (None, "") else before + quote(str(value), safe="")

    credentials = part("login") + part("password", ":")
    at = "@" if credentials else ""
    return f"postgresql://{credentials}{at}{part('host')}{part('port', ':')}/{part('schema')}{_query_string(extra)}"


def _query_string(extra: dict[str, Any]) -> str:
    legal = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    known = {name: str(value) for name, value in extra.items() if name in legal}
    return f"?{urlencode(known, quote_via=quote)}" if known else ""


def _json_object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(f"The JSON of {source} cannot be read: it has to be an object.")
    return value
