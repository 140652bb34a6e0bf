"""`POST /api/v1/embeddings/`: creates the index of a plugin by starting its DAG `initialize`, as the tutorial asks."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio.to_thread
from starlette.responses import Response

from estudio_core.errors import ConfigurationError
from estudio_core.service.access import require_plugin
from estudio_core.service.endpoints import Call, Endpoint
from estudio_core.service.refusals import Refused, json_response
from estudio_core.service.schemas import InitializeBody, read
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    from estudio_core.local.runs import AirflowApi

logger = logging.getLogger(__name__)


async def initialize(call: Call) -> Response:
    """Start `<plugin>__initialize`; asking again while it runs, or later, starts no second one for the same name."""
    _ = call.parameters
    body = read(InitializeBody, await call.document(empty={}), "A new index")
    require_plugin(call.caller, body.plugin_name, "admin")
    run_id = f"service__{body.name}"
    work = partial(start_run, f"{body.plugin_name}__initialize", run_id)
    started = await anyio.to_thread.run_sync(work)
    told = {"name": body.name, "plugin_name": body.plugin_name, "dag_id": f"{body.plugin_name}__initialize"}
    return json_response({**told, "dag_run_id": started}, 201)


def start_run(dag_id: str, run_id: str, params: dict[str, Any] | None = None) -> str:
    """Start a run of a plugin's DAG, or find the one of this name, and return its id.

    Raises:
        Refused: this service starts none, or Airflow does not; or the run of this name has failed.
    """
    with airflow() as api:
        from estudio_core.local.runs import trigger

        earlier = api.request("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")
        if earlier.is_success and earlier.json()["state"] == "failed":
            raise Refused(409, f"The run {run_id} has failed. Clear it in Airflow, or choose another name.")
        try:
            return trigger(dag_id, params, run_id=run_id, api=api)
        except ConfigurationError as error:
            logger.warning("A run of %s was not started: %s", dag_id, error)
            raise Refused(404, "Airflow has no DAG of this plugin that it starts; its own page says why.") from error


def airflow(timeout_s: float = 30.0) -> AirflowApi:
    """Return the Airflow that this service starts runs in.

    Raises:
        Refused: there is none, or what asks it is not installed.
    """
    try:
        from estudio_core.local.ports import remembered_port
        from estudio_core.local.runs import AirflowApi

        settings = get_settings()
        home = settings.home.expanduser().resolve()
        if settings.service_airflow_url is not None:
            password = settings.service_airflow_password
            return AirflowApi(
                settings.service_airflow_url.rstrip("/"),
                settings.service_airflow_user,
                password.get_secret_value() if password is not None else "",
                timeout_s=timeout_s,
            )
        if remembered_port(home, "airflow") is not None:
            return AirflowApi.local(timeout_s=timeout_s)
    except ModuleNotFoundError as error:
        logger.warning("Runs cannot be started: %s", error)
        raise Refused(409, f"This service starts no runs: the package {error.name} is not installed.") from None
    raise Refused(409, "This service knows no Airflow: ESTUDIO_SERVICE_AIRFLOW_URL names one.")


ENDPOINTS = (
    Endpoint(
        "/api/v1/embeddings/", ("POST",), initialize, "Create the index of a plugin: start its DAG initialize", "admin",
        InitializeBody, statuses=(201, 409), most_s=120.0,
    ),
)  # fmt: skip
