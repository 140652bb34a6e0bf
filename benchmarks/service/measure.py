"""The measurements: contenders take turns, a round after the other, while nothing else is asked of the machine."""

from __future__ import annotations

import itertools
import json
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.index.generated import vocabulary
from benchmarks.index.scratch import PLUGIN
from benchmarks.index.timing import CpuClock, percentiles_ms
from benchmarks.service import contenders
from benchmarks.service.installation import Server, bare_route, new_key, service
from benchmarks.service.load import Measured, Offered, offer
from estudio_core import database

IN_PROCESS, HTTP, LOGGED, BARE = "asearch", "HTTP", "HTTP, kept in the clickstream", "bare route"
KNOWN = 300
"""Texts that are asked again and again, where vectors are to be known."""
NEW = 60_000
ROWS = 40_000
"""Events of one measurement of the collector."""
EVENTS_PER_S, EVENTS_A_REQUEST = 500, 10
SAMPLE_S = 10.0

console = Console()
Contender = Callable[[], Measured]
Result = dict[str, Any]
_seeds = itertools.count()


def new_texts(count: int = NEW) -> list[str]:
    """Return texts of two to five words of the catalogue, other ones at each call: no vector of them is known."""
    words, shares = vocabulary()
    rng = np.random.default_rng((11, next(_seeds), time.time_ns()))
    drawn = words[rng.choice(len(words), (count, 5), p=shares)]
    lengths = rng.integers(2, 6, count)
    return [" ".join(of_text[:length]) for of_text, length in zip(drawn, lengths, strict=True)]


def search_bodies(texts: Sequence[str], **estudio: Any) -> list[bytes]:
    """Return the requests of searches."""
    ext = {"ext": {"estudio": estudio}} if estudio else {}
    return [json.dumps({"query": text, **ext}).encode() for text in texts]


def events(count: int) -> list[dict[str, Any]]:
    """Return clicks that nobody has sent yet."""
    run, at = uuid.uuid4().hex, datetime.now(UTC).isoformat()
    return [
        {
            "event_id": f"{run}-{number}",
            "action_name": "click",
            "query_id": f"{run}-{number // 3}",
            "client_id": f"client-{number % 997}",
            "timestamp": at,
            "application": PLUGIN,
            "event_attributes": {
                "object": {"object_id": str(number % 19_406), "object_id_field": "id"},
                "position": {"ordinal": number % 10 + 1},
            },
        }
        for number in range(count)
    ]


def _batches(of: Sequence[dict[str, Any]], size: int) -> list[Sequence[dict[str, Any]]]:
    return [of[start : start + size] for start in range(0, len(of), size)]


def searches(clients: int, rounds: int, seconds: float) -> Result:
    """Search by texts that are new, in process and over HTTP."""
    with service() as server, bare_route() as bare:
        plain, logging = new_key("search"), new_key("search", "events")

        def over_http(key: str) -> Measured:
            return _sent(server, key, search_bodies(new_texts()), clients, seconds)

        found: dict[str, tuple[Contender, Server | None]] = {
            IN_PROCESS: (lambda: contenders.searches(new_texts(), clients, seconds), None),
            HTTP: (partial(over_http, plain), server),
            LOGGED: (partial(over_http, logging), server),
            BARE: (lambda: offer(Offered(bare.port, "/", None, [b"{}"], clients, seconds))[0], bare),
        }
        _sent(server, plain, search_bodies(new_texts()), clients, 2)
        return {"clients": clients, "contenders": _turns(found, rounds)}


def known_queries(rounds: int, seconds: float) -> Result:
    """Search by texts whose vectors are known, one client, beside the statements alone."""
    texts = new_texts(KNOWN)
    with service() as server, bare_route() as bare:
        key = new_key("search")
        for mode in ("vector", "hybrid"):
            _sent(server, key, search_bodies(texts, mode=mode), 1, 60, again=False)

        def over_http(mode: str) -> Measured:
            return _sent(server, key, search_bodies(texts, mode=mode), 1, seconds)

        found: dict[str, tuple[Contender, Server | None]] = {
            "statement, nearest neighbours": (
                lambda: contenders.statements(texts, seconds, "nearest neighbours"), None),
            "HTTP, vectors": (partial(over_http, "vector"), server),
            "statement, words and vectors": (lambda: contenders.statements(texts, seconds, "the search's own"), None),
            "asearch, words and vectors": (lambda: contenders.searches(texts, 1, seconds), None),
            "HTTP, words and vectors": (partial(over_http, "hybrid"), server),
            BARE: (lambda: offer(Offered(bare.port, "/", None, [b"{}"], 1, seconds))[0], bare),
        }  # fmt: skip
        return {"contenders": _turns(found, rounds)}


