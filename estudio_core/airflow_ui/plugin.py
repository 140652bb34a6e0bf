"""What Airflow finds through the entry point `airflow.plugins`: a page in the navigation and the app behind it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from estudio_core.airflow_ui.app import PREFIX, app


class EstudioPlugin(AirflowPlugin):
    """Releases, reports and rollback of all search plugins, inside Airflow."""

    name = "estudio"
    fastapi_apps = [{"app": app, "url_prefix": PREFIX, "name": "Estudio"}]  # noqa: RUF012 (Airflow declares them so)
    external_views = [  # noqa: RUF012
        {"name": "Estudio", "href": f"{PREFIX}/", "destination": "nav", "url_route": "estudio", "nav_top_level": True}
    ]
