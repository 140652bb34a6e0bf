"""SIGKILL for the servers, and their return, as a supervisor would have it; with the times of every outage."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg

from estudio_core import embedded_postgres
from estudio_core.errors import DatabaseUnavailableError, MissingDependencyError
from estudio_core.local.triton.environment import prepare
from estudio_core.local.triton.server import TritonServer

RESTART_TIMEOUT_S = 60.0


@dataclass
class DatabaseFault:
    """Kills the PostgreSQL of `folder` and brings it back.

    Attributes:
        folder: Its data.
        outages: Begin and end of every time in which it did not answer, seconds since the epoch.
    """

    folder: Path
    outages: list[tuple[float, float]] = field(default_factory=list)

    def kill_server(self, down_s: float, meanwhile: Callable[[], None]) -> None:
        """Kill the postmaster, leave it down for a while, and start it again: crash recovery."""
        postmaster = int((self.folder / "postmaster.pid").read_text().split()[0])
        began = time.time()
        os.kill(postmaster, signal.SIGKILL)
        with suppress(psutil.NoSuchProcess):
            psutil.Process(postmaster).wait(10)
        meanwhile()
        time.sleep(down_s)
        self._wait_until_it_answers(began, start=True)

    def kill_session(self, meanwhile: Callable[[], None]) -> None:
        """Kill a process of PostgreSQL that is busy for a client: the postmaster ends all others and recovers."""
        with psycopg.connect(os.environ["ESTUDIO_DATABASE_URL"], autocommit=True) as witness:
            row = witness.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                " ORDER BY state = 'active' DESC, backend_start LIMIT 1"
            ).fetchone()
            assert row is not None, "nobody is connected"
            began = time.time()
            os.kill(row[0], signal.SIGKILL)
            meanwhile()
            with suppress(psycopg.OperationalError):
                while True:  # until the postmaster has ended this session too
                    witness.execute("SELECT 1")
        self._wait_until_it_answers(began, start=False)

    def _wait_until_it_answers(self, began: float, *, start: bool) -> None:
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while True:
            try:
                if start:
                    embedded_postgres.start(self.folder)
                with psycopg.connect(os.environ["ESTUDIO_DATABASE_URL"], connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
            except (DatabaseUnavailableError, psycopg.OperationalError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                self.outages.append((began, time.time()))
                return


class TritonFault:
    """Kills the Triton server and starts it again, empty, at the same address."""

    def __init__(self, server: TritonServer, log: Path) -> None:
        self.server, self._log = server, log

    def kill_server(self, down_s: float, meanwhile: Callable[[], None]) -> None:
        """Kill the server with its backend processes; a supervisor starts it again after a while."""
        os.killpg(self.server.process_id, signal.SIGKILL)
        os.waitpid(self.server.process_id, 0)
        self.server.stop()  # what it left in shared memory
        meanwhile()
        time.sleep(down_s)
        self.start_again()

    def start_again(self) -> None:
        """Start the server; no model is loaded until somebody asks for it."""
        old = self.server
        self.server = TritonServer.start(
            prepare(_environment()),
            Path(old.repository),
            self._log,
            http_port=old.http_port,
            grpc_port=old.grpc_port,
            metrics_port=old.metrics_port,
        )


@contextmanager
def triton(repository: Path, log: Path) -> Iterator[TritonFault | None]:
    """Hold a Triton server that this process and its children encode with; None where it cannot be installed."""
    try:
        environment = prepare(_environment())
    except MissingDependencyError:
        yield None
        return
    server = TritonServer.start(environment, repository, log)
    os.environ |= {
        "ESTUDIO_INFERENCE": "triton",
        "ESTUDIO_INFERENCE_GRPC_PORT": str(server.grpc_port),
        "ESTUDIO_INFERENCE_TIMEOUT_S": "5",
    }
    fault = TritonFault(server, log)
    try:
        yield fault
    finally:
        fault.server.stop()


def _environment() -> Path:
    return Path(__file__).parents[2] / ".venv-triton"
