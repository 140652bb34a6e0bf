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

SignedIn = Annotated[BaseUser, Depends(get_user)]
"""The user of the request; without one, or with a token of somebody else's making, it is refused (401 or 403)."""


def reads(user: BaseUser, plugin: str) -> bool:
    """Return whether a user may look at a plugin: who may read its release DAG may."""
    return get_auth_manager().is_authorized_dag(
        method="GET", access_entity=DagAccessEntity.RUN, details=DagDetails(id=f"{plugin}__release"), user=user
    )


def rolls_back(user: BaseUser, plugin: str) -> bool:
    """Return whether a user may start the plugin's rollback DAG."""
    return get_auth_manager().is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=DagDetails(id=f"{plugin}__rollback"), user=user
    )


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
