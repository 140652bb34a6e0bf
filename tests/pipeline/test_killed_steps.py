"""A step killed (SIGKILL) at any moment: the live release keeps serving, and a rerun completes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from estudio_core import database
from estudio_core.searching import search
from estudio_core.settings import get_settings
from estudio_core.vectordb.deployments import list_releases
from tests.pipeline.steps import initialize

if TYPE_CHECKING:
    from tests.pipeline.conftest import Shop

PROJECT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def run(step: str, *arguments: Any, kill_after_s: float = 0) -> tuple[int, Any, float]:
    """Run `pipeline.<step>` in a process; return its exit status, result and seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.run_step", step, json.dumps(arguments), str(kill_after_s)],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            answer = json.loads(line.removeprefix("RESULT "))
            return done.returncode, answer["result"], answer["seconds"]
    assert done.returncode == -signal.SIGKILL, done.stdout[-2000:] + done.stderr[-4000:]
    return done.returncode, None, kill_after_s


def complete(step: str, *arguments: Any, moments: tuple[float, ...] = (0.05, 0.6)) -> Any:
    """Kill a step at several moments of its life, see that the shop still serves, then let it end and again."""
    step = f"estudio_core.pipeline.{step}"
    _, result, seconds = run(step, *arguments, kill_after_s=0.5)
    for moment in moments:
        run(step, *arguments, kill_after_s=max(0.02, moment * max(seconds, 2.0)))
        assert len(search("shop", "red lamp", limit=5).hits) == 5
    _, result, _ = run(step, *arguments)
    assert result is not None
    return result


def test_a_release_killed_in_every_step_completes_and_serves_all_the_time(shop: Shop) -> None:
    initialize("shop")
    shop.search_sessions(120)
    params = {"num_epochs": 2, "min_sessions": 10}
    sessions = complete("extract:extract", "shop", "r", params, moments=(0.05,))
    dataset = complete("preprocess:preprocess", "shop", "r", sessions, moments=(0.4,))
    trained = complete("train:train", "shop", "r", dataset, params)
    evaluated = complete("evaluate:evaluate", "shop", "r", trained)
    registered = complete("register:register_candidate", "shop", "r", evaluated, params, moments=(0.3,))
    assert registered["version"] == "2"

    entry = complete("publish:publish_model", "shop", "2")
    shards = complete("collection:start_collection", "shop", entry, 2, "release-r", moments=(0.05,))
    loaded = [complete("embed:embed_shard", "shop", shard, moments=(0.3,)) for shard in shards]
    built = complete("collection:build_index", "shop", loaded, moments=(0.05,))
    assert built["items"] == 60
    verified = complete("verify:verify", "shop", built, moments=(0.3,))
    live = complete("switch:switch", "shop", verified, moments=(0.05,))
    complete("clean_up:clean_up", "shop", {}, moments=(0.05,))

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
    _, sessions, _ = run("estudio_core.pipeline.extract:extract", "shop", "r", params)
    _, dataset, _ = run("estudio_core.pipeline.preprocess:preprocess", "shop", "r", sessions)
    run("estudio_core.pipeline.train:train", "shop", "r", dataset, params, kill_after_s=8)
    children = [p for p in psutil.process_iter(["cmdline"]) if _trains_here(p)]
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def _trains_here(process: psutil.Process) -> bool:
    try:
        return (
            "estudio_core.pipeline.training_process" in (process.info["cmdline"] or [])
            and process.environ().get("ESTUDIO_HOME") == os.environ["ESTUDIO_HOME"]
        )
    except psutil.Error:
        return False
