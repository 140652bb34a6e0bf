"""No route of ours is open: each asks Airflow who the user is, and those of a plugin whether they may read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow.api_fastapi.core_api.security import get_user
from fastapi.routing import APIRoute

from estudio_core.airflow_ui.access import may_read
from estudio_core.airflow_ui.app import app


def asked(dependant: Any) -> Iterator[Callable[..., Any]]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from asked(dependency)


def test_every_route_asks_who_the_user_is_and_none_changes_anything() -> None:
    routes = list(app.routes)
    assert len(routes) == 5
    for route in routes:
        assert isinstance(route, APIRoute)  # no mounted files, no generated documentation
        calls = set(asked(route.dependant))
        assert get_user in calls, route.path
        assert ("{plugin}" in route.path) == (may_read in calls), route.path
        assert route.methods == {"GET"}, route.path
