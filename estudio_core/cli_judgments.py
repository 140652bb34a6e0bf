"""The commands of `estudio judgments`: what people judged, and rankings, from and for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from estudio_core.cli_parts import AsJson, PluginName, console, explained
from estudio_core.errors import ConfigurationError, NotEnoughDataError, suggest
from estudio_core.terminal import Column, show_json, show_rows

if TYPE_CHECKING:
    from estudio_core.evaluation.judgment_files import JudgmentFile
    from estudio_core.evaluation.judgments import Judgments

judgments_app = typer.Typer(no_args_is_help=True, help="Relevance judgments and rankings, from and for other tools.")

_File = Annotated[Path, typer.Argument(help="TREC qrels, CSV, or JSON of Quepid or Search Relevance Workbench.")]
_Query = Annotated[str | None, typer.Option(help="Column of the query, where it is not found by its name.")]
_Object = Annotated[str | None, typer.Option("--object-id", help="Column of the object's id.")]
_Grade = Annotated[str | None, typer.Option(help="Column of the grade.")]


@judgments_app.command("read")
@explained
def read(
    file: _File, query: _Query = None, object_id: _Object = None, grade: _Grade = None, as_json: AsJson = False
) -> None:
    """Say what a file of judgments holds, and what of it cannot be used."""
    found, judgments = _opened(file, query, object_id, grade)
    grades = sorted({grade for of_query in judgments.values() for grade in of_query.values()})
    shown = [f"{grade:g}" for grade in (grades if len(grades) <= 10 else [grades[0], grades[-1]])]
    row = {
        "form": found.form,
        "queries": len(judgments),
        "pairs": judgments.pairs,
        "answerable": len(judgments.answerable()),
        "grades": (", " if len(grades) <= 10 else " to ").join(shown),
        "unrated": found.unrated,
        "negative": found.negative,
        "averaged": found.averaged,
    }
    if as_json:
        show_json([row])
        return
    show_rows(console, [Column(name, right=isinstance(value, int)) for name, value in row.items()], [row])
    _say(*found.notes)


@judgments_app.command("convert")
@explained
def convert(
    file: _File,
    out: Annotated[Path, typer.Argument(help="File to write.")],
    to: Annotated[str, typer.Option(help="csv, qrels (TREC), quepid or workbench.")] = "csv",
    query: _Query = None,
    object_id: _Object = None,
    grade: _Grade = None,
) -> None:
    """Write judgments in the form of another tool."""
    from estudio_core.evaluation.judgment_files import FORMS, write_judgments

    form = next((form for form in FORMS if form == to), None)
    if form is None:
        raise ConfigurationError(f"--to: no form is called {to!r}. {suggest(to, FORMS)}")
    found, judgments = _opened(file, query, object_id, grade)
    write_judgments(judgments, out, form)
    _say(f"Wrote {judgments.pairs} grades of {len(judgments)} queries to {out}.", *found.notes)


@judgments_app.command("run")
@explained
def run(
    file: _File,
    out: Annotated[Path, typer.Argument(help="TREC run to write.")],
    plugin: PluginName,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Results of a query.")] = 100,
) -> None:
    """Write what the live release of a plugin finds for the judged queries, as a TREC run."""
    from estudio_core.evaluation.judgment_files import write_run
    from estudio_core.searching import search

    found, judgments = _opened(file)
    rankings, release = {}, None
    for query in judgments:
        answer = search(plugin, query, limit=limit)
        release = answer.release_id
        rankings[query] = [(hit.object_id, hit.score) for hit in answer.hits]
    write_run(rankings, out, f"{plugin}-{release}")
    _say(f"Wrote the results of {len(rankings)} queries to {out}.", *found.notes)


@judgments_app.command("queries")
@explained
def queries(
    out: Annotated[Path, typer.Argument(help="CSV to write.")],
    plugin: PluginName,
    run_id: Annotated[str | None, typer.Option("--run", help="Run of fine_tune; the newest without it.")] = None,
) -> None:
    """Write the per-query table of an evaluation report: each query with both models' figure and the change."""
    import csv

    from estudio_core import database
    from estudio_core.artifacts import ArtifactStore
    from estudio_core.evaluation.report_data import EvaluationReport
    from estudio_core.promotion.trainings import trainings

    with database.connect() as connection:
        database.require_schema(connection)
        found = [each for each in trainings(connection, plugin) if run_id in (None, each.run_id)]
    if not found:
        of_run = f" of run {run_id!r}" if run_id else ""
        raise NotEnoughDataError(f"Plugin {plugin!r} has no report{of_run}. Run {plugin}__fine_tune.")
    with ArtifactStore().fetch(found[0].report_uri) as folder:
        report = EvaluationReport.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("query", "group", "champion", "candidate", "change"))
        for change in report.queries:
            values = (change.before, change.after, change.change)
            writer.writerow((change.query, change.group, *(f"{value:.6f}" for value in values)))
    _say(f"Wrote {len(report.queries)} queries of run {found[0].run_id} to {out}.")


def _opened(
    file: Path, query: str | None = None, object_id: str | None = None, grade: str | None = None
) -> tuple[JudgmentFile, Judgments]:
    from estudio_core.evaluation.judgment_files import read_judgments
    from estudio_core.evaluation.judgments import Judgments

    found = read_judgments(file, query=query, object_id=object_id, grade=grade)
    return found, Judgments(found.grades)


def _say(*lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True, highlight=False)
