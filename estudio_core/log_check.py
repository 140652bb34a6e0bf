"""What a log is good for, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from estudio_core.clickstream.actions import CLICK_IMPORTANCE, KNOWN_ACTIONS
from estudio_core.clickstream.applications import application_facts, positions_seen
from estudio_core.progress import report

if TYPE_CHECKING:
    import psycopg

    from estudio_core.clickstream.ranking_data import FineTuningInput
    from estudio_core.plugin.plugin import Plugin

Verdict = Literal["go", "wait", "will not help"]

MOST_SESSIONS = 50_000
"""Sessions by which attention and clients are judged: some hundred MB."""
MOST_ITEMS = 500
"""Results, those that were clicked most, that are looked for in the items table."""
SHOWN_POSITIONS = 10
LEAST_CLICKED_SESSIONS = 30
"""Below, no error of an estimate is to be trusted: a few of them decide it."""
LEAST_KNOWN_ITEMS = 0.5
"""Share of the clicked results that has to be among the items. Below, the log speaks of other ids."""
LEAST_LISTED = 0.05
"""Share of clicked sessions of which more is known than what was clicked. Below, nothing was passed over."""
MOST_UNCOUNTED = 0.5
"""Share of sessions below which those that count are too few of the log to speak for it."""
_STEPS = 4


@dataclass(frozen=True)
class LogCheck:
    """What a log holds, and what follows from it.

    Attributes:
        application: Whose log.
        facts: Figures by name; None where there is nothing to tell.
        click_rates: Clicks per showing at the topmost positions.
        unknown_actions: Actions that are no clicks, and how often they occur.
        verdict: Whether to train on it.
        reasons: Why, a sentence each.
    """

    application: str
    facts: Mapping[str, str | int | float | None]
    click_rates: tuple[float, ...]
    unknown_actions: Mapping[str, int]
    verdict: Verdict
    reasons: tuple[str, ...] = field(default=())

    def rows(self) -> list[dict[str, object]]:
        """Return the facts as rows of a table."""
        rows: list[dict[str, object]] = [
            {"what": name, "value": f"{value:,}" if isinstance(value, int) else value}
            for name, value in self.facts.items()
            if value is not None
        ]
        if self.click_rates:
            rates = " ".join(f"{rate:.3f}" for rate in self.click_rates)
            rows.append({"what": f"clicks per showing, positions 1 to {len(self.click_rates)}", "value": rates})
        if self.unknown_actions:
            named = ", ".join(f"{action} {count:,}" for action, count in self.unknown_actions.items())
            rows.append({"what": "actions that are no clicks", "value": named})
        return rows

    def as_dict(self) -> dict[str, object]:
        """Return all of it for JSON."""
        return {
            "application": self.application,
            "facts": dict(self.facts),
            "click_rates": list(self.click_rates),
            "unknown_actions": dict(self.unknown_actions),
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }


def check_log(connection: psycopg.Connection, application: str) -> LogCheck:
    """Say what the log of an application is good for. Nothing is written.

    Args:
        connection: An open connection to a database with Estudio's schema.
        application: Its name. Where a plugin has the same name, its items and its settings are asked.

    Raises:
        SourceSchemaError, DatabaseUnavailableError: the plugin's items cannot be read.
    """
    from estudio_core.clickstream.clients import counted_sessions
    from estudio_core.clickstream.store import ClickstreamStore

    plugin, no_plugin = _plugin(application)
    report("Check", 0, _STEPS, "steps", "counting")
    known = application_facts(connection, application)
    counts = _counts(connection, application, known.clicks)
    seen = positions_seen(connection, application)
    window = timedelta(days=_params(plugin).window_days)
    until = datetime.now(UTC)
    clicked_in_window = ClickstreamStore(connection).count_sessions(
        application, since=until - window, until=until, clicked_only=True
    )
    report("Check", 1, _STEPS, "steps", "reading sessions")
    found = _sessions(connection, application, plugin, until)
    sessions, left_out = counted_sessions(found)
    report("Check", 2, _STEPS, "steps", "attention")
    attention, rates = _attention([session for session in sessions if session.not_events])
    report("Check", 3, _STEPS, "steps", "items")
    overlap = _overlap(plugin, sessions)
    needed = _needed(plugin, sessions, clicked_in_window)
    report("Check", _STEPS, _STEPS, "steps")

    clicks, sessions_in_all = counts["clicks"], counts["sessions"]
    contradiction = seen.against(known.first_position) if known.basis == "declared" else None
    unknown = _unknown_actions(connection, application, {*known.clicks, *known.impressions})
    facts: dict[str, str | int | float | None] = {
        "searches": sessions_in_all,
        "distinct queries": counts["queries"],
        "from": counts["first"],
        "to": counts["last"],
        "clicked searches": _of(counts["clicked"], sessions_in_all),
        f"clicked searches of the last {window.days} days": clicked_in_window,
        "distinct clicked queries": counts["clicked_queries"],
        "clicks": clicks,
        "clicks with a position": _of(counts["placed"], clicks),
        "clicks without a search": counts["orphans"] or None,
        "clicks that do not say on what": counts["objectless"] or None,
        "searches with a logged list": _of(counts["listed"], sessions_in_all),
        "searches known from their events alone": counts["inferred"] or None,
        "searches without a text": counts["textless"] or None,
        "searches that name a client": _of(counts["with_client"], sessions_in_all),
        "simulated searches": counts["simulated"] or None,
        "positions count from": f"{known.first_position} ({known.basis})"
        + (f"; but {contradiction}" if contradiction else ""),
        "attention": attention,
        "sessions that do not count": str(left_out) or None,
        "clicked results among the items": overlap.said if overlap else no_plugin,
        "clicked searches missing for a training": needed.for_training,
        "searches missing for a decision by clicks": needed.for_decision,
    }
    verdict, reasons = _verdict(counts, unknown, overlap, needed, sessions, len(found), contradiction)
    return LogCheck(application, facts, rates, unknown, verdict, tuple(reasons))


def _plugin(name: str) -> tuple[Plugin | None, str]:
    from estudio_core.errors import PluginError
    from estudio_core.plugin.registry import open_plugin

    try:
        return open_plugin(name), ""
    except PluginError:
        return None, f"not looked for: no plugin is called {name!r}"


def _params(plugin: Plugin | None) -> Any:
    from estudio_core.plugin.precedence import resolve

    return resolve({}, plugin=None if plugin is None else plugin.fine_tune)


def _of(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else f"{part:,}"


def _counts(connection: psycopg.Connection, application: str, clicks: Mapping[str, float]) -> dict[str, Any]:
    from psycopg.rows import dict_row

    given = {"application": application, "clicks": [*CLICK_IMPORTANCE, *clicks]}
    with connection.cursor(row_factory=dict_row) as cursor:
        searches = cursor.execute(_COUNT_SEARCHES, given).fetchone()
        events = cursor.execute(_COUNT_EVENTS, given).fetchone()
    assert searches is not None
    assert events is not None
    return {**searches, **events}


def _unknown_actions(connection: psycopg.Connection, application: str, declared: set[str]) -> dict[str, int]:
    rows = connection.execute(
        "SELECT action_name, count(*) FROM estudio.ubi_events WHERE application = %s AND action_name <> ALL(%s)"
        " GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 10",
        (application, sorted({*KNOWN_ACTIONS, *declared})),
    ).fetchall()
    return dict(rows)


def _sessions(
    connection: psycopg.Connection, application: str, plugin: Plugin | None, until: datetime
) -> list[FineTuningInput]:
    """Return the sessions that a training would draw now; of a log that is older than its window, the newest."""
    from estudio_core.clickstream.converter import ClickstreamSessionConverter, usable_inputs
    from estudio_core.clickstream.ranking_data import with_one_spelling
    from estudio_core.clickstream.store import ClickstreamStore
    from estudio_core.sources.item_meta import ItemMeta

    converter = ClickstreamSessionConverter(ItemMeta) if plugin is None else plugin.converter
    retriever = converter.query_retriever if plugin is None else plugin.query_retriever
    params, store = _params(plugin), ClickstreamStore(connection)
    settled, limit = until - timedelta(minutes=params.settle_minutes), min(params.max_sessions, MOST_SESSIONS)
    since = until - timedelta(days=params.window_days)
    found = list(store.sessions(application, since=since, until=settled, limit=limit, by_query=True))
    found = found or list(store.sessions(application, limit=limit))
    return list(with_one_spelling(each for each in usable_inputs(found, converter, retriever) if each.results))


def _attention(sessions: Sequence[FineTuningInput]) -> tuple[str | None, tuple[float, ...]]:
    """Return how attention falls with the position, in words, and the click rates at the topmost positions."""
    from estudio_core.clickstream.examination import estimate_examination
    from estudio_core.clickstream.position_bias import Impressions, click_rates

    clicked = sum(not session.is_clickless for session in sessions)
    if not clicked:
        return None, ()
    log = Impressions.of(sessions)
    rates = click_rates(log.positions, log.clicks)[:SHOWN_POSITIONS]
    told = (
        str(estimate_examination(sessions))
        if clicked >= LEAST_CLICKED_SESSIONS
        else f"cannot be told from {clicked} clicked searches, {LEAST_CLICKED_SESSIONS} are needed at least"
    )
    return told, tuple(float(rate) for rate in rates)


@dataclass(frozen=True)
class _Overlap:
    known: int
    asked: int
    examples: tuple[str, ...]

    @property
    def said(self) -> str:
        missing = f"; not: {', '.join(self.examples)}" if self.examples else ""
        return f"{_of(self.known, self.asked)} of the {self.asked:,} most clicked{missing}"


def _overlap(plugin: Plugin | None, sessions: Sequence[FineTuningInput]) -> _Overlap | None:
    """Look for the most clicked results among the items."""
    if plugin is None:
        return None
    clicked = Counter(
        result
        for session in sessions
        for result, weight in zip(session.results, session.click_weights, strict=True)
        if weight > 0
    )
    wanted = [object_id for object_id, _ in clicked.most_common(MOST_ITEMS)]
    if not wanted:
        return None
    loader = plugin.loader
    found = loader.find_items([loader.item_meta_cls(object_id=object_id) for object_id in wanted])
    gone = [object_id for object_id in wanted if object_id in {*found.missing, *found.invalid}]
    return _Overlap(len(wanted) - len(gone), len(wanted), tuple(gone[:3]))


@dataclass(frozen=True)
class _Needed:
    for_training: int
    for_decision: str | None
    decides: bool
    why_not: str


def _needed(plugin: Plugin | None, sessions: Sequence[FineTuningInput], clicked: int) -> _Needed:
    """Return how many sessions are missing, for a training and for a decision by its held-out clicks."""
    from estudio_core.clickstream.click_log import ClickLog
    from estudio_core.clickstream.splitter import TrainTestSplitter
    from estudio_core.errors import NotEnoughDataError
    from estudio_core.evaluation.click_verdict import LEAST_CLICKED_QUERIES, sessions_for_decision
    from estudio_core.evaluation.gate_settings import GateSettings

    gate = GateSettings() if plugin is None else plugin.gate
    for_training = max(0, _params(plugin).min_sessions - clicked)
    if plugin is not None and plugin.judgments is not None:
        return _Needed(for_training, "none: the plugin's judgments decide", True, "")
    splitter = TrainTestSplitter() if plugin is None else plugin.splitter
    try:
        held_out = splitter.split(sessions)["holdout"] if sessions else []
    except NotEnoughDataError:
        held_out = []
    share = splitter.test_size_ratio * splitter.holdout_share
    log = ClickLog.of(session for session in held_out if session.results)
    fewest = max(LEAST_CLICKED_QUERIES, gate.minimum_queries)
    if log.clicked_queries < fewest:
        asked = {session.query_key for session in sessions if not session.is_clickless}
        wanted = fewest / share if share else float("inf")
        more = max(1, round(wanted - len(asked))) if share else None
        if more is None:
            return _Needed(for_training, "no query is held out", False, "No query is held out: set holdout_share.")
        counted = f"{log.clicked_queries} held out, {fewest} needed"
        why = f"About {more:,} further clicked queries are needed for a decision by clicks: {counted}."
        return _Needed(for_training, f"those of about {more:,} further clicked queries ({counted})", False, why)
    exponent = None if plugin is None else plugin.training.examination_exponent
    wanted_sessions = sessions_for_decision(log, gate, exponent)
    if wanted_sessions is None:
        said = "cannot be told: attention could not be estimated from the held-out clicks"
        return _Needed(for_training, said, False, f"How many searches a decision needs {said}.")
    have = len(log.clients)
    if wanted_sessions <= have:
        return _Needed(for_training, "0", True, "")
    missing = round((wanted_sessions - have) / share)
    why = f"About {missing:,} searches more are needed before clicks can tell a gain of {gate.told_gain:g}."
    return _Needed(for_training, f"about {missing:,}", False, why)


def _verdict(
    counts: Mapping[str, Any],
    unknown: Mapping[str, int],
    overlap: _Overlap | None,
    needed: _Needed,
    sessions: Sequence[FineTuningInput],
    found: int,
    contradiction: str | None,
) -> tuple[Verdict, list[str]]:
    hopeless: list[str] = []
    clicked = [session for session in sessions if not session.is_clickless]
    if not counts["sessions"] and not counts["orphans"]:
        return "wait", ["No search is logged under this name. Is the application called otherwise in the log?"]
    if counts["orphans"] and not counts["clicked"]:
        hopeless.append(
            f"{counts['orphans']:,} clicks name searches that are not in the log. Import the searches too, or let "
            "events say what was asked (user_query)."
        )
    elif not counts["clicked"]:
        named = ", ".join(f"{action} ({count:,})" for action, count in unknown.items())
        hopeless.append(
            f"No search has a click. Actions in the log: {named}. If one of them is a click: "
            "estudio clickstream declare APPLICATION --click ACTION"
            if named
            else "No search has a click, and there are no other events. Log what users click."
        )
    if clicked and sum(bool(session.not_events) for session in clicked) < LEAST_LISTED * len(clicked):
        hopeless.append(
            "Hardly any search says what else was shown: only clicks are logged, so that nothing was passed over. Log "
            "the hits of each search (query_response_hit_ids), or impressions."
        )
    if overlap is not None and overlap.known < LEAST_KNOWN_ITEMS * overlap.asked:
        hopeless.append(
            f"{overlap.asked - overlap.known:,} of the {overlap.asked:,} most clicked results are not among the items, "
            f"such as {', '.join(overlap.examples)}. Log the ids of the items' table."
        )
    if contradiction:
        hopeless.append(f"Positions contradict what was declared: {contradiction}.")
    if hopeless:
        return "will not help", hopeless
    waiting: list[str] = []
    if len(sessions) < MOST_UNCOUNTED * found:
        waiting.append(
            f"Only {len(sessions):,} of {found:,} sessions count: most are those of a few clients. If that is the name "
            "of an app or a proxy and not of one visitor, log no client_id."
        )
    if needed.for_training:
        waiting.append(f"{needed.for_training:,} clicked searches more are needed for a training.")
    if not needed.decides:
        waiting.append(needed.why_not)
    if waiting:
        return "wait", waiting
    return "go", ["There are enough searches for a training, and for a decision by its held-out clicks."]


_COUNT_SEARCHES = """
WITH clicked AS (
    SELECT DISTINCT query_id FROM estudio.ubi_events
    WHERE application = %(application)s AND action_name = ANY(%(clicks)s) AND object_id IS NOT NULL
)
SELECT count(*) FILTER (WHERE user_query <> '') AS sessions,
    count(DISTINCT lower(btrim(user_query))) FILTER (WHERE user_query <> '') AS queries,
    to_char(min("timestamp") AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS first,
    to_char(max("timestamp") AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS last,
    count(*) FILTER (WHERE user_query <> '' AND c.query_id IS NOT NULL) AS clicked,
    count(DISTINCT lower(btrim(user_query))) FILTER (WHERE user_query <> '' AND c.query_id IS NOT NULL)
        AS clicked_queries,
    count(*) FILTER (WHERE user_query <> '' AND query_response_hit_ids <> '{}') AS listed,
    count(*) FILTER (WHERE inferred) AS inferred,
    count(*) FILTER (WHERE user_query = '') AS textless,
    count(*) FILTER (WHERE user_query <> '' AND client_id IS NOT NULL) AS with_client,
    count(*) FILTER (WHERE query_attributes @> '{"simulated": true}') AS simulated
FROM estudio.ubi_queries q LEFT JOIN clicked c USING (query_id)
WHERE q.application = %(application)s
"""

_COUNT_EVENTS = """
SELECT count(*) FILTER (WHERE e.object_id IS NOT NULL) AS clicks,
    count(*) FILTER (WHERE e.object_id IS NOT NULL AND e.position_ordinal IS NOT NULL) AS placed,
    count(*) FILTER (WHERE e.object_id IS NULL) AS objectless,
    count(*) FILTER (WHERE e.object_id IS NOT NULL AND q.query_id IS NULL) AS orphans
FROM estudio.ubi_events e LEFT JOIN estudio.ubi_queries q USING (application, query_id)
WHERE e.application = %(application)s AND e.action_name = ANY(%(clicks)s)
"""
