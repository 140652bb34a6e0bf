"""Trigger DAG runs through Airflow's REST API and follow them to their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.errors import ConfigurationError, EstudioError, UnavailableError, suggest
from estudio_core.local.airflow_home import secrets_folder
from estudio_core.local.generated_secrets import ADMIN_USER, admin_password
from estudio_core.local.ports import LOOPBACK, PREFERRED_PORTS, remembered_port
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    import httpx

FINISHED = frozenset({"success", "failed"})
_POLL_S = 0.5
_CONNECTION_PATIENCE_S = 60.0
"""How long the API server may be away (a restart, a machine under load) before following a run is given up."""


@dataclass(frozen=True)
class TaskState:
    """One task instance; `map_index` is -1 where the task is not mapped, `state` None before it is scheduled."""

    task_id: str
    map_index: int
    state: str | None
    duration_s: float | None
    try_number: int


@dataclass(frozen=True)
class RunState:
    """A DAG run and its tasks at one moment."""

    dag_id: str
    run_id: str
    state: str
    elapsed_s: float
    tasks: tuple[TaskState, ...]

    @property
    def succeeded(self) -> bool:
        """Whether the run ended with success."""
        return self.state == "success"


class RunFailedError(EstudioError):
    """A DAG run ended in failure; the message carries the failing task's last lines of log."""


