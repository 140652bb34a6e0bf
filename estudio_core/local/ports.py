"""Free ports on the loopback interface, remembered in `<home>/local.json` so that addresses stay the same."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from filelock import FileLock

LOOPBACK = "127.0.0.1"

PREFERRED_PORTS = {"airflow": 8080, "mlflow": 5000, "service": 8100}
"""Where people look first; another free port is taken where one of these is in use."""


def remembered_port(home: Path, name: str) -> int | None:
    """Return the port chosen for `name` earlier, or None."""
    value = _read(home).get(name)
    return value if isinstance(value, int) else None


def choose_port(home: Path, name: str) -> int:
    """Return a port for `name` that is free now: the remembered, the usual, or any; and remember it."""
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "local.lock"):
        ports = _read(home)
        taken = {port for other, port in ports.items() if other != name}
        for candidate in (ports.get(name), PREFERRED_PORTS.get(name)):
            if candidate is not None and candidate not in taken and is_free(candidate):
                break
        else:
            candidate = any_free_port()
        if ports.get(name) != candidate:
            ports[name] = candidate
            target = _file(home)
            temporary = target.with_suffix(".tmp")
            temporary.write_text(json.dumps({"ports": ports}, indent=2, sort_keys=True) + "\n")
            temporary.replace(target)
        return candidate


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ports in TIME_WAIT are free for a server
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def any_free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _file(home: Path) -> Path:
    return home / "local.json"


def _read(home: Path) -> dict[str, int]:
    try:
        ports = json.loads(_file(home).read_text())["ports"]
        return {str(name): int(port) for name, port in ports.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
