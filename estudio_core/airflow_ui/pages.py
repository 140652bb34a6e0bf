"""From content to HTML. Everything that comes from outside is escaped by the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from estudio_core.airflow_ui.sparkline import sparkline

if TYPE_CHECKING:
    from estudio_core.airflow_ui.content import PluginContent
    from estudio_core.airflow_ui.glance import Glance
    from estudio_core.evaluation.charts import LineChart
    from estudio_core.inference.manifest import EntryManifest

_CHARTED = ("unseen_ndcg_at_10_after", "unseen_judged_ndcg_at_10_after", "seen_ndcg_at_10_after", "recall_at_10")
"""Numbers of promotions that are drawn over releases, by the names MLflow and verification give them."""

_TREND = ("ndcg_at_10", "recall_at_10", "clicked_sessions")
"""Numbers of watches that are drawn over time."""

_DRIFT_MEASURES = ("new_queries", "query_shift", "click_change")
"""What a watch compares with training; without any of them, drift was not measured."""


@dataclass(frozen=True)
class Allowed:
    """Which buttons a user sees: that of the next step, and the one that rolls back."""

    step: bool
    rollback: bool


def overview(plugins: Sequence[tuple[Glance, Allowed]], missing_pools: Sequence[str] = ()) -> str:
    """Return the page of all plugins; pools that are missing are told first."""
    template = _templates().get_template("overview.html.j2")
    return template.render(plugins=plugins, missing_pools=missing_pools, airflow="../")


def problem_page(message: str) -> str:
    """Return the page that stands where another cannot be made: what is wrong, and what to do."""
    return _templates().get_template("problem.html.j2").render(message=message)


def plugin_page(glance: Glance, allowed: Allowed, content: PluginContent) -> str:
    """Return the page of one plugin."""
    return (
        _templates()
        .get_template("plugin.html.j2")
        .render(
            g=glance,
            allowed=allowed,
            airflow="../../",
            c=content,
            chart=_chart(content),
            watched=content.watches[0] if content.watches else None,
            trend=_trend(content),
            figure=partial(_figure, content.watches[0].numbers if content.watches else {}),
            pointers={
                release.release_id: name
                for name, release in (("previous", glance.previous), ("live", glance.live))
                if release is not None
            },
        )
    )


def model_page(manifest: EntryManifest, served: str) -> str:
    """Return the page of a published model; `served` says who serves it."""
    return _templates().get_template("model.html.j2").render(m=manifest, served=served)


def _figure(numbers: dict[str, float], name: str, form: str) -> str:
    """Return a number as text, empty where it was not measured."""
    return form % numbers[name] if name in numbers else ""


def _trend(content: PluginContent) -> LineChart | None:
    """Return the numbers of the watches over time, from the first one shown, in days."""
    from estudio_core.evaluation.charts import line_chart
    from estudio_core.evaluation.report_data import Curve, Series

    if not content.watches:
        return None
    first = content.watches[-1].at
    points = {
        name: tuple(
            ((watch.at - first).total_seconds() / 86_400, watch.numbers[name])
            for watch in reversed(content.watches)
            if name in watch.numbers
        )
        for name in _TREND
    }
    series = tuple(Series(name=name, points=found) for name, found in points.items() if found)
    title = f"Watches, days since {first:%Y-%m-%d %H:%M}"
    return line_chart(Curve(title=title, series=series), width=640.0, height=240.0)


def _chart(content: PluginContent) -> LineChart | None:
    from estudio_core.evaluation.charts import line_chart
    from estudio_core.evaluation.report_data import Curve, Series

    points: dict[str, dict[float, float]] = {name: {} for name in _CHARTED}
    for promotion in content.promotions:
        for name in _CHARTED:
            if promotion.release_id is not None and promotion.way != "rollback" and name in promotion.numbers:
                points[name][float(promotion.release_id)] = promotion.numbers[name]
    series = tuple(Series(name=name, points=tuple(sorted(found.items()))) for name, found in points.items() if found)
    return line_chart(Curve(title="Metrics over releases", series=series), width=640.0, height=240.0)


def ago(then: datetime, now: datetime | None = None) -> str:
    """Return how long ago something was, in the largest unit that says enough.

    >>> from datetime import timedelta
    >>> now = datetime(2026, 3, 1, tzinfo=UTC)
    >>> [ago(now - timedelta(seconds=s), now) for s in (5, 60, 7_300, 86_400, 864_000)]
    ['just now', '1 minute ago', '2 hours ago', '1 day ago', '10 days ago']
    """
    seconds = ((now or datetime.now(UTC)) - then).total_seconds()
    for name, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def _moment(then: datetime) -> Markup:
    """Return a time as people say it, with the exact one in reach."""
    exact = then.astimezone(UTC)
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        exact.isoformat(timespec="seconds"), f"{exact:%Y-%m-%d %H:%M}", ago(then)
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("estudio_core.airflow_ui"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["moment"] = _moment
    environment.filters["sparkline"] = sparkline
    environment.globals["drift_measures"] = _DRIFT_MEASURES
    return environment
