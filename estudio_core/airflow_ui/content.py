"""What the pages show, read from Estudio's database and artifacts; nothing heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.artifacts import ArtifactStore
from estudio_core.errors import DataError, EstudioError, RepositoryError
from estudio_core.improvement import ledger as improvements
from estudio_core.improvement.ledger import Improvement
from estudio_core.monitoring import ledger as monitoring
from estudio_core.monitoring.ledger import Watch
from estudio_core.pipeline.improvement.report import IMPROVEMENT_STEP
from estudio_core.promotion import ledger as promotions
from estudio_core.promotion.ledger import Promotion
from estudio_core.promotion.trainings import Training, new_sessions, trainings
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import Release, list_releases, live_release, previous_release

if TYPE_CHECKING:
    from estudio_core.inference.manifest import EntryManifest

_MOST_ROWS = 50
_TRITON_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Overview:
    """One plugin in the list."""

    plugin: str
    live: Release | None
    new_sessions: int


@dataclass(frozen=True)
class PluginContent:
    """All that a plugin's page shows; lists have the latest first."""

    plugin: str
    live: Release | None
    previous: Release | None
    releases: list[Release]
    promotions: list[Promotion]
    trainings: list[Training]
    improvements: list[Improvement]
    watches: list[Watch]
    new_sessions: int


def plugin_names() -> list[str]:
    """Return the names of all plugins that have had a release begun, sorted."""
    with database.connect() as connection:
        database.ensure_schema(connection)
        rows = connection.execute("SELECT DISTINCT plugin FROM estudio.deployments ORDER BY plugin").fetchall()
    return [row[0] for row in rows]


def overviews(plugins: list[str]) -> list[Overview]:
    """Return what the list shows of these plugins."""
    with database.connect() as connection:
        return [Overview(name, live_release(connection, name), new_sessions(connection, name)) for name in plugins]


def plugin_content(plugin: str) -> PluginContent:
    """Return what the page of a plugin shows."""
    with database.connect() as connection:
        return PluginContent(
            plugin=plugin,
            live=live_release(connection, plugin),
            previous=previous_release(connection, plugin),
            releases=list_releases(connection, plugin)[:_MOST_ROWS],
            promotions=promotions.history(connection, plugin, _MOST_ROWS),
            trainings=trainings(connection, plugin)[:_MOST_ROWS],
            improvements=improvements.history(connection, plugin)[:_MOST_ROWS],
            watches=monitoring.history(connection, plugin, _MOST_ROWS),
            new_sessions=new_sessions(connection, plugin),
        )


def model(plugin: str, name: str) -> tuple[EntryManifest, str] | None:
    """Return the manifest of a published model of this plugin, and how it is served; None where there is none."""
    from estudio_core.inference.manifest import entry_of, split_name

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
