"""Searches that ask for too much, of a large collection: how long until each is answered or refused, and with what."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from estudio_core.errors import EstudioError
from estudio_core.searching import search
from estudio_core.vectordb.releases import Release

AT_ONCE = 5
"""Costly searches that run while a cheap one is asked for: more than are let in together."""
DEADLINE_S = 2.0
"""What a search has unless it says otherwise."""
SLOW = {"wildcard": {"title": "*a*e*i*o*u*qqq*"}}
ATTACKS: dict[str, dict[str, Any]] = {
    "a search without conditions": {},
    "`match` that matches nothing": {"filter": {"match": {"title": "zzyzxq"}}},
    "10,000 terms, the most that is legal": {"filter": {"terms": {"bucket": list(range(-9_000, 1_000))}}},
    "33,000 terms": {"filter": {"terms": {"bucket": list(range(33_000))}}},
    "200,000 characters in a filter": {"filter": {"match": {"title": "x" * 200_000}}},
    "200,000 characters of text": {"text": "x" * 200_000},
    "half of a surrogate pair": {"text": "lamp \ud800"},
    "a wildcard over all": {"filter": SLOW},
}


def measure_attacks(release: Release, items: int) -> dict[str, Any]:
    """Return milliseconds and outcome by attack; each is tried twice, the second time counts: models are open then."""
    find = partial(_timed, release.plugin)
    found = {}
    for name, asked in ATTACKS.items():
        find(**asked)
        found[name] = find(**asked)
    with ThreadPoolExecutor(AT_ONCE + 2) as pool:
        costly = [pool.submit(find, filter=SLOW) for _ in range(AT_ONCE)]
        time.sleep(0.05)  # they are inside, or wait
        sixth, cheap = pool.submit(find, filter=SLOW), pool.submit(find)
        found[f"{AT_ONCE} such wildcards at once, the slowest"] = max(
            (each.result() for each in costly), key=lambda each: each["ms"]
        )
        found["a sixth beside them"] = sixth.result()
        found["a search without conditions beside them"] = cheap.result()
    return {"items": items, "attacks": found}


def _timed(plugin: str, text: str = "red lamp", filter: dict[str, Any] | None = None) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        outcome = f"{len(search(plugin, text, filter=filter, deadline_s=DEADLINE_S).hits)} hits"
    except EstudioError as error:
        outcome = f"{type(error).__name__}: {str(error)[:120]}"
    return {"ms": 1000 * (time.perf_counter() - began), "outcome": outcome}
