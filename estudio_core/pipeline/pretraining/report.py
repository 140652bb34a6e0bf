"""What became of an adaptation to the catalog, for readers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from estudio_core.evaluation.report_data import EvaluationReport, lanes, query_changes
from estudio_core.pipeline.evaluation.report import curves_of, results_of

if TYPE_CHECKING:
    from estudio_core.evaluation.gate import GateDecision
    from estudio_core.pipeline.evaluation.evaluation_set import EvaluationSet, ModelRanking
    from estudio_core.pipeline.manifests import PretrainingManifest


def write_report(
    folder: Path,
    plugin_name: str,
    run_id: str,
    training: PretrainingManifest,
    decision: GateDecision,
    sets: Sequence[EvaluationSet],
    base: Sequence[ModelRanking],
    adapted: Sequence[ModelRanking],
    history: list[tuple[int, dict[str, float]]],
) -> None:
    """Write `report.html` and `report.json` into `folder`; `base` and `adapted` say how each of `sets` is ranked."""
    from estudio_core.evaluation import report as rendering

    compared = list(zip(sets, base, adapted, strict=True))
    pairs = training.pairs
    report = EvaluationReport(
        plugin=plugin_name,
        created_at=datetime.now(UTC),
        decision=decision,
        lanes=tuple(
            lane
            for one, before, after in compared
            if one.words is not None
            for lane in lanes(
                {
                    "words alone": one.words_alone,
                    f"vectors alone, {before.name}": before.vectors_alone,
                    f"vectors alone, {after.name}": after.vectors_alone,
                    f"both, {before.name}": before.metrics,
                    f"both, {after.name}": after.metrics,
                }
            )
        ),
        queries=tuple(
            change
            for one, before, after in compared
            for group in one.groups
            for change in query_changes(
                group,
                decision.settings.metric,
                before.metrics[group],
                after.metrics[group],
                results_of(one, before),
                results_of(one, after),
            )
        ),
        curves=curves_of(history),
        champion=base[0].name,
        candidate=adapted[0].name,
        runs={"MLflow run": training.mlflow_run_id, "Airflow run": run_id, "Dataset": pairs.dataset_id},
        notes=(
            f"Adapted to the catalog alone, before any click: {pairs.pairs:,} queries made of {pairs.items:,} items"
            f"{', scored by a teacher' if pairs.taught else ''}, {training.steps:,} steps.",
            f"{pairs.known_items:,} known items judge: training saw nothing of them. Their queries are drawn of "
            f"titles, and {len(sets[0].items):,} items are ranked without theirs. A query has one right answer, so "
            "that there is no judged figure.",
        ),
    )
    rendering.write_report(report, folder)
