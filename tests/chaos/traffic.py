"""`python -m tests.chaos.traffic JOURNAL ITEMS SEED`: an application that writes and searches until stdin ends.

Each writer thread owns its items, so that the last acknowledged operation of an item is well defined. An item goes to
its table first and then to the index, as `estudio_core.writing` asks for. An operation that failed is made again or
given up, by chance: then either state of the item is right until the next acknowledgement.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from estudio_core.searching import SearchAnswer, search
from estudio_core.writing import ItemWrite, delete, upsert
from tests.chaos.journal import Journal
from tests.chaos.shop import PLUGIN, queries, title, write_source

WRITERS, SEARCHERS = 2, 2
PAUSE_S = 0.1
"""Between two operations of a thread: two cores are shared with the release that is under fire."""
PROBED = 0.4
"""Share of acknowledged operations after which the object is searched for at once."""


class Traffic:
    """The application."""

    def __init__(self, journal: Journal, items: int, seed: int) -> None:
        self.journal, self.items, self.seed = journal, items, seed
        self.stopped = threading.Event()
        self.numbers = itertools.count(1)

    def write(self, owner: int) -> None:
        """Upsert and delete the items of one owner."""
        rng = random.Random(f"{self.seed}-writer-{owner}")
        # A tenth more ids than there are at first: some operations insert.
        mine = range(owner, self.items + self.items // 10, WRITERS)
        while not self.stopped.wait(PAUSE_S):
            item = rng.choice(mine)
            number = next(self.numbers)
            version = None if rng.random() < 0.3 else number
            self.journal.add(
                "intent",
                durable=True,
                n=number,
                op="delete" if version is None else "upsert",
                id=item,
                version=version,
                at=time.time(),
            )
            while not self.stopped.is_set():
                try:
                    write_source(os.environ["ESTUDIO_DATABASE_URL"], item, version)
                    if version is None:
                        delete(PLUGIN, [str(item)])
                    else:
                        text = title(item, version)
                        upsert(PLUGIN, [ItemWrite(str(item), text, {"title": text, "code": item})])
                except Exception as error:
                    self.journal.add("error", n=number, error=_named(error), at=time.time())
                    if rng.random() < 0.5:
                        break
                    self.stopped.wait(0.1)
                else:
                    self.journal.add("ack", durable=True, n=number, at=time.time())
                    if rng.random() < PROBED:
                        self.search(
                            "probe",
                            rng.choice(queries()),
                            {"limit": 3, "filter": {"term": {"code": item}}},
                            id=item,
                            expected=version,
                        )
                    break

    def read(self, number: int) -> None:
        """Search as users do."""
        rng = random.Random(f"{self.seed}-searcher-{number}")
        while not self.stopped.wait(PAUSE_S):
            self.search("search", rng.choice(queries()), {"limit": 10})

    def search(self, kind: str, query: str, options: dict[str, Any], **fields: Any) -> None:
        """Search once and note the answer."""
        began = time.time()
        try:
            answer = search(PLUGIN, query, **options)
        except Exception as error:
            noted: dict[str, Any] = {"error": _named(error)}
        else:
            noted = {"release": answer.release_id, "model": answer.model_version, "hits": _hits(answer)}
        limit = options["limit"]
        self.journal.add(kind, query=query, limit=limit, began=began, ended=time.time(), **noted, **fields)


def _hits(answer: SearchAnswer) -> list[tuple[str, str, float]]:
    return [(hit.object_id, hit.payload["title"], round(hit.similarity, 5)) for hit in answer.hits]


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:400]


def main() -> None:
    """Work until the other end closes stdin, or dies."""
    path, items, seed = sys.argv[1:]
    traffic = Traffic(Journal(Path(path)), int(items), int(seed))
    workers = [threading.Thread(target=traffic.write, args=(number,)) for number in range(WRITERS)]
    workers += [threading.Thread(target=traffic.read, args=(number,)) for number in range(SEARCHERS)]
    for worker in workers:
        worker.start()
    print("ready", flush=True)
    sys.stdin.read()
    traffic.stopped.set()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
