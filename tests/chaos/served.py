"""`estudio serve` as users run it, several worker processes, under a supervisor that starts it again; and its kills."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

WORKERS = 2
READY_TIMEOUT_S = 90.0


@dataclass
class ServiceFault:
    """Kills the service, whole or a worker of it.

    Attributes:
        port: Where it listens.
        log: What it says.
        outages: Begin and end of every time in which none of it answered, seconds since the epoch.
    """

    port: int
    log: Path
    outages: list[tuple[float, float]] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Of the service."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        argv = [sys.executable, "-m", "estudio_core", "serve", "--port", str(self.port), "--workers", str(WORKERS)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self._wait_ready()

    def stop(self) -> None:
        """End all of it."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def kill_worker(self, lot: random.Random) -> None:
        """Kill one worker process; the others answer meanwhile, so that this is no outage. Wait for its successor."""
        before = self._workers()
        lot.choice(before).kill()
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not {worker.pid for worker in self._workers()} - {worker.pid for worker in before}:
            assert time.monotonic() < deadline, "no worker took the place of the one that was killed"
            time.sleep(0.05)
        self._wait_ready()

    def kill_whole(self, down_s: float) -> None:
        """Kill all of it, leave it down for a while, and start it again, as a supervisor does."""
        began = time.time()
        self.stop()
        time.sleep(down_s)
        self.start()
        self.outages.append((began, time.time()))

    def _workers(self) -> list[psutil.Process]:
        assert self._process is not None
        return [child for child in psutil.Process(self._process.pid).children() if _answers(child)]

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                if httpx.get(f"{self.address}/readyz", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, f"the service does not answer:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)


def _answers(child: psutil.Process) -> bool:
    try:
        return "resource_tracker" not in " ".join(child.cmdline())
    except psutil.Error:  # gone, or killed and not yet buried
        return False


@contextmanager
def served(log: Path) -> Iterator[ServiceFault]:
    """Serve on a free port while the block runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fault = ServiceFault(port, log)
    try:
        fault.start()
        yield fault
    finally:
        fault.stop()
