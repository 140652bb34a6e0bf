"""What an evaluation found, put together for its readers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estudio_core.clickstream.ranking_data import SPLITS
from estudio_core.evaluation.evaluate import METRIC_TITLES
from estudio_core.evaluation.report_data import (
    TOP_RESULTS,
    Curve,
    DataFacts,
    EvaluationReport,
    Lane,
    ResultLine,
    SearchedTrial,
    Series,
    lanes,
    query_changes,
)

if TYPE_CHECKING:
    from estudio_core.clickstream.ranking_data import RankingData
    from estudio_core.evaluation.gate import GateDecision
    from estudio_core.pipeline.evaluation.evaluation_set import EvaluationSet, ModelRanking
    from estudio_core.pipeline.manifests import TrainingManifest

_CURVES = {
    "Loss": ("train_loss", "test_loss"),
    "nDCG@10 on development sessions": ("test_ndcg@10", "test_pool_ndcg@10", "test_quality"),
    "Distance shifts": (
        "train_not_irrelevant_dist_shift",
        "train_irrelevant_dist_shift",
        "test_not_irrelevant_dist_shift",
        "test_irrelevant_dist_shift",
    ),
}
_CORRECTIONS = {
    "ipw": "examination {}; clicks weighed inversely",
    "coec": "clicks weighed by clicks over expected clicks; sure of by examination {}",
    "none": "none: clicks and skips at face value",
}
_STATUS: dict[str, Any] = {"completed": "finished", "stopped": "stopped early", "failed": "failed"}


def write_report(
    folder: Path,
    run_id: str,
    training: TrainingManifest,
    data: RankingData,
    decision: GateDecision,
    evaluation_set: EvaluationSet,
    champion: ModelRanking,
    candidate: ModelRanking,
    course: Mapping[str, Any],
) -> str:
    """Write `report.html` and `report.json` into `folder`; return the summary in Markdown.

    Args:
        folder: Where to write.
        run_id: The orchestrator's run.
        training: What was trained.
        data: The sessions it was trained on.
        decision: The gate's.
        evaluation_set: The items and queries that were ranked.
        champion: How the champion ranked.
        candidate: How the candidate ranked.
        course: `fit`, `trials` and `metric` of the training process.
    """
    from estudio_core.evaluation import report as rendering

    report = EvaluationReport(
        plugin=training.dataset.plugin,
        created_at=datetime.now(UTC),
        decision=decision,
        facts=_facts(training, data, evaluation_set, course["fit"]),
        lanes=_lanes(evaluation_set, champion, candidate),
        queries=tuple(
            change
            for group in evaluation_set.groups
            for change in query_changes(
                group,
                decision.settings.metric,
                champion.metrics[group],
                candidate.metrics[group],
                results_of(evaluation_set, champion),
                results_of(evaluation_set, candidate),
            )
        ),
        curves=curves_of(course["fit"]["history"]),
        trials=tuple(
            SearchedTrial(
                name=f"trial {trial['index']}",
                parameters={name: str(value) for name, value in trial["params"].items()},
                value=trial["value"],
                status=_STATUS[trial["status"]],
                error=trial.get("error") or "",
                best=trial["best"],
                course=tuple((float(step), value) for step, value in trial["course"]),
            )
            for trial in course["trials"]
        ),
        trial_metric=course.get("metric", "test_quality"),
        champion=champion.name,
        candidate=candidate.name,
        runs={"MLflow run": training.mlflow_run_id, "Airflow run": run_id, "Dataset": training.dataset.dataset_id},
        notes=_notes(training, evaluation_set, course["fit"]),
    )
    rendering.write_report(report, folder)
    return summary(decision)


def numbers_of(decision: GateDecision) -> dict[str, float]:
    """Return the figures of a decision by name, as they are kept beside a version."""
    numbers = {
        f"{group.group}_{comparison.metric}_{side}": getattr(comparison, side).mean
        for group in decision.groups
        for comparison in group.metrics
        for side in ("before", "after", "gain")
    } | {
        f"{group.group}_tax_{comparison.metric}": comparison.gain.mean
        for group in decision.groups
        for comparison in group.tax
    }
    if decision.clicks is not None:
        said = decision.clicks
        numbers |= {
            "clicks_gain": said.least.mean,
            "clicks_gain_low": said.least.low,
            "clicks_gain_high": said.most.high,
            "clicks_sessions": said.sessions,
        } | ({} if said.sessions_needed is None else {"clicks_sessions_needed": said.sessions_needed})
    return numbers


def summary(decision: GateDecision) -> str:
    """Return decision and table in Markdown, for the one who is asked to approve."""
    lines = [decision.reason, "", "| queries | metric | champion | candidate | gain |", "|---|---|---|---|---|"]
    for group in decision.groups:
        for what, comparison in [
            *((group.group, comparison) for comparison in group.metrics),
            *((f"{group.group}, answered well before", comparison) for comparison in group.tax),
        ]:
            gain = comparison.gain
            lines.append(
                f"| {what} ({gain.n}) | {METRIC_TITLES[comparison.metric]} | {comparison.before.mean:.3f} "
                f"| {comparison.after.mean:.3f} | {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] |"
            )
    if decision.clicks is not None:
        clicks = decision.clicks
        lines += ["", f"Clicks say: **{clicks.verdict}**. {clicks.reason}"]
    return "\n".join(lines)


def _lanes(evaluation_set: EvaluationSet, champion: ModelRanking, candidate: ModelRanking) -> tuple[Lane, ...]:
    if evaluation_set.words is None:
        return ()
    return lanes(
        {
            "words alone": evaluation_set.words_alone,
            f"vectors alone, {champion.name}": champion.vectors_alone,
            f"vectors alone, {candidate.name}": candidate.vectors_alone,
            f"both, {champion.name}": champion.metrics,
            f"both, {candidate.name}": candidate.metrics,
        }
    )


def _facts(
    training: TrainingManifest, data: RankingData, evaluation_set: EvaluationSet, fit: Mapping[str, Any]
) -> DataFacts:
    dataset = training.dataset
    sessions = [session for split in SPLITS for session in data.splits[split]]
    return DataFacts(
        dataset_id=dataset.dataset_id,
        simulated=dataset.simulated_sessions > 0,
        sessions=len(sessions),
        clicked_sessions=sum(not session.is_clickless for session in sessions),
        sessions_by_split={str(split): number for split, number in dataset.sessions.items()},
        queries_by_split={str(split): number for split, number in dataset.queries.items()},
        items=dataset.items,
        items_on_both_sides=dataset.items_on_both_sides,
        missing_items=dataset.missing_items,
        left_out=dataset.left_out,
        not_by_relevance=dataset.not_by_relevance,
        window_sessions=dataset.window_sessions,
        extracted_sessions=dataset.extracted_sessions,
        position_bias=_CORRECTIONS[fit["position_bias"]].format(fit["examination"]),
        effective_sample_size=fit["effective_sample_size"],
        judged_queries=len(evaluation_set.judgments),
    )


def _notes(training: TrainingManifest, evaluation_set: EvaluationSet, fit: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [
        f"Both models ranked the same {len(evaluation_set.items):,} items by exact search.",
        "Queries of the development split chose the weights and stand in neither group.",
    ]
    if not evaluation_set.rated:
        notes.append(
            "Nobody rated these queries. In the tables clicks stand in for grades of the whole catalog: what the "
            "champion showed high was clicked most, so that they side with it. The verdict of clicks does not rest on "
            "them."
        )
    if fit["interpolation"] == 0:
        evidence = fit["evidence"]
        notes.append(
            f"Training left the model as it was: the clicks of {evidence['queries']} development queries do not speak "
            f"for what it had changed (z = {evidence['z']:.2f})."
        )
    if evaluation_set.words is not None:
        notes.append(
            f"The candidate is ranked by similarity + {fit['fusion']['weight']:.3f} x BM25, a weight that clicks of "
            f"{fit['fusion']['queries']} development queries do not contradict."
        )
    if training.dataset.simulated_sessions:
        notes.append(
            f"{training.dataset.simulated_sessions:,} sessions hold simulated clicks: no figure here is of real users."
        )
    return tuple(notes)


def results_of(evaluation_set: EvaluationSet, ranking: ModelRanking) -> dict[str, tuple[ResultLine, ...]]:
    """Return the best results of each query, with title and grade."""
    return {
        query: tuple(
            ResultLine(
                object_id=i, title=evaluation_set.titles.get(i, i), grade=evaluation_set.judgments.get(query, {}).get(i)
            )
            for i in ids[:TOP_RESULTS]
        )
        for query, ids in ranking.top.items()
    }


def curves_of(history: list[tuple[int, dict[str, float]]]) -> tuple[Curve, ...]:
    """Return the charts of a training's course, (step, metrics) in order."""
    curves = []
    for title, names in _CURVES.items():
        series = [
            Series(name=name, points=tuple((step, metrics[name]) for step, metrics in history if name in metrics))
            for name in names
        ]
        drawn = tuple(line for line in series if line.points)
        if drawn:
            curves.append(Curve(title=title, series=drawn))
    return tuple(curves)
