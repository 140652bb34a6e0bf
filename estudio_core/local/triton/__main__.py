"""`python -m estudio_core.local.triton prepare|start|stop|status`: a local Triton server over the model repository."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import typer

from estudio_core.errors import EstudioError
from estudio_core.export.triton_repository import list_entries
from estudio_core.inference.released import released_models
from estudio_core.inference.triton_control import TritonControl
from estudio_core.local.triton.environment import prepare as prepare_environment
from estudio_core.local.triton.server import TritonServer
from estudio_core.settings import get_settings

logger = logging.getLogger(__name__)

app = typer.Typer(help="A real Triton server on this machine, for laptops and tests.", no_args_is_help=True)


def state_file() -> Path:
    """Return where the running server is noted."""
    return get_settings().home / "triton" / "server.json"


def start_server() -> TritonServer:
    """Start the installation's server, unless it runs, and load what `models_to_load` names.

    An entry that cannot be loaded is logged and keeps no other from serving.

    Raises:
        MissingDependencyError: the server cannot be installed.
        ConfigurationError: a port is taken, or there is no repository.
        InferenceUnavailableError: the server does not get ready.
    """
    running = TritonServer.load(state_file())
    if running is not None and running.is_ready():
        return running
    settings = get_settings()
    server = TritonServer.start(
        prepare_environment(settings.triton_environment),
        settings.triton_repository,
        settings.home / "triton" / "server.log",
        grpc_port=settings.inference_grpc_port,
        metrics_port=settings.triton_metrics_port,
    )
    server.save(state_file())
    control = TritonControl(server.url)
    for name in models_to_load():
        try:
            control.load(settings.triton_repository / name)
        except EstudioError as error:
            logger.warning("%s is not served: %s", name, error)
    control.close()
    return server


def models_to_load() -> list[str]:
    """Return the entries of the repository that a server which starts has to serve.

    Of each plugin those of the live release and the one before it; where nothing is live, or the database does not
    answer, the newest, `keep_releases` of them.
    """
    settings = get_settings()
    released = released_models()
    names: list[str] = []
    for plugin, entries in itertools.groupby(list_entries(settings.triton_repository), key=lambda entry: entry.plugin):
        there = [entry.name for entry in entries]
        needed = [name for name in released.get(plugin, ()) if name in there]
        names += needed or there[-settings.keep_releases :]
    return names


def stop_server() -> bool:
    """Stop the installation's server; return whether one ran."""
    running = TritonServer.load(state_file())
    if running is not None:
        running.stop()
    state_file().unlink(missing_ok=True)
    return running is not None


@app.command()
def prepare() -> None:
    """Install the server into its own environment, about 500 MB."""
    typer.echo(f"The server is in {prepare_environment(get_settings().triton_environment).folder}.")


@app.command()
def start() -> None:
    """Start the server and wait until it is ready."""
    server = start_server()
    typer.echo(f"Triton: gRPC {server.url}, HTTP 127.0.0.1:{server.http_port}, metrics {server.metrics_url}")


@app.command()
def stop() -> None:
    """Stop the server."""
    typer.echo("Stopped." if stop_server() else "It was not running.")


@app.command()
def status() -> None:
    """Say where the server is and which models it has."""
    server = TritonServer.load(state_file())
    if server is None:
        typer.echo("Not running. Start it with `python -m estudio_core.local.triton start`.")
        raise typer.Exit(1)
    typer.echo(f"gRPC {server.url}, HTTP 127.0.0.1:{server.http_port}, metrics {server.metrics_url}, log {server.log}")
    control = TritonControl(server.url)
    for name, state in control.loaded().items():
        typer.echo(f"  {name}: {state}")
    control.close()


def main() -> None:
    """Run the command; errors are told in one line."""
    try:
        app()
    except EstudioError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
