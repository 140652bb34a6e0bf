"""What Airflow finds through the entry point `airflow.plugins`: a page in the navigation and the app behind it."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from estudio_core.airflow_ui.app import PREFIX, app


class EstudioPlugin(AirflowPlugin):
    """Releases, reports and rollback of all search plugins, inside Airflow."""

    name = "estudio"
    fastapi_apps: ClassVar[list[Any]] = [{"app": app, "url_prefix": PREFIX, "name": "Estudio"}]
    external_views: ClassVar[list[Any]] = [
        {"name": "Estudio", "href": f"{PREFIX}/", "destination": "nav", "url_route": "estudio", "nav_top_level": True}
    ]
