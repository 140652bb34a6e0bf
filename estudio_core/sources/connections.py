"""From what a plugin says about its database (a URL or an Airflow connection id) to connection parameters.

One reading for commands and tasks: whoever looks a connection up gives its fields, and this module makes of them what
the driver connects with. All of them count, those of Extra too; what is not understood is refused by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from estudio_core.database import database_url
from estudio_core.errors import ConfigurationError, suggest
from estudio_core.postgres_url import connection_parameters, postgres_url, require_postgres

ConnectionResolver = Callable[[str], str | None]
"""From an Airflow connection id to its URI, or the JSON of its fields; None where it is not known."""

FIELDS = ("conn_type", "host", "port", "login", "password", "schema", "extra")
"""Fields of an Airflow connection that say how to connect."""

_OF_HOOKS = {"cursor", "sqlalchemy_scheme", "enable_log_db_messages", "aws_conn_id", "azure_conn_id"}
_OF_CLOUDS = {"iam", "redshift", "redshift-serverless", "cluster-identifier", "workgroup-name"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*://")

_resolver: ConnectionResolver | None = None


def set_connection_resolver(resolver: ConnectionResolver | None) -> None:
    """Set what looks up Airflow connections in this process; None: environment variables only."""
    global _resolver
    _resolver = resolver


def fields_of(connection: Any) -> str | None:
    """Return the fields of an Airflow connection as JSON, `extra` as it was written; None for one without a type.

    Airflow reads an environment variable that is no URI as one without a type: its own text is read instead.
    """
    known = {name: getattr(connection, name, None) for name in FIELDS}
    return json.dumps(known) if known["conn_type"] else None


def resolve_url(connection_string: str | None = None, connection_id: str | None = None) -> str:
    """Return what the driver connects to a source with, a URL or `key=value` pairs; without both, to Estudio's own.

    A connection id is looked up with the registered resolver, then in `AIRFLOW_CONN_<ID>` (URI or JSON).

    Raises:
        ConfigurationError: both are given, the id is unknown, or it is not a PostgreSQL connection.
    """
    if connection_string and connection_id:
        raise ConfigurationError(
            f"connection_string and connection_id={connection_id!r} are both given. Give one of them."
        )
    for name, given in (("connection_string", connection_string), ("connection_id", connection_id)):
        if given is not None and not given.strip():
            raise ConfigurationError(f"{name} is empty. Leave it out to read Estudio's own database, or say which.")
    if connection_string:
        return postgres_url(connection_string, "connection_string")
    if connection_id:
        return _connection_pairs(connection_id)
    return database_url()


def _connection_pairs(connection_id: str) -> str:
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    variable = f"AIRFLOW_CONN_{connection_id.upper()}"
    found = (_resolver(connection_id) if _resolver is not None else None) or os.environ.get(variable)
    if not found:
        raise ConfigurationError(
            f"The connection {connection_id!r} is not defined. Add it in Airflow (Admin, Connections), or run: "
            f"estudio airflow connections add {connection_id} "
            "--conn-uri postgresql://user:password@host:5432/database, "
            f"or set the environment variable {variable} to that URI."
        )
    source = f"the connection {connection_id!r}"
    found = found.strip()  # as Airflow does; files that hold secrets often end with a line break
    if found.startswith("{"):
        fields = _json_object(found, source)
        if isinstance(uri := fields.get("uri"), str):
            fields = _fields_of_uri(uri.strip(), source)
    elif _SCHEME.match(found):
        fields = _fields_of_uri(found, source)
    else:  # libpq's own pairs
        connection_parameters(found)
        return found
    known = _parameters(fields, source)
    try:
        return make_conninfo("", **known)
    except (ProgrammingError, ValueError) as error:  # the message may hold a value
        raise ConfigurationError(
            f"{source} cannot be used: libpq refuses one of {', '.join(sorted(known))}."
        ) from error


def _fields_of_uri(uri: str, source: str) -> dict[str, Any]:
    """Return the fields of an Airflow URI, read as Airflow does; what it would read otherwise than meant is refused."""
    try:
        parts = None if re.search(r"[\t\r\n]", uri) else urlsplit(uri)  # it leaves these out of a password in silence
        port = parts.port if parts is not None else None
    except ValueError:
        parts = None
    if parts is not None:
        require_postgres(parts.scheme.partition("+")[0], source)
    if parts is None or not _unambiguous(parts):
        raise ConfigurationError(
            f"The URI of {source} cannot be read. Write postgresql://user:password@host:5432/database, with special "
            "characters of user and password percent-encoded (@ is %40, / is %2F, # is %23, ? is %3F), or give the "
            "fields as JSON. Several hosts go into Extra as host and port."
        )
    account, _, place = parts.netloc.rpartition("@")
    login, _, password = account.partition(":")
    host = unquote(place.partition("]")[0][1:] if place.startswith("[") else place.partition(":")[0])
    if host.startswith("/") and host != host.lower():
        raise ConfigurationError(
            f"The URI of {source} has a socket folder with capital letters, which Airflow reads as small ones. Give it "
            "as an option, ?host=..., or in Extra."
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = _json_object(query.pop("__extra__", "{}"), source)
    return {
        "conn_type": parts.scheme.partition("+")[0],
        "login": unquote(login),
        "password": unquote(password),
        "host": host.lower(),  # as Airflow reads it
        "port": port,
        "schema": unquote(parts.path[1:]),
        "extra": query | extra,
    }


def _unambiguous(parts: SplitResult) -> bool:
    """Whether no special character of a password ended the part of the URI that it stands in."""
    query = parts.query
    return not (parts.fragment or "@" in parts.path or (query and ("=" not in query or "@" in query.partition("=")[0])))


def _parameters(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return libpq's parameters of the fields of an Airflow connection; those of Extra go before the others."""
    require_postgres(str(fields.get("conn_type") or "").partition("+")[0], source)
    unknown = sorted(set(fields) - {*FIELDS, "conn_id", "description", "id", "is_encrypted", "is_extra_encrypted"})
    if unknown:
        raise ConfigurationError(f"The JSON of {source} has a field {unknown[0]!r}. {suggest(unknown[0], FIELDS)}")
    names = {"login": "user", "password": "password", "host": "host", "port": "port", "schema": "dbname"}
    known = {}
    for name, ours in names.items():
        value = fields.get(name)
        if not isinstance(value, str | int | float | None) or isinstance(value, bool):
            raise ConfigurationError(f"{name} in the JSON of {source} is {type(value).__name__}; a text is needed.")
        if value not in ("", None) and not (name == "port" and value == 0):  # Airflow's word for none
            known[ours] = _text(value)
    if known.get("host", "").startswith("[") and known["host"].endswith("]"):
        known["host"] = known["host"][1:-1]  # an IPv6 address as URLs have it
    extra = fields.get("extra") or {}
    if isinstance(extra, str):
        extra = _json_object(extra, f"Extra of {source}")
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"Extra of {source} is {type(extra).__name__}: it has to be an object.")
    further = extra.get("sqlalchemy_query") or {}
    if not isinstance(further, Mapping):
        raise ConfigurationError(f"sqlalchemy_query in Extra of {source} has to be an object.")
    return known | _options({**further, **{k: v for k, v in extra.items() if k != "sqlalchemy_query"}}, source)


def _options(extra: Mapping[str, Any], source: str) -> dict[str, str]:
    import psycopg

    legal = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    known: dict[str, str] = {}
    for name, value in extra.items():
        if name in _OF_CLOUDS:
            if value and str(value).lower() != "false":
                raise ConfigurationError(
                    f"Extra of {source} has {name}: connecting with a cloud's token is not supported. Give a login and "
                    "a password, or a connection to a pooler that has them."
                )
        elif name in legal and isinstance(value, str | int | float):
            known[name] = _text(value)
        elif name in legal and value is not None:
            raise ConfigurationError(f"{name} in Extra of {source} is {type(value).__name__}; a text is needed.")
        elif name not in legal and name not in _OF_HOOKS:
            raise ConfigurationError(
                f"Extra of {source} has {name!r}, which PostgreSQL's driver does not know. "
                f"{suggest(name, sorted(legal))}"
            )
    return known


def _text(value: str | float) -> str:
    """Return a value as libpq reads it: truths are 1 and 0, and a whole number has no point."""
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return str(int(value)) if whole else str(value)


def _json_object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigurationError(f"The JSON of {source} cannot be read: it has to be an object.")
    return value