class AirflowApi:
    """The REST API (v2) of one Airflow, as one user. Asks for a new token where the old one is over."""

    def __init__(self, base_url: str, username: str, password: str, *, timeout_s: float = 30.0) -> None:
        import httpx

        self._credentials = {"username": username, "password": password}
        # Proxies of the environment are not asked: the server is on the loopback interface.
        self._client = httpx.Client(base_url=base_url, timeout=timeout_s, trust_env=False)
        self.base_url = base_url

    @classmethod
    def local(cls, home: Path | None = None, *, timeout_s: float = 30.0) -> AirflowApi:
        """Return the API of the local installation in `home`, as its administrator."""
        home = (home or get_settings().home).expanduser().resolve()
        port = remembered_port(home, "airflow") or PREFERRED_PORTS["airflow"]
        return cls(f"http://{LOOPBACK}:{port}", ADMIN_USER, admin_password(secrets_folder(home)), timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send one request below `/api/v2` and return the response, whatever its status.

        Raises:
            UnavailableError: the server does not answer, or refuses the user.
        """
        import httpx

        try:
            if "Authorization" not in self._client.headers:
                self._log_in()
            response = self._client.request(method, f"/api/v2{path}", **kwargs)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._log_in()
                response = self._client.request(method, f"/api/v2{path}", **kwargs)
        except httpx.TransportError as error:
            raise UnavailableError(
                f"Airflow at {self.base_url} does not answer: {error}. Start it with: estudio up"
            ) from error
        return response

    def _log_in(self) -> None:
        response = self._client.post("/auth/token", json=self._credentials)
        if not response.is_success:
            raise UnavailableError(
                f"Airflow at {self.base_url} refuses the user {self._credentials['username']!r} "
                f"({response.status_code}). Another Airflow may be listening there; see: estudio status"
            )
        self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def json(self, method: str, path: str, **kwargs: Any) -> Any:
        """Send one request and return the decoded answer.

        Raises:
            UnavailableError: the server does not answer or has an internal error.
            ConfigurationError: it refuses the request.
        """
        response = self.request(method, path, **kwargs)
        if response.is_server_error:
            raise UnavailableError(f"Airflow answered {response.status_code} to {method} {path}: {response.text[:500]}")
        if not response.is_success:
            raise ConfigurationError(f"Airflow refused {method} {path} ({response.status_code}): {_reason(response)}")
        return response.json()


def wait_for_dag(dag_id: str, *, api: AirflowApi, timeout_s: float = 60.0) -> None:
    """Wait until Airflow has parsed the DAG `dag_id`.

    Raises:
        ConfigurationError: its file has an import error, or it does not appear; the message says which.
    """
    deadline = time.monotonic() + timeout_s
    while api.request("GET", f"/dags/{dag_id}").status_code != 200:
        plugin = dag_id.partition("__")[0]
        for error in api.json("GET", "/importErrors", params={"limit": 100})["import_errors"]:
            if Path(error["filename"]).stem in {plugin, dag_id}:
                raise ConfigurationError(f"{error['filename']} cannot be imported:\n{error['stack_trace'].strip()}")
        if time.monotonic() > deadline:
            known = [dag["dag_id"] for dag in api.json("GET", "/dags", params={"limit": 100})["dags"]]
            raise ConfigurationError(f"Airflow has no DAG {dag_id!r}. {suggest(dag_id, known)}")
        time.sleep(_POLL_S)


def trigger(
    dag_id: str,
    conf: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    *,
    api: AirflowApi | None = None,
) -> str:
    """Start a run of `dag_id` with parameters `conf` and return its run id; a paused DAG is unpaused first.

    A `run_id` that exists already is returned as it is: triggering twice starts one run.

    Raises:
        ConfigurationError: no such DAG, or its parameters are not accepted.
        UnavailableError: Airflow does not answer.
    """
    with api or AirflowApi.local() as client:
        wait_for_dag(dag_id, api=client)
        client.json("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        response = client.request("POST", f"/dags/{dag_id}/dagRuns", json=body)
        if response.status_code == 409 and run_id is not None:
            return run_id
        if not response.is_success:
            raise ConfigurationError(f"Airflow does not start {dag_id} ({response.status_code}): {_reason(response)}")
        return str(response.json()["dag_run_id"])


def ring(uri: str, why: Mapping[str, Any], *, api: AirflowApi | None = None) -> None:
    """Tell Airflow of an event of the asset `uri`: DAGs that are scheduled by it start, unless they are paused.

    Raises:
        ConfigurationError: no DAG of that Airflow is scheduled by such an asset, or the user may not tell of events.
        UnavailableError: Airflow does not answer.
    """
    with api or AirflowApi.local() as client:
        found = client.json("GET", "/assets", params={"uri_pattern": uri, "limit": 100})["assets"]
        ids = [asset["id"] for asset in found if asset["uri"] == uri]
        if not ids:
            raise ConfigurationError(f"Airflow has no asset {uri!r}: has it parsed the DAG that waits for it?")
        client.json("POST", "/assets/events", json={"asset_id": ids[0], "extra": dict(why)})


def wait(
    dag_id: str,
    run_id: str,
    on_update: Callable[[RunState], None] | None = None,
    *,
    api: AirflowApi | None = None,
    timeout_s: float | None = None,
) -> RunState:
    """Follow a run until it ends and return its last state; `on_update` receives each state that is read.

    Raises:
        RunFailedError: the run failed.
        UnavailableError: Airflow is away for more than a minute, or `timeout_s` seconds are over.
    """
    with api or AirflowApi.local() as client:
        began = answered = time.monotonic()
        while True:
            try:
                state = read_run(dag_id, run_id, api=client)
                answered = time.monotonic()
            except UnavailableError:
                if time.monotonic() - answered > _CONNECTION_PATIENCE_S:
                    raise
                time.sleep(_POLL_S)
                continue
            if on_update is not None:
                on_update(state)
            if state.succeeded:
                return state
            if state.state in FINISHED:
                raise RunFailedError(describe_failure(state, api=client))
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise UnavailableError(f"Run {run_id} of {dag_id} is still {state.state} after {timeout_s:.0f} s.")
            time.sleep(_POLL_S)


def read_run(dag_id: str, run_id: str, *, api: AirflowApi) -> RunState:
    """Return the state of a run and of its tasks now, in the order in which the tasks started.

    Raises:
        ConfigurationError: there is no such run.
        UnavailableError: Airflow does not answer.
    """
    run = api.json("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    rows: list[dict[str, Any]] = []
    while True:
        page = api.json(
            "GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100, "offset": len(rows)}
        )
        rows.extend(page["task_instances"])
        if not page["task_instances"] or len(rows) >= page["total_entries"]:
            break
    rows.sort(key=lambda row: (row["start_date"] is None, row["start_date"] or "", row["task_id"], row["map_index"]))
    tasks = tuple(
        TaskState(row["task_id"], row["map_index"], row["state"], row["duration"], row["try_number"]) for row in rows
    )
    return RunState(dag_id, run_id, run["state"], _elapsed(run), tasks)


def describe_failure(state: RunState, *, api: AirflowApi, lines: int = 20) -> str:
    """Return which tasks of a failed run failed, with the last `lines` lines of the first one's log."""
    failed = [task for task in state.tasks if task.state == "failed"]
    if not failed:
        return f"Run {state.run_id} of {state.dag_id} ended as {state.state} without a failed task."
    first = failed[0]
    path = f"/dags/{state.dag_id}/dagRuns/{state.run_id}/taskInstances/{first.task_id}/logs/{max(first.try_number, 1)}"
    answer = api.request("GET", path, params={"map_index": first.map_index, "full_content": True})
    text = _log_lines(answer.json().get("content", [])) if answer.is_success else [f"(no log: {answer.status_code})"]
    names = ", ".join(sorted({task.task_id for task in failed}))
    where = f"{api.base_url}/dags/{state.dag_id}/runs/{state.run_id}"
    tail = "\n".join(text[-lines:])
    return f"{state.dag_id} failed in {names}. Last lines of {first.task_id}:\n{tail}\nThe whole run: {where}"


def _log_lines(content: list[Any]) -> list[str]:
    """Return readable lines of Airflow's structured log, with exceptions written out."""
    lines: list[str] = []
    for entry in content:
        if not isinstance(entry, dict):
            lines.append(str(entry))
            continue
        event = str(entry.get("event", ""))
        if event and not event.startswith("::"):
            lines.append(event)
        for detail in entry.get("error_detail") or []:
            lines.append(f"{detail.get('exc_type')}: {detail.get('exc_value')}")
            lines.extend(
                f"  {frame['filename']}:{frame['lineno']} in {frame['name']}"
                for frame in (detail.get("frames") or [])[-5:]
            )
    return lines


def _elapsed(run: Mapping[str, Any]) -> float:
    from datetime import UTC, datetime

    if run.get("duration") is not None:
        return float(run["duration"])
    start = run.get("start_date") or run.get("queued_at")
    return (datetime.now(UTC) - datetime.fromisoformat(start)).total_seconds() if start else 0.0


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json().get("detail", response.text))[:1000]
    except ValueError:
        return response.text[:1000]