def collecting(rows_a_request: int, clients: int, rounds: int) -> Result:
    """Collect events over HTTP, and insert such events by hand: rows a second."""
    with service() as server:
        key = new_key("events")

        def over_http() -> Measured:
            bodies = [json.dumps(batch).encode() for batch in _batches(events(ROWS), rows_a_request)]
            offered = Offered(server.port, "/ubi_events", key, bodies, clients, 300, again=False)
            return offer(offered)[0]

        def by_hand(how: contenders.Insert) -> Measured:
            return contenders.inserts(_batches(events(ROWS), rows_a_request), how)

        found: dict[str, tuple[Contender, Server | None]] = {
            "INSERT … SELECT unnest": (partial(by_hand, "unnest"), None),
            "INSERT, executemany": (partial(by_hand, "executemany"), None),
            HTTP: (over_http, server),
        }
        measured = _turns(found, rounds)
        for each in measured.values():
            each["rows_per_s"] = each["per_s"] * rows_a_request
        with database.connect() as connection:
            fsync = connection.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
            settings = fsync.fetchone()
        return {"rows_a_request": rows_a_request, "clients": clients, "settings": settings, "contenders": measured}


def while_collecting(per_s: float, clients: int, rounds: int, seconds: float) -> Result:
    """Search so many times a second, alone and while events are collected."""
    with service() as server:
        key = new_key("search", "events")

        def alone() -> Measured:
            return _sent(server, key, search_bodies(new_texts()), clients, seconds, per_s)

        def beside() -> Measured:
            searched = Offered(server.port, _SEARCH, key, search_bodies(new_texts()), clients, seconds, per_s)
            return offer(searched, _collected(server, key, seconds))[0]

        alone()
        found: dict[str, tuple[Contender, Server | None]] = {
            "alone": (alone, server), f"{EVENTS_PER_S} events/s beside": (beside, server),
        }  # fmt: skip
        return {"searches_per_s": per_s, "clients": clients, "contenders": _turns(found, rounds)}


def mixed(minutes: float, per_s: float) -> Result:
    """Search and collect for minutes; memory and connections of the service meanwhile."""
    with service() as server:
        key = new_key("search", "events")
        samples: list[dict[str, float]] = []
        began = time.monotonic()
        answered = 0
        latencies: list[float] = []
        while (passed := time.monotonic() - began) < minutes * 60:
            searched = Offered(server.port, _SEARCH, key, search_bodies(new_texts(5_000)), 16, SAMPLE_S, per_s)
            for each in offer(searched, _collected(server, key, SAMPLE_S)):
                answered += len(each.latencies)
                latencies += each.latencies
            with database.connect() as connection:
                row = connection.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> "
                    "pg_backend_pid()"
                ).fetchone()
            assert row is not None
            samples.append(
                {
                    "s": passed + SAMPLE_S,
                    "memory_mib": server.memory_mib,
                    "sockets": server.connections,
                    "database_connections": row[0],
                    "threads": server.process.num_threads(),
                }
            )
            console.print(f"[dim]{samples[-1]}[/]")
        return {
            "minutes": minutes, "searches_per_s": per_s, "answers": answered, "samples": samples,
            **percentiles_ms(latencies),
        }  # fmt: skip


_SEARCH = f"/{PLUGIN}/_search"


def _sent(
    server: Server,
    key: str,
    bodies: list[bytes],
    clients: int,
    seconds: float,
    per_s: float | None = None,
    *,
    again: bool = True,
) -> Measured:
    return offer(Offered(server.port, _SEARCH, key, bodies, clients, seconds, per_s, again))[0]


def _collected(server: Server, key: str, seconds: float) -> Offered:
    made = events(int(EVENTS_PER_S * (seconds + 1)))
    bodies = [json.dumps(batch).encode() for batch in _batches(made, EVENTS_A_REQUEST)]
    per_s = EVENTS_PER_S / EVENTS_A_REQUEST
    return Offered(server.port, "/ubi_events", key, bodies, 8, seconds, per_s, again=False)


def _turns(found: dict[str, tuple[Contender, Server | None]], rounds: int) -> dict[str, Any]:
    """Measure each contender once a round, every second round in the opposite order; return medians of rounds."""
    by_name: dict[str, list[dict[str, float]]] = {name: [] for name in found}
    with database.connect(autocommit=True) as connection:
        clock = CpuClock(connection.info.backend_pid)
        for number in range(rounds):
            for name in _ordered(found, number):
                contender, server = found[name]
                in_database, served = clock.database_seconds(), server.cpu_s if server is not None else 0.0
                measured = contender()
                summary = measured.summary()
                answers = summary["answers"]
                summary["database_cpu_ms"] = 1000 * (clock.database_seconds() - in_database) / answers
                if server is not None:
                    summary["server_cpu_ms"] = 1000 * (server.cpu_s - served) / answers
                by_name[name].append(summary)
                told = ", ".join(f"{key} {value:.4g}" for key, value in summary.items())
                console.print(f"[dim]  {name}: {told}[/]")
    return {
        name: {
            **{key: statistics.median(each[key] for each in of_rounds) for key in of_rounds[0]},
            "rounds": of_rounds,
        }
        for name, of_rounds in by_name.items()
    }


def _ordered(found: dict[str, Any], number: int) -> Iterator[str]:
    return iter(found) if number % 2 == 0 else reversed(found)
