from __future__ import annotations

import pytest

from estudio_core.errors import ConfigurationError
from estudio_core.experiments.iteration import Iteration
from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
from lightning_modules.config import TrainingConfig


def finish(manager: ExperimentsManager, iteration: Iteration, margin: float, quality: float) -> TrainingConfig:
    params = TrainingConfig(margin=margin)
    with manager.start_trial(iteration, params, name=f"trial {margin}") as trial:
        trial.log({"test_ndcg@10": quality}, step=1)
    return params


def test_an_iteration_is_the_same_run_when_it_is_started_again(manager: ExperimentsManager) -> None:
    first = manager.start_iteration("manual__2026-01-01T00:00:00+00:00", dataset_id="d1", params={"epochs": 3})
    manager.end_iteration(first)
    again = manager.start_iteration("manual__2026-01-01T00:00:00+00:00", dataset_id="d1", params={"epochs": 3})
    assert again == first
    assert manager.start_iteration("it's another").run_id != first.run_id
    run = manager.wrapper.client.get_run(first.run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"epochs": "3"}
    assert run.data.tags["estudio.dataset_id"] == "d1"
    assert run.data.tags["estudio.version"]
    assert [one.dataset.digest for one in run.inputs.dataset_inputs] == ["d1"]


def test_curves_have_steps_and_running_statistics(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    with manager.start_trial(iteration, TrainingConfig()) as trial:
        for step, loss in enumerate([3.0, 1.0, 2.0]):
            trial.log({"train_loss": loss, "lr": 0.1}, step=step * 10)
    curves = manager.curves(trial.run_id, ["train_loss", "mean_train_loss", "lr"])
    assert curves == {
        "train_loss": [(0, 3.0), (10, 1.0), (20, 2.0)],
        "mean_train_loss": [(0, 3.0), (10, 2.0), (20, 2.0)],
        "lr": [(0, 0.1), (10, 0.1), (20, 0.1)],
    }


def test_metrics_of_many_steps_are_sent_in_requests_of_legal_size(manager: ExperimentsManager) -> None:
    trial = manager.start_trial(manager.start_iteration("r"), TrainingConfig())
    trial.flush_each = 10_000
    for step in range(1500):
        trial.log({"grad_norm": step / 2}, step)
    trial.end()
    points = manager.curves(trial.run_id, ["grad_norm"])["grad_norm"]
    assert len(points) == 1500
    assert points[-1] == (1499, 749.5)


def test_accumulators_start_anew_in_each_trial(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    for margin in (0.1, 0.2):
        with manager.start_trial(iteration, TrainingConfig(margin=margin)) as trial:
            trial.log({"train_loss": margin}, 0)
        assert manager.curves(trial.run_id, ["mean_train_loss"])["mean_train_loss"] == [(0, margin)]


def test_a_trial_is_a_child_run_whose_parameters_read_back(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    params = TrainingConfig(learning_rate=3e-5, batch_size=16, examples_order=[3, 11])
    with manager.start_trial(iteration, params) as trial:
        pass
    run = manager.wrapper.client.get_run(trial.run_id)
    assert run.data.tags["mlflow.parentRunId"] == iteration.run_id
    assert TrainingConfig.from_mlflow(run.data.params) == params


def test_a_finished_trial_is_not_run_again_and_an_unfinished_one_is_replaced(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    killed = manager.start_trial(iteration, TrainingConfig(), name="t")
    killed.log({"train_loss": 1.0}, 0)
    killed.flush()
    second = manager.start_trial(iteration, TrainingConfig(), name="t")
    assert second.run_id != killed.run_id
    second.end(quality=0.5)
    third = manager.start_trial(iteration, TrainingConfig(), name="t")
    assert (third.run_id, third.finished) == (second.run_id, True)
    assert [run.info.run_id for run in manager.trials(iteration)] == [second.run_id]


def test_a_trial_that_continues_keeps_its_run(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    killed = manager.start_trial(iteration, TrainingConfig())
    assert manager.start_trial(iteration, TrainingConfig(), resume=True).run_id == killed.run_id


def test_a_trial_that_fails_says_why_and_is_no_candidate(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    trial = manager.start_trial(iteration, TrainingConfig())

    def train() -> None:
        with trial:
            trial.log({"test_ndcg@10": 0.99}, 0)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        train()
    run = manager.wrapper.client.get_run(trial.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["estudio.error"] == "RuntimeError: out of memory"
    assert manager.top_params() == []


def test_quality_is_the_best_value_of_the_main_metric(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("r")
    with manager.start_trial(iteration, TrainingConfig()) as trial:
        for step, value in enumerate([0.5, 0.7, float("nan"), 0.6]):
            trial.log({"test_ndcg@10": value}, step)
    assert manager.wrapper.client.get_run(trial.run_id).data.metrics["quality"] == 0.7


def test_a_second_iteration_starts_from_the_best_of_the_first(manager: ExperimentsManager) -> None:
    first = manager.start_iteration("first")
    worse = finish(manager, first, 0.05, 0.6)
    best = finish(manager, first, 0.1, 0.8)
    second = manager.start_iteration("second")
    assert manager.top_params(1, before=second) == [best]
    finish(manager, second, 0.2, 0.7)  # of other dev queries: less than the best of the first, and no worse for it
    finish(manager, second, 0.3, 0.9)
    assert manager.top_params(before=second) == [best, worse]
    assert [params.margin for params in manager.top_params()] == [0.3, 0.2, 0.1, 0.05]
    third = manager.start_iteration("third")
    assert manager.top_params(1, before=third)[0].margin == 0.3
    finish(manager, third, 0.4, 0.1)
    assert [params.margin for params in manager.top_params(2)] == [0.4, 0.3]


def test_for_a_loss_smaller_is_better(manager: ExperimentsManager) -> None:
    by_loss = ExperimentsManager.from_wrapper(
        wrapper=manager.wrapper, main_metric="test_loss", plugin_name="shop", accumulators=[], is_loss=True
    )
    iteration = by_loss.start_iteration("r")
    for margin, losses in ((0.1, [0.9, 0.3, 0.5]), (0.2, [0.4])):
        with by_loss.start_trial(iteration, TrainingConfig(margin=margin)) as trial:
            for step, loss in enumerate(losses):
                trial.log({"test_loss": loss}, step)
    assert [params.margin for params in by_loss.top_params()] == [0.1, 0.2]


def test_the_first_iteration_has_nothing_to_start_from(manager: ExperimentsManager) -> None:
    assert manager.top_params(1) == []


def test_plugins_do_not_see_each_others_trials(manager: ExperimentsManager) -> None:
    finish(manager, manager.start_iteration("r"), 0.1, 0.8)
    other = ExperimentsManager.from_wrapper(manager.wrapper, "m", "library", [])
    assert other.top_params() == []


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="main_metric"):
        ExperimentsManager(None, "", "shop", [])
    with pytest.raises(ConfigurationError, match="n_top_runs = 0"):
        ExperimentsManager(None, "m", "shop", [], n_top_runs=0)
    with pytest.raises(ConfigurationError, match="two accumulators"):
        ExperimentsManager(None, "m", "shop", [MetricsAccumulator("a"), MetricsAccumulator("a")])


def test_a_run_is_named_by_what_mlflow_s_column_holds(manager: ExperimentsManager) -> None:
    iteration = manager.start_iteration("🙂" * 250)
    run = manager.wrapper.client.get_run(iteration.run_id)
    assert run.info.run_name == f"iteration {'🙂' * 119}…"
    assert manager.start_iteration("🙂" * 250).run_id == iteration.run_id
