"""Buttons of a task in Airflow: the MLflow run, the report, the model, the plugin's page.

Airflow asks a link for its address when the task has ended, in the worker, and keeps it; the API server needs none of
this code.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import attrs
from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

from estudio_core.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


@attrs.define()
class _PluginLink(BaseOperatorLink):
    """A link of a task of one plugin; where a task left nothing to link to, the button stays grey."""

    plugin: str

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, empty where there is none."""
        returned = XCom.get_value(ti_key=ti_key, key="return_value")
        return self.address(returned if isinstance(returned, dict) else {}, ti_key.run_id)

    @abstractmethod
    def address(self, returned: dict[str, Any], run_id: str) -> str:
        """Return the address for what the task returned."""

    def page(self, rest: str = "") -> str:
        """Return the address of the plugin's page, or of one below it."""
        base = conf.get("api", "base_url", fallback="").rstrip("/")
        return f"{base}/estudio/plugins/{self.plugin}{rest}"


@attrs.define()
class MLflowRunLink(_PluginLink):
    """The run of the trained candidate."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "MLflow run"

    def address(self, returned: dict[str, Any], run_id: str) -> str:
        """Return MLflow's page of the run, at `ESTUDIO_MLFLOW_URL` or the tracking URI."""
        training = returned.get("training") or returned
        mlflow_run, base = training.get("mlflow_run_id"), get_settings().mlflow_page
        return f"{base.rstrip('/')}/#/runs/{mlflow_run}" if mlflow_run and base else ""


@attrs.define()
class ReportLink(_PluginLink):
    """The evaluation report."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Report"

    def address(self, returned: dict[str, Any], run_id: str) -> str:
        """Return the page of this run's report."""
        return self.page(f"/report?run_id={quote(run_id, safe='')}") if returned else ""


@attrs.define()
class ImprovementLink(_PluginLink):
    """The report of an improvement."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Report"

    def address(self, returned: dict[str, Any], run_id: str) -> str:
        """Return the page of this run's report."""
        return self.page(f"/improvement?run_id={quote(run_id, safe='')}") if returned else ""


@attrs.define()
class ModelLink(_PluginLink):
    """The entry of the Triton repository."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Triton model"

    def address(self, returned: dict[str, Any], run_id: str) -> str:
        """Return the page of the published model."""
        return self.page(f"/models/{returned['name']}") if "name" in returned else ""


@attrs.define()
class PageLink(_PluginLink):
    """The plugin's page."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Estudio"

    def address(self, returned: dict[str, Any], run_id: str) -> str:
        """Return the plugin's page."""
        return self.page()
