"""`<plugin>__experiment`: one registered version beside the live one, until users have decided between them."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, PokeReturnValue, get_current_context

from estudio_core.dag_factory.assets import release_asset
from estudio_core.dag_factory.forms import form
from estudio_core.dag_factory.links import PageLink
from estudio_core.dag_factory.release_steps import built_release
from estudio_core.dag_factory.steps import Steps, plugin_dag, started_by
from estudio_core.errors import NotEnoughDataError
from estudio_core.plugin.discovery import PluginCard
from estudio_core.plugin.run_params import ExperimentParams

LOOK_S = 60
"""Between two looks; the task holds no slot meanwhile. What harms is stopped by the service, within ten seconds."""
LONGEST_DAYS = 400
"""More than an experiment may last."""


def check_experiment(plugin: str, run_id: str | None = None, params: dict[str, Any] | None = None) -> str:
    """Refuse what could not be started, before anything is built; say which version is compared."""
    from estudio_core.pipeline.check_experiment import check_experiment

    return check_experiment(plugin, params or {}, str(run_id))


def start_experiment(
    plugin: str, verified: dict[str, Any], run_id: str | None = None, params: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Let the release answer searches beside the live one, from now on."""
    from estudio_core.pipeline.start_experiment import start_experiment

    actor = started_by(get_current_context()["dag_run"])
    return start_experiment(plugin, verified, params or {}, str(run_id), actor).as_dict()


def conclude_experiment(plugin: str, started: dict[str, Any]) -> PokeReturnValue:
    """Look at the experiment; once there is a verdict, make the challenger live, or drop it."""
    from estudio_core.pipeline.conclude_experiment import conclude_experiment

    found = conclude_experiment(plugin, started["experiment_id"])
    over = {"verdict": str(found.verdict), "reason": found.reason, "release_id": found.challenger}
    return PokeReturnValue(found.state == "ended", over)


def went_live(concluded: dict[str, Any]) -> str:
    """Say that the challenger is live; skipped where the champion stays."""
    if concluded["verdict"] != "better":
        raise NotEnoughDataError(f"The champion stays ({concluded['verdict']}). {concluded['reason']}")
    return str(concluded["reason"])


def experiment_dag(card: PluginCard) -> DAG:
    """Return the DAG that has users decide."""
    name = card.meta.name
    doc = (
        "Builds the release of a version beside the live one, without a switch, and lets both answer searches: "
        "interleaved, or each client by one of them. Looks each minute; the verdict is as certain whenever one looks. "
        "A better challenger goes live as any other promotion does, another is dropped. One that harms answers "
        "nobody any more as soon as that is likely. Stop it: `estudio experiments stop`."
    )
    params = form(ExperimentParams())
    with plugin_dag(card, "experiment", "Experiment", doc, params=params) as dag:
        steps = Steps(card)
        verified = built_release(steps, steps(check_experiment)(name))[-1]
        started = steps(start_experiment, links=[PageLink(name)])(name, verified)
        concluded = steps.sensor(conclude_experiment, every_s=LOOK_S, most_s=LONGEST_DAYS * 86_400)(name, started)
        steps(went_live, outlets=[release_asset(name)])(concluded)
    return dag
