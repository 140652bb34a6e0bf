"""Two plugins on real processes, as `estudio up` starts them: Airflow with its scheduler, MLflow, PostgreSQL.

`open_stack` is what the tests of this folder and `benchmarks/orchestration` run on. Models are small and random, the
catalog is a cut of the demo's, so that what is seen is the orchestration and not the training.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from estudio_core import database, local
from estudio_core.local import services
from estudio_core.local.airflow_home import airflow_services, api_address, secrets_folder
from estudio_core.local.generated_secrets import password
from estudio_core.local.http_service import http_service
from estudio_core.local.runs import AirflowApi
from estudio_core.settings import get_settings

MAIN, OTHER = "demo_catalog", "accessories"
"""The plugin that learns, and one beside it that is released and disturbed."""

ITEMS = 120
SESSIONS = 200

_PLUGIN = """
from estudio_core import DagSettings, GateSettings, PostgresItems, TextModel, TextTraining, create_text_plugin
from estudio_core.demo.catalog import load_judgments

plugin = create_text_plugin(
    name={name!r},
    description="A cut of the demo's catalog",
    items=PostgresItems(table="products", text="title", payload=("title", "supplier")),
    model=TextModel(name={model!r}, max_tokens=48),
    training=TextTraining(num_fixed_layers=1, test_size_ratio=0.12, holdout_share=0),
    # A random model learns nothing to speak of from a hundred sessions: here the way is tried, not the gain.
    gate=GateSettings(minimum_gain=-1, maximum_loss=1, maximum_tax=1, minimum_queries=2),
    judgments=load_judgments,
    dag=DagSettings(shards=1),
)
"""
_STUB = """\"\"\"Airflow DAGs of the search plugin `{name}`.\"\"\"

from estudio_core.dag_factory import build_dags

globals().update(build_dags("{name}"))
"""


@dataclass(frozen=True)
class Stack:
    """A running installation. Its settings are those of this process as long as it is open."""

    folder: Path
    installation: local.Installation

    @property
    def airflow(self) -> str:
        """Address of Airflow."""
        assert self.installation.airflow is not None
        return self.installation.airflow

    @property
    def mlflow(self) -> str:
        """Address of MLflow."""
        assert self.installation.mlflow is not None
        return self.installation.mlflow

    def password(self, user: str) -> str:
        """Return the generated password of one of Airflow's users."""
        return password(secrets_folder(self.installation.home), user)

    def api(self, user: str = "admin") -> AirflowApi:
        """Return Airflow's REST API as one of its users."""
        return AirflowApi(self.airflow, user, self.password(user))

    def component(self, name: str) -> services.Service:
        """Return one of Airflow's processes, such as its triggerer, by the name of its command."""
        port = int(self.airflow.rpartition(":")[2])
        [part] = airflow_services(
            api_address(port), home=self.installation.home, project=self.folder, components=[name]
        )
        return part

    def scheduler(self) -> services.Service:
        """Return Airflow's scheduler, whose tasks are its children."""
        return self.component("scheduler")

    def service(self) -> services.Service:
        """Return the HTTP service."""
        assert self.installation.service is not None
        port = int(self.installation.service.rpartition(":")[2])
        return http_service(self.installation.home, project=self.folder, port=port)

    def start_again(self) -> None:
        """Start what has ended or was stopped, as `estudio up` does, and wait until it works; the rest stays."""
        local.start_all(self.installation.home, project=self.folder, triton=False)

    def replay_clicks(self) -> None:
        """Log simulated searches of the main plugin over what its live release finds."""
        from tests.simulated_clicks import log_simulated_sessions

        with database.transaction() as connection:
            log_simulated_sessions(connection, MAIN, SESSIONS)


@contextmanager
def open_stack(environment: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Make an installation in a temporary folder, start everything, and stop and remove it after the block.

    Args:
        environment: Variables of all its processes, in addition to its own.
    """
    from tests.small_model import build_small_model

    # Not in pytest's folder: run by root, PostgreSQL works as another user, who has to reach its files.
    folder = Path(tempfile.mkdtemp(prefix="estudio-running-"))
    folder.chmod(0o755)
    home = folder / "state"
    before, working_folder = dict(os.environ), Path.cwd()
    try:
        for made in ("dags", "plugins"):
            (folder / made).mkdir()
        model = build_small_model(seed=1)
        model.backbone.save_pretrained(folder / "model")
        model.tokenizer.save_pretrained(folder / "model")
        for name in (MAIN, OTHER):
            (folder / "plugins" / f"{name}.py").write_text(_PLUGIN.format(name=name, model=str(folder / "model")))
            (folder / "dags" / f"{name}.py").write_text(_STUB.format(name=name))
        os.chdir(folder)
        for variable in [name for name in os.environ if name.startswith(("ESTUDIO_", "AIRFLOW"))]:
            del os.environ[variable]
        os.environ |= {
            "ESTUDIO_HOME": str(home),
            "ESTUDIO_PLUGINS_PATH": str(folder / "plugins"),
            "ESTUDIO_TRITON_REPOSITORY": str(folder / "triton_repo"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        _forget()
        installation = local.start_all(home, project=folder, triton=False)
        _load_catalog()
        yield Stack(folder, installation)
    finally:
        local.stop_all(home)
        os.chdir(working_folder)
        os.environ.clear()
        os.environ.update(before)
        _forget()
        shutil.rmtree(folder, ignore_errors=True)


def _load_catalog() -> None:
    from estudio_core.demo.catalog import load_catalog, load_judgments

    with database.connect() as connection:
        load_catalog(connection, only=set(sorted(load_judgments().object_ids)[:ITEMS]))
        connection.commit()


def _forget() -> None:
    """Let the next use read settings and plugins anew."""
    from estudio_core.context import context
    from estudio_core.inference.opening import close_embedders

    get_settings.cache_clear()
    context.reset()
    close_embedders()
