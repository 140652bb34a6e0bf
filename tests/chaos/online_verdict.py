"""What the journal of people, the outages and the database say together: every broken promise of the service."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from estudio_core.comparing.teams import seed_of
from tests.chaos.verdict import SAME_SIMILARITY, Similarities, Violation, mixed

Outages = Sequence[tuple[float, float]]
UNFLUSHED_S = 1.0
"""PostgreSQL flushes what is committed without waiting within three times `wal_writer_delay`, 0.2 s."""


def check_visits(
    journal: Iterable[Mapping[str, Any]],
    outages: Outages,
    versions: Mapping[int, str],
    similarities: Similarities,
    sides: tuple[str, str],
    untouched: int,
) -> list[Violation]:
    """Check every answer.

    Outside the experiment, all hits are those of the release that is named. In it, the coins of its query id say which
    side comes first in each pair, and each side's picks come in the order of its own model.

    Args:
        journal: Of `people`.
        outages: Times in which the database, or all of the service, was down.
        versions: Model versions of all releases.
        similarities: Of a model, a query and texts.
        sides: Model versions of champion and challenger.
        untouched: Items below this number are never written: what a release holds of them is known.
    """
    violations = []
    for line in journal:
        if line["kind"] != "visit":
            continue
        at = line["began"]
        if "error" in line:
            if not _within(line, outages):
                violations.append(Violation("failed", at, f"A search failed: {line['error']}"))
            continue
        ids = [hit[0] for hit in line["hits"]]
        if len(set(ids)) != len(ids):
            violations.append(Violation("duplicated", at, f"A search found {ids}."))
        if len(ids) != 10:
            violations.append(Violation("lost", at, f"Release {line['release']} gave {len(ids)} hits of 10."))
        if line["experiment"] is None:
            if found := mixed(line, versions, similarities):
                violations.append(Violation("mixed", at, found))
            continue
        if line["start"] == 0:
            violations += [Violation("mixed", at, text) for text in _coins(line)]
        violations += [Violation("mixed", at, text) for text in _picks(line, similarities, sides, untouched)]
    return violations


def _coins(line: Mapping[str, Any]) -> list[str]:
    """Return what the first page's teams say against the coins of the query id."""
    teams = [line["teams"].get(hit[0]) for hit in line["hits"]]
    if None in teams:
        return [f"Hits of {line['query_id']} have no team: {teams}."]
    seed = seed_of(line["experiment"], line["query_id"])
    picked = [team for team in teams if team != "both"]
    found = []
    for number in range(0, len(picked), 2):
        first = "challenger" if seed >> number // 2 & 1 else "champion"
        second = "champion" if first == "challenger" else "challenger"
        if picked[number : number + 2] != [first, second][: len(picked) - number]:
            found.append(f"{line['query_id']}: pair {number // 2} is {picked[number : number + 2]}; {first} is first.")
    return found


def _picks(line: Mapping[str, Any], similarities: Similarities, sides: tuple[str, str], untouched: int) -> list[str]:
    """Return where a side's picks are not in the order of its model's similarities; only vectors are compared."""
    known = [hit for hit in line["hits"] if int(hit[0]) < untouched]
    if not known or line["mode"] != "vector":
        return []
    texts = [hit[1] for hit in known]
    own = {
        side: dict(zip((hit[0] for hit in known), similarities(version, line["query"], texts), strict=True))
        for side, version in zip(("champion", "challenger"), sides, strict=True)
    }
    found = []
    for side, expected in own.items():
        picks = [hit[0] for hit in known if line["teams"].get(hit[0]) in (side, "both")]
        for one, after in itertools.pairwise(picks):
            if expected[after] - expected[one] > 2 * SAME_SIMILARITY:
                found.append(f"{line['query_id']}: the {side} picked {one} before {after}, which is nearer to it.")
    for object_id, _, told in known:
        fitting = [side for side, expected in own.items() if abs(expected[object_id] - told) <= SAME_SIMILARITY]
        if not fitting:
            found.append(f"{line['query_id']}: {object_id} has the similarity {told} of neither side.")
    return found


