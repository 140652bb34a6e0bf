"""Who moved an alias of a registered model: what Estudio wrote down, and what somebody did in MLflow.

Estudio writes a move down (a tag `audit.<time>`), makes it, and notes it as known (a tag `known.<alias>`). An alias
that names neither what is known nor what was written down last was moved by somebody else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

Alias = Literal["base", "champion", "challenger", "previous"]
WATCHED: tuple[Alias, ...] = ("challenger", "champion")
"""Aliases that a person moves to have a version released; of two moves, that of the champion is the later."""
PROMOTES: Alias = "champion"
"""The alias that names what serves."""
AUDIT_TAG = "audit."
KNOWN_TAG = "known."

TAG_UNITS = 5000
"""Longest tag of a registered model: MLflow's column is a VARCHAR(5000)."""
REASON_UNITS = 2000
"""Longest reason that is kept."""
_ACTOR_UNITS = 200
_NUMBER = re.compile(r"[0-9]{1,18}")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""What no store of MLflow's takes everywhere: PostgreSQL no NUL, none a lone surrogate."""


def cleaned(text: str) -> str:
    """Return a text without the characters that some store may not hold."""
    return _CONTROLS.sub("", text)


def fitted(text: str, units: int = REASON_UNITS) -> str:
    r"""Return `text` as a column of `units` characters takes it: cut, and without characters that none may hold.

    Counted are UTF-16 units, the largest count that a database gives a text: two for an emoji in SQL Server, one in
    PostgreSQL.

    >>> fitted("a reason\x00", 8), fitted("a longer reason", 8), fitted("🙂🙂🙂", 5)
    ('a reason', 'a longe…', '🙂🙂…')
    """
    text = cleaned(text)
    encoded = text.encode("utf-16-le")
    if len(encoded) <= 2 * units:
        return text
    return encoded[: 2 * (units - 1)].decode("utf-16-le", errors="ignore") + "…"


@dataclass(frozen=True)
class AuditEntry:
    """One move of an alias: what, who, when, from and to which version, why, on which numbers."""

    at: str
    action: str
    alias: str
    from_version: int | None
    to_version: int | None
    actor: str
    reason: str
    numbers: dict[str, float]

    def as_tag(self) -> str:
        """Return the entry as the text of a tag, whose numbers are left out from the last on where it would not fit."""
        numbers = dict(self.numbers)
        while True:
            text = json.dumps(asdict(self) | {"numbers": numbers}, sort_keys=True, ensure_ascii=False)
            if not numbers or len(text.encode("utf-16-le")) <= 2 * TAG_UNITS:
                return text
            numbers.popitem()

    @classmethod
    def of(
        cls, at: str, action: str, alias: str, versions: tuple[int | None, int | None], actor: str, reason: str,
        numbers: Mapping[str, float],
    ) -> AuditEntry:  # fmt: skip
        """Return an entry of a move between `versions` as it will be stored."""
        return cls(
            at=at, action=action, alias=alias, from_version=versions[0], to_version=versions[1],
            actor=fitted(actor, _ACTOR_UNITS), reason=fitted(reason),
            numbers={name: float(value) for name, value in numbers.items()},
        )  # fmt: skip


@dataclass(frozen=True)
class AliasMove:
    """An alias that somebody moved in MLflow: to which version, and which one Estudio knows it to have named before."""

    model: str
    alias: Alias
    version: int
    before: int | None


def doorbell(plugin: str) -> str:
    """Return the URI of Airflow's asset whose event starts the release that a moved alias asks for."""
    return f"x-estudio://{plugin}/alias"


def entries_of(model: RegisteredModel) -> list[AuditEntry]:
    """Return the audit trail of a model, oldest first; a tag that only looks like an entry is left out."""
    texts = [text for key, text in model.tags.items() if key.startswith(AUDIT_TAG)]
    return sorted((entry for text in texts if (entry := _entry(text)) is not None), key=lambda entry: entry.at)


def foreign_moves_of(model: RegisteredModel) -> list[AliasMove]:
    """Return what `ModelRegistry.foreign_moves` says, from a model that was read already."""
    entries = entries_of(model)
    moves = []
    for alias in WATCHED:
        if alias not in model.aliases:
            continue
        named = int(model.aliases[alias])
        last = next((entry.to_version for entry in reversed(entries) if entry.alias == alias), None)
        noted = model.tags.get(KNOWN_TAG + alias)
        known = last if noted is None else int(noted) if _NUMBER.fullmatch(noted) else None
        if named not in {known, last}:
            moves.append(AliasMove(model.name, alias, named, known))
    return moves


def _entry(text: str) -> AuditEntry | None:
    try:
        entry = AuditEntry(**json.loads(text))
    except (ValueError, TypeError, RecursionError):
        return None
    versions = (entry.from_version, entry.to_version)
    whole = all(version is None or type(version) is int for version in versions)
    return entry if isinstance(entry.at, str) and isinstance(entry.alias, str) and whole else None
