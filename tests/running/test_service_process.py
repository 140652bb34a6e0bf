"""The service as processes: replaced and ended under load, killed, without a request or a row that was lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import psutil
import pytest

from tests.service.conftest import Service, service, small_entry, small_model_folder

__all__ = ["service", "small_entry", "small_model_folder"]

pytestmark = pytest.mark.proof
WORKERS = 2


@dataclass
class Served:
    """`estudio serve` with several worker processes."""

    process: subprocess.Popen[bytes]
    address: str

    def workers(self) -> list[psutil.Process]:
        """Processes that answer."""
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        ]


@pytest.fixture
def served(service: Service) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "estudio_core.cli", "serve", "--port", str(port), "--workers", str(WORKERS)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    found = Served(process, f"http://127.0.0.1:{port}")
    wait_ready(found.address)
    yield found
    if process.poll() is None:
        process.kill()
        process.wait()


def wait_ready(address: str, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < until, "the service does not begin"
        time.sleep(0.2)


@dataclass
class Load:
    """People who search and click, one request after another, on connections that stay open."""

    service: Service
    address: str
    retries: bool = False
    acknowledged: list[str] = field(default_factory=list)
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        headers = {"Authorization": f"Bearer {self.service.key('search', 'events')}"}
        self.threads = [threading.Thread(target=self._run, args=(n, headers)) for n in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        for thread in self.threads:
            thread.join()

    def _run(self, worker: int, headers: dict[str, str]) -> None:
        with httpx.Client(base_url=self.address, headers=headers, timeout=30) as client:
            number = 0
            while not self.ends.is_set():
                number += 1
                name = f"{id(self)}-{worker}-{number}"
                event = {
                    "action_name": "click", "query_id": "load", "event_id": name,
                    "timestamp": datetime.now(UTC).isoformat(), "event_attributes": {"object": "7"},
                }  # fmt: skip
                for path, body in (("/shop/_search", {"query": f"lamp {number % 7}"}), ("/ubi_events", event)):
                    try:
                        answer = client.post(path, json=body)
                    except httpx.HTTPError as error:
                        self.failed.append(f"{path}: {error!r}")
                        continue
                    if answer.status_code != 200:
                        self.failed.append(f"{path}: {answer.status_code} {answer.text[:200]}")
                    elif path == "/ubi_events":
                        self.acknowledged.append(name)
                    else:
                        self.answered += 1


def stored(service: Service) -> set[str]:
    return {row[0] for row in service.sql("SELECT event_id FROM estudio.ubi_events WHERE query_id = 'load'")}


def test_workers_are_replaced_under_load_without_a_failed_request(service: Service, served: Served) -> None:
    before = {worker.pid for worker in served.workers()}
    with Load(service, served.address) as load:
        time.sleep(3)
        served.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 120
        while before & {worker.pid for worker in served.workers()}:
            assert time.monotonic() < until
            time.sleep(0.3)
        time.sleep(2)
    assert load.failed == []
    assert load.answered > 50
    assert set(load.acknowledged) <= stored(service)
    counts = httpx.get(f"{served.address}/metrics").text
    total = sum(float(line.split()[-1]) for line in counts.splitlines() if line.startswith("estudio_searches_total"))
    assert total == load.answered  # of all worker processes, those that have gone among them


def test_what_was_acknowledged_is_there_when_a_worker_is_killed(service: Service, served: Served) -> None:
    with Load(service, served.address) as load:
        for _ in range(2):
            time.sleep(2)
            served.workers()[0].kill()
        time.sleep(10)
    assert len(served.workers()) == WORKERS
    assert load.answered > 50
    assert set(load.acknowledged) <= stored(service)
    wait_ready(served.address)


def test_it_ends_when_it_is_told_to_and_answers_what_is_under_way(service: Service, served: Served) -> None:
    with Load(service, served.address) as load:
        time.sleep(2)
        served.process.terminate()
        assert served.process.wait(60) == 0
    assert set(load.acknowledged) <= stored(service)
    first = next((n for n, each in enumerate(load.failed) if "Connect" not in each), None)
    assert first is None, load.failed[first] if first is not None else ""  # only new connections are refused
