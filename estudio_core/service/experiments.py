"""Experiments over HTTP: `PUT`, `GET` and `DELETE /_experiments/{id}`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio.to_thread
from starlette.responses import Response

from estudio_core import database
from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import LEGAL_ID, Experiment
from estudio_core.errors import ConfigurationError, ReleaseError
from estudio_core.service.access import require_plugin
from estudio_core.service.endpoints import Call, Endpoint, Parameter
from estudio_core.service.installing import start_run
from estudio_core.service.keys import EVERY
from estudio_core.service.refusals import Refused, json_response, refuse
from estudio_core.service.schemas import ExperimentBody, read

MOST_LISTED = 100

Done = TypeVar("Done")


async def put(call: Call) -> Response:
    """Start an experiment: at once with a release that is verified, else by the DAG that builds one."""
    _ = call.parameters
    experiment_id = _id(call)
    body = read(ExperimentBody, await call.document(empty={}), "An experiment")
    require_plugin(call.caller, body.plugin, "admin")
    if "event_weights" in body.settings.model_fields_set:
        raise refuse("[settings.event_weights] are those of the plugin's converter: they count the same everywhere.")
    settings = body.settings.model_dump(exclude_unset=True)
    params: dict[str, Any] = {**settings, "form": body.form, "name": experiment_id}
    actor = f"key {call.caller.name}"
    if body.release is not None and body.words_weight is not None:
        raise refuse("[words_weight] is of a release that is to be built; [release] names one that is there.")
    if body.release is not None:
        found = await _threaded(call, partial(_start, body.plugin, body.release, params, experiment_id, actor))
        return json_response(told(found))
    params |= {"version": body.version, "words_weight": body.words_weight}
    dag_id, run_id = f"{body.plugin}__experiment", f"service__{experiment_id}"
    await _threaded(call, partial(_require_startable, body.plugin, params, run_id))
    run_id = await anyio.to_thread.run_sync(partial(start_run, dag_id, run_id, params))
    return json_response({"id": experiment_id, "plugin": body.plugin, "dag_id": dag_id, "dag_run_id": run_id}, 202)


async def get(call: Call) -> Response:
    """Say where an experiment stands."""
    _ = call.parameters
    return json_response(told(await _found(call)))


async def delete(call: Call) -> Response:
    """Stop an experiment: from now on the champion alone answers."""
    _ = call.parameters
    found = await _found(call)
    actor = f"key {call.caller.name}"

    def stop() -> Experiment:
        with database.errors_named(), database.connect(autocommit=True) as connection:
            return ledger.stop(connection, found, actor)

    return json_response(told(await _threaded(call, stop)))


async def listed(call: Call) -> Response:
    """List the experiments of the plugins that the key may administer, the latest first."""
    plugin, key = call.parameters.get("plugin"), call.caller.key
    if plugin is not None:
        require_plugin(call.caller, plugin, "admin")
    mine = None if key is None or EVERY in key.plugins else key.plugins

    def find() -> list[Experiment]:
        with database.errors_named(), database.connection() as connection:
            return ledger.history(connection, mine if plugin is None else [plugin], MOST_LISTED)

    return json_response({"experiments": [told(each) for each in await _threaded(call, find)]})


def told(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as JSON."""
    times = ("started_at", "looked_at", "decided_at", "ended_at")
    return {
        "id": experiment.experiment_id,
        "plugin": experiment.plugin,
        "form": experiment.form,
        "champion": experiment.champion,
        "challenger": experiment.challenger,
        "state": experiment.state,
        "verdict": experiment.verdict,
        "reason": experiment.reason,
        "standing": None if experiment.standing is None else experiment.standing.model_dump(mode="json"),
        "settings": experiment.settings.model_dump(mode="json"),
        "started_by": experiment.started_by,
        "ended_by": experiment.ended_by,
        **{name: None if (at := getattr(experiment, name)) is None else at.isoformat() for name in times},
    }


async def _found(call: Call) -> Experiment:
    experiment_id = _id(call)

    def find() -> Experiment | None:
        with database.errors_named(), database.connection() as connection:
            return ledger.find(connection, experiment_id)

    found = await _threaded(call, find)
    if found is None:
        raise Refused(404, "There is no such experiment.")
    require_plugin(call.caller, found.plugin, "admin")
    return found


def _id(call: Call) -> str:
    given = str(call.request.path_params["experiment"])
    if not LEGAL_ID.fullmatch(given):
        raise refuse("An experiment is named by 1 to 200 letters, digits and _.+:-")
    return given


def _start(plugin: str, release: int, params: dict[str, Any], experiment_id: str, actor: str) -> Experiment:
    from estudio_core.pipeline.challenging.starting import start

    with _refusals():
        return start(plugin, release, params, experiment_id, actor)


def _require_startable(plugin: str, params: dict[str, Any], run_id: str) -> None:
    from estudio_core.pipeline.challenging.starting import require_startable

    with _refusals():
        require_startable(plugin, params, run_id)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (ReleaseError, ConfigurationError) as error:
        raise Refused(409, str(error)) from error


async def _threaded(call: Call, work: Callable[[], Done]) -> Done:
    return await anyio.to_thread.run_sync(work, limiter=call.state.writes)


ENDPOINTS = (
    Endpoint(
        "/_experiments", ("GET",), listed, "Experiments, the latest first", "admin",
        parameters=(Parameter("plugin", "Only of this plugin."),),
    ),
    Endpoint(
        "/_experiments/{experiment}", ("PUT",), put, "Have users decide between two releases", "admin", ExperimentBody,
        statuses=(202, 409), most_s=120.0,
    ),
    Endpoint("/_experiments/{experiment}", ("GET",), get, "Where an experiment stands", "admin"),
    Endpoint("/_experiments/{experiment}", ("DELETE",), delete, "Stop an experiment", "admin"),
)  # fmt: skip
