"""The service under fire while an experiment runs: people search and click over HTTP, an application writes."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from estudio_core import database
from estudio_core.service.keys import create_key
from tests.chaos.campaign import LONGEST_DOWN_S, Campaign, at_work
from tests.chaos.evidence import ReferenceModels, check_state, live_content, releases
from tests.chaos.faults import DatabaseFault, TritonFault, triton
from tests.chaos.journal import read_journal
from tests.chaos.online_verdict import check_clicks, check_logged, check_visits, check_writes
from tests.chaos.people import UNTOUCHED
from tests.chaos.points import CONCLUDING_POINTS, POINTS, Point
from tests.chaos.served import ServiceFault, served
from tests.chaos.shop import PLUGIN, Shop, open_shop
from tests.chaos.verdict import Violation, check_content

NAME = "chaos"
TARGETS = ("worker", "service", "database", "session", "triton")
"""What is killed while people search, at a moment that chance names."""
SETTINGS = {"settle_minutes": 0.02, "confidence": 0.999, "harm_bound": 0.9, "equal_within": 0.0, "minimum_visits": 60}
"""People who click whatever is there decide nothing by these; those who prefer a side soon do."""
VERDICT_TIMEOUT_S = 120.0
RELOAD_S = 10.0
"""Until a Triton that was started again, empty, has loaded the models that somebody asks for."""
BUILDING = ("embed_shard", "build_index", "verify")


@dataclass(frozen=True)
class Outcome:
    """What the exercise gave: what was killed how often, what was asked, and every broken promise."""

    kills: Counter[str]
    counts: Counter[str]
    violations: list[Violation]
    outages: int
    with_triton: bool
    seconds: float

    @property
    def table(self) -> str:
        """The tally, Markdown."""
        kinds = ("lost", "duplicated", "failed", "mixed", "state")
        found = Counter(str(violation.kind) for violation in self.violations)
        rows = [
            ["killed", ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))],
            *([name, f"{count:,}"] for name, count in self.counts.items()),
            ["violations", ", ".join(f"{kind} {found[kind]}" for kind in kinds)],
        ]
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {told} |" for name, told in rows)])


@dataclass
class Fire:
    """Kills what answers people, in turns and at moments of chance."""

    service: ServiceFault
    database: DatabaseFault
    triton: TritonFault | None
    lot: random.Random
    say: Callable[[str], None]
    kills: Counter[str] = field(default_factory=Counter)
    without_triton: list[tuple[float, float]] = field(default_factory=list)
    """Times in which texts of items are not encoded; queries are, by the process that searches."""

    def strike(self, target: str) -> None:
        """Kill a target and wait until it is back."""
        time.sleep(self.lot.uniform(0.5, 2.0))
        down_s = self.lot.uniform(0.0, LONGEST_DOWN_S)
        if target == "triton":
            if self.triton is None:
                return
            began = time.time()
            self.triton.kill_server(down_s, lambda: None)
            self.without_triton.append((began, time.time() + RELOAD_S))
        elif target == "worker":
            self.service.kill_worker(self.lot)
        elif target == "service":
            self.service.kill_whole(down_s)
        elif target == "database":
            self.database.kill_server(down_s, lambda: None)
        else:
            self.database.kill_session(lambda: None)
        self.kills[target] += 1
        self.say(f"{target} killed, and back")


def drill(*, items: int, seed: int, rounds: int, short: bool, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Kill service, database, Triton and builder while people search, click and write; return what was broken.

    Args:
        items: Rows of the items table at first.
        seed: Decides who does what, and when is killed.
        rounds: How often each of `TARGETS` is killed while the experiment runs.
        short: Only the short form's points of build and conclusion.
        folder: Where the installation is made; it must not exist.
        say: Takes a line for who watches.
    """
    began = time.monotonic()
    folder.mkdir(parents=True)
    databases = Path(tempfile.mkdtemp(prefix="estudio-chaos-"))  # as of `drill`
    try:
        with (
            open_shop(folder / "shop", databases / "postgres", items=items, models=2) as shop,
            triton(folder / "shop" / "triton_repo", folder / "triton.log") as server,
        ):
            campaign = Campaign(shop, DatabaseFault(shop.database_folder), server, seed, say)
            say(f"{items} items, {'Triton serves' if server else 'no Triton here'}; first release")
            campaign.release(defaultdict(deque))
            with served(folder / "service.log") as service:
                fire = Fire(service, campaign.database, server, random.Random(seed), say)
                with database.transaction() as connection:
                    scopes = ("search", "events", "items")
                    key = create_key(connection, "chaos", scopes, (PLUGIN,), rate=1_000_000)[1]
                arguments = [str(shop.journal), service.address, str(shop.items), str(seed)]
                with at_work("people", arguments, shop.folder / "people.log", ESTUDIO_KEY=key) as crowd:
                    experiment = _compared(campaign, fire, crowd, rounds, short)
                    say(f"{experiment.verdict}: {experiment.reason}")
                    time.sleep(2.0)  # searches of the new release alone
            fire.kills.update(kill.point.target for kill in campaign.kills)
            violations = _judged(campaign, fire, shop, experiment)
            lines = list(read_journal(shop.journal))
            return Outcome(
                fire.kills,
                _counts(lines),
                violations,
                len(service.outages) + len(campaign.database.outages),
                server is not None,
                time.monotonic() - began,
            )
    finally:
        shutil.rmtree(databases, ignore_errors=True)


