"""Rows of User Behavior Insights (UBI): what was asked and shown, and what users did.

Ids are those of an application: two of them may both count their searches 1, 2, 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from estudio_core.errors import DataError
from estudio_core.ids import id_list


@dataclass(frozen=True)
class UbiQuery:
    """One search. `query_response_hit_ids` are in the order shown, scores parallel to them.

    Several rows of one id are pages of one search. An empty `user_query` is that of an answer which was logged apart
    from what was asked. `client_id` is the browser or device, `session_id` the visit, `user_id` the account.
    """

    query_id: str
    user_query: str
    timestamp: datetime
    application: str
    query_response_hit_ids: tuple[str, ...] = ()
    query_response_scores: tuple[float, ...] | None = None
    client_id: str | None = None
    query_attributes: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse scores that do not match the hits, and hits that are one text."""
        object.__setattr__(self, "query_response_hit_ids", tuple(id_list(self.query_response_hit_ids, "Hits")))
        scores = self.query_response_scores
        if scores is not None and len(scores) != len(self.query_response_hit_ids):
            raise DataError(
                f"Query {self.query_id!r} has {len(self.query_response_hit_ids)} hits and {len(scores)} scores. "
                "Give one score for each hit, or none at all."
            )


@dataclass(frozen=True)
class UbiEvent:
    """Something a user did after a search.

    `position_ordinal` counts as the application does: from 1, unless `clickstream_applications` says 0.
    """

    event_id: str
    action_name: str
    query_id: str
    timestamp: datetime
    application: str
    object_id: str | None = None
    position_ordinal: int | None = None
    client_id: str | None = None
    user_query: str | None = None
    event_attributes: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None
