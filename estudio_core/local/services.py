"""Start, watch and stop background processes of one machine.

A process that was started here is remembered in a file, by its id and its start time, so that only our own processes
are ever stopped, after a reboot and a reuse of ids too. Each runs in a session of its own, its output in a log file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from estudio_core.errors import UnavailableError

_LOG_LIMIT_BYTES = 20 * 1024 * 1024
"""A log file above this size is set aside (one older file is kept) when its service starts."""

_POLL_S = 0.2


@dataclass(frozen=True)
class Service:
    """A background process: how to start it, and how to see that it works.

    `healthy` receives the time of start (seconds since the epoch) and is asked again and again; it must not raise.
    """

    name: str
    argv: tuple[str, ...]
    folder: Path
    """Where the log and the process file are kept."""
    healthy: Callable[[float], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the caller."""
    working_folder: Path | None = None
    address: str | None = None
    stop_timeout_s: float = 20.0
    """Time to end by itself after SIGTERM; then the whole process tree is killed."""

    @property
    def log_file(self) -> Path:
        """Output and errors of the process."""
        return self.folder / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        """Id and start time of the process."""
        return self.folder / f"{self.name}.pid.json"


@dataclass(frozen=True)
class ServiceStatus:
    """What is known about a service now. `memory_mib`: of all its processes, shared pages split among users."""

    name: str
    running: bool
    healthy: bool
    address: str | None
    log_file: Path
    pid: int | None = None
    memory_mib: int | None = None


@dataclass(frozen=True)
class _Started:
    pid: int
    started_at: float
    mark: str

    def process(self) -> psutil.Process | None:
        """Return the process, or None where it ended or its id belongs to another one now."""
        try:
            process = psutil.Process(self.pid)
            return process if _start_mark(self.pid) == self.mark and _alive(process) else None
        except (psutil.Error, OSError):
            return None

    def members(self) -> list[psutil.Process]:
        """Return every process of the tree, those left by a leader that died included."""
        leader = self.process()
        found: dict[int, psutil.Process] = {}
        if leader is not None:
            found[leader.pid] = leader
            found.update({child.pid: child for child in leader.children(recursive=True)})
        elif self._reused() or _boot() not in self.mark:
            return []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.pid and _alive(process):
                    found[process.pid] = process
            except OSError:
                continue
        return list(found.values())

    def _reused(self) -> bool:
        """Return whether the id belongs to another process: then nothing of our session is left."""
        try:
            return _start_mark(self.pid) != self.mark
        except (psutil.Error, OSError):
            return False


def _start_mark(pid: int) -> str:
    """Return what tells the process `pid` from any other that had or will have this id.

    On Linux that is the boot and the clock ticks from it to the start. psutil's start time is no mark: it moves with
    every correction of the system clock.
    """
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        ticks = stat.read_text().rpartition(")")[2].split()[19]
        return f"{_boot()} {ticks}"
    return f"{_boot()} {psutil.Process(pid).create_time():.2f}"


def _boot() -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return boot_id.read_text().strip() if boot_id.exists() else ""


def start(service: Service) -> bool:
    """Start `service` unless it runs; return whether it was started. Does not wait for its health.

    Raises:
        UnavailableError: its program cannot be run.
    """
    service.folder.mkdir(parents=True, exist_ok=True)
    if running(service):
        return False
    stop(service)  # what a leader that died has left behind
    if service.log_file.exists() and service.log_file.stat().st_size > _LOG_LIMIT_BYTES:
        service.log_file.replace(service.log_file.with_suffix(".log.1"))
    started_at = time.time()
    try:
        with service.log_file.open("ab") as log:
            process = subprocess.Popen(
                service.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **service.environment},
                cwd=service.working_folder,
                start_new_session=True,
            )
    except OSError as error:
        raise UnavailableError(f"{service.name} cannot be started with {service.argv[0]}: {error}.") from error
    _write(service, process, started_at)
    return True


def _write(service: Service, process: subprocess.Popen[bytes], started_at: float) -> None:
    temporary = service.pid_file.with_suffix(".tmp")
    content = {"pid": process.pid, "mark": _start_mark(process.pid), "started_at": started_at}
    temporary.write_text(json.dumps(content))
    temporary.replace(service.pid_file)


