"""Settings of an installation, from environment variables and an optional `.env` file.

Each field is read from `ESTUDIO_<FIELD>`; the three `INFERENCE_*` names of the plugin tutorial
are also attributes in capitals (`settings.INFERENCE_HOST`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from estudio_core.errors import ConfigurationError
from estudio_core.redaction import without_credentials


class Settings(BaseSettings):
    """Where the parts of an installation are. Every default works on a laptop."""

    model_config = SettingsConfigDict(
        env_prefix="ESTUDIO_",
        env_file=".env",
        env_ignore_empty=True,  # `ESTUDIO_RAY_ADDRESS=` in a compose file means that there is none
        extra="ignore",
        frozen=True,
        protected_namespaces=(),
    )

    home: Path = Path(".estudio")
    """Folder of local state: embedded database, MLflow store, artifacts, logs."""

    database_url: SecretStr | None = None
    """PostgreSQL with pgvector >= 0.8.4 that holds clickstream, collections and releases.

    Unset: a private embedded server under `home`.
    """

    artifacts: str | None = None
    """Folder or fsspec URL for data that travels between tasks. Unset: `<home>/artifacts`."""

    mlflow_tracking_uri: str | None = None
    """MLflow tracking and registry URI. Unset: SQLite under `home`."""

    mlflow_url: str | None = None
    """Address of MLflow's pages as browsers reach it, for links. Unset: the tracking URI where that is one."""

    triton_repository: Path = Path("triton_repo")
    """Root of the Triton model repository."""

    model_store: str | None = None
    """fsspec URL of an object store with the published models, such as `s3://bucket/models`. The model repository is a
    cache of it then. Unset: the repository itself is what processes share."""

    triton_environment: Path = Path(".venv-triton")
    """Virtual environment of the local Triton server; it is made on first use."""

    plugins_path: Path = Path("plugins")
    """Folder of search plugins; `custom/` below it is scanned too."""

    inference: Literal["embedded", "triton"] = "embedded"
    """Where queries are encoded: ONNX Runtime in this process, or a Triton server."""

    inference_host: str = "127.0.0.1"
    """Host of the Triton server."""

    inference_grpc_port: int = Field(default=8001, ge=1, le=65535)
    """Port of the Triton server, gRPC."""

    inference_timeout_s: float = Field(default=10.0, gt=0)
    """Deadline of one inference request, seconds. A query that its own process can encode too waits less."""

    inference_threads: int | None = Field(default=None, ge=1)
    """CPU threads of a model that encodes text. Unset: OMP_NUM_THREADS, else one per physical core."""

    triton_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Loopback port of the local Triton server's Prometheus metrics. Unset: any free one, told when it starts."""

    triton_instances: Literal["cpu", "gpu"] = "cpu"
    """Whether Triton is told to run new models on its CPU or its GPU."""

    triton_threads: int | None = Field(default=None, ge=1)
    """CPU threads with which Triton computes new models. Unset: one per physical core that the publishing process may
    use. A server whose container has fewer CPUs would count the cores of its host without it."""

    inference_used_plugins: list[str] = Field(default_factory=list)
    """Names of the plugins to use, as a JSON list. Empty: every plugin that is found."""

    keep_releases: int = Field(default=2, ge=2)
    """Releases whose collection and model are kept, the live one included, where a run does not say otherwise."""

    trials_at_once: int | None = Field(default=None, ge=1)
    """Most trials of a search that run at a time. Unset: as many as cores and GPUs allow."""

    trial_gpus: float | None = Field(default=None, ge=0)
    """GPUs of a trial; parts allowed, so that trials share one. Unset: `ESTUDIO_TRAINING_DEVICES` where there is a "
    "GPU."""

    ray_address: str | None = Field(default=None, pattern=r"^(auto|[^:/\s]+:\d+)$")
    """`host:port` of a Ray cluster for trials, or `auto` on one of its nodes. Unset: trials run on this machine."""

    index_memory_mb: int | None = Field(default=None, ge=64)
    """Memory in which PostgreSQL builds a vector index. Unset: what its graph needs, of a server on this machine at
    most a quarter of the memory, of another at most 512 MB."""

    database_pool_size: int = Field(default=5, ge=1)
    """Connections that one process opens, at most; searches have as many of their own."""

    costly_searches: int = Field(default=2, ge=1)
    """Connections of a process for searches that read the rows of a collection: conditions on fields without an index,
    sorting by such a field, exact ones, pages far back. The others do not wait for these."""

    search_timeout_s: float = Field(default=2.0, gt=0, le=86_400)
    """Deadline of a search that brings none of its own: encoding, waiting for a connection and the statement."""

    query_cache: int = Field(default=10_000, ge=0)
    """Vectors of queries that a process keeps (1.5 KB each at 384 dimensions); 0: none."""

    reader_url: SecretStr | None = None
    """PostgreSQL that answers searches, a replica or a role that may only read. Unset: `database_url`."""

    reader_lag_s: float = Field(default=10.0, gt=0)
    """How far a replica at `reader_url` may be behind; beyond, searches are answered by `database_url`."""

    source_timeout_s: float = Field(default=40.0, gt=0, le=86_400)
    """Longest statement on the database of the items, seconds. A page of items is read in one transaction, which ends
    at most 20 s later."""

    clickstream_days: float | None = Field(default=None, gt=0)
    """Days for which searches and events are kept: `<plugin>__watch` deletes older ones of its application, and
    `estudio clickstream expire` those of all. Unset: for ever."""

    service_host: str = "127.0.0.1"
    """Where `estudio serve` listens: nothing beyond this machine unless told otherwise."""

    service_port: int = Field(default=8100, ge=1, le=65535)
    """Its port."""

    service_workers: int = Field(default=1, ge=1, le=256)
    """Worker processes of the service; each opens the model and its own connections."""

    service_threads: int = Field(default=8, ge=1)
    """Searches that one worker process works on at a time; more wait."""

    service_anonymous_rate: int = Field(default=1200, ge=1)
    """Most requests a minute from one address (IPv6: one /64) without a key; keys that are not known count likewise."""

    service_airflow_url: str | None = None
    """Airflow, as the service reaches it to start `initialize`. Unset: that of `estudio up`, where there is one."""

    service_airflow_user: str = "admin"
    """Who starts runs there."""

    service_airflow_password: SecretStr | None = None
    """That user's password."""

    service_webhook_secret: SecretStr | None = Field(default=None, min_length=16)
    """With which MLflow signs what it says of moved aliases; at least 16 characters. Unset: nothing is listened to."""

    service_log_queries: bool = False
    """Whether the service's log of requests holds what people searched for."""

    @property
    def artifacts_root(self) -> str:
        """`artifacts`, or its default below `home`."""
        return self.artifacts or str((self.home / "artifacts").resolve())

    @property
    def tracking_uri(self) -> str:
        """`mlflow_tracking_uri`, or its default below `home`."""
        return self.mlflow_tracking_uri or f"sqlite:///{(self.home / 'mlflow.db').resolve()}"

    @property
    def mlflow_page(self) -> str | None:
        """`mlflow_url`, or the tracking URI where a browser can open it, without credentials that may stand in it."""
        tracking = without_credentials(self.mlflow_tracking_uri or "")
        return self.mlflow_url or (tracking if tracking.startswith(("http://", "https://")) else None)

    @property
    def INFERENCE_HOST(self) -> str:  # noqa: N802 (name fixed by the plugin tutorial)
        """Host of the Triton server."""
        return self.inference_host

    @property
    def INFERENCE_GRPC_PORT(self) -> int:  # noqa: N802 (name fixed by the plugin tutorial)
        """Port of the Triton server, gRPC."""
        return self.inference_grpc_port

    @property
    def INFERENCE_USED_PLUGINS(self) -> list[str]:  # noqa: N802 (name fixed by the plugin tutorial)
        """Names of the plugins to use; empty means all that are found."""
        return self.inference_used_plugins


