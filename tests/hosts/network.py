"""Hosts on one machine: network namespaces behind a switch, each with an address and files of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILES = Path("/mnt")
"""Where every host has its own files, and sees no other's."""
_ENTER = 'mount --bind "$0" /mnt && cd /mnt && exec "$@"'  # `ip netns exec` gives a view of mounts of its own


def missing() -> str | None:
    """Return why no hosts can be made here; None where they can."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2 (Debian: apt install iproute2)"
    probe = f"estudio-{uuid.uuid4().hex[:6]}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"network namespaces are not allowed here: {done.stderr.strip()}"
    _ip("netns", "del", probe)
    return None


@dataclass
class Host:
    """One of them."""

    namespace: str
    switch: str
    port: str
    """Its end at the switch."""
    address: str
    folder: Path
    """Its files, as this machine sees them."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        """Start a process there; the network ends it."""
        words = ["ip", "netns", "exec", self.namespace, "sh", "-c", _ENTER, str(self.folder), *map(str, command)]
        process = subprocess.Popen(words, env=environment, text=True, **more)
        self.processes.append(process)
        return process

    def cut(self) -> None:
        """Pull its cable: nobody is told anything."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def join(self) -> None:
        """Put it back."""
        _ip("-n", self.switch, "link", "set", self.port, "up")


class Network:
    """A switch and its hosts, which reach each other and nobody else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"e{uuid.uuid4().hex[:6]}"
        self.hosts: list[Host] = []
        self.switch = f"{self.name}-switch"
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "add", "wire", "type", "bridge")
        _ip("-n", self.switch, "link", "set", "wire", "up")

    def host(self, name: str) -> Host:
        """Add a host."""
        number = len(self.hosts) + 1
        made = Host(f"{self.name}-{name}", self.switch, f"port{number}", f"10.77.0.{number}", self.folder / name)
        made.folder.mkdir()
        _ip("netns", "add", made.namespace)
        self.hosts.append(made)
        _ip(
            "-n", self.switch, "link", "add", made.port, "type", "veth", "peer", "name", "eth0", "netns", made.namespace
        )
        _ip("-n", self.switch, "link", "set", made.port, "master", "wire", "up")
        _ip("-n", made.namespace, "address", "add", f"{made.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", made.namespace, "link", "set", link, "up")
        return made

    def close(self) -> None:
        """End all processes and take everything away."""
        for process in [each for host in self.hosts for each in host.processes]:
            process.kill()
            process.wait(30)
        for name in (*(host.namespace for host in self.hosts), self.switch):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
