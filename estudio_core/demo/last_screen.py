"""The demo's last screen: the loop with its numbers, the table before and after, and where to look next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.text import Text

from estudio_core.demo.online import told
from estudio_core.demo.truth import truth_beside
from estudio_core.evaluation.report import render_terminal
from estudio_core.terminal import Column, show_rows

if TYPE_CHECKING:
    from rich.console import Console

    from estudio_core.comparing.ledger import Experiment
    from estudio_core.demo.people import Traffic
    from estudio_core.evaluation.gate import GateDecision
    from estudio_core.evaluation.report_data import EvaluationReport, QueryChange
    from estudio_core.vectordb.releases import Release

SHOWN_RESULTS = 3


@dataclass(frozen=True)
class Loop:
    """What the demo did, from searches to what is live.

    Attributes:
        searches: What simulated people did before the training.
        training_s: Seconds that training took; None where nobody knows.
        report: The evaluation of what was learned.
        experiment: The online comparison; None where the gate refused.
        further: What simulated people did in it.
        live: The release that answers now.
        folder: Where the evaluation is.
        page: Address of the search page, with a key: what is searched and clicked there is logged.
    """

    searches: Traffic
    training_s: float | None
    report: EvaluationReport
    experiment: Experiment | None
    further: Traffic
    live: Release
    folder: Path
    page: str

    @property
    def promoted(self) -> bool:
        """Whether what was learned is live."""
        return self.experiment is not None and self.experiment.verdict == "better"


def show_last_screen(console: Console, loop: Loop) -> None:
    """Print the loop, the table, queries before and after, and addresses."""
    console.print()
    console.print(render_terminal(loop.report))
    for what, query in _examples(loop.report).items():
        _show_side_by_side(console, what, query)
    console.rule("[bold]The loop")
    show_rows(console, [Column("step"), Column("what came of it", prose=True)], _steps(loop))
    for what, where in (
        ("Search page", loop.page),
        ("HTML report", loop.folder / "report.html"),
        ("All pages", "make up    (Airflow, MLflow; the search page goes on)"),
        ("Stop", "make down"),
    ):
        console.print(f"[bold]{what:<12}[/]  {escape(str(where))}", soft_wrap=True, highlight=False)


def _steps(loop: Loop) -> list[dict[str, str]]:
    made, decision, facts = loop.searches, loop.report.decision, loop.report.facts
    learned = ""
    if facts is not None:
        sides = facts.sessions_by_split
        learned = f"{sides.get('train', 0):,} sessions of {facts.queries_by_split.get('train', 0)} queries"
    took = "" if loop.training_s is None else f" in {loop.training_s:.0f} s"
    return [
        {
            "step": "search",
            "what came of it": f"{made.searches:,} searches by simulated people over HTTP, {made.clicks:,} clicks, "
            f"{made.requests_per_s:.0f} requests a second",
        },
        {"step": "learn", "what came of it": f"{learned}, trained{took}"},
        {"step": "decide", "what came of it": _decided(decision)},
        {"step": "truth", "what came of it": truth_beside(decision).says},
        *_proven(loop),
        {
            "step": "serve",
            "what came of it": f"release {loop.live.release_id} with model version {loop.live.model_version} answers",
        },
    ]


def _decided(decision: GateDecision) -> str:
    if decision.clicks is None:
        return decision.title
    said = decision.clicks
    least, most = (f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" for gain in (said.least, said.most))
    held_out = f"{said.sessions:,} held-out sessions of {said.clicked_queries} queries"
    return f"by clicks alone, {held_out}: {said.verdict}; a gain between {least} and {most} nDCG@10 on what was shown"


def _proven(loop: Loop) -> list[dict[str, str]]:
    found = loop.experiment
    if found is None:
        return []
    searches = f"{loop.further.searches:,} interleaved searches by simulated people, {loop.further.clicks:,} clicks"
    return [{"step": "prove", "what came of it": f"{searches}: {told(found)}; {found.verdict}"}]


def _examples(report: EvaluationReport) -> dict[str, QueryChange]:
    """Return the queries that gained most, of either group, and the one that lost most; none where none did."""
    gained = report.best_changes(len(report.queries))
    examples = {
        "gained most of those that training saw": [query for query in gained if query.group == "seen"],
        "gained most of those that it never saw": [query for query in gained if query.group == "unseen"],
        "lost most of all": report.worst_changes(1),
    }
    return {what: queries[0] for what, queries in examples.items() if queries}


def _show_side_by_side(console: Console, what: str, query: QueryChange) -> None:
    title = Text(f"“{query.query}” {what}: nDCG@10 full {query.before:.2f} → {query.after:.2f}", style="bold")
    console.print(title, soft_wrap=True)
    shown = zip(query.results_before[:SHOWN_RESULTS], query.results_after[:SHOWN_RESULTS], strict=False)
    rows = [
        {
            name: f"{'?' if line.grade is None else f'{line.grade:g}'}  {line.title}"
            for name, line in zip(("before", "after"), pair, strict=True)
        }
        for pair in shown
    ]
    show_rows(console, [Column("before", prose=True), Column("after", prose=True)], rows)
    console.print("human rating 0 to 3, ? where nobody rated it\n", style="dim", highlight=False)
