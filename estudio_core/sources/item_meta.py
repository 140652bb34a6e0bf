"""Which item is meant: its id in the source, and facts about it that are stored beside its vectors."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, field_validator

from estudio_core.errors import ItemError


class ItemMeta(BaseModel):
    """Identity of one item. Two metas are equal when their ids are.

    `object_id` is a string everywhere in Estudio; integer and UUID keys are accepted and turned into one.
    `payload` is JSON-able.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    object_id: str | None = None
    payload: dict[str, Any] | None = None

    @field_validator("object_id", mode="before")
    @classmethod
    def _as_string(cls, value: object) -> object:
        is_key = isinstance(value, int | UUID) and not isinstance(value, bool)
        return str(value) if is_key else value

    @property
    def id(self) -> str:
        """The object id.

        Raises:
            ItemError: the meta has none.

        >>> ItemMeta(object_id=7).id
        '7'
        """
        if self.object_id is None:
            raise ItemError(f"{type(self).__name__} has no object_id. Give one: {type(self).__name__}(object_id='1').")
        return self.object_id

    def __eq__(self, other: object) -> bool:
        return self.object_id == other.object_id if isinstance(other, ItemMeta) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.object_id)


class SQLFileMeta(ItemMeta):
    """An item that is a row of a SQL database; `object_id` is its key."""


class PgsqlFileMeta(SQLFileMeta):
    """An item that is a row of a PostgreSQL table; `object_id` is its key."""
