"""The whole exercise: an installation, traffic, releases under fire, and the verdict."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.campaign import Campaign, at_work
from tests.chaos.evidence import ReferenceModels, check_state, live_content, releases
from tests.chaos.faults import DatabaseFault, triton
from tests.chaos.journal import read_journal
from tests.chaos.points import Point
from tests.chaos.shop import open_shop
from tests.chaos.tally import table
from tests.chaos.verdict import Violation, check_content, check_searches


@dataclass(frozen=True)
class Outcome:
    """What an exercise gave.

    Attributes:
        table: The tally, Markdown.
        violations: Broken promises.
        kills: How many there were.
        releases: How many releases went live.
        outages: Begin and end of the database's outages, seconds since the epoch.
        with_triton: Whether a Triton server served.
        seconds: Duration of it all.
    """

    table: str
    violations: list[Violation]
    kills: int
    releases: int
    outages: list[tuple[float, float]]
    with_triton: bool
    seconds: float


def drill(
    points: Sequence[Point],
    *,
    items: int,
    models: int,
    seed: int,
    limit_s: float,
    folder: Path,
    say: Callable[[str], None],
) -> Outcome:
    """Kill at `points` while an application writes and searches; return what it saw.

    Args:
        points: Where to kill.
        items: Rows of the items table at first.
        models: Model versions that are released in turn.
        seed: Decides the application's operations, the length of outages, and which shard is hit.
        limit_s: No release begins later than this after the traffic; points not reached by then count as violations.
        folder: Where the installation is made; it must not exist.
        say: Takes a line for who watches.
    """
    began = time.monotonic()
    folder.mkdir(parents=True)
    # Not in `folder`: run by root, PostgreSQL works as another user, who may not read there.
    databases = Path(tempfile.mkdtemp(prefix="estudio-chaos-"))
    try:
        with (
            open_shop(folder / "shop", databases / "postgres", items=items, models=models) as shop,
            triton(folder / "shop" / "triton_repo", folder / "triton.log") as server,
        ):
            campaign = Campaign(shop, DatabaseFault(shop.database_folder), server, seed, say)
            say(f"{items} items, {models} models, {'Triton serves' if server else 'no Triton here'}; first release")
            campaign.release(defaultdict(deque))
            arguments = [str(shop.journal), str(shop.items), str(seed)]
            with at_work("traffic", arguments, shop.folder / "traffic.log"):
                missed = campaign.run(points, time.monotonic() + limit_s)
            models_of = ReferenceModels(shop)
            violations = [Violation("state", None, f"Never reached: {p.step}, {p.name}.") for p in missed]
            lines = list(read_journal(shop.journal))
            for turn in ("at the end", "after a rollback", "forward again"):
                say(f"comparing all items {turn}")
                if turn != "at the end":
                    campaign.roll_back()
                violations += check_content(lines, items, live_content(models_of))
            campaign.clean_up()
            violations += check_state()
            versions = {release.release_id: release.model_version for release in releases()}
            violations += check_searches(lines, campaign.database.outages, versions, models_of.similarities)
            return Outcome(
                table(campaign.kills, lines, violations),
                violations,
                len(campaign.kills),
                campaign.releases,
                campaign.database.outages,
                server is not None,
                time.monotonic() - began,
            )
    finally:
        shutil.rmtree(databases, ignore_errors=True)