def running(service: Service) -> bool:
    """Return whether the process that was started for `service` is alive."""
    started = _read(service)
    return started is not None and started.process() is not None


def status(service: Service) -> ServiceStatus:
    """Return what is known about `service` now."""
    started = _read(service)
    process = started.process() if started else None
    if started is None or process is None:
        return ServiceStatus(service.name, False, False, service.address, service.log_file)
    memory = 0
    for member in started.members():
        try:
            memory += getattr(member.memory_full_info(), "pss", member.memory_info().rss)
        except psutil.Error:
            continue
    return ServiceStatus(
        service.name,
        True,
        service.healthy(started.started_at),
        service.address,
        service.log_file,
        started.pid,
        memory // 2**20,
    )


def wait_until_healthy(
    services: Sequence[Service],
    *,
    timeout_s: float,
    on_update: Callable[[str], None] | None = None,
) -> None:
    """Wait until all of `services` work; `on_update` receives the name of each when it does.

    Raises:
        UnavailableError: one ended, or is not ready in time; the message carries the end of its log.
    """
    deadline = time.monotonic() + timeout_s
    waiting = list(services)
    while waiting:
        for service in list(waiting):
            started = _read(service)
            if started is None or started.process() is None:
                raise UnavailableError(f"{service.name} ended while it was starting. {log_tail(service)}")
            if service.healthy(started.started_at):
                waiting.remove(service)
                if on_update is not None:
                    on_update(service.name)
        if waiting and time.monotonic() > deadline:
            raise UnavailableError(f"{waiting[0].name} is not ready after {timeout_s:.0f} s. {log_tail(waiting[0])}")
        if waiting:
            time.sleep(_POLL_S)


def answers_at(url: str) -> Callable[[float], bool]:
    """Return what tells whether a process answers `url` with 200, for `Service.healthy`."""

    def healthy(started_at: float) -> bool:
        import httpx

        try:
            return httpx.get(url, timeout=2.0, trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    return healthy


def stop(*services: Service) -> list[str]:
    """Stop `services` together: SIGTERM, a second one at half of the time, then SIGKILL; return the names stopped.

    Processes that were not started here are never touched.
    """
    trees = {service.name: (service, started.members()) for service in services if (started := _read(service))}
    stopped = [name for name, (_, members) in trees.items() if members]
    began = time.monotonic()
    for service, _ in trees.values():
        _signal_leader(service, signal.SIGTERM)
    reminded: set[str] = set()
    pending = set(stopped)
    while pending:
        elapsed = time.monotonic() - began
        for name in sorted(pending):
            service, members = trees[name]
            alive = [member for member in members if _alive(member)]
            leader_alive = running(service)
            if not alive:
                pending.discard(name)
            elif elapsed > service.stop_timeout_s or not leader_alive:
                _kill(service, members)
                pending.discard(name)
            elif elapsed > service.stop_timeout_s / 2 and name not in reminded:
                reminded.add(name)
                _signal_leader(service, signal.SIGTERM)
        if pending:
            time.sleep(_POLL_S)
    for service, _ in trees.values():
        service.pid_file.unlink(missing_ok=True)
    return stopped


def _signal_leader(service: Service, number: signal.Signals) -> None:
    started = _read(service)
    process = started.process() if started else None
    if process is not None:
        try:
            process.send_signal(number)
        except psutil.Error:
            return


def _kill(service: Service, known: Sequence[psutil.Process]) -> None:
    started = _read(service)
    members = {process.pid: process for process in [*known, *(started.members() if started else [])]}
    for process in members.values():
        try:
            process.kill()  # psutil compares start times first
        except psutil.Error:
            continue
    psutil.wait_procs(list(members.values()), timeout=5)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def log_tail(service: Service, lines: int = 15) -> str:
    """Return where the log of `service` is and its last lines, as one text for an error message."""
    try:
        with service.log_file.open("rb") as log:
            log.seek(max(0, service.log_file.stat().st_size - 16_384))
            text = log.read().decode(errors="replace").strip().splitlines()[-lines:]
    except OSError:
        text = []
    return f"Its log is {service.log_file}" + (", ending with:\n" + "\n".join(text) if text else ".")


def _read(service: Service) -> _Started | None:
    try:
        content = json.loads(service.pid_file.read_text())
        return _Started(int(content["pid"]), float(content["started_at"]), str(content["mark"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
