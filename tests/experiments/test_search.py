from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from estudio_core.errors import ConfigurationError, DataError, MissingDependencyError, ModelError, NotEnoughDataError
from estudio_core.experiments import ray_search
from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.ray_search import per_trial, train_candidate
from estudio_core.experiments.search import run_trials, summarise
from estudio_core.experiments.search_plan import Pruning, Resources, SearchOutcome, SearchPlan
from estudio_core.experiments.search_space import SearchSpace
from estudio_core.experiments.trial import Point, Report, TrialEnd, write_end
from estudio_core.experiments.trial_recorder import MLflowTrialRecorder
from lightning_modules.config import TrainingConfig

Search = Callable[..., SearchOutcome]
MARGINS = [0.1, 0.2, 0.3, 0.5]
HERE = Path(__file__).parent


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    folder.mkdir()
    return folder


@pytest.fixture
def search(tmp_path: Path, ledger: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    """A search over four margins with the trainables of `toy_objective`; arguments may be replaced."""
    monkeypatch.syspath_prepend(str(HERE))

    def run(n_trials: int, trainable: str = "toy_objective:train", **changed: Any) -> SearchOutcome:
        config = {"ledger": str(ledger), **changed.pop("config", {})}
        space = SearchSpace({"margin": changed.pop("margins", MARGINS)})
        arguments: dict[str, Any] = {
            "metric": "score",
            "mode": "max",
            "storage": tmp_path / "search",
            "name": "manual__2026-01-01T00:00:00+00:00",
            "seed": 1,
            "resources": Resources(threads=1, max_concurrent=2),
            # Nothing is pruned unless a test asks for it.
            "pruning": Pruning(grace_reports=50),
        }
        return run_trials(trainable, space, n_trials, config=config, **{**arguments, **changed})

    return run


def runs(ledger: Path) -> dict[int, int]:
    return {int(file.stem): len(file.read_text()) for file in sorted(ledger.iterdir())}


def test_one_trial_runs_here_and_needs_no_ray(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = search(1, warm_start=[{"margin": 0.25}])
    assert result.best.params == {"margin": 0.25}
    assert result.best.value == pytest.approx(1 - 0.05**2 + 0.003)
    assert (result.best.steps, result.best.reports, result.best.status) == (30, 3, "completed")
    assert (result.best.folder / "model.txt").read_text() == "0.25"


def test_more_trials_without_ray_say_what_to_install(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'estudio\[ray\]'"):
        search(2)


def test_a_search_that_has_ended_is_not_trained_again(search: Search, ledger: Path) -> None:
    assert search(1) == search(1)
    assert runs(ledger) == {0: 1}


def test_a_search_goes_on_where_its_files_have_moved_and_not_where_its_data_is_another(
    search: Search, ledger: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    search(1, config={"dataset_id": "a"})
    assert search(1, config={"dataset_id": "a"}, paths={"ledger": str(elsewhere)}).best.status == "completed"
    assert (runs(ledger), runs(elsewhere)) == ({0: 1}, {})
    search(1, config={"dataset_id": "b"}, paths={"ledger": str(elsewhere)})
    assert (runs(ledger), runs(elsewhere)) == ({0: 1}, {0: 1})


def test_a_trial_that_failed_is_trained_again_by_a_rerun(search: Search, ledger: Path) -> None:
    with pytest.raises(RuntimeError, match="is broken"):
        search(1, margins=[0.2], config={"broken": [0.2]})
    with pytest.raises(RuntimeError, match="is broken"):
        search(1, margins=[0.2], config={"broken": [0.2]})
    assert runs(ledger) == {0: 2}


def test_a_missing_or_infinite_metric_ends_the_trial(search: Search) -> None:
    with pytest.raises(DataError, match="score = nan at step 7"):
        search(1, "toy_objective:diverges")
    with pytest.raises(DataError, match="loss = None"):
        search(1, metric="loss")


def test_a_trainable_that_reports_nothing_or_does_not_exist_is_named(search: Search) -> None:
    with pytest.raises(ConfigurationError, match="toy_objective:silent' ended without a report"):
        search(1, "toy_objective:silent")
    with pytest.raises(ConfigurationError, match="toy_objective:missing' cannot be imported"):
        search(1, "toy_objective:missing")
    with pytest.raises(ConfigurationError, match=r"package\.module:function"):
        search(1, "toy_objective")


def test_models_cannot_be_handed_to_trials(search: Search) -> None:
    with pytest.raises(ConfigurationError, match="JSON values"):
        search(1, config={"model": object()})


def test_a_single_trial_is_recorded_with_its_curves(search: Search, manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    recorder = MLflowTrialRecorder(manager, iteration, TrainingConfig())
    search(1, margins=[0.3], recorder=recorder)
    assert manager.curves(recorder.run_id(0), ["train_loss", "mean_train_loss"]) == {
        "train_loss": [(5, 1.0), (15, 0.5), (25, 1 / 3)],
        "mean_train_loss": [(5, 1.0), (15, 0.75), (25, pytest.approx(11 / 18))],
    }
    assert manager.wrapper.client.get_run(recorder.run_id(0)).data.metrics["quality"] == pytest.approx(1.003)


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    """A Ray that several searches share: each would start and stop one of its own."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    yield
    ray.shutdown()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def alive(pids: set[int], within_s: float = 30) -> set[int]:
    """Processes among `pids` that still run after at most `within_s`."""
    deadline = time.monotonic() + within_s
    while (left := {pid for pid in pids if _runs(pid)}) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _runs(pid: int) -> bool:
    try:
        # A zombie has ended; in a container nobody may be there to collect it.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.e2e
def test_a_search_survives_failing_and_dying_trials_and_leaves_no_process(
    search: Search, manager: ExperimentsManager, ledger: Path
) -> None:
    before = children()
    handler = signal.getsignal(signal.SIGTERM)
    iteration = manager.start_iteration("r")
    recorder = MLflowTrialRecorder(manager, iteration, TrainingConfig())
    config = {"broken": [0.2], "killed": [0.5]}
    result = search(4, config=config, recorder=recorder)
    assert result.best.params == {"margin": 0.3}
    assert {trial.params["margin"]: trial.status for trial in result.trials} == {
        0.1: "completed", 0.2: "failed", 0.3: "completed", 0.5: "failed",
    }  # fmt: skip
    by_margin = {trial.params["margin"]: trial for trial in result.trials}
    assert "RuntimeError: margin 0.2 is broken" in str(by_margin[0.2].error)
    assert by_margin[0.5].error
    in_mlflow = {run.data.params["margin"]: run for run in manager.trials(iteration)}
    assert {margin: run.info.status for margin, run in in_mlflow.items()} == {
        "0.1": "FINISHED", "0.2": "FAILED", "0.3": "FINISHED", "0.5": "FAILED",
    }  # fmt: skip
    points = manager.curves(in_mlflow["0.1"].info.run_id, ["train_loss", "score"])
    assert [step for step, _ in points["train_loss"]] == [5, 15, 25]
    assert [step for step, _ in points["score"]] == [10, 20, 30]
    assert manager.top_params(1) == [TrainingConfig(margin=0.3)]
    assert alive(children() - before) == set()
    assert signal.getsignal(signal.SIGTERM) == handler


@dataclass(frozen=True)
class Killed:
    """A search of four trials that was killed in its second one.

    Attributes:
        folder: Its files: `search` and `ledger`.
        processes: Those it had started, Ray's agents excepted.
        agents: Processes of Ray that look after their parent, and try for a minute to tell that it is gone.
    """

    folder: Path
    processes: set[int]
    agents: set[int]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    ledger = folder / "ledger"
    ledger.mkdir()
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from estudio_core.experiments.search import run_trials\n"
        "from estudio_core.experiments.search_plan import Pruning, Resources\n"
        "from estudio_core.experiments.search_space import SearchSpace\n"
        f"run_trials('toy_objective:train', SearchSpace({{'margin': {MARGINS}}}), 4, metric='score', "
        "mode='max', storage=Path(sys.argv[2]), name='manual__2026-01-01T00:00:00+00:00', seed=1, "
        "config={'ledger': sys.argv[3], 'validations': 4, 'pause_s': 0.5}, resources=Resources(1, 0, 1), "
        "pruning=Pruning(grace_reports=50))\n"
    )
    command = [sys.executable, "-c", code, str(HERE), str(folder / "search"), str(ledger)]
    process = subprocess.Popen(command, env={**os.environ, "ESTUDIO_HOME": str(folder / "home")})
    deadline = time.monotonic() + 90
    while len(list(ledger.iterdir())) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started = {child.pid: child.name() for child in psutil.Process(process.pid).children(recursive=True)}
    agents = {pid for pid, name in started.items() if "Agent" in name}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return Killed(folder, set(started) - agents, agents)


@pytest.mark.e2e
def test_a_search_killed_in_the_middle_goes_on_and_leaves_no_process(search: Search, killed: Killed) -> None:
    ledger = killed.folder / "ledger"
    assert alive(killed.processes) == set()
    assert runs(ledger) == {0: 1, 1: 1}
    config = {"ledger": str(ledger), "validations": 4, "pause_s": 0.5}
    result = search(4, storage=killed.folder / "search", config=config, resources=Resources(1, 0, 1))
    assert {trial.status for trial in result.trials} == {"completed"}
    assert runs(ledger) == {0: 1, 1: 2, 2: 1, 3: 1}


def ended(plan: SearchPlan, *ends: TrialEnd) -> SearchPlan:
    for index, end in enumerate(ends):
        write_end(plan.folder(index), end)
    return plan


@pytest.fixture
def plan(tmp_path: Path) -> SearchPlan:
    return SearchPlan("toy_objective:train", {}, [{"margin": 0.1}, {"margin": 0.2}], "score", "min", tmp_path, "s")


def test_when_all_trials_fail_for_one_of_our_reasons_that_is_raised(plan: SearchPlan) -> None:
    end = TrialEnd("failed", "NotEnoughDataError", "3 sessions; 50 are needed", "Traceback ...")
    with pytest.raises(NotEnoughDataError, match=r"3 sessions; 50 are needed \(in all 2 trials\)"):
        summarise(ended(plan, end, end))


def test_when_trials_fail_for_several_reasons_the_first_traceback_is_shown(plan: SearchPlan) -> None:
    first = TrialEnd("failed", "RuntimeError", "broken", "Traceback of the first")
    second = TrialEnd("failed", "NotEnoughDataError", "3 sessions", "Traceback of the second")
    with pytest.raises(ModelError, match=r"(?s)All 2 trials of s failed.*Traceback of the first"):
        summarise(ended(plan, first, second))


def reported(plan: SearchPlan, *trials: tuple[float, ...]) -> SearchPlan:
    for index, values in enumerate(trials):
        lines = [Report(Point({"score": value}, step), []).to_json() for step, value in enumerate(values)]
        # A last line without an end was cut off by a kill.
        (plan.folder(index) / "reports.jsonl").write_text("\n".join(lines) + '\n{"points": [[2, {"sco')
    return plan


def test_trials_are_ranked_by_what_they_report_last_and_the_smallest_wins_where_smaller_is_better(
    plan: SearchPlan,
) -> None:
    ended(plan, TrialEnd("completed"), TrialEnd("completed"))
    best = summarise(reported(plan, (0.1, 0.4), (0.5, 0.3))).best
    assert (best.index, best.value, best.steps, best.status) == (1, 0.3, 1, "completed")


def test_a_trial_that_was_ended_early_is_best_only_where_none_has_completed(plan: SearchPlan) -> None:
    reported(ended(plan, TrialEnd("stopped"), TrialEnd("completed")), (0.5, 0.2), (0.3, 0.4))
    assert (summarise(plan).best.index, summarise(plan).trials[0].status) == (1, "stopped")
    write_end(plan.folder(1), TrialEnd("failed", "RuntimeError", "broken", "Traceback"))
    assert (summarise(plan).best.index, summarise(plan).best.value) == (0, 0.2)


def test_the_scheduler_never_sees_the_final_report(
    plan: SearchPlan, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = pytest.importorskip("ray.tune")
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", told.append)
    monkeypatch.syspath_prepend(str(HERE))
    job = {"trainable": plan.trainable, "metric": "score", "import_path": []}
    job["config"] = {"ledger": str(ledger), "validations": 2, "left": [[0.25]]}
    train_candidate({"job": job, "candidate": {"index": 0, "params": {"margin": 0.3}, "folder": str(plan.folder(0))}})
    assert [one.get("validation") for one in told] == [1, 2, None]
    assert [one["score"] for one in told] == [pytest.approx(1.001), pytest.approx(1.002), 0.25]
    assert (plan.outcome(0).value, plan.outcome(0).status) == (0.25, "completed")


@pytest.mark.e2e
def test_a_search_whose_state_cannot_be_read_starts_anew_with_a_warning(
    search: Search, running_ray: None, tmp_path: Path, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = search(2)
    state = next((tmp_path / "search").glob("*/ray/tuner.pkl"))
    state.write_bytes(state.read_bytes()[:20])
    assert search(2) == first
    assert "cannot be read" in caplog.text
    assert runs(ledger) == {0: 1, 1: 1}


@pytest.mark.e2e
def test_trials_that_do_worse_are_ended_early(search: Search, manager: ExperimentsManager, running_ray: None) -> None:
    recorder = MLflowTrialRecorder(manager, manager.start_iteration("r"), TrainingConfig())
    result = search(
        4,
        margins=[0.3, 1.0, 1.5, 2.0],
        warm_start=[{"margin": 0.3}],
        # What the best leaves behind is less than what those that are ended early have reported.
        config={"validations": 6, "pause_s": 0.05, "left": [[-9.0, 0.0, 0.0, 0.0]]},
        resources=Resources(1, 0, 1),
        pruning=Pruning(grace_reports=1, reduction_factor=2),
        recorder=recorder,
    )
    assert result.best.params == {"margin": 0.3}
    assert (result.best.reports, result.best.value) == (7, -9.0)
    stopped = [trial for trial in result.trials if trial.status == "stopped"]
    assert stopped
    assert all(trial.reports < 6 and trial.value is not None for trial in stopped)
    assert result.trials[0].params == {"margin": 0.3}
    assert manager.top_params(1) == [TrainingConfig(margin=0.3)]
    for trial in stopped:
        run = manager.wrapper.client.get_run(recorder.run_id(trial.index))
        assert (run.info.status, run.data.tags["estudio.pruned"]) == ("FINISHED", "true")
        assert "quality" not in run.data.metrics


@pytest.mark.e2e
def test_where_the_leading_trial_fails_the_best_of_those_ended_for_it_is_trained_to_its_end(
    search: Search, manager: ExperimentsManager, ledger: Path, running_ray: None
) -> None:
    iteration = manager.start_iteration("r")
    recorder = MLflowTrialRecorder(manager, iteration, TrainingConfig())
    arguments: dict[str, Any] = {
        "margins": [0.3, 0.5, 1.0],
        "warm_start": [{"margin": margin} for margin in (0.3, 0.5, 1.0)],
        "config": {"validations": 4, "fails_late": [0.3]},
        "resources": Resources(1, 0, 1),
        "pruning": Pruning(grace_reports=1, reduction_factor=2),
    }
    result = search(3, **arguments, recorder=recorder)
    assert [trial.status for trial in result.trials] == ["failed", "stopped", "stopped", "completed"]
    assert result.best is result.trials[3]
    assert (result.best.index, result.best.params, result.best.reports) == (3, {"margin": 0.5}, 4)
    assert (result.best.folder / "model.txt").read_text() == "0.5"
    run = manager.wrapper.client.get_run(recorder.run_id(3))
    assert (run.info.status, run.data.metrics["quality"]) == ("FINISHED", pytest.approx(result.best.value))
    assert manager.top_params(1) == [TrainingConfig(margin=0.5)]
    assert search(3, **arguments).best == result.best
    assert runs(ledger)[3] == 1, "a rerun finds it"


@pytest.mark.e2e
def test_more_cores_than_there_are_are_refused(search: Search, running_ray: None) -> None:
    with pytest.raises(ConfigurationError, match="GPU"):
        search(2, resources=Resources(threads=1, gpus_per_trial=64))


def test_trials_that_run_at_once_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_search, "_own_cpus", lambda: 64)
    nodes = [{"CPU": 32, "GPU": 1}]
    assert per_trial(Resources(), nodes) == {"cpu": 32.0, "gpu": 1.0}
    assert per_trial(Resources(gpus_per_trial=0.25), nodes) == {"cpu": 8.0, "gpu": 0.25}
    assert per_trial(Resources(gpus_per_trial=0, max_concurrent=4), nodes) == {"cpu": 8.0, "gpu": 0.0}


def test_a_trial_takes_threads_for_each_of_its_devices() -> None:
    wanted = Resources(threads=3, devices=2)
    assert per_trial(wanted, [{"CPU": 2}, {"CPU": 8, "GPU": 4}]) == {"cpu": 6.0, "gpu": 2.0}
    assert per_trial(wanted, [{"CPU": 8}]) == {"cpu": 6.0, "gpu": 0.0}
    shared = Resources(threads=1, gpus_per_trial=0.5)
    assert per_trial(shared, [{"CPU": 8, "GPU": 1}]) == {"cpu": 1.0, "gpu": 0.5}
    with pytest.raises(
        ConfigurationError,
        match="take 6 CPUs and 0 GPUs of one machine, and Ray's machines have 4 CPUs and 0 GPUs, 4 CPUs",
    ):
        per_trial(wanted, [{"CPU": 4}, {"CPU": 4}])


@pytest.mark.e2e
def test_the_agents_of_a_killed_search_end_by_themselves(killed: Killed) -> None:
    """The last test of the file: most of their minute is over."""
    assert killed.agents
    assert alive(killed.agents, within_s=90) == set()
