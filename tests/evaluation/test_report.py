"""The report: HTML page, terminal tables, JSON."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from estudio_core.evaluation.charts import change_bars, line_chart
from estudio_core.evaluation.evaluate import ANSWERED_WELL, METRICS, OF_RATINGS, QueryMetrics
from estudio_core.evaluation.gate import decide
from estudio_core.evaluation.gate_settings import GateSettings
from estudio_core.evaluation.report import render_html, render_terminal, write_report
from estudio_core.evaluation.report_data import (
    Curve,
    DataFacts,
    EvaluationReport,
    QueryChange,
    ResultLine,
    SearchedTrial,
    Series,
    query_changes,
)
from estudio_core.evaluation.search_charts import course_chart, parameter_charts

HOSTILE = "<script>alert('x')</script> & \"quotes\""


def metrics(values: np.ndarray, prefix: str) -> QueryMetrics:
    """Figures of which the judged one is 0.2 above the full one; of the queries the better half was answered well."""
    figures = dict.fromkeys(METRICS, values) | {"judged_ndcg@10": values + 0.2, "judged_share@10": values * 0 + 0.55}
    well = (values > np.median(values)).astype(float)
    return QueryMetrics(tuple(f"{prefix} {n}" for n in range(len(values))), figures | {ANSWERED_WELL: well})


def example(**changes: object) -> EvaluationReport:
    rng = np.random.default_rng(4)
    seen, unseen = rng.random(30) * 0.7, rng.random(20) * 0.6
    champion = {"seen": metrics(seen, "seen"), "unseen": metrics(unseen, "unseen")}
    candidate = {
        "seen": metrics(seen + rng.normal(0.1, 0.05, 30), "seen"),
        "unseen": metrics(unseen + rng.normal(0.06, 0.05, 20), "unseen"),
    }
    decision = decide(champion, candidate, GateSettings(), champion_similarity=0.11, candidate_similarity=0.09)  # type: ignore[arg-type]  # keys are literals
    before = tuple(ResultLine(object_id=str(n), title=f"Cable {n}", grade=float(n % 4)) for n in range(5))
    after = (ResultLine(object_id="9", title=HOSTILE), *before[:4])
    queries = [
        change
        for group in ("seen", "unseen")
        for change in query_changes(
            group,  # type: ignore[arg-type]  # a literal of the loop
            "ndcg@10",
            champion[group],
            candidate[group],
            dict.fromkeys(champion[group].queries, before),
            dict.fromkeys(champion[group].queries, after),
        )
    ]
    fields: dict[str, object] = {
        "plugin": "demo_catalog",
        "created_at": datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
        "decision": decision,
        "facts": DataFacts(
            dataset_id="0f3a",
            simulated=True,
            sessions=1000,
            clicked_sessions=812,
            sessions_by_split={"train": 600, "dev": 100, "holdout": 112},
            queries_by_split={"train": 60},
            items=1234,
            items_on_both_sides=88,
            effective_sample_size=512.4,
        ),
        "queries": tuple(queries),
        "curves": (
            Curve(
                title="Loss",
                series=(
                    Series(name="train_loss", points=tuple((s, 1 / (1 + s)) for s in range(0, 100, 5))),
                    Series(name="test_loss", points=((0, 1.0), (50, float("nan")), (95, 0.2))),
                ),
            ),
        ),
        "trials": (
            SearchedTrial(name="1", parameters={"margin": "0.05"}, value=0.71, best=True),
            SearchedTrial(name="2", parameters={"margin": "0.01"}, status="failed", error="Training <diverged>."),
        ),
        "runs": {"MLflow run": "8f3c"},
    }
    return EvaluationReport.model_validate(fields | changes)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(report: EvaluationReport) -> Page:
    page = Page()
    page.feed(render_html(report))
    assert page.open == []
    return page


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    page = parsed(example())
    assert page.links == []
    assert "script" not in page.tags
    assert "url(" not in render_html(example())
    assert page.tags.count("svg") >= 4


def test_the_page_tells_decision_figures_facts_and_queries() -> None:
    report = example()
    text = " ".join(parsed(report).text.split())
    assert report.decision.promoted
    assert report.decision.reason in text
    assert "Simulated clicks." in text
    for expected in (
        "812 of 1,000",
        "600 60 queries",
        "512 clicks",
        "8f3c",
        "nDCG@10",
        "Recall@10",
        "failed: Training <diverged>.",
        "88",
    ):
        assert expected in text
    gain = report.decision.groups[1].metrics[0].gain
    assert f"{gain.mean:+.3f}" in text
    best = max(report.queries, key=lambda q: q.change)
    assert text.split("Best changes ")[1].startswith(best.query)


def test_the_page_tells_both_figures_the_share_rated_and_the_tax() -> None:
    report = example()
    text = " ".join(parsed(report).text.split())
    seen = report.decision.groups[0]
    full, judged, share = (seen.metric(name) for name in ("ndcg@10", "judged_ndcg@10", "judged_share@10"))
    assert full is not None
    assert judged is not None
    assert share is not None
    assert f"nDCG@10 full{full.before.mean:.3f} " in text
    assert f"nDCG@10 judged{full.before.mean + 0.2:.3f} " in text
    assert "Top ten rated0.550 0.550" in text
    assert "Full: what nobody rated is irrelevant; judged: it is left out of the ranking." in text
    assert "Of these, answered well before 15 queries, whose first result had their highest grade" in text
    tax = seen.tax[0].gain
    assert f"nDCG@10 full of the 15 answered well before {tax.mean:+.3f} [{tax.low:+.3f}, {tax.high:+.3f}]" in text
    assert "Top ten rated, seen" not in text, "more is neither better nor worse"


def test_clicks_alone_show_one_figure_and_no_tax() -> None:
    values = np.linspace(0.1, 0.6, 20)
    before, after = (metrics(v, "q").without(OF_RATINGS) for v in (values, values + 0.1))
    report = example(decision=decide({"unseen": before}, {"unseen": after}, GateSettings()))
    text = parsed(report).text
    assert "nDCG@10 full" in text
    for absent in ("judged:", "nDCG@10 judged", "Top ten rated", "answered well"):
        assert absent not in text


def test_text_of_users_is_escaped() -> None:
    change = QueryChange(query=HOSTILE, group="seen", before=0.1, after=0.9)
    page = render_html(example(plugin=HOSTILE, queries=(change,), notes=(HOSTILE,), runs={HOSTILE: HOSTILE}))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_recorded_clicks_are_not_called_simulated() -> None:
    facts = example().facts.model_copy(update={"simulated": False})
    assert "imulated" not in re.sub(r"<style>.*</style>", "", render_html(example(facts=facts)), flags=re.S)


def test_a_report_without_queries_curves_or_groups_still_renders() -> None:
    decision = decide({}, {}, GateSettings())
    report = example(queries=(), curves=(), trials=(), decision=decision)
    assert "Refused by the gate" in parsed(report).text
    with Path("/dev/null").open("w") as nowhere:
        Console(file=nowhere, width=100).print(render_terminal(report))


def test_terminal_tables_show_groups_and_gains(tmp_path: Path) -> None:
    console = Console(record=True, width=140, file=(tmp_path / "out").open("w"))
    console.print(render_terminal(example()))
    text = console.export_text()
    assert "Queries never seen in training (20)" in text
    assert "Of these, answered well before (10)" in text
    assert "nDCG@10 judged" in text
    assert "judged: it is left out of the ranking" in text
    assert "Passed the gate" in text
    assert "simulated clicks" in text


def test_json_gives_the_same_report_back(tmp_path: Path) -> None:
    report = example()
    page = write_report(report, tmp_path)
    assert page.read_text(encoding="utf-8") == render_html(report)
    assert EvaluationReport.model_validate_json((tmp_path / "report.json").read_text(encoding="utf-8")) == report


def test_best_and_worst_changes_are_sorted_and_leave_out_the_rest() -> None:
    changes = tuple(
        QueryChange(query=name, group="seen", before=0.5, after=after)
        for name, after in [("a", 0.4), ("b", 0.9), ("c", 0.5), ("d", 0.1), ("e", 0.6)]
    )
    report = example(queries=changes)
    assert [q.query for q in report.best_changes(5)] == ["b", "e"]
    assert [q.query for q in report.worst_changes(1)] == ["d"]


def test_charts_stay_inside_their_frame() -> None:
    chart = line_chart(Curve(title="x", series=(Series(name="s", points=((0, -3.0), (10, 7.5))),)))
    assert chart is not None
    assert (
        chart.lines[0].path
        == f"M{chart.left},{chart.lines[0].path.split(',')[1].split(' ')[0]} L{chart.right},{chart.lines[0].end[1]}"
    )
    assert all(chart.top <= tick.at <= chart.bottom for tick in chart.y_ticks)
    assert line_chart(Curve(title="x", series=(Series(name="s", points=((0, float("nan")),)),))) is None
    one = line_chart(Curve(title="x", series=(Series(name="s", points=((5, 2.0),)),)))
    assert one is not None
    assert one.lines[0].end[0] == one.left
    assert change_bars([], 1.0, 1.0) is None


@pytest.mark.parametrize("change", [0.0, 0.3, -0.1])
def test_a_bar_grows_from_the_zero_line_on_the_shared_scale(change: float) -> None:
    chart = change_bars([QueryChange(query="q", group="seen", before=0.4, after=0.4 + change)], 0.3, 0.1, height=48.0)
    assert chart is not None
    assert (chart.zero, chart.gain, chart.loss) == (34.0, "+0.30", "-0.10")
    (bar,) = chart.bars
    assert bar.loss == (change < 0)
    assert bar.height == pytest.approx(max(abs(change) * 100, 0.5))
    assert (bar.y if change <= 0 else bar.y + bar.height) == pytest.approx(chart.zero)


def test_no_change_at_all_has_a_scale_too() -> None:
    chart = change_bars([QueryChange(query="q", group="seen", before=0.4, after=0.4)], 0.0, 0.0)
    assert chart is not None
    assert 0 < chart.zero < chart.height


def test_tables_fit_a_terminal_of_eighty_columns(tmp_path: Path) -> None:
    console = Console(record=True, width=80, file=(tmp_path / "out").open("w"))
    console.print(render_terminal(example()))
    text = console.export_text()
    assert "…" not in text.replace("[…]", "")
    assert "Recall@10" in text


def searched(*trials: tuple[float | None, str, str]) -> tuple[SearchedTrial, ...]:
    """Trials by (value, learning rate, decay); the first is the best, the others were ended early."""
    return tuple(
        SearchedTrial(
            name=f"trial {place}",
            parameters={"learning_rate": rate, "decay": decay, "margin": "0.2"},
            value=value,
            status="failed" if value is None else "finished" if place == 0 else "stopped early",
            best=place == 0,
            course=() if value is None else ((0, 0.5), (20, value)),
        )
        for place, (value, rate, decay) in enumerate(trials)
    )


TRIALS = searched((0.8, "1e-4", "linear"), (0.6, "1e-5", "cosine"), (0.7, "1e-3", HOSTILE), (None, "1.0", "linear"))


def test_a_search_shows_every_course_with_the_best_on_top() -> None:
    chart = course_chart(TRIALS, "test_quality")
    assert chart is not None
    assert [line.name for line in chart.lines] == ["trial 1", "trial 2", "best"]
    assert chart.lines[-1].last == "0.8"
    assert chart.lines[-1].end[1] < chart.lines[1].end[1] < chart.lines[0].end[1]  # SVG counts downwards
    assert course_chart([], "test_quality") is None


def test_parameters_that_varied_are_drawn_against_the_metric() -> None:
    decay, rate = parameter_charts(TRIALS, "test_quality")
    assert (decay.title, rate.title) == ("decay", "learning_rate")  # the margin was the same in all
    assert len(rate.dots) == 3  # the failed trial has no value
    by_value = {dot.label.split(" ")[1]: dot for dot in rate.dots}
    places = [by_value[name].x for name in ("1:", "0:", "2:")]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)  # 1e-5, 1e-4, 1e-3: by factors
    assert [dot.best for dot in rate.dots] == [False, False, True]
    assert [dot.early for dot in rate.dots] == [True, True, False]
    assert all(rate.left < dot.x < rate.right and 0 <= dot.y <= rate.bottom for dot in rate.dots)
    assert len({dot.x for dot in decay.dots}) == 3


def test_the_page_draws_a_search_and_escapes_what_was_tried() -> None:
    page = render_html(example(trials=TRIALS))
    assert parsed(example(trials=TRIALS)).tags.count("svg") == parsed(example()).tags.count("svg") + 3
    assert "trial 1: learning_rate 1e-5, test_ndcg@10 0.6000" in page
    assert "<script" not in page
    assert "Course of the search" not in render_html(example(trials=TRIALS[:1]))
