"""The HTTP service as a part of `estudio up`: search, collection of clicks and the search page, on the loopback."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from estudio_core.local.ports import LOOPBACK
from estudio_core.local.services import Service, answers_at

NAME = "service"
NEEDED = ("cryptography", "prometheus_client", "starlette", "uvicorn")


def http_service(home: Path, *, project: Path, port: int, environment: Mapping[str, str] | None = None) -> Service:
    """Return the service over the installation in `home`, with the plugins of `project`."""
    address = f"http://{LOOPBACK}:{port}"
    return Service(
        name=NAME,
        argv=(sys.executable, "-m", "estudio_core.cli", "serve", "--host", LOOPBACK, "--port", str(port)),
        folder=home.resolve() / "services",
        healthy=answers_at(f"{address}/healthz"),
        environment={"ESTUDIO_HOME": str(home.resolve()), **(environment or {})},
        working_folder=project,
        address=address,
        stop_timeout_s=15.0,
    )


def is_installed() -> bool:
    """Return whether the packages of the extra `service` are there."""
    return all(find_spec(name) is not None for name in NEEDED)
