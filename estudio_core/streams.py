"""Iterators over more than is to be in memory at once: in batches, and made ahead of whoever uses them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from typing import TypeVar, cast

T = TypeVar("T")

AHEAD = 3
"""One item in work and two that are ready: stages of uneven pace still keep each other busy."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size` items.

    >>> list(batched("abc", 2))
    [['a', 'b'], ['c']]
    """
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def prefetched(items: Iterable[T], ahead: int = AHEAD) -> Iterator[T]:
    """Yield `items`, of which a thread makes up to `ahead` while the caller is busy with the one before.

    What making an item raises is raised here, in its turn. A caller that stops early waits for the item in work.

    >>> list(prefetched(range(3)))
    [0, 1, 2]
    """
    iterator, end = iter(items), object()
    context = copy_context()  # who is told of progress, and what log lines are bound to

    def make() -> object:
        return context.run(next, iterator, end)

    with ThreadPoolExecutor(1, "estudio-ahead") as worker:
        made = deque(worker.submit(make) for _ in range(ahead))
        try:
            while (item := made.popleft().result()) is not end:
                made.append(worker.submit(make))
                yield cast("T", item)
        finally:
            worker.shutdown(cancel_futures=True)
            if isinstance(iterator, Generator):  # one that reads from another thread ends that too
                iterator.close()
