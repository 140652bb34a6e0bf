"""Who moved an alias of a registered model: what Estudio wrote down, and what somebody did in MLflow.

Estudio writes a move down (a tag `audit.<time>`), makes it, and notes it as known (a tag `known.<alias>`). An alias
that names neither what is known nor what was written down last was moved by somebody else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

Alias = Literal["base", "champion", "challenger", "previous"]
WATCHED: tuple[Alias, ...] = ("challenger", "champion")
"""Aliases that a person moves to have a version released; of two moves, that of the champion is the later."""
AUDIT_TAG = "audit."
KNOWN_TAG = "known."


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


@dataclass(frozen=True)
class AliasMove:
    """An alias that somebody moved in MLflow: to which version, and which one Estudio knows it to have named before."""

    model: str
    alias: Alias
    version: int
    before: int | None


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
        known = last if noted is None else int(noted) if noted.isdecimal() else None
        if named not in {known, last}:
            moves.append(AliasMove(model.name, alias, named, known))
    return moves


def _entry(text: str) -> AuditEntry | None:
    try:
        entry = AuditEntry(**json.loads(text))
    except (ValueError, TypeError):
        return None
    return entry if isinstance(entry.at, str) else None