def _compared(campaign: Campaign, fire: Fire, crowd: subprocess.Popen[str], rounds: int, short: bool) -> Any:
    """Build the challenger, let people decide under fire, and carry out the verdict, killed at its points."""
    assert crowd.stdin is not None
    building = [p for p in POINTS if p.step in BUILDING and (p.short or not short)]
    campaign.challenge(_due(campaign, building), NAME, SETTINGS)
    targets = [target for target in TARGETS for _ in range(rounds)]
    fire.lot.shuffle(targets)
    for target in targets:
        fire.strike(target)
    fire.say("from now on, people prefer the challenger")
    crowd.stdin.write("prefer\n")
    crowd.stdin.flush()
    concluding = _due(campaign, [p for p in CONCLUDING_POINTS if p.short or not short])
    deadline = time.monotonic() + VERDICT_TIMEOUT_S
    while True:
        experiment = campaign.conclude(concluding, NAME)
        if experiment.state == "ended":
            return experiment
        assert time.monotonic() < deadline, f"no verdict: {experiment.reason}"
        assert crowd.poll() is None, "the people have gone"
        time.sleep(1.0)


def _due(campaign: Campaign, points: Sequence[Point]) -> dict[str, deque[Point]]:
    due: dict[str, deque[Point]] = defaultdict(deque)
    for point in points:
        due[point.step].append(point if campaign.triton else point.without_triton())
    return due


def _judged(campaign: Campaign, fire: Fire, shop: Shop, experiment: Any) -> list[Violation]:
    lines = list(read_journal(shop.journal))
    models = ReferenceModels(shop)
    violations = []
    if experiment.verdict != "better":
        violations.append(Violation("state", None, f"The verdict is {experiment.verdict}: {experiment.reason}"))
    for turn in ("at the end", "after a rollback", "forward again"):
        campaign.say(f"comparing all items {turn}")
        if turn != "at the end":
            campaign.roll_back()
        violations += check_content(lines, shop.items, live_content(models))
    campaign.clean_up()
    violations += check_state()
    versions = {release.release_id: release.model_version for release in releases()}
    if versions.get(experiment.champion) != "1" or versions.get(experiment.challenger) != "2":
        violations.append(Violation("state", None, f"Releases {versions} are not those of {experiment}."))
    outages = [*campaign.database.outages, *fire.service.outages]
    with database.connect(autocommit=True) as connection:
        events = _events(connection)
        searches = _searches(connection)
    return [
        *violations,
        *check_visits(lines, outages, versions, models.similarities, ("1", "2"), int(shop.items * UNTOUCHED)),
        *check_clicks(lines, outages, events),
        *check_logged(lines, outages, searches),
        *check_writes(lines, [*outages, *fire.without_triton, *_without_triton(campaign)]),
    ]


def _without_triton(campaign: Campaign) -> list[tuple[float, float]]:
    """Return when Triton was away because it was killed at a point of a step."""
    return [(kill.at, kill.at + kill.seconds + RELOAD_S) for kill in campaign.kills if kill.point.target == "server"]


def _events(connection: psycopg.Connection) -> list[tuple[str, str, str, int | None]]:
    rows = connection.execute(
        "SELECT event_id, query_id, object_id, (event_attributes->'position'->>'ordinal')::int FROM estudio.ubi_events"
        " WHERE application = %s",
        (PLUGIN,),
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def _searches(connection: psycopg.Connection) -> dict[str, tuple[list[str], dict[str, Any]]]:
    rows = connection.execute(
        "SELECT query_id, query_response_hit_ids, query_attributes FROM estudio.ubi_queries WHERE application = %s",
        (PLUGIN,),
    )
    return {row[0]: (list(row[1]), row[2]) for row in rows}


def _counts(lines: Sequence[dict[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        if line["kind"] == "visit":
            counts["searches"] += 1
            counts["of them in the experiment"] += line.get("experiment") is not None
            counts["searches that failed, all within outages"] += "error" in line
        elif line["kind"] == "click" and line["acknowledged"]:
            counts["events acknowledged"] += len(line["events"])
        elif line["kind"] == "ack":
            counts["writes acknowledged"] += 1
    return counts
