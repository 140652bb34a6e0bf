"""Starts, watches and stops a local Triton server over a model repository."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from estudio_core.errors import ConfigurationError, InferenceUnavailableError
from estudio_core.local.triton.environment import TritonEnvironment

START_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 5
"""How long the server lets requests in progress end; it takes 3.5 to 4.5 s in any case."""

_POLL_S = 0.05
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (named by the system; we only remove what carries our prefix)


@dataclass(frozen=True)
class TritonServer:
    """A running server. It serves nothing until a model is loaded explicitly.

    Attributes:
        process_id: Leader of the server's process group.
        http_port: Port of the HTTP endpoint, on loopback like the others.
        grpc_port: Port of the gRPC endpoint.
        metrics_port: Port of the Prometheus metrics, path `/metrics`.
        repository: Root of the model repository it serves from.
        log: Its log file.
    """

    process_id: int
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: str
    log: str

    @property
    def url(self) -> str:
        """`host:port` of the gRPC endpoint, as clients want it."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Address of the Prometheus metrics."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @classmethod
    def start(
        cls,
        environment: TritonEnvironment,
        repository: Path,
        log: Path,
        *,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
    ) -> TritonServer:
        """Start a server and return once it is ready. It outlives this process unless it is stopped.

        Args:
            environment: What `prepare` returned.
            repository: Root of the model repository.
            log: File for what the server says; overwritten.
            http_port: Ports to use; None: any free one.
            grpc_port: As above.
            metrics_port: As above.

        Raises:
            ConfigurationError: a port is taken, or there is no repository.
            InferenceUnavailableError: the server ends or is not ready in time; the message has the end of its log.
        """
        if not repository.is_dir():
            raise ConfigurationError(
                f"There is no model repository at {repository}. Run the initialize DAG of a plugin."
            )
        ports = [_checked_port(port) for port in (http_port, grpc_port, metrics_port)]
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [str(environment.server_binary), f"--model-repository={repository.resolve()}"]
        command += [f"--backend-directory={environment.backends}", "--model-control-mode=explicit"]
        for endpoint, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            command += [f"--{endpoint}-address=127.0.0.1", f"--{endpoint}-port={port}"]
        command += ["--disable-auto-complete-config", f"--exit-timeout-secs={EXIT_TIMEOUT_S}"]
        for backend in ("python", "onnxruntime"):
            command.append(f"--backend-config={backend},shm-region-prefix-name={_shared_memory_prefix(ports[1])}")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment.process_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own: Ctrl-C is not for it, and stop() reaches all of it
            )
        server = cls(process.pid, ports[0], ports[1], ports[2], str(repository.resolve()), str(log))
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                server.stop()
                reason = "ended" if process.returncode is not None else f"was not ready in {START_TIMEOUT_S:.0f} s"
                raise InferenceUnavailableError(f"The local Triton server {reason}. End of {log}:\n{server.log_tail()}")
            time.sleep(_POLL_S)
        return server

    def is_ready(self) -> bool:
        """Return whether the server itself answers; models are another matter: send golden texts."""
        address = f"http://127.0.0.1:{self.http_port}/v2/health/ready"
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def is_running(self) -> bool:
        """Return whether the process exists and is this server: process ids are used again."""
        try:
            command = Path(f"/proc/{self.process_id}/cmdline").read_bytes()
            state = Path(f"/proc/{self.process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return False
        return state != "Z" and f"--grpc-port={self.grpc_port}".encode() in command

    def stop(self) -> None:
        """Stop the server and its backend processes, and remove the shared memory that they leave when killed."""
        if self.is_running():
            os.kill(self.process_id, signal.SIGTERM)
            deadline = time.monotonic() + EXIT_TIMEOUT_S + 5
            while self.is_running() and time.monotonic() < deadline:
                _reap(self.process_id)
                time.sleep(_POLL_S)
            if self.is_running():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process_id, signal.SIGKILL)
        _reap(self.process_id)
        for left in _SHARED_MEMORY.glob(f"*{_shared_memory_prefix(self.grpc_port)}*"):
            left.unlink(missing_ok=True)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the log."""
        try:
            return "\n".join(Path(self.log).read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(there is no log)"

    def save(self, path: Path) -> None:
        """Write where the server is, for `load` in another process."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> TritonServer | None:
        """Return the server that was saved at `path`, if it still runs."""
        try:
            server = cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return server if server.is_running() else None


@contextmanager
def running_server(environment: TritonEnvironment, repository: Path, log: Path) -> Iterator[TritonServer]:
    """Hold a server on free ports inside the block."""
    server = TritonServer.start(environment, repository, log)
    try:
        yield server
    finally:
        server.stop()


def _checked_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise ConfigurationError(
                f"Port {port} is taken ({error.strerror}). Stop what uses it, or choose another port."
            ) from error
        found: int = probe.getsockname()[1]
    return found


def _shared_memory_prefix(grpc_port: int) -> str:
    return f"estudio_triton_{grpc_port}_"


def _reap(process_id: int) -> None:
    """Take note of the end of a child, so that it does not stay as a zombie; not our child: nothing to do."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process_id, os.WNOHANG)
