"""What the pages show, read from Estudio's database and artifacts; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.clickstream.asked import DAYS, AskedQuery, asked_queries
from estudio_core.comparing import ledger as experiments
from estudio_core.comparing.ledger import Experiment
from estudio_core.errors import DataError, EstudioError, RepositoryError
from estudio_core.improvement import ledger as improvements
from estudio_core.improvement.ledger import Improvement
from estudio_core.monitoring import ledger as monitoring
from estudio_core.monitoring.ledger import Watch
from estudio_core.pipeline.improvement.report import IMPROVEMENT_STEP
from estudio_core.promotion import ledger as promotions
from estudio_core.promotion.ledger import Promotion
from estudio_core.promotion.removal import orphans
from estudio_core.promotion.trainings import Training, trainings
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import Release, list_releases

if TYPE_CHECKING:
    from estudio_core.inference.manifest import EntryManifest

_MOST_ROWS = 50
_MOST_QUERIES = 10
_TRITON_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class PluginContent:
    """All that a plugin's page shows below the glance; lists have the latest first."""

    releases: list[Release]
    promotions: list[Promotion]
    trainings: list[Training]
    improvements: list[Improvement]
    watches: list[Watch]
    experiments: list[Experiment]
    asked: dict[str, list[AskedQuery]]
    """Queries of the last `asked_days` days by what they are listed for."""
    asked_days: float = DAYS


def plugin_names(with_dags: Collection[str] = ()) -> list[str]:
    """Return the names of all plugins that something is kept for, or that Airflow has DAGs of, sorted."""
    with database.connect() as connection:
        database.require_schema(connection)
        return sorted({*with_dags, *orphans(connection, set(with_dags))})


def plugin_content(plugin: str) -> PluginContent:
    """Return what the page of a plugin shows."""
    with database.connect() as connection:
        return PluginContent(
            releases=list_releases(connection, plugin)[:_MOST_ROWS],
            promotions=promotions.history(connection, plugin, _MOST_ROWS),
            trainings=trainings(connection, plugin)[:_MOST_ROWS],
            improvements=improvements.history(connection, plugin)[:_MOST_ROWS],
            watches=monitoring.history(connection, plugin, _MOST_ROWS),
            experiments=experiments.history(connection, [plugin], _MOST_ROWS),
            asked={
                "Popular": asked_queries(connection, plugin, "popular", most=_MOST_QUERIES),
                "Found nothing": asked_queries(connection, plugin, "found-nothing", most=_MOST_QUERIES),
                "Brought no click": asked_queries(connection, plugin, "brought-nothing", most=_MOST_QUERIES),
            },
        )


def model(plugin: str, name: str) -> tuple[EntryManifest, str] | None:
    """Return the manifest of a published model of this plugin, and how it is served; None where there is none."""
    from estudio_core.inference.manifest import split_name
    from estudio_core.inference.model_store import entry_of

    settings = get_settings()
    try:
        if split_name(name)[0] != plugin:
            return None
        manifest = entry_of(name)
    except RepositoryError:
        return None  # older releases are cleared away
    if settings.inference == "embedded":
        return manifest, "Served inside each process, by ONNX Runtime (ESTUDIO_INFERENCE=embedded)."
    address = f"{settings.inference_host}:{settings.inference_grpc_port}"
    return manifest, f"Triton at {address}: {_triton_state(address, name)}."


def _triton_state(address: str, name: str) -> str:
    from estudio_core.inference.triton_control import TritonControl

    try:
        control = TritonControl(address, timeout_s=_TRITON_TIMEOUT_S)
        try:
            return "loaded and ready" if control.is_ready(name) else "not loaded"
        finally:
            control.close()
    except EstudioError as error:
        return str(error)


def report(plugin: str, run_id: str | None) -> str | None:
    """Return the report of a training of this plugin, the latest by default; None where there is none."""
    with database.connect() as connection:
        found = [row for row in trainings(connection, plugin) if run_id in {None, row.run_id}]
    return _page_in(found[0].report_uri) if found else None


def improvement_report(plugin: str, run_id: str) -> str | None:
    """Return the report of an improvement of this plugin; None where there is none."""
    return _page_in(ArtifactStore().uri(plugin, run_id, IMPROVEMENT_STEP))


def _page_in(uri: str) -> str | None:
    try:
        with ArtifactStore().fetch(uri) as folder:
            return (folder / "report.html").read_text(encoding="utf-8")
    except (DataError, FileNotFoundError):
        return None  # artifacts may have been cleared away
