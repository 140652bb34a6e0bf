"""Values of items with the words of a query between tags, as Algolia's clients show them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MOST_WORDS = 32
"""Words of a query that are marked: the longest ones."""
MARKED = 10_000
"""Characters of a value in which they are looked for; what is behind stays as it is."""
LONGEST_TAG = 100


@dataclass(frozen=True)
class Highlighter:
    """Marks words, also where one only begins so."""

    words: frozenset[str]
    pattern: re.Pattern[str] | None
    before: str
    after: str

    @classmethod
    def of(cls, text: str, before: Any, after: Any) -> Highlighter:
        """Return what marks the words of a text: once for a search, however many values it shows."""
        words = sorted({word.lower() for word in re.findall(r"\w+", text)}, key=lambda word: (-len(word), word))
        words = words[:MOST_WORDS]
        pattern = re.compile(r"\b(" + "|".join(map(re.escape, words)) + ")", re.IGNORECASE) if words else None
        return cls(frozenset(words), pattern, str(before)[:LONGEST_TAG], str(after)[:LONGEST_TAG])

    def marked(self, value: Any) -> Any:
        """Return a value, or each of a list, with its marks.

        >>> Highlighter.of("red lamp", "<b>", "</b>").marked("Red lamps")
        {'value': '<b>Red</b> <b>lamp</b>s', 'matchLevel': 'full', 'matchedWords': ['lamp', 'red']}
        """
        if isinstance(value, list):
            return [self.marked(each) for each in value if isinstance(each, str | int | float)]
        text = str(value)
        found: set[str] = set()

        def mark(match: re.Match[str]) -> str:
            found.add(match[1].lower())
            return f"{self.before}{match[1]}{self.after}"

        if self.pattern is not None:
            text = self.pattern.sub(mark, text[:MARKED]) + text[MARKED:]
        level = "none" if not found else "full" if len(found) == len(self.words) else "partial"
        return {"value": text, "matchLevel": level, "matchedWords": sorted(found)}


@dataclass(frozen=True)
class Beginning:
    """How a value, or a word of it, begins: what somebody types who looks for a value of a facet."""

    text: str
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> Beginning:
        """Return the beginning that somebody typed."""
        return cls(text, re.compile(rf"\b{re.escape(text)}", re.IGNORECASE))

    def begins(self, value: str) -> bool:
        """Return whether the value, or a word of it, begins so."""
        return value.lower().startswith(self.text.lower()) or self.pattern.search(value) is not None

    def marked(self, value: str, highlighter: Highlighter) -> str:
        """Return a value with the tags of `highlighter` around what was typed."""
        found = self.pattern.search(value) if self.text else None
        if found is None:
            return value
        return f"{value[: found.start()]}{highlighter.before}{found[0]}{highlighter.after}{value[found.end() :]}"
