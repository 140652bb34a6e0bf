"""The commands `estudio serve`, `estudio keys` and `estudio webhook`: the HTTP service, who may use it, and MLflow."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from estudio_core import exact_json
from estudio_core.cli_parts import AsJson, console, errors, explained
from estudio_core.errors import ConfigurationError, MissingDependencyError
from estudio_core.settings import get_settings
from estudio_core.terminal import Column, show_json, show_rows

keys_app = typer.Typer(no_args_is_help=True, help="Keys of the HTTP service: create, list, sign, revoke.")
webhook_app = typer.Typer(
    no_args_is_help=True, help="Have MLflow tell the HTTP service of moved aliases: register, remove."
)

KEY_VARIABLE = "ESTUDIO_KEY"


@explained
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [ESTUDIO_SERVICE_HOST, 127.0.0.1].")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port to listen on [ESTUDIO_SERVICE_PORT, 8100].")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Worker processes [ESTUDIO_SERVICE_WORKERS, 1].")
    ] = None,
) -> None:
    """Serve search, collection of clicks, writes and the search page over HTTP.

    SIGTERM and Ctrl-C end it once the answers that are under way are given; SIGHUP replaces its worker processes one
    after another, where there are several.
    """
    try:
        from estudio_core.service.server import run
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The service needs {error.name}, which is not installed. Run: pip install 'estudio[service]'"
        ) from None
    from estudio_core.database import database_url

    settings = get_settings()
    database_url()  # an embedded server starts here, once, and not in each worker process
    run(host or settings.service_host, port or settings.service_port, workers or settings.service_workers)


def _row(key: Any) -> dict[str, object]:
    now = datetime.now(UTC)
    state = "revoked" if key.revoked_at is not None else "current" if key.is_current(now) else "expired"
    return {
        "key": key.key_id,
        "state": state,
        "name": key.name,
        "scopes": list(key.scopes),
        "plugins": list(key.plugins),
        "origins": list(key.origins),
        "rate": key.rate,
        "filter": key.filter,
        "created": key.created_at,
        "expires": key.expires_at,
        "revoked": key.revoked_at,
    }


_COLUMNS = [
    Column("key"),
    Column("state", styles={"current": "green", "revoked": "red", "expired": "yellow"}),
    Column("scopes", prose=True),
    Column("plugins", prose=True),
    Column("origins", prose=True),
    Column("rate", right=True),
    Column("filter", prose=True),
    Column("created"),
    Column("expires"),
    Column("name", prose=True),
]


def _shown(row: dict[str, object]) -> dict[str, object]:
    lists = {name: ", ".join(map(str, row[name])) for name in ("scopes", "plugins", "origins")}  # type: ignore[call-overload]
    return {**row, **lists, "filter": None if row["filter"] is None else exact_json.dumps(row["filter"])}


@keys_app.command("create")
@explained
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str], typer.Option("--scope", "-s", help="search, events, items or admin. May be repeated.")],
    plugin: Annotated[list[str], typer.Option("--plugin", "-p", help="Plugin, or '*'. May be repeated.")],
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Page that may use it, as https://shop.example, or '*'. May be repeated."),
    ] = None,
    rate: Annotated[int | None, typer.Option(min=1, help="Most requests a minute.")] = None,
    where: Annotated[
        str | None, typer.Option("--filter", help="Payload filter, as JSON, that all it searches has to meet.")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="Days until it expires; never by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the key and its text.")] = False,
) -> None:
    """Make a key and print it, once: the database keeps only a digest.

    A key for a page has scopes search and events and names the page's origin; one for a server has no origin.
    """
    from estudio_core import database
    from estudio_core.service.keys import create_key

    condition = _json(where, "--filter")
    expires = None if days is None else datetime.now(UTC) + timedelta(days=min(days, 36_500))
    with database.connect() as connection:
        database.require_schema(connection)
        key, text = create_key(
            connection, name, scope, plugin, origins=origin or (), rate=rate, filter=condition, expires_at=expires
        )
    if as_json:
        show_json([{**_row(key), "text": text}])
        return
    typer.echo(text)
    errors.print(f"Key {key.key_id}. It is not shown again.", highlight=False)


@keys_app.command("list")
@explained
def list_them(as_json: AsJson = False) -> None:
    """List keys: what they may do, and whether they count."""
    from estudio_core import database
    from estudio_core.service.keys import list_keys

    with database.connect() as connection:
        database.require_schema(connection)
        rows = [_row(key) for key in list_keys(connection)]
    if as_json:
        show_json(rows)
    elif not rows:
        console.print("No keys yet. Make one: estudio keys create NAME --scope search --plugin NAME")
    else:
        show_rows(console, _COLUMNS, [_shown(row) for row in rows])


@keys_app.command("revoke")
@explained
def revoke(key: Annotated[str, typer.Argument(help="Id of the key, as estudio keys list shows it.")]) -> None:
    """Have a key refused, and all that was signed with it; within ten seconds, by every process."""
    from estudio_core import database
    from estudio_core.service.keys import revoke_key

    with database.connect() as connection:
        database.require_schema(connection)
        found = revoke_key(connection, key)
    console.print(f"Key {found.key_id} ({found.name}) is revoked.", markup=False, highlight=False, soft_wrap=True)


@keys_app.command("sign")
@explained
def sign(
    where: Annotated[str | None, typer.Option("--filter", help="Payload filter, as JSON.")] = None,
    user: Annotated[str | None, typer.Option(help="Whose personal rows are searched.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes until it expires.")] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", "-s", help="search or events.")] = None,
    plugin: Annotated[list[str] | None, typer.Option("--plugin", "-p", help="Plugin. May be repeated.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="Page that may use it. May be repeated.")] = None,
) -> None:
    """Restrict a key further for one page or user, without asking the service, and print it.

    The key is read from ESTUDIO_KEY, or from standard input: arguments are seen by everybody on a machine. Without
    --origin no page of another site may use it, unless the key itself has origins.
    """
    from estudio_core.service.keys import as_plugins, as_scopes, signed_key

    text = os.environ.get(KEY_VARIABLE) or sys.stdin.readline().strip()
    expires = None if minutes is None else datetime.now(UTC) + timedelta(minutes=min(minutes, 10**7))
    typer.echo(
        signed_key(
            text,
            filter=_json(where, "--filter"),
            user_id=user,
            expires_at=expires,
            scopes=None if not scope else as_scopes(scope),
            plugins=None if not plugin else as_plugins(plugin),
            origins=origin or None,
        )
    )


def _json(given: str | None, what: str) -> Any:
    if given is None:
        return None
    try:
        return exact_json.loads(given)
    except ValueError as error:
        raise ConfigurationError(f"{what} is not JSON: {error}.") from error


@webhook_app.command("register")
@explained
def register(
    service: Annotated[
        str, typer.Argument(help="Address of the service as MLflow reaches it, as https://search.example.org")
    ],
) -> None:
    """Have MLflow's server tell the service when an alias is set, so that a release starts at once.

    The messages are signed with ESTUDIO_SERVICE_WEBHOOK_SECRET, which the service has to know too. Without them a moved
    alias is found by looking, every ten seconds, and that goes on beside them.
    """
    from estudio_core.experiments import webhook
    from estudio_core.experiments.shared import mlflow_client

    secret = get_settings().service_webhook_secret
    if secret is None:
        raise ConfigurationError(
            "ESTUDIO_SERVICE_WEBHOOK_SECRET is not set. Set it here and for the service, to 16 characters or more: "
            "openssl rand -base64 32"
        )
    url = webhook.register(mlflow_client(), service, secret.get_secret_value())
    console.print(f"MLflow tells {url}, which has answered.", markup=False, highlight=False, soft_wrap=True)


@webhook_app.command("remove")
@explained
def remove() -> None:
    """Have MLflow tell no service any more; moved aliases are found by looking."""
    from estudio_core.experiments import webhook
    from estudio_core.experiments.shared import mlflow_client

    count = webhook.remove(mlflow_client())
    console.print("MLflow told none." if not count else "MLflow tells it no more.", markup=False, highlight=False)
