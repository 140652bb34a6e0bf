"""The evaluation report for readers: a self-contained HTML page, tables in the terminal, and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from estudio_core.evaluation.bootstrap import Estimate
from estudio_core.evaluation.charts import Scale, change_bars, line_chart, nice_ticks
from estudio_core.evaluation.comparison import FIGURES, MetricComparison
from estudio_core.evaluation.evaluate import JUDGED, METRIC_TITLES, RATED
from estudio_core.evaluation.report_data import EvaluationReport
from estudio_core.evaluation.search_charts import course_chart, parameter_charts

if TYPE_CHECKING:
    import jinja2

GROUP_TITLES = {
    "seen": "Queries users searched before",
    "known": "Queries drawn of items never seen in training",
    "unseen": "Queries never seen in training",
}
TAX_TITLE = "Of these, answered well before"
FIGURES_EXPLAINED = "full: what nobody rated is irrelevant; judged: it is left out of the ranking"

_SHOWN_CHANGES = 8  # queries listed as best and as worst changes
_FOREST_WIDTH, _FOREST_LABEL, _FOREST_ROW = 720.0, 190.0, 30.0


def write_report(report: EvaluationReport, folder: Path) -> Path:
    """Write `report.html` and `report.json` into an existing folder; return the path of the page."""
    page = folder / "report.html"
    page.write_text(render_html(report), encoding="utf-8")
    (folder / "report.json").write_text(report.model_dump_json(indent=1), encoding="utf-8")
    return page


def render_html(report: EvaluationReport) -> str:
    """Return the report as one HTML page that loads nothing from anywhere."""
    most_gain = max((query.change for query in report.queries), default=0.0)
    most_loss = max((-query.change for query in report.queries), default=0.0)
    return _template().render(
        report=report,
        decision=report.decision,
        best=report.best_changes(_SHOWN_CHANGES),
        worst=report.worst_changes(_SHOWN_CHANGES),
        forest=_forest(report),
        bars=[
            (
                group.group,
                change_bars(
                    [q for q in report.queries if q.group == group.group], max(most_gain, 0.0), max(most_loss, 0.0)
                ),
            )
            for group in report.decision.groups
        ],
        charts=[chart for curve in report.curves if (chart := line_chart(curve)) is not None],
        search_course=course_chart(report.trials, report.trial_metric) if len(report.trials) > 1 else None,
        search_parameters=parameter_charts(report.trials, report.trial_metric),
        trial_parameters=sorted({name for trial in report.trials for name in trial.parameters}),
        group_titles=GROUP_TITLES,
        metric_titles=METRIC_TITLES,
        figures=FIGURES,
        tax_title=TAX_TITLE,
        rated=RATED,
        explained=FIGURES_EXPLAINED if _of_ratings(report) else None,
    )


def render_terminal(report: EvaluationReport) -> RenderableType:
    """Return the before/after table and the decision, for `rich.console.Console.print`."""
    promoted = report.decision.promoted
    facts = report.facts
    learned = ""
    if facts is not None:
        clicks = "simulated clicks" if facts.simulated else "clicks"
        learned = f"{facts.clicked_sessions:,} of {facts.sessions:,} sessions with {clicks}, {facts.items:,} items"
    tables = []
    for group in report.decision.groups:
        tables.append(_table(f"\n{GROUP_TITLES[group.group]} ({group.queries})", group.metrics))
        if group.tax:
            tables.append(_table(f"{TAX_TITLE} ({group.tax[0].gain.n})", group.tax))
    if report.lanes:
        tables.append(_lanes_table(report))
    legend = [f"[…] {report.decision.settings.confidence:.0%} confidence interval over queries\n"]
    return Group(
        Text(f"{report.plugin}: {report.candidate} against {report.champion}", style="bold"),
        *tables,
        *(Text(line, style="dim") for line in [FIGURES_EXPLAINED] * _of_ratings(report) + legend),
        Text(report.decision.title, style="bold green" if promoted else "bold yellow"),
        Text(report.decision.reason),
        Text(learned, style="dim"),
    )


def _of_ratings(report: EvaluationReport) -> bool:
    return any(group.metric(JUDGED) is not None for group in report.decision.groups)


def _table(title: str, metrics: Sequence[MetricComparison]) -> Table:
    """Return a table that fits a terminal of 80 columns."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("Metric", no_wrap=True)
    for name in ("Before", "After", "Gain"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in metrics:
        gain, sign = metric.gain, "green" if metric.gain.low > 0 else "red" if metric.gain.high < 0 else ""
        sign = "" if metric.metric == RATED else sign  # neither good nor bad
        table.add_row(
            METRIC_TITLES[metric.metric], str(metric.before), str(metric.after), Text(_signed(gain), style=sign)
        )
    if not metrics:
        table.add_row("none could be compared")
    return table


def _lanes_table(report: EvaluationReport) -> Table:
    """Return words alone, vectors alone and both, side by side for the groups: full / judged."""
    table = Table(
        title="\nWhat ranks: nDCG@10 full / judged",
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    groups = [group.group for group in report.decision.groups]
    table.add_column("", no_wrap=True)
    for group in groups:
        table.add_column(group, justify="right", no_wrap=True)
    for name in dict.fromkeys(lane.name for lane in report.lanes):
        of_name = {lane.group: lane.metrics for lane in report.lanes if lane.name == name}
        cells = [" / ".join(f"{found.mean:.3f}" for found in of_name.get(group, {}).values()) for group in groups]
        table.add_row(name, *cells)
    return table


def _forest(report: EvaluationReport) -> dict[str, Any] | None:
    """Lay out the gains with their intervals, one row each, around the zero line."""
    rows = [(group.group, metric) for group in report.decision.groups for metric in group.metrics]
    rows = [(group, metric) for group, metric in rows if metric.metric != RATED]  # neither good nor bad
    if not rows:
        return None
    least = report.decision.settings.minimum_gain
    lows, highs = [m.gain.low for _, m in rows], [m.gain.high for _, m in rows]
    ticks = nice_ticks(min(0.0, least, *lows), max(0.0, least, *highs), 6)
    x_of = Scale(ticks[0], ticks[-1], _FOREST_LABEL, _FOREST_WIDTH - 90.0)
    return {
        "width": _FOREST_WIDTH,
        "height": len(rows) * _FOREST_ROW + 30.0,
        "bottom": len(rows) * _FOREST_ROW + 4.0,
        "zero": x_of(0.0),
        "least": x_of(least) if least else None,
        "ticks": [(x_of(tick), f"{tick:+.3g}" if tick else "0") for tick in ticks],
        "rows": [
            {
                "y": place * _FOREST_ROW + _FOREST_ROW / 2.0,
                "label": f"{METRIC_TITLES[metric.metric]}, {group}",
                "low": x_of(metric.gain.low),
                "mean": x_of(metric.gain.mean),
                "high": x_of(metric.gain.high),
                "text": f"{metric.gain.mean:+.3f}",
                "group": group,
            }
            for place, (group, metric) in enumerate(rows)
        ],
    }


def _signed(gain: Estimate) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("estudio_core.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    return environment.get_template("report.html.j2")
