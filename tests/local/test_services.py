"""Background processes: only ours are stopped, and all of ours are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from estudio_core.errors import UnavailableError
from estudio_core.local import services
from estudio_core.local.services import Service

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
WITH_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}])"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service("worker", (sys.executable, "-c", SLEEP), tmp_path / "services", healthy=lambda started_at: True)
    yield made
    services.stop(made)


def pid_of(service: Service) -> int:
    return int(json.loads(service.pid_file.read_text())["pid"])


def wait_for(condition: object, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator] (any callable)
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def test_a_running_service_is_not_started_again(service: Service) -> None:
    assert services.start(service)
    first = pid_of(service)
    assert not services.start(service)
    assert pid_of(service) == first


def test_stop_ends_the_process_and_forgets_it(service: Service) -> None:
    services.start(service)
    process = psutil.Process(pid_of(service))
    assert services.stop(service) == ["worker"]
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert not service.pid_file.exists()
    assert services.stop(service) == []


def test_stop_takes_children_along(service: Service) -> None:
    parent = replace(service, argv=(sys.executable, "-c", WITH_CHILD))
    services.start(parent)
    process = psutil.Process(pid_of(parent))
    wait_for(process.children)
    (child,) = process.children()
    services.stop(parent)
    wait_for(lambda: not child.is_running())


def test_children_of_a_service_that_was_killed_are_stopped_with_the_next_start(service: Service) -> None:
    parent = replace(service, argv=(sys.executable, "-c", WITH_CHILD))
    services.start(parent)
    process = psutil.Process(pid_of(parent))
    wait_for(process.children)
    (orphan,) = process.children()
    process.kill()
    process.wait()
    assert orphan.is_running()
    services.start(service)
    wait_for(lambda: not orphan.is_running())
    assert services.running(service)


def test_a_process_that_got_the_id_of_ours_is_left_alone(service: Service) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        services.start(service)
        services.stop(service)
        boot, _, start = services._start_mark(stranger.pid).rpartition(" ")
        record = {"pid": stranger.pid, "mark": f"{boot} {float(start) - 1:g}", "started_at": time.time()}
        service.pid_file.write_text(json.dumps(record))
        assert not services.running(service)
        assert services.stop(service) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_nothing_is_stopped_for_a_record_from_before_the_last_boot(service: Service) -> None:
    services.start(service)
    record = json.loads(service.pid_file.read_text())
    service.pid_file.write_text(json.dumps({**record, "mark": "another-boot 42"}))
    assert services.stop(service) == []
    assert psutil.pid_exists(record["pid"])
    service.pid_file.write_text(json.dumps(record))


def test_a_process_that_ignores_the_request_to_end_is_killed_in_time(service: Service) -> None:
    stubborn = replace(service, argv=(sys.executable, "-c", STUBBORN), stop_timeout_s=1.0)
    services.start(stubborn)
    wait_for(lambda: "up" in stubborn.log_file.read_text())
    process = psutil.Process(pid_of(stubborn))
    began = time.monotonic()
    services.stop(stubborn)
    assert 0.9 < time.monotonic() - began < 8
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_service_that_ends_while_starting_is_reported_with_its_log(service: Service) -> None:
    broken = replace(service, argv=(sys.executable, "-c", "raise SystemExit('no such port: 99999')"))
    services.start(broken)
    with pytest.raises(UnavailableError, match="worker ended while it was starting") as caught:
        services.wait_until_healthy([replace(broken, healthy=lambda _: False)], timeout_s=10)
    assert "no such port: 99999" in str(caught.value)
    assert str(broken.log_file) in str(caught.value)


def test_a_service_that_is_never_ready_is_given_up(service: Service) -> None:
    services.start(service)
    with pytest.raises(UnavailableError, match="worker is not ready after 0 s"):
        services.wait_until_healthy([replace(service, healthy=lambda _: False)], timeout_s=0.3)


def test_a_program_that_does_not_exist_is_named(service: Service) -> None:
    with pytest.raises(UnavailableError, match="/nowhere/program"):
        services.start(replace(service, argv=("/nowhere/program",)))


def test_status_tells_state_process_and_memory(service: Service) -> None:
    assert not services.status(service).running
    services.start(service)
    state = services.status(service)
    assert (state.running, state.healthy, state.pid) == (True, True, pid_of(service))
    # The process may be so young that it has no whole MiB yet.
    wait_for(lambda: 1 <= (services.status(service).memory_mib or 0) < 200)
    os.kill(pid_of(service), signal.SIGKILL)
    wait_for(lambda: not services.status(service).running)


def test_a_long_log_is_set_aside_at_the_next_start(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_LOG_LIMIT_BYTES", 100)
    service.folder.mkdir()
    service.log_file.write_text("old line\n" * 50)
    services.start(service)
    assert service.log_file.with_suffix(".log.1").read_text().startswith("old line")
    assert "old line" not in service.log_file.read_text()
