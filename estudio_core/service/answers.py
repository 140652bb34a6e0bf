"""Answers in OpenSearch's form: hits, the parts of their payload that were asked for, and why they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estudio_core.searching import Hit
from estudio_core.service.finding import Found
from estudio_core.service.refusals import named, refuse

SHARDS = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
"""What OpenSearch's clients look for in every answer."""
MOST_PATTERNS = 100


def told(found: Found, index: str, source: Source, ext: Mapping[str, Any], *, explain: bool) -> dict[str, Any]:
    """Return the answer to a search."""
    scores = [hit.score for hit in found.hits]
    hits: dict[str, Any] = {"max_score": max(scores, default=None), "hits": []}
    if found.total is not None:
        hits = {"total": {"value": found.total, "relation": found.relation}, **hits}
    for hit in found.hits:
        each: dict[str, Any] = {"_index": index, "_id": hit.object_id, "_score": hit.score}
        if source.wanted:
            each["_source"] = source.of(hit.payload)
        each["ext"] = {"estudio": why(hit)}
        if explain:
            each["_explanation"] = explanation(hit)
        hits["hits"].append(each)
    answer: dict[str, Any] = {"took": found.took_ms, "timed_out": False, "_shards": SHARDS, "hits": hits}
    if found.aggregations is not None:
        answer["aggregations"] = found.aggregations
    answer["ext"] = dict(ext)
    return answer


def why(hit: Hit) -> dict[str, Any]:
    """Return why a hit is there: how near it is, what its words are worth, whether it is the user's own."""
    reasons: dict[str, Any] = {"similarity": hit.similarity, "words": hit.words}
    if hit.similarity is not None and hit.words:
        reasons["words_weight"] = (hit.score - hit.similarity) / hit.words
    return {**{name: value for name, value in reasons.items() if value is not None}, "personal": hit.personal}


def explanation(hit: Hit) -> dict[str, Any]:
    """Return the score as the sum of its parts."""
    details = []
    if hit.similarity is not None:
        details.append({"value": hit.similarity, "description": "similarity of the vectors", "details": []})
    if hit.words is not None:
        worth = hit.score - (hit.similarity or 0.0)
        details.append({"value": worth, "description": f"BM25 of the words, {hit.words:.4f}, weighed", "details": []})
    return {"value": hit.score, "description": "sum of", "details": details}


class Source:
    """Which parts of a payload an answer holds: `_source` of a search.

    Raises:
        Refused: it is none.
    """

    def __init__(self, given: Any) -> None:
        self.wanted = given is not False
        includes: Any = []
        excludes: Any = []
        if isinstance(given, Mapping):
            if unknown := sorted(set(map(str, given)) - {"includes", "excludes", "include", "exclude"}):
                raise refuse(f"[_source] does not support [{named(unknown[0])}]. Supported: includes, excludes.")
            includes = given.get("includes", given.get("include", []))
            excludes = given.get("excludes", given.get("exclude", []))
        elif not isinstance(given, bool):
            includes = given
        self._includes, self._excludes = _patterns(includes), _patterns(excludes)

    def of(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return the parts of a payload that are wanted.

        >>> Source({"includes": ["maker.*", "title"], "excludes": "maker.city"}).of(
        ...     {"title": "Lamp", "price": 3, "maker": {"name": "Acme", "city": "Ulm"}})
        {'title': 'Lamp', 'maker': {'name': 'Acme'}}
        """
        if not self._includes and not self._excludes:
            return payload
        return self._part(payload, "", False)

    def _part(self, value: dict[str, Any], above: str, included: bool) -> dict[str, Any]:
        kept = {}
        for name, inner in value.items():
            path = f"{above}{name}"
            if any(pattern.matches(path) for pattern in self._excludes):
                continue
            taken = included or not self._includes or any(pattern.matches(path) for pattern in self._includes)
            if isinstance(inner, dict) and (not taken or self._excludes):
                part = self._part(inner, f"{path}.", taken)
                if taken or part:
                    kept[name] = part
            elif taken:
                kept[name] = inner
        return kept


def _patterns(given: Any) -> Sequence[Pattern]:
    listed = given if isinstance(given, list) else [given]
    if len(listed) > MOST_PATTERNS or not all(isinstance(each, str) and len(each) <= 1000 for each in listed):
        raise refuse(f"[_source] names fields by a text, or a list of at most {MOST_PATTERNS} texts.")
    return [Pattern(tuple(each.split("*"))) for each in listed]


@dataclass(frozen=True)
class Pattern:
    """A name in which `*` stands for anything, as the parts between its `*`.

    Each part is looked for behind the one before, where it comes first: no place is tried twice, whereas a regular
    expression of many `*` would try exponentially many ways to match a name that it does not.
    """

    parts: tuple[str, ...]

    def matches(self, name: str) -> bool:
        """Return whether a name is one of these.

        >>> [Pattern(("ma", "r.", "e")).matches(name) for name in ("maker.name", "mar.e", "maker.city", "mr.e")]
        [True, True, False, False]
        """
        first, last = self.parts[0], self.parts[-1]
        if len(self.parts) == 1:
            return name == first
        at, end = len(first), len(name) - len(last)
        if end < at or not name.startswith(first) or not name.endswith(last):
            return False
        for part in self.parts[1:-1]:
            found = name.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True
