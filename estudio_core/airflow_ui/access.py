"""Who may see and do what: Airflow's own users and permissions, asked on every request.

A mounted app inherits no authentication from Airflow, so each route here depends on `signed_in` or `may_read`.
"""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, HTTPException

from estudio_core.airflow_ui.glance import Glance
from estudio_core.airflow_ui.next_step import Kind
from estudio_core.airflow_ui.pages import Allowed

SignedIn = Annotated[BaseUser, Depends(get_user)]
"""The user of the request; without one, or with a token of somebody else's making, it is refused (401 or 403)."""


def reads(user: BaseUser, plugin: str) -> bool:
    """Return whether a user may look at a plugin: who may read its release DAG may."""
    return get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.RUN, details=DagDetails(id=f"{plugin}__release"), user=user
    )


def starts(user: BaseUser, plugin: str, kind: Kind) -> bool:
    """Return whether a user may start the plugin's DAG of that kind."""
    return get_auth_manager().is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=f"{plugin}__{kind}"), user=user
    )


def answers(user: BaseUser, plugin: str) -> bool:
    """Return whether a user may answer the plugin's question whether to promote."""
    return get_auth_manager().is_authorized_dag(
        method="PUT",
        access_entity=DagAccessEntity.HITL_DETAIL,
        details=DagDetails(id=f"{plugin}__fine_tune"),
        user=user,
    )


def allowed(user: BaseUser, glance: Glance) -> Allowed:
    """Return which buttons of a plugin a user sees."""
    step = glance.step
    if step.does == "review":
        takes_step = answers(user, glance.plugin)
    else:
        takes_step = step.does == "start" and step.kind is not None and starts(user, glance.plugin, step.kind)
    return Allowed(step=takes_step, rollback=glance.previous is not None and starts(user, glance.plugin, "rollback"))


def may_read(plugin: str, user: SignedIn) -> BaseUser:
    """Return the user of a request about `plugin`, who may look at it.

    Raises:
        HTTPException: 403 where not.
    """
    if not reads(user, plugin):
        raise HTTPException(403, f"You may not read the DAG {plugin}__release.")
    return user


Reader = Annotated[BaseUser, Depends(may_read)]
"""A user who may look at the plugin that the path names."""
