"""A step killed (SIGKILL) at any moment: the live release keeps serving, and a rerun completes."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from estudio_core import database
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import list_releases
from tests.pipeline.run_step import RunningStep, run_step
from tests.pipeline.steps import initialize

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

FIRST_KILL_S = 0.05
LATER = 4
"""Each attempt lives this many times as long as the one before."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def complete(step: str, *arguments: Any) -> Any:
    """Kill a step ever later in its life until it ends, see that the shop serves all the time, and run it once more."""
    for attempt in itertools.count():
        with RunningStep(step, *arguments) as running:
            if running.ends_within(FIRST_KILL_S * LATER**attempt):
                running.result()
                break
        assert len(search("shop", "red lamp", limit=5).hits) == 5
    assert attempt > 0, f"{step} was never killed"
    return run_step(step, *arguments)


def test_a_release_killed_in_every_step_completes_and_serves_all_the_time(shop: Shop) -> None:
    initialize("shop")
    shop.search_sessions(120)
    params = {"num_epochs": 2, "min_sessions": 10}
    sessions = complete("extract", "shop", "r", params)
    dataset = complete("preprocess", "shop", "r", sessions)
    trained = complete("train", "shop", "r", dataset, params)
    evaluated = complete("evaluate", "shop", "r", trained)
    registered = complete("register", "shop", "r", evaluated, params)
    assert registered["version"] == "2"

    entry = complete("publish_model", "shop", "2")
    shards = complete("start_collection", "shop", entry, 2, "release-r")
    loaded = [complete("embed_shard", "shop", shard) for shard in shards]
    built = complete("build_index", "shop", loaded)
    assert built["items"] == 60
    verified = complete("verify", "shop", built)
    live = complete("switch", "shop", verified)
    complete("clean_up", "shop", {})

    assert live["version"] == "2"
    assert search("shop", "red lamp", limit=5).model_version == "2"
    with database.transaction() as connection:
        states = [release.state for release in list_releases(connection, "shop")]
    assert states == ["live", "previous"]
    leftovers = [path.name for path in get_settings().triton_repository.iterdir() if path.is_dir()]
    assert sorted(name for name in leftovers if name.startswith("shop_v")) == ["shop_v1", "shop_v2"]


def test_training_dies_with_its_task(shop: Shop) -> None:
    initialize("shop")
    shop.search_sessions(120)
    params = {"num_epochs": 500, "min_sessions": 10}
    sessions = run_step("extract", "shop", "r", params)
    dataset = run_step("preprocess", "shop", "r", sessions)
    with RunningStep("train", "shop", "r", dataset, params) as running:
        deadline = time.monotonic() + 60
        while not (training := psutil.Process(running.pid).children(recursive=True)):
            assert time.monotonic() < deadline, "training has not begun"
            time.sleep(0.05)
        assert not running.ends_within(5)
    _, alive = psutil.wait_procs(training, timeout=20)
    assert alive == []
