"""Connection to an MLflow tracking server and registry, or to a SQLite store used by several processes."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import tenacity
from filelock import FileLock

from estudio_core import database, migrations
from estudio_core.artifacts import safe_name
from estudio_core.errors import ConfigurationError, TrackingUnavailableError
from estudio_core.redaction import redact, redact_in
from estudio_core.settings import get_settings
from estudio_core.vectordb.locks import lock_key

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own seven retries back off for minutes; ours are counted by the wrapper.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_SQLITE = "sqlite:///"
_TEMPORARY = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}


class MLflowClientWrapper:
    """An MLflow client that connects on first use, retries lost connections and nothing else.

    Args:
        tracking_uri: Tracking and registry URI; None: the installation's setting, read at each use.
        attempts: How often an operation is tried when the server does not answer.
        wait_s: Wait before the second attempt, seconds; doubled before each further one.
    """

    def __init__(self, tracking_uri: str | None = None, *, attempts: int = 4, wait_s: float = 0.5) -> None:
        self._given_uri = tracking_uri
        self._attempts = attempts
        self._wait_s = wait_s
        self._clients: dict[tuple[int, str], MlflowClient] = {}

    @property
    def tracking_uri(self) -> str:
        """URI of the tracking server and registry."""
        return self._given_uri or get_settings().tracking_uri

    @property
    def artifact_root(self) -> str | None:
        """Where a SQLite store keeps artifacts (`mlartifacts` beside it); None: the server decides."""
        file = _sqlite_path(self.tracking_uri)
        return None if file is None else str(file.parent / "mlartifacts")

    @property
    def client(self) -> MlflowClient:
        """The client of this process, connected and with its store's tables in place.

        Raises:
            TrackingUnavailableError: the server does not answer.
            ConfigurationError: the URI is of no known kind, or the store is of another MLflow version.
        """
        return self.call(lambda client: client)

    def call(self, operation: Callable[[MlflowClient], T]) -> T:
        """Return `operation(client)`; try again where the connection fails. `operation` may run more than once.

        Raises:
            TrackingUnavailableError: the server does not answer after all attempts, or has an error of its own.
            ConfigurationError: it refuses.
        """
        from mlflow.exceptions import MlflowException

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=tenacity.wait_exponential(multiplier=self._wait_s, max=8.0),
            retry=tenacity.retry_if_exception(is_connection_error),
            reraise=True,
        )
        try:
            return retrying(lambda: operation(self._connected()))
        except Exception as error:
            said = redact_in(str(error), self.tracking_uri)
            if isinstance(error, MlflowException) and not is_connection_error(error):
                if error.error_code == "INTERNAL_ERROR":
                    raise TrackingUnavailableError(
                        f"MLflow at {redact(self.tracking_uri)} cannot do that now: {said}. See its log."
                    ) from error
                raise ConfigurationError(
                    f"MLflow at {redact(self.tracking_uri)} refuses ({error.error_code}): {said}."
                ) from error
            if not is_connection_error(error):
                raise
            raise TrackingUnavailableError(
                f"MLflow at {redact(self.tracking_uri)} does not answer after {self._attempts} attempts: "
                f"{said}. Start it, or set ESTUDIO_MLFLOW_TRACKING_URI to one that runs."
            ) from error

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keep others who use the same store from what has this name until the block ends, or the process dies.

        A store in an SQLite file is one machine's, and so is its lock. Who works on several machines with one server
        meets in Estudio's database.

        Raises:
            DatabaseUnavailableError: it does not answer.
        """
        file = _sqlite_path(self.tracking_uri)
        if file is None:
            with database.connect(autocommit=True) as connection:
                with database.errors_named():
                    connection.execute("SELECT pg_advisory_lock(%s)", (lock_key("mlflow", name),))
                yield  # the lock ends with the connection
            return
        folder = file.parent / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        store = hashlib.sha256(self.tracking_uri.encode()).hexdigest()[:8]
        with FileLock(folder / f"mlflow-{store}-{safe_name(name)}.lock"):
            yield

    def _connected(self) -> MlflowClient:
        uri = self.tracking_uri
        key = (os.getpid(), uri)  # connections do not survive a fork
        if key not in self._clients:
            self._clients[key] = self._connect(uri)
        return self._clients[key]

    def _connect(self, uri: str) -> MlflowClient:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        for noisy in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            with migrations.alembic:
                if self.artifact_root is not None:
                    self._prepare_sqlite(uri)
                return MlflowClient(tracking_uri=uri, registry_uri=uri)
        except MlflowException as error:
            if is_connection_error(error):
                raise
            raise ConfigurationError(
                f"The MLflow store {redact(uri)} cannot be used: {redact_in(str(error), uri)}. "
                f"Legal are an http(s) URL, a database URL, or sqlite:////path/to/mlflow.db."
            ) from error

    def _prepare_sqlite(self, uri: str) -> None:
        # Two processes that create the tables at once break each other's migrations. The server's own start
        # does the same work without this lock, so open a store here before pointing `mlflow server` at it.
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with self.lock("open"):
            SqlAlchemyStore(uri, self.artifact_root)  # type: ignore[no-untyped-call]  # MLflow has no types here


def is_connection_error(error: BaseException) -> bool:
    """Return whether `error` says that a server did not answer, rather than that it refused.

    >>> is_connection_error(ConnectionRefusedError("port 5000"))
    True
    >>> is_connection_error(ValueError("no such run"))
    False
    """
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "error_code", None) in _TEMPORARY or isinstance(seen, ConnectionError | TimeoutError):
            return True
        kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(seen).__mro__}
        if kinds & {"requests.exceptions.ConnectionError", "requests.exceptions.Timeout"}:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _sqlite_path(uri: str) -> Path | None:
    """Return the database file of a SQLite URI, None for other URIs.

    >>> _sqlite_path("sqlite:////srv/estudio/mlflow.db")
    PosixPath('/srv/estudio/mlflow.db')
    >>> _sqlite_path("http://127.0.0.1:5000")
    """
    return Path(unquote(uri.removeprefix(_SQLITE))) if uri.startswith(_SQLITE) else None
