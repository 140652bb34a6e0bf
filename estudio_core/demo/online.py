"""Proven online: challenger and champion answer simulated people side by side until their clicks decide."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from estudio_core import database
from estudio_core.cli_parts import progress_bar
from estudio_core.comparing import ledger
from estudio_core.demo.people import SimulatedPeople, Traffic, plan_visits
from estudio_core.demo.traffic import let_them_search
from estudio_core.pipeline.challenging.building import build_challenger
from estudio_core.pipeline.challenging.starting import start
from estudio_core.pipeline.conclude_experiment import conclude_experiment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from estudio_core.comparing.ledger import Experiment
    from estudio_core.evaluation.gate import GateDecision

ROUND = 500
"""Searches after which somebody looks. The verdict is as certain however often that is."""
MOST_SEARCHES = 7_500
"""Then the experiment is stopped, and the champion stays. Twenty of them, drawn with the rankings of a training of 30
steps (true gain +0.035 nDCG@10 full, mean of all queries), found it better after 750 to 2,250 searches."""
SETTLE_S = 2.0
"""Simulated people click at once: nobody has to be waited for."""
_NOTICED_S = 2.5
"""Until the service has noticed that an experiment is under way; it asks each second."""


def worth_proving(decision: GateDecision) -> bool:
    """Return whether users are to decide: the gate is for the candidate, or clicks cannot tell."""
    return decision.promoted or decision.undecided


def prove_online(
    console: Console,
    plugin: str,
    name: str,
    people: SimulatedPeople,
    judgments: Mapping[str, Mapping[str, float]],
) -> tuple[Experiment, Traffic]:
    """Build the challenger's release beside the live one, and let people decide; return how it ended.

    Args:
        console: Where to show how far it is.
        plugin: Name of the plugin.
        name: Of the experiment.
        people: Who searches.
        judgments: What they know: any of its queries is asked.

    Raises:
        ReleaseError, ModelError: the challenger's release cannot be built.
        UnavailableError: the service does not answer.
    """
    console.print("\n[bold]The challenger's index, beside the live one[/]")
    began = time.monotonic()
    with progress_bar():
        challenger = build_challenger(plugin, "challenger", f"experiment {name}")
    console.print(f"  release {challenger.release_id}, verified, after {time.monotonic() - began:.0f} s")
    start(plugin, challenger.release_id, {"settle_minutes": SETTLE_S / 60}, name, "the demo")
    return let_people_decide(console, plugin, name, people, judgments)


def let_people_decide(
    console: Console,
    plugin: str,
    name: str,
    people: SimulatedPeople,
    judgments: Mapping[str, Mapping[str, float]],
    *,
    at_once: int = ROUND,
    at_most: int = MOST_SEARCHES,
    settle_s: float = SETTLE_S,
) -> tuple[Experiment, Traffic]:
    """Have people search while an experiment is under way, until it has ended; return how.

    Args:
        console: Where to show how far it is.
        plugin: Name of the plugin.
        name: Of the experiment, which is running.
        people: Who searches.
        judgments: What they know: any of its queries is asked.
        at_once: Searches between two looks.
        at_most: Searches after which it is stopped.
        settle_s: Time within which clicks arrive, as the experiment has it.

    Raises:
        UnavailableError: the service does not answer.
    """
    time.sleep(_NOTICED_S)
    traffic, asked = Traffic(), 0
    title = "[bold]Simulated[/] people search; both releases answer, interleaved"
    while True:
        visits = plan_visits(judgments, at_once, f"simulated-{name}", first=asked)
        traffic += let_them_search(console, title, people, visits)
        asked += len(visits)
        time.sleep(2 * settle_s + 1)
        experiment = conclude_experiment(plugin, name)
        console.print(f"  {told(experiment)}", highlight=False)
        if experiment.state != "ended" and asked >= at_most:
            experiment = _give_up(plugin, experiment, asked)
        if experiment.state == "ended":
            return experiment, traffic


def end_what_is_left(console: Console, plugin: str) -> None:
    """Stop an experiment that a run which was broken off has left behind; one that is decided is carried out."""
    with database.connect(autocommit=True) as connection:
        found = ledger.under_way(connection, plugin)
        if found is None:
            return
        if found.state == "running":
            ledger.stop(connection, found, "the demo", "Left behind by a run that was broken off.")
    conclude_experiment(plugin, found.experiment_id)
    console.print(f"Experiment {found.experiment_id} of an earlier run is over.", highlight=False)


def _give_up(plugin: str, experiment: Experiment, searches: int) -> Experiment:
    """Stop an experiment that has not decided, and drop the challenger."""
    with database.connect(autocommit=True) as connection:
        ledger.stop(connection, experiment, "the demo", f"Stopped by the demo after {searches:,} searches.")
    return conclude_experiment(plugin, experiment.experiment_id)


def told(experiment: Experiment) -> str:
    """Return where an experiment stands, in a line."""
    standing = experiment.standing
    if standing is None:
        return experiment.reason
    said = f"challenger {standing.wins} wins, {standing.ties} ties, {standing.losses} losses"
    more = f", about {standing.sessions_needed:,} searches more" if standing.sessions_needed else ""
    return f"{said}; credit {standing.credit:+.3f} [{standing.low:+.3f}, {standing.high:+.3f}]{more}"
