"""Runs the service: uvicorn with as many worker processes as asked for."""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import LOGGING_CONFIG

from estudio_core.service import app, tracing
from estudio_core.service.app import DRAIN_VARIABLE
from estudio_core.service.metrics import FOLDER_VARIABLE
from estudio_core.service.rates import FILE_VARIABLE

DRAIN_S = 2.0
"""Between the signal to end and the end of listening: as long as busy connections need for one more answer."""
GRACE_S = 30
"""For answers that are under way then."""


def run(host: str, port: int, workers: int) -> None:
    """Serve until a signal says to end: SIGTERM or Ctrl-C; SIGHUP replaces worker processes one after another.

    Answers that are under way are given, and rows that were collected are written, before a process ends.
    """
    if (lacking := tracing.lacking()) is not None:
        print(lacking, file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="estudio-service-") as folder:
        os.environ.setdefault(DRAIN_VARIABLE, str(DRAIN_S))
        os.environ[FILE_VARIABLE] = str(Path(folder) / "rates")
        if workers > 1:
            counts = Path(folder) / "metrics"
            counts.mkdir()
            os.environ[FOLDER_VARIABLE] = str(counts)
        uvicorn.run(
            "estudio_core.service.server:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            log_config=_log_config(),
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            timeout_worker_healthcheck=60,
            ws="none",
            lifespan="on",
        )


def create_app() -> Starlette:
    """Return the service of one worker process, which sends its traces where OpenTelemetry's variables say."""
    return app.create_app(at_end=tracing.set_up())


def _log_config() -> dict[str, Any]:
    """Lines of the service go to standard output, one JSON object per request; uvicorn's own to standard error."""
    config: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    config["formatters"]["line"] = {"format": "%(message)s"}
    config["formatters"]["default"]["fmt"] = "%(asctime)s %(levelname)s %(name)s %(message)s"
    config["formatters"]["default"]["use_colors"] = sys.stderr.isatty()
    config["handlers"]["line"] = {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stdout"}
    config["loggers"]["estudio.access"] = {"handlers": ["line"], "level": "INFO", "propagate": False}
    config["loggers"]["estudio_core"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
