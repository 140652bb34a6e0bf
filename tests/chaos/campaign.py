"""Releases under fire: each step in a process of its own, as Airflow runs it, killed at its points and run again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.faults import DatabaseFault, TritonFault
from tests.chaos.points import Point
from tests.chaos.shop import PLUGIN, Shop
from tests.pipeline.run_step import RunningStep, StepError

STEP_TIMEOUT_S = 120.0
"""Longest time from a kill to the end of the step's reruns."""
HOPELESS = {"ConfigurationError", "DataError", "ModelError", "ReleaseError"}
"""Errors after which Airflow does not run a task again; `ConcurrentReleaseError` excepted."""
LONGEST_DOWN_S = 1.5


@dataclass(frozen=True)
class Kill:
    """A point that was reached: when, for how long the step took to end all the same, and in how many attempts."""

    point: Point
    at: float
    seconds: float
    attempts: int


@dataclass
class Campaign:
    """The releaser, and who kills.

    Attributes:
        shop: The installation.
        database: Kills PostgreSQL.
        triton: Kills Triton; None where there is none.
        seed: Decides which shard is hit, and how long servers stay down.
        say: Takes a line for who watches.
        kills: What was done.
        releases: How many releases went live.
    """

    shop: Shop
    database: DatabaseFault
    triton: TritonFault | None
    seed: int
    say: Callable[[str], None]
    kills: list[Kill] = field(default_factory=list)
    releases: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def run(self, points: Sequence[Point], deadline: float) -> list[Point]:
        """Release again and again until every point was reached; return those that were not, by `deadline`."""
        due: dict[str, deque[Point]] = defaultdict(deque)
        for point in points:
            due[point.step].append(point if self.triton else point.without_triton())
        while any(due.values()) and time.monotonic() < deadline:
            self.release(due)
            if due["rollback"]:
                self._step("rollback", due, {}, f"rollback-{self.releases}", "chaos")
        return [point for waiting in due.values() for point in waiting]

    def release(self, due: dict[str, deque[Point]]) -> None:
        """Make the next model version live."""
        self.releases += 1
        version = str((self.releases - 1) % self.shop.models + 1)
        run_id = f"release-{self.releases}"
        self._step("take_up", due, run_id, {"version": version}, "chaos")
        entry = self._step("publish_model", due, version)
        shards = self._step("start_collection", due, entry, 2, run_id)
        self._random.shuffle(shards)
        loaded = [self._step("embed_shard", due, shard) for shard in shards]
        built = self._step("build_index", due, loaded)
        verified = self._step("verify", due, built)
        live = self._step("switch", due, verified)
        assert live["version"] == version, live
        self._step("clean_up", due, {})

    def challenge(self, due: dict[str, deque[Point]], name: str, params: dict[str, Any]) -> Any:
        """Build a release of the second version beside the live one, and start its experiment; return its manifest."""
        entry = self._step("publish_model", due, "2")
        shards = self._step("start_collection", due, entry, 2, name)
        loaded = [self._step("embed_shard", due, shard) for shard in shards]
        verified = self._step("verify", due, self._step("build_index", due, loaded))
        return self._step("start_experiment", due, verified, params, name, "chaos")

    def conclude(self, due: dict[str, deque[Point]], name: str) -> Any:
        """Look at an experiment, and carry out its verdict where there is one, killed at each point that is due.

        Returns:
            The experiment as it is then.
        """
        return self._step("conclude_experiment", due, name, every=True)

    def roll_back(self) -> None:
        """Go back to the previous release; twice comes forward again."""
        self._step("rollback", defaultdict(deque), {}, f"rollback-{time.time()}", "chaos")

    def clean_up(self) -> None:
        """Drop what is over."""
        self._step("clean_up", defaultdict(deque), {})

    def _step(self, step: str, due: dict[str, deque[Point]], *arguments: Any, every: bool = False) -> Any:
        """Let a step end, however often it has to be run, and kill at the first of its points that are due.

        With `every`, it is killed at the others too, one after another.
        """
        point = due[step].popleft() if due[step] else None
        deadline = time.monotonic() + STEP_TIMEOUT_S
        killed: float | None = None
        attempts = 0
        while True:
            attempts += 1
            halt = point.halt if point and killed is None else None
            with RunningStep(step, PLUGIN, *arguments, halt=halt) as running:
                if point is not None and halt is not None:
                    if running.halts_within(STEP_TIMEOUT_S):
                        killed = time.time()
                        self.say(f"{step}: {point.name}; {point.target} killed")
                        if self._strike(point, running):
                            if every and due[step]:
                                self.kills.append(Kill(point, killed, time.time() - killed, attempts))
                                point, killed = due[step].popleft(), None
                            continue
                    else:  # nothing to be done here in this release
                        if every:
                            due[step].appendleft(point)
                        else:
                            due[step].append(point)
                        point = None
                try:
                    made = running.result(STEP_TIMEOUT_S)
                except StepError as error:
                    self._may_run_again(step, error, deadline)
                    time.sleep(min(0.2 * attempts, 2.0))
                    continue
            if point is not None and killed is not None:
                self.kills.append(Kill(point, killed, time.time() - killed, attempts))
            return made

    def _strike(self, point: Point, running: RunningStep) -> bool:
        """Kill what the point says; return whether the step itself is dead."""
        down_s = self._random.uniform(0.0, LONGEST_DOWN_S)
        if point.target in {"builder", "task"}:
            running.kill()
            return True
        if point.target == "server":
            assert self.triton is not None
            self.triton.kill_server(down_s, running.go_on)
        elif point.target == "database":
            self.database.kill_server(down_s, running.go_on)
        else:
            self.database.kill_session(running.go_on)
        return False

    def _may_run_again(self, step: str, error: StepError, deadline: float) -> None:
        hopeless = HOPELESS.intersection(error.kinds) and "ConcurrentReleaseError" not in error.kinds
        if hopeless or time.monotonic() > deadline:
            raise error
        self.say(f"  {step} is run again after: {str(error).strip().splitlines()[-1][:150]}")


@contextmanager
def at_work(module: str, arguments: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Let a module of these tests work in a process of its own while the block runs: until its stdin ends."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", f"tests.chaos.{module}", *arguments],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, **environment},
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield process
        assert process.poll() is None, f"{module} has ended: {log.read_text()[-3000:]}"
        process.stdin.close()
        process.wait(60)
    finally:
        process.kill()
        process.wait()