class _SettingsOfProcess:
    def __init__(self) -> None:
        self._read: list[Settings] = []

    def __call__(self) -> Settings:
        """Return the settings of this process, read once. `get_settings.cache_clear()` rereads them.

        Raises:
            ConfigurationError: a variable has a value that is not legal. The message leaves values out, which may
                be secret.
        """
        read = self._read  # what is being read when they are cleared is not kept
        if not read:
            read.append(_read_settings())
        return read[0]

    def cache_clear(self) -> None:
        """Let the next call read them again, whoever is reading them at this moment."""
        self._read = []


def _read_settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        found = (f"ESTUDIO_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors())
        problems = "; ".join(found)
    except SettingsError as error:  # its message has no value either
        problems = f'{error}; a list is written as JSON: ["shop"]'
    raise ConfigurationError(f"Settings to correct, in the environment or in .env: {problems}.")


get_settings = _SettingsOfProcess()


class _CurrentSettings:
    """`settings`: reads attributes from `get_settings()`, so that tests can reset it."""

    def __getattr__(self, name: str) -> object:
        return getattr(get_settings(), name)


settings: Settings = _CurrentSettings()  # type: ignore[assignment]


def __getattr__(name: str) -> object:
    """Let `estudio_core.settings`, which names this module and the object in it, be used as either."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(settings, name)