def check_clicks(
    journal: Iterable[Mapping[str, Any]], outages: Outages, stored: Iterable[tuple[str, str, str, int | None]]
) -> list[Violation]:
    """Check that each acknowledged event is there once, as it was sent, and that none was refused without an outage.

    Args:
        journal: Of `people`.
        outages: As of `check_visits`.
        stored: Event id, query id, object id and position, as they were sent, of all events that the log has.
    """
    there: dict[str, list[tuple[str, str, int | None]]] = {}
    for event_id, query_id, object_id, position in stored:
        there.setdefault(event_id, []).append((query_id, object_id, position))
    violations, sent = [], set()
    for line in journal:
        if line["kind"] != "click":
            continue
        if not line["acknowledged"] and not _within(line, outages):
            violations.append(Violation("failed", line["began"], f"A click was not taken: {line['error']}"))
        for event_id, *as_sent in line["events"]:
            sent.add(event_id)
            found = there.get(event_id, [])
            if line["acknowledged"] and not found:
                violations.append(Violation("lost", line["began"], f"The click {event_id} is not there."))
            if any(row != (line["query_id"], *as_sent) for row in found):
                violations.append(Violation("lost", line["began"], f"The click {event_id} is there as {found}."))
    violations += [
        Violation("duplicated", None, f"The click {event_id} is there {len(found)} times.")
        for event_id, found in there.items()
        if len(found) > 1
    ]
    strange = sorted(set(there) - sent)[:5]
    return [*violations, *(Violation("lost", None, f"Nobody sent the click {each}.") for each in strange)]


def check_logged(
    journal: Iterable[Mapping[str, Any]],
    outages: Outages,
    stored: Mapping[str, tuple[Sequence[str], Mapping[str, Any]]],
) -> list[Violation]:
    """Check that searches are logged as they were answered: with their hits, and with the teams as they were drawn.

    Of an acknowledged click, the search is there, unless the database was down while it was answered, or crashed within
    `UNFLUSHED_S`: an answer is not kept back for its log, nor for a disk.

    Args:
        journal: Of `people`.
        outages: As of `check_visits`.
        stored: Hits and attributes of all logged searches, by query id.
    """
    lines = list(journal)
    visits: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        if line["kind"] == "visit":
            visits.setdefault(line["query_id"], []).append(line)
    clicked = {line["query_id"] for line in lines if line["kind"] == "click" and line["acknowledged"]}
    violations = []
    for query_id, pages in visits.items():
        if query_id not in stored:
            late = [{**page, "ended": page["ended"] + UNFLUSHED_S} for page in pages]
            if query_id in clicked and not any(_within(page, outages) for page in late):
                violations.append(Violation("lost", pages[0]["began"], f"The search {query_id} was clicked; no row."))
            continue
        [first, *others] = pages
        if others or "error" in first or first["tries"] != 1:
            continue  # several answers in one row
        hits, attributes = stored[query_id]
        if list(hits) != [hit[0] for hit in first["hits"]]:
            violations.append(Violation("mixed", first["began"], f"The search {query_id} is logged with other hits."))
        logged = {
            object_id: side
            for side, worth in attributes.get("experiment", {}).get("teams", {}).items()
            for object_id in worth
        }
        told = {object_id: side for object_id, side in first["teams"].items() if side != "both"}
        if logged != told:
            violations.append(Violation("mixed", first["began"], f"The search {query_id} is logged with other teams."))
    return violations


def check_writes(journal: Iterable[Mapping[str, Any]], outages: Outages) -> list[Violation]:
    """Check that no write failed unless something was down."""
    return [
        Violation("failed", line["began"], f"A write failed: {line['error']}")
        for line in journal
        if line["kind"] == "error" and not _within({"began": line["began"], "ended": line["at"]}, outages)
    ]


def _within(line: Mapping[str, Any], outages: Outages) -> bool:
    return any(began <= line["ended"] and line["began"] <= ended for began, ended in outages)
