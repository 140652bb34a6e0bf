"""The commands `estudio experiments`: users decide between the live release and a challenger."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from estudio_core.cli_parts import AsJson, PluginName, console, explained, progress_bar
from estudio_core.comparing.settings import ExperimentSettings, Form
from estudio_core.errors import ConfigurationError
from estudio_core.lexical.settings import MOST_WEIGHT
from estudio_core.terminal import Column, show_json, show_rows

experiments_app = typer.Typer(
    no_args_is_help=True, help="Two releases answer the same searches, and clicks decide: start, list, show, stop."
)

ExperimentId = Annotated[str, typer.Argument(help="Name of the experiment.")]
_DEFAULTS = ExperimentSettings()


def _actor() -> str:
    return f"{getpass.getuser()} on the command line"


@experiments_app.command("start")
@explained
def start(
    plugin: PluginName,
    version: Annotated[str, typer.Option(help="Model version or alias to compare with the live release.")] = (
        "challenger"
    ),
    words_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=MOST_WEIGHT,
            help="Of BM25 beside similarity, for the challenger [what it was trained for]. With --version champion: "
            "two settings of what is live.",
        ),
    ] = None,
    release: Annotated[int | None, typer.Option(help="A verified release, in place of building one.")] = None,
    name: Annotated[str, typer.Option(help="Of the experiment; by default plugin, version and time.")] = "",
    form: Annotated[Form, typer.Option(help="interleaving: one list of both. ab: each client by one side.")] = (
        "interleaving"
    ),
    confidence: Annotated[float, typer.Option(help="Level of the verdict.")] = _DEFAULTS.confidence,
    harm_bound: Annotated[float, typer.Option(help="Credit below minus this ends it.")] = _DEFAULTS.harm_bound,
    most_days: Annotated[float, typer.Option(help="Then it ends and the champion stays.")] = _DEFAULTS.most_days,
    settle_minutes: Annotated[
        float, typer.Option(help="Time within which clicks arrive; length of a visit.")
    ] = _DEFAULTS.settle_minutes,
    share: Annotated[float, typer.Option(help="Of searches, or clients, that take part.")] = _DEFAULTS.share,
) -> None:
    """Build the release of a model version beside the live one, and let both answer searches."""
    from estudio_core.context import context
    from estudio_core.pipeline.challenging.building import build_challenger
    from estudio_core.pipeline.challenging.starting import require_startable
    from estudio_core.pipeline.challenging.starting import start as begin

    if release is not None and words_weight is not None:
        raise ConfigurationError("--words-weight is of a release that is built; --release names one that is there.")
    name = name or f"{plugin}-{release or version}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    params = {
        "confidence": confidence, "harm_bound": harm_bound, "most_days": most_days, "settle_minutes": settle_minutes,
        "share": share, "form": form, "name": name, "version": version, "words_weight": words_weight,
    }  # fmt: skip
    if release is None:
        context.plugin_manager.meta(plugin)  # raises where there is none, with the nearest name
        run_id = f"experiment {name}"
        require_startable(plugin, params, run_id)
        with progress_bar():
            release = build_challenger(plugin, version, run_id, words_weight=words_weight).release_id
    found = begin(plugin, release, params, name, _actor())
    console.print(
        f"Experiment {found.experiment_id}: release {found.challenger} answers beside release {found.champion}. "
        f"See: estudio experiments show {found.experiment_id}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


@experiments_app.command("list")
@explained
def list_them(
    plugin: Annotated[str | None, typer.Option("--plugin", "-p", help="Only this plugin.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most rows.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List experiments, the latest first."""
    from estudio_core import database
    from estudio_core.comparing.ledger import history

    with database.connect() as connection:
        database.require_schema(connection)
        rows = [_row(each) for each in history(connection, None if plugin is None else [plugin], limit)]
    _show(rows, as_json, "No experiments yet. Start one: estudio experiments start --plugin NAME")


@experiments_app.command("show")
@explained
def show(experiment: ExperimentId, as_json: AsJson = False) -> None:
    """Say where an experiment stands by the clicks that are there now; nothing is decided."""
    from estudio_core import database
    from estudio_core.comparing.ledger import get
    from estudio_core.comparing.looking import standing_now

    with database.connect() as connection:
        database.require_schema(connection)
        found = get(connection, experiment)
        standing = standing_now(connection, found) if found.state == "running" else found.standing
    row = _row(found)
    if standing is not None:
        row |= standing.model_dump(exclude={"finding"}) | {"reason": found.reason or standing.reason}
    if as_json:
        show_json([row])
        return
    for what, value in row.items():
        if value not in (None, ""):
            console.print(f"{what.replace('_', ' '):<16} {_text(value)}", markup=False, highlight=False, soft_wrap=True)


@experiments_app.command("stop")
@explained
def stop(experiment: ExperimentId, reason: Annotated[str, typer.Option(help="Why, for the trail.")] = "") -> None:
    """Have the live release alone answer again, and drop the challenger."""
    from estudio_core import database
    from estudio_core.comparing import ledger
    from estudio_core.pipeline.challenging.concluding import carry_out

    with database.connect(autocommit=True) as connection:
        database.require_schema(connection)
        found = ledger.stop(connection, ledger.get(connection, experiment), _actor(), reason)
        found = carry_out(connection, found)
    console.print(f"Experiment {found.experiment_id} is over: {found.reason}", markup=False, soft_wrap=True)


@experiments_app.command("conclude")
@explained
def conclude(plugin: PluginName, as_json: AsJson = False) -> None:
    """Look at the experiment of a plugin, and carry out its verdict where there is one, as its DAG does each minute."""
    from estudio_core.pipeline.conclude_experiment import conclude_experiment

    found = conclude_experiment(plugin)
    _show([] if found is None else [_row(found)], as_json, f"No experiment of {plugin} is under way.")


def _row(found: Any) -> dict[str, Any]:
    standing = found.standing
    return {
        "experiment": found.experiment_id,
        "plugin": found.plugin,
        "form": found.form,
        "champion": found.champion,
        "challenger": found.challenger,
        "state": found.state,
        "verdict": found.verdict,
        "wins": None if standing is None else standing.wins,
        "ties": None if standing is None else standing.ties,
        "losses": None if standing is None else standing.losses,
        "credit": None if standing is None else standing.credit,
        "low": None if standing is None else standing.low,
        "high": None if standing is None else standing.high,
        "sessions_needed": None if standing is None else standing.sessions_needed,
        "started": found.started_at,
        "ended": found.ended_at,
        "started_by": found.started_by,
        "reason": found.reason,
    }


_COLUMNS = [
    Column("experiment"),
    Column("plugin"),
    Column("form"),
    Column("champion", right=True),
    Column("challenger", right=True),
    Column("state", styles={"running": "bold green", "decided": "yellow"}),
    Column("verdict", styles={"better": "green", "worse": "red", "harm": "red"}),
    Column("wins", right=True),
    Column("ties", right=True),
    Column("losses", right=True),
    Column("credit", "+.3f", right=True),
    Column("low", "+.3f", right=True),
    Column("high", "+.3f", right=True),
    Column("sessions_needed", right=True),
    Column("started"),
    Column("reason", prose=True),
]


def _show(rows: list[dict[str, Any]], as_json: bool, none: str) -> None:
    if as_json:
        show_json(rows)
    elif not rows:
        console.print(none)
    else:
        show_rows(console, _COLUMNS, rows)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return f"{value:+.3f}" if isinstance(value, float) else str(value)
