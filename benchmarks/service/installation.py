"""The installation that is measured: the catalogue of the demo, live, and `estudio serve` as a process over it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from benchmarks.index.scratch import FOLDER, PLUGIN, prepare_catalog
from estudio_core import database
from estudio_core.service.keys import create_key
from estudio_core.vectordb.releases import live_release
from tests.pipeline.steps import build_release

LOG = FOLDER / "service.log"
_START_S = 120.0


def prepare_release(items: int) -> None:
    """Have a release of `items` products live; one that is live already is taken."""
    database.migrate()
    with database.connect() as connection:
        live = live_release(connection, PLUGIN)
        there = live is not None and live.collection.stats(connection).objects == items
    if not there:
        build_release(PLUGIN, prepare_catalog(items).name, f"service-{items}")


def new_key(*scopes: str) -> str:
    """Make a key for the plugin and return its text."""
    with database.connect() as connection:
        return create_key(connection, "benchmark", scopes, [PLUGIN])[1]


@dataclass(frozen=True)
class Server:
    """A process that answers over HTTP on the loopback interface."""

    port: int
    process: psutil.Process

    @property
    def cpu_s(self) -> float:
        """Processor seconds that it has used."""
        used = self.process.cpu_times()
        return used.user + used.system

    @property
    def memory_mib(self) -> float:
        """What it holds in memory."""
        return self.process.memory_info().rss / 2**20

    @property
    def connections(self) -> int:
        """Open sockets, those that listen left out."""
        return sum(each.status != psutil.CONN_LISTEN for each in self.process.net_connections(kind="all"))


@contextmanager
def service() -> Iterator[Server]:
    """Run `estudio serve` with one worker process; its log goes to a file."""
    with _process(["-m", "estudio_core.cli", "serve"], "/readyz") as found:
        yield found


@contextmanager
def bare_route() -> Iterator[Server]:
    """Run a FastAPI application whose one route does nothing, by the same server."""
    with _process(["-m", "benchmarks.service.bare"], "/") as found:
        yield found


@contextmanager
def _process(arguments: Sequence[str], ready: str) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments, "--port", str(port)],
            stdout=log,
            env=dict(os.environ, ESTUDIO_SEARCH_TIMEOUT_S="60"),
        )
        try:
            _wait(f"http://127.0.0.1:{port}{ready}", process)
            yield Server(port, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{address} does not answer; see {LOG}.")
        time.sleep(0.2)
