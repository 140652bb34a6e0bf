"""This machine as a node of a Ray cluster for the time of a search: Ray's drivers run on nodes only."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import psutil

from estudio_core.errors import UnavailableError

JOIN_TIMEOUT_S = 60.0
_STOP_GRACE_S = 15.0
_NOT_JOINED_GRACE_S = 1.0  # while it calls the cluster, `ray start` takes no notice of SIGTERM
_STARTED = "Ray runtime started"  # what `ray start` prints once the node is registered
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def node_of(address: str) -> Iterator[None]:
    """Let this machine be a node of the cluster at `address`, `host:port`, inside the block.

    Where one of its nodes runs here already, nothing is started. The node takes no trials: it has no CPUs or GPUs.

    Raises:
        UnavailableError: the cluster does not answer, or refuses the token.
    """
    if node_is_here(address):
        yield
        return
    process = _join(address)
    try:
        yield
    finally:
        _stop(process)


def node_is_here(address: str) -> bool:
    """Return whether a node of the cluster at `address` runs on this machine."""
    if address == "auto":
        return True
    wanted = _resolved(address)
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] != "raylet":
            continue
        for argument in process.info["cmdline"] or ():
            option, _, value = argument.partition("=")
            if option in {"--gcs-address", "--gcs_address"} and _resolved(value) == wanted:
                return True
    return False


def _resolved(address: str) -> tuple[str, str]:
    """Return IP address and port; all addresses of this machine are one, as Ray gives a loopback address up."""
    host, _, port = address.rpartition(":")
    try:
        ip = socket.gethostbyname(host)
    except OSError:
        return host, port
    own = {entry.address for entries in psutil.net_if_addrs().values() for entry in entries}
    return "here" if ip in own else ip, port


def _join(address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--block"]
    command += ["--num-cpus=0", "--num-gpus=0", f"--object-store-memory={_OBJECT_STORE_BYTES}", "--disable-usage-stats"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    said: list[str] = []
    reader = Thread(target=_read, args=(process, said), name="estudio-ray-node", daemon=True)
    reader.start()
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    while not any(_STARTED in line for line in said):
        if process.poll() is not None or time.monotonic() > deadline:
            _stop(process, _NOT_JOINED_GRACE_S)
            reader.join(_STOP_GRACE_S)
            raise UnavailableError(
                f"This machine cannot join the Ray cluster at {address}: {' '.join(''.join(said).split())[-600:]} "
                "Start the cluster, give RAY_AUTH_TOKEN where it asks for one, or unset ESTUDIO_RAY_ADDRESS to run the "
                "trials on this machine."
            )
        time.sleep(0.1)
    return process


def _read(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)


def _stop(process: subprocess.Popen[str], grace_s: float = _STOP_GRACE_S) -> None:
    """End the node; `ray start --block` ends what it started."""
    process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it ended before the request to the kernel
        os._exit(1)
