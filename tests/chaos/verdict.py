"""What the journal, the outages and the collections say together: every broken promise, with its time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.chaos.shop import title

Kind = Literal["lost", "duplicated", "failed", "mixed", "state"]
"""`lost`: an acknowledged write is not there, or another content is, or a search found too few. `duplicated`: an object
is there twice. `failed`: a search failed while the database was up. `mixed`: hits that the release named in the answer
cannot have given. `state`: pointer, tables, model repository or registry do not fit each other."""

SAME_SIMILARITY = 0.05
"""Items are encoded in bfloat16 where the processor can: similarities differ by hundredths at most. Those of two random
models differ by tenths."""


@dataclass(frozen=True)
class Violation:
    """A broken promise.

    Attributes:
        kind: Which.
        at: When the write was acknowledged, or the search began; None for the state at the end.
        text: What was found.
    """

    kind: Kind
    at: float | None
    text: str


@dataclass(frozen=True)
class Stored:
    """An object as a collection has it: how often, its text, its parts, and the cosine of its vector to the model's."""

    object_id: str
    copies: int
    title: str
    parts: int
    similarity: float


Similarities = Callable[[str, str, Sequence[str]], Sequence[float]]
"""The model's version, a query, texts of items → similarities, computed where no fault reaches."""


def check_content(journal: Iterable[Mapping[str, Any]], items: int, content: Iterable[Stored]) -> list[Violation]:
    """Compare a collection with what was acknowledged; `items` were there before, as operation 0 wrote them."""
    allowed: dict[int, set[int | None]] = {item: {0} for item in range(items)}
    acknowledged_at: dict[int, float] = {}
    intents: dict[int, Mapping[str, Any]] = {}
    for line in journal:
        if line["kind"] == "intent":
            intents[line["n"]] = line
            allowed.setdefault(line["id"], {None}).add(line["version"])
        elif line["kind"] == "ack":
            intent = intents[line["n"]]
            allowed[intent["id"]] = {intent["version"]}
            acknowledged_at[intent["id"]] = line["at"]
    found = {int(stored.object_id): stored for stored in content}
    violations = []
    for item, versions in allowed.items():
        at = acknowledged_at.get(item)
        stored = found.pop(item, None)
        right = {title(item, version) for version in versions if version is not None}
        if stored is None:
            if None not in versions:
                violations.append(Violation("lost", at, f"Item {item} is not there; acknowledged: {sorted(right)}."))
            continue
        if stored.title not in right:
            wanted = sorted(right) or "its deletion"
            violations.append(
                Violation("lost", at, f"Item {item} is there as {stored.title!r}; acknowledged: {wanted}.")
            )
        elif stored.similarity < 1 - SAME_SIMILARITY:
            violations.append(
                Violation(
                    "lost",
                    at,
                    f"Item {item} has the vector of another text: cosine {stored.similarity:.3f} to its own.",
                )
            )
        if stored.copies != 1 or stored.parts != 1:
            violations.append(
                Violation("duplicated", at, f"Item {item} is there {stored.copies} times, with {stored.parts} parts.")
            )
    violations += [Violation("lost", None, f"Item {item} is there; nobody wrote it.") for item in found]
    return violations


def check_searches(
    journal: Iterable[Mapping[str, Any]],
    outages: Sequence[tuple[float, float]],
    versions: Mapping[int, str],
    similarities: Similarities,
) -> list[Violation]:
    """Check every answer; `versions` are the model versions of all releases.

    A search without a filter finds as many items as it asked for, as at any time there are more.
    """
    violations = []
    for line in journal:
        if line["kind"] not in {"search", "probe"}:
            continue
        at = line["began"]
        if "error" in line:
            if not any(began <= line["ended"] and line["began"] <= ended for began, ended in outages):
                violations.append(Violation("failed", at, line["error"]))
            continue
        ids = [hit[0] for hit in line["hits"]]
        if len(set(ids)) != len(ids):
            violations.append(Violation("duplicated", at, f"A search found {ids}."))
        if line["kind"] == "search" and len(ids) != line["limit"]:
            wanted = f"there are more items than the {line['limit']} that were asked for"
            violations.append(Violation("lost", at, f"Release {line['release']} gave {len(ids)} hits; {wanted}."))
        if wrong := mixed(line, versions, similarities):
            violations.append(Violation("mixed", at, wrong))
        if line["kind"] == "probe":
            wanted = [] if line["expected"] is None else [(str(line["id"]), title(line["id"], line["expected"]))]
            found = [(hit[0], hit[1]) for hit in line["hits"]]
            if set(found) != set(wanted):
                violations.append(
                    Violation("lost", at, f"Release {line['release']} gave {found}; acknowledged just now: {wanted}.")
                )
    return violations


def mixed(line: Mapping[str, Any], versions: Mapping[int, str], similarities: Similarities) -> str | None:
    """Return what of an answer its release cannot have given; None where there is nothing of that kind."""
    release, model = line["release"], line["model"]
    if versions.get(release) != model:
        return f"An answer names release {release} and model {model}; that release has {versions.get(release)}."
    hits = line["hits"]
    if not hits:
        return None
    own = similarities(model, line["query"], [hit[1] for hit in hits])
    wrong = [
        f"{hit[0]}: {hit[2]:.3f}, not {expected:.3f}"
        for hit, expected in zip(hits, own, strict=True)
        if abs(hit[2] - expected) > SAME_SIMILARITY
    ]
    if wrong:
        return f"Release {release} does not give these similarities to {line['query']!r}: {'; '.join(wrong)}."
    return None
