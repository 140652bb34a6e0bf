"""Who asks, once that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estudio_core.service.keys import Key
from estudio_core.service.refusals import Refused
from estudio_core.service.scopes import Scope
from estudio_core.vectordb.filters import all_of


@dataclass(frozen=True)
class Caller:
    """Who asks. Without a key, somebody of whom nothing is known."""

    key: Key | None = None

    def holds(self, scope: Scope) -> bool:
        """Return whether the caller's key may do this."""
        return self.key is not None and self.key.holds(scope)

    @property
    def name(self) -> str:
        """For the log: the key's id, never its text."""
        return self.key.key_id if self.key is not None else "-"

    def within(self, filter: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Return `filter` and what the key enforces, as one condition."""
        return all_of(None if self.key is None else self.key.filter, filter)

    def searches_as(self, user_id: str | None) -> str | None:
        """Return whose personal rows are searched.

        Raises:
            Refused: the key does not say that it may be this user.
        """
        signed = None if self.key is None else self.key.user_id
        if user_id is None or user_id == signed:
            return signed
        if signed is None and self.holds("items"):
            return user_id  # a server that writes personal rows may read them
        raise Refused(
            403, "Personal rows are searched with a key that its owner signed for this user_id, or that holds [items]."
        )
