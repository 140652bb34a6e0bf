"""Queries in people's words: which values, in which order, abbreviated, paraphrased or misspelt."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from typing import Literal

from benchmarks.quality.attributes.records import Record, Value
from benchmarks.quality.attributes.vocabulary import forms

Side = Literal["train", "dev", "test"]
"""Who may use it: training queries, or the held-out ones that choose settings, or those that report."""
Combination = frozenset[Value]

MISSPELT_SHARE = 0.15
"""Of the queries with one misspelt word."""
_WORD_SIDES = {"dev": 0.15, "test": 0.15}
"""Shares of the forms, and of the misspellings, that no training query uses."""
_MORE_VALUES = ((0, 0.05), (1, 0.30), (2, 0.40), (3, 0.25))
"""How many values a query names beside the kind, with the shares."""
_NEIGHBOURS = {
    letter: row[max(place - 1, 0) : place] + row[place + 1 : place + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for place, letter in enumerate(row)
}


def chance(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the parts alone: divisions are the same in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def side_of(shares: dict[str, float], *parts: object) -> Side:
    """Return the side of something by hash; what is on no held-out side is for training."""
    drawn = chance(*parts)
    if drawn < shares["dev"]:
        return "dev"
    return "test" if drawn < shares["dev"] + shares["test"] else "train"


def forms_of(value: Value, side: Side) -> list[str]:
    """Return the forms a value is asked by on a side: the plain one, which training knows, is not held out."""
    plain, *others = forms(value).asked
    # Forms of numbers are held out as one: "6 feet" says of "8 feet" what it means.
    own = [form for form in others if side_of(_WORD_SIDES, "form", value.attribute, _shape(value, form)) == side]
    return [plain, *own] if side == "train" else own


def _shape(value: Value, form: str) -> str:
    number = value.key.split()[0]
    return form.replace(number, "#") if number[0].isdigit() else f"{value.key} {form}"


def combinations_of(record: Record, count: int) -> list[Combination]:
    """Return up to `count` combinations that the product answers: its kind and up to three other attributes."""
    rng = random.Random(f"combinations {record.id}")
    kind = record.of("kind")
    attributes = sorted({value.attribute for value in record.values} - {"kind"})
    found: dict[Combination, None] = {}
    for _ in range(count):
        (more,) = rng.choices([n for n, _ in _MORE_VALUES], [share for _, share in _MORE_VALUES])
        chosen = rng.sample(attributes, min(more, len(attributes)))
        found[frozenset([*kind, *(rng.choice(record.of(attribute)) for attribute in chosen)])] = None
    return list(found)


def phrase(combination: Combination, rng: random.Random, side: Side = "train") -> str | None:
    """Return a query for the combination.

    Args:
        combination: What it asks for.
        rng: Draws order and forms.
        side: Training words only, or else exactly one form or misspelling that is held out on that side.

    Returns:
        None where the side has no word for the combination.
    """
    ordered = _ordered(combination, rng)
    words = {value: _common(forms_of(value, "train"), rng) for value in ordered}
    misspelt = rng.random() < MISSPELT_SHARE
    if side != "train":
        able = [value for value in ordered if forms_of(value, side)]
        misspelt = not able or rng.random() < 0.3
        if not misspelt:
            value = rng.choice(able)
            words[value] = rng.choice(forms_of(value, side))
    texts = [words[value] for value in ordered]
    if ordered[-1].attribute == "device" and len(ordered) > 1 and rng.random() < 0.6:
        texts.insert(-1, "for")
    tokens = " ".join(texts).split(" ")
    if misspelt and not _misspell(tokens, rng, side):
        return " ".join(tokens) if side == "train" else None
    return " ".join(tokens)


def _common(options: list[str], rng: random.Random) -> str:
    """Draw a form, the plain one half of the time."""
    return options[0] if len(options) == 1 or rng.random() < 0.5 else rng.choice(options[1:])


def _ordered(combination: Combination, rng: random.Random) -> list[Value]:
    """Return the values as people put them: mostly the kind last, then first, and a printer at the end."""
    others = sorted(value for value in combination if value.attribute != "kind")
    rng.shuffle(others)
    kind = [value for value in combination if value.attribute == "kind"]
    drawn = rng.random()
    place = len(others) if drawn < 0.55 else 0 if drawn < 0.85 else rng.randint(0, len(others))
    ordered = others[:place] + kind + others[place:]
    devices = [value for value in ordered if value.attribute == "device"]
    if devices and rng.random() < 0.7:
        ordered = [value for value in ordered if value.attribute != "device"] + devices
    return ordered


def _misspell(tokens: list[str], rng: random.Random, side: Side) -> bool:
    """Misspell one word of five letters or more, in a way of that side; False where there is none."""
    places = [place for place, token in enumerate(tokens) if len(token) >= 5 and token.isalpha() and token.isascii()]
    rng.shuffle(places)
    for place in places:
        ways = [typo for typo in misspellings(tokens[place]) if side_of(_WORD_SIDES, "typo", typo) == side]
        if ways:
            tokens[place] = rng.choice(ways)
            return True
    return False


def misspellings(word: str) -> list[str]:
    """Return the word with a letter missing, doubled, hit beside, or two letters swapped; its first letter stands.

    >>> misspellings("usb")
    ['ub', 'us', 'uab', 'udb', 'usv', 'usn', 'ubs', 'ussb', 'usbb']
    """
    inner = range(1, len(word))
    missing = [word[:i] + word[i + 1 :] for i in inner]
    beside = [word[:i] + near + word[i + 1 :] for i in inner for near in _NEIGHBOURS.get(word[i], "")]
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in inner if i + 1 < len(word)]
    doubled = [word[:i] + word[i] + word[i:] for i in inner]
    return [typo for typo in dict.fromkeys(missing + beside + swapped + doubled) if typo != word]


def words(queries: Iterable[str]) -> set[str]:
    """Return the words of the queries."""
    return {word for query in queries for word in query.split()}
