"""Items are made ahead of their use: in order, not too many, with the caller's context, and ended with the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from itertools import islice
from threading import Event

import pytest

from estudio_core.streams import prefetched


def test_the_next_item_is_made_while_the_caller_is_busy_and_no_more_than_were_asked_for() -> None:
    made: list[int] = []
    third = Event()

    def source() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    for taken, number in enumerate(prefetched(source(), ahead=2)):
        assert number == taken
        assert third.wait(10), "nothing is made while the caller has an item"
        assert len(made) <= taken + 3
    assert made == list(range(10))


def test_an_error_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise LookupError("the source is gone")

    taken: list[int] = []
    with pytest.raises(LookupError, match="the source is gone"):
        taken.extend(prefetched(source()))
    assert taken == [0, 1, 2]


def test_a_caller_that_stops_ends_what_reads_from_each_other() -> None:
    ended: list[str] = []

    def stage(name: str, before: Iterator[int]) -> Iterator[int]:
        try:
            yield from before
        finally:
            ended.append(name)

    first = stage("first", iter(range(1000)))  # held here, so that nothing ends because it is forgotten
    second = stage("second", prefetched(first))
    stages = prefetched(second)
    assert list(islice(stages, 2)) == [0, 1]
    stages.close()  # type: ignore[attr-defined]
    assert ended == ["first", "second"]


def test_items_are_made_in_the_callers_context() -> None:
    who = ContextVar("who", default="nobody")
    who.set("the caller")
    assert list(prefetched(who.get() for _ in range(3))) == ["the caller"] * 3
