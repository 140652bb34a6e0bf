"""Trials on a Ray cluster that asks for a token: a real one, on the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from estudio_core.errors import UnavailableError
from estudio_core.experiments.ray_node import node_is_here, node_of
from estudio_core.settings import Settings

HERE = Path(__file__).parent
TOKEN = "0123456789abcdef" * 4

SEARCH = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from estudio_core.errors import EstudioError
from estudio_core.experiments import ray_node
from estudio_core.experiments.search import run_trials
from estudio_core.experiments.search_plan import Pruning, Resources
from estudio_core.experiments.search_space import SearchSpace
if sys.argv[3] == "elsewhere":  # as on a machine that is no node of the cluster
    ray_node.node_is_here = lambda address: False
try:
    result = run_trials("toy_objective:train", SearchSpace({"margin": [0.1, 0.3]}), 2, metric="score",
                        mode="max", storage=Path(sys.argv[2]) / "search", name="s", seed=1,
                        config={"ledger": sys.argv[2]}, resources=Resources(1, 0, 2),
                        pruning=Pruning(grace_reports=50))
    print("RESULT", json.dumps({"best": result.best.params, "all": [trial.status for trial in result.trials]}))
except EstudioError as error:
    print("RESULT", json.dumps({"error": type(error).__name__, "message": str(error)}))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of one node with two CPUs."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={address.partition(':')[2]}", "--num-cpus=2", "--include-dashboard=false"]
    command += ["--object-store-memory=104857600", "--disable-usage-stats"]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert head.stdout is not None
    said: list[str] = []
    for line in head.stdout:
        said.append(line)
        if "Ray runtime started" in line:
            break
    assert head.poll() is None, "".join(said)
    processes = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    yield address
    head.terminate()
    _, left = psutil.wait_procs(processes, timeout=20)
    for process in left:
        process.kill()


def search(address: str, folder: Path, token: str, where: str = "here") -> dict[str, object]:
    environment = {**os.environ, "ESTUDIO_RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, str(HERE), str(folder), where],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3000:] + done.stderr[-3000:]
    result: dict[str, object] = json.loads(lines[0].removeprefix("RESULT "))
    return result


@pytest.mark.e2e
def test_trials_run_on_a_cluster_with_the_token_and_without_it_none_does(cluster: str, tmp_path: Path) -> None:
    assert node_is_here(cluster)
    expected = {"best": {"margin": 0.3}, "all": ["completed", "completed"]}
    raylets = _raylets()
    with ThreadPoolExecutor() as threads:  # who is refused calls for 20 s first
        without = threads.submit(search, cluster, tmp_path / "refused", TOKEN[::-1])
        # From a machine that is no node: it joins for the time of the search, and leaves.
        assert search(cluster, tmp_path / "elsewhere", TOKEN, "elsewhere") == expected
        deadline = time.monotonic() + 30
        while _raylets() != raylets and time.monotonic() < deadline:
            time.sleep(0.2)
        assert _raylets() == raylets
        refused = without.result()
    assert refused["error"] == "UnavailableError"
    assert "RAY_AUTH_TOKEN" in str(refused["message"])


def _raylets() -> set[int]:
    return {process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == "raylet"}


def test_a_cluster_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert not node_is_here(address)
    monkeypatch.setattr("estudio_core.experiments.ray_node.JOIN_TIMEOUT_S", 2.0)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=rf"cannot join the Ray cluster at {address}.*RAY_AUTH_TOKEN"):
        node_of(address).__enter__()
    assert time.monotonic() - began < 2.0 + 15, "what does not listen is not waited for"


def test_an_address_is_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings(ray_address="ray-head:6379").ray_address == "ray-head:6379"
    assert Settings(ray_address="auto").ray_address == "auto"
    with pytest.raises(ValidationError, match="ray_address"):  # Ray Client keeps the search where no recorder is
        Settings(ray_address="ray://ray-head:10001")
    monkeypatch.setenv("ESTUDIO_RAY_ADDRESS", "")
    assert Settings().ray_address is None
