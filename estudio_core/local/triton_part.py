"""The local Triton server as a part of `estudio up`: started where it can be, looked at, stopped."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from estudio_core.errors import ConfigurationError, EstudioError, InferenceUnavailableError, MissingDependencyError
from estudio_core.inference.released import live_models
from estudio_core.inference.triton_control import TritonControl
from estudio_core.local.services import ServiceStatus
from estudio_core.local.triton.__main__ import start_server, state_file, stop_server
from estudio_core.local.triton.environment import is_installed
from estudio_core.local.triton.server import TritonServer
from estudio_core.settings import get_settings

logger = logging.getLogger(__name__)

NAME = "triton"
HEALTH_TIMEOUT_S = 5.0
"""Deadline of one golden request."""


def must_install_triton() -> bool:
    """Return whether `start_triton` installs the server first, where that is possible at all."""
    return sys.platform == "linux" and not is_installed(get_settings().triton_environment.absolute())


def start_triton() -> str | None:
    """Start the server, unless it runs; return why it does not run here, None where it does.

    The first start installs it, about 500 MB. Everything works without it where `ESTUDIO_INFERENCE` is `embedded`.

    Raises:
        InferenceUnavailableError: it does not start, and this installation encodes with it.
    """
    try:
        start_server()
    except (MissingDependencyError, ConfigurationError, InferenceUnavailableError) as error:
        if get_settings().inference == "triton":
            raise InferenceUnavailableError(
                f"ESTUDIO_INFERENCE is triton, and Triton does not start: {error}"
            ) from error
        logger.info("Triton is not started: %s", error)
        return str(error)
    return None


def stop_triton(home: Path) -> list[str]:
    """Stop the server of the installation in `home`; return its name where one ran."""
    return [NAME] if _is_ours(home) and stop_server() else []


def metrics_address(home: Path) -> str | None:
    """Return the address of the server's Prometheus metrics; None where none runs."""
    server = TritonServer.load(state_file()) if _is_ours(home) else None
    return server.metrics_url if server else None


def triton_status(home: Path) -> ServiceStatus | None:
    """Return the state of the server of the installation in `home`; None where none was started.

    It is healthy when the models of live releases are ready, where the database can tell them, and every model that it
    calls ready gives its golden vectors: a server whose backend process has died still says that it is ready.
    """
    server = TritonServer.load(state_file()) if _is_ours(home) else None
    if server is None:
        return None
    return ServiceStatus(
        NAME, True, _is_healthy(server), f"grpc://{server.url}", Path(server.log), server.process_id, None
    )


def _is_healthy(server: TritonServer) -> bool:
    if not server.is_ready():
        return False
    control = TritonControl(server.url, timeout_s=HEALTH_TIMEOUT_S)
    try:
        control.check_loaded(Path(server.repository), live_models())
    except EstudioError as error:
        logger.warning("Triton is not healthy: %s", error)
        return False
    finally:
        control.close()
    return True


def _is_ours(home: Path) -> bool:
    return home.resolve() == get_settings().home.expanduser().resolve()
