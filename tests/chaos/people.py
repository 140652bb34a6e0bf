"""`python -m tests.chaos.people JOURNAL ADDRESS ITEMS SEED`: people and an application in front of the service.

They search, turn pages and click, and the application writes items, all over HTTP, with the key in `ESTUDIO_KEY`. They
click whatever is there; once a line comes on standard input, what the challenger brought. Its end ends them.

Lines of the journal beside those of `journal`:

    visit     a search: query_id, query, mode, start, began, ended, tries; release, model, experiment (its id, or None),
              teams by id, and hits as [[id, title, similarity], ..]; or its error
    click     events that were sent: began, ended, query_id, events as [[event_id, object_id, position], ..];
              acknowledged, or its error
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.journal import Journal
from tests.chaos.shop import PLUGIN, queries, title, write_source

SEARCHERS, WRITERS = 3, 1
PAUSE_S = 0.05
PAGE = 10
TURNED = 0.2
"""Share of searches of which a second page is asked for."""
UNTOUCHED = 0.5
"""Share of the items at the beginning that nobody writes: their vectors are known at any time."""
CLIENTS = 400
FINITE_S = 30.0
AWAY_S = 0.3
"""Between two searches of somebody who was not answered."""


class RefusedError(Exception):
    """The service answered, and not with what was asked for."""


class People:
    """Everybody."""

    def __init__(self, journal: Journal, address: str, items: int, seed: int) -> None:
        self.journal, self.address, self.items, self.seed = journal, address, items, seed
        self.stopped, self.prefer = threading.Event(), threading.Event()
        self.numbers = itertools.count(1)

    def search(self, number: int) -> None:
        """Search, turn pages and click until stopped."""
        lot = random.Random(f"{self.seed}-searcher-{number}")
        with self._client() as client:
            for turn in itertools.count():
                if self.stopped.wait(PAUSE_S):
                    return
                query_id, query = f"chaos-{number}-{turn}", lot.choice(queries())
                ubi = {"query_id": query_id, "client_id": f"client-{lot.randrange(CLIENTS)}"}
                mode = lot.choice(("vector", "hybrid"))
                found = self._visit(client, query, mode, 0, ubi)
                if found is not None and lot.random() < TURNED:
                    self._visit(client, query, mode, PAGE, ubi)
                if found is None:
                    self.stopped.wait(AWAY_S)
                else:
                    self._click(client, ubi, found, lot)

    def _visit(
        self, client: httpx.Client, query: str, mode: str, start: int, ubi: dict[str, str]
    ) -> dict[str, Any] | None:
        body = {
            "query": query,
            "from": start,
            "size": PAGE,
            "track_total_hits": False,
            "ext": {"ubi": ubi, "estudio": {"mode": mode}},
        }
        began = time.time()
        noted: dict[str, Any] = {}
        tries = 0
        try:
            answer, tries = _asked(lambda: client.post(f"/{PLUGIN}/_search", json=body))
        except (httpx.HTTPError, RefusedError) as error:
            noted["error"] = f"{type(error).__name__}: {error}"[:400]
        else:
            told = answer["ext"]["estudio"]
            part = told.get("experiment", {})
            noted |= {
                "release": told["release"],
                "model": told["model_version"],
                "experiment": part.get("id"),
                "teams": part.get("teams", {}),
                "hits": [
                    (hit["_id"], hit["_source"]["title"], round(hit["ext"]["estudio"].get("similarity", 0.0), 5))
                    for hit in answer["hits"]["hits"]
                ],
            }
        self.journal.add(
            "visit", query_id=ubi["query_id"], query=query, mode=mode, start=start, tries=tries,
            began=began, ended=time.time(), **noted,
        )  # fmt: skip
        return None if "error" in noted else noted

    def _click(self, client: httpx.Client, ubi: dict[str, str], found: dict[str, Any], lot: random.Random) -> None:
        """Click, and send it again until it is acknowledged, or give up by chance."""
        prefers = self.prefer.is_set()
        chosen = [
            (place, hit[0])
            for place, hit in enumerate(found["hits"])
            if lot.random() < (0.15 if not prefers else 0.6 if found["teams"].get(hit[0]) == "challenger" else 0.02)
        ]
        if not chosen:
            return
        moment = datetime.now(UTC).isoformat()
        sent = [(f"{ubi['query_id']}-{place}", object_id, place + 1) for place, object_id in chosen]
        events = [
            {
                "event_id": event_id, "action_name": "click", "application": PLUGIN, "timestamp": moment, **ubi,
                "event_attributes": {"object": {"object_id": object_id}, "position": {"ordinal": position}},
            }
            for event_id, object_id, position in sent
        ]  # fmt: skip
        while not self.stopped.is_set():
            noted: dict[str, Any] = {"began": time.time(), "query_id": ubi["query_id"], "events": sent}
            try:
                answer, _ = _asked(lambda: client.post("/ubi_events", json=events))
            except (httpx.HTTPError, RefusedError) as error:
                noted |= {"acknowledged": False, "error": f"{type(error).__name__}: {error}"[:400]}
            else:
                noted |= {"acknowledged": answer["stored"] == len(events)}
                if not noted["acknowledged"]:
                    noted["error"] = str(answer)[:400]
            self.journal.add("click", durable=True, ended=time.time(), **noted)
            if noted["acknowledged"] or lot.random() < 0.3:
                return
            self.stopped.wait(0.1)

    def write(self, owner: int) -> None:
        """Put and delete items, as `traffic` does in process."""
        lot = random.Random(f"{self.seed}-writer-{owner}")
        mine = range(int(self.items * UNTOUCHED) + owner, self.items + self.items // 10, WRITERS)
        with self._client() as client:
            while not self.stopped.wait(PAUSE_S):
                item, number = lot.choice(mine), next(self.numbers)
                version = None if lot.random() < 0.3 else number
                op = "delete" if version is None else "upsert"
                self.journal.add("intent", durable=True, n=number, op=op, id=item, version=version, at=time.time())
                while not self.stopped.is_set():
                    began = time.time()
                    try:
                        write_source(os.environ["ESTUDIO_DATABASE_URL"], item, version)
                        _asked(lambda: _written(client, item, version))  # noqa: B023 - called at once
                    except Exception as error:
                        named = f"{type(error).__name__}: {error}"[:400]
                        self.journal.add("error", n=number, error=named, began=began, at=time.time())
                        if lot.random() < 0.5:
                            break
                        self.stopped.wait(0.1)
                    else:
                        self.journal.add("ack", durable=True, n=number, at=time.time())
                        break

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {os.environ['ESTUDIO_KEY']}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=FINITE_S, trust_env=False)


def _written(client: httpx.Client, item: int, version: int | None) -> httpx.Response:
    if version is None:
        return client.delete(f"/{PLUGIN}/_doc/{item}")
    text = title(item, version)
    return client.put(f"/{PLUGIN}/_doc/{item}", json={"data": text, "payload": {"title": text, "code": item}})


def _asked(ask: Callable[[], httpx.Response]) -> tuple[Any, int]:
    """Return what is answered, and in how many tries: a connection that breaks is made again once, as proxies do.

    All that is asked here may be asked twice: searches, events and items have ids.
    """
    for tries in (1, 2):
        try:
            answer = ask()
        except httpx.TransportError:
            if tries == 2:
                raise
            continue
        if answer.status_code in (200, 201) or (answer.status_code == 404 and answer.request.method == "DELETE"):
            return answer.json(), tries
        raise RefusedError(f"{answer.status_code} {answer.text[:300]}")
    raise AssertionError


def main() -> None:
    """Work until the other end closes stdin, or dies."""
    path, address, items, seed = sys.argv[1:]
    people = People(Journal(Path(path)), address, int(items), int(seed))
    workers = [threading.Thread(target=people.search, args=(number,)) for number in range(SEARCHERS)]
    workers += [threading.Thread(target=people.write, args=(number,)) for number in range(WRITERS)]
    for worker in workers:
        worker.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        people.prefer.set()
    people.stopped.set()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
