"""What an answer shows of an item: the fields that were named, the words that are marked."""

from __future__ import annotations

import random
import re
import time

from estudio_core.service.answers import Pattern, Source
from estudio_core.service.highlights import MARKED, Beginning, Highlighter


def test_stars_stand_for_anything_as_in_a_regular_expression() -> None:
    rng = random.Random(1)
    matched = 0
    for _ in range(5_000):
        pattern = "".join(rng.choice("ab.**") for _ in range(rng.randint(0, 6)))
        name = "".join(rng.choice("ab.") for _ in range(rng.randint(0, 7)))
        expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None
        assert Pattern(tuple(pattern.split("*"))).matches(name) == expected, (pattern, name)
        matched += expected
    assert matched > 500


def test_no_pattern_of_a_stranger_takes_long() -> None:
    source = Source(["*a" * 250 + "b"] * 100)
    begun = time.perf_counter()
    assert source.of({"a" * 1_000: 1}) == {}
    assert time.perf_counter() - begun < 1


def test_values_are_marked_and_never_cut() -> None:
    highlighter = Highlighter.of("red lamp", "<b>", "</b>")
    long = "A lamp. " + "x" * (2 * MARKED) + " lamp"
    assert highlighter.marked(long)["value"] == long.replace("A lamp", "A <b>lamp</b>")
    assert highlighter.marked(["Lamps", 7, None]) == [
        {"value": "<b>Lamp</b>s", "matchLevel": "partial", "matchedWords": ["lamp"]},
        {"value": "7", "matchLevel": "none", "matchedWords": []},
    ]
    nothing = Highlighter.of("", "<b>", "</b>")
    assert nothing.marked("red") == {"value": "red", "matchLevel": "none", "matchedWords": []}
    many = " ".join(f"word{n:02}" for n in range(40))
    assert Highlighter.of(many, "", "").marked(many)["matchLevel"] == "full"


def test_a_value_of_a_facet_is_found_by_each_of_its_words() -> None:
    highlighter = Highlighter.of("", "<b>", "</b>")
    beginning = Beginning.of("Ga")
    assert [beginning.begins(value) for value in ("garden", "winter garden", "Gallery", "saga", "")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert beginning.marked("winter Garden", highlighter) == "winter <b>Ga</b>rden"
    anything = Beginning.of("")
    assert anything.begins("saga")
    assert anything.marked("saga", highlighter) == "saga"
    assert Beginning.of("(").begins("(new)")
