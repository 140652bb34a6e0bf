"""Search sessions: a query, what was shown for it, and what was clicked."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class SearchResult(BaseModel):
    """One result that was shown.

    `position` is 0-based and defaults to the place in `Session.search_results`;
    `rank` is the score (similarity or distance) at which it was shown, if known.
    """

    model_config = ConfigDict(extra="forbid")

    object_id: str
    rank: float | None = None
    position: int | None = Field(default=None, ge=0)
    meta: dict[str, Any] | None = None


class SessionEvent(BaseModel):
    """Something a user did with a result. `importance` weighs it against a plain click (1.0)."""

    model_config = ConfigDict(extra="forbid")

    event_id: str
    object_id: str
    event_type: str = "click"
    created_at: int = 0
    importance: float = Field(default=1.0, gt=0)
    meta: dict[str, Any] | None = None


class Session(BaseModel):
    """A query and its results, as served. `created_at` is in seconds since 1970, UTC."""

    model_config = ConfigDict(extra="forbid")

    session_id: str
    query: Any = Field(validation_alias=AliasChoices("query", "search_query"))
    """What was asked: a text, or what the plugin's query retriever reads. `search_query` is the tutorial's name."""
    created_at: int = 0
    search_results: list[SearchResult] = Field(default_factory=list)
    search_meta: dict[str, Any] | None = None
    payload_filter: dict[str, Any] | None = None
    sort_by: dict[str, Any] | None = None
    client_id: str | None = None
    """The browser or device that asked."""
    visit_id: str | None = None
    """The visit that the search is part of. UBI's name is `session_id`, which here is one search."""
    user_id: str | None = None
    """Who had logged in. Never a client's id: one device may have several users, and one user several devices."""
    release: str | None = None
    """Id of the release that answered, when known."""
    is_irrelevant: bool = False
    """Whether its user said that none of the results was of use. Without a click it may be of use all the same."""
    is_payload_search: bool = False
    """Whether nothing was asked, and the list is what passes the filter."""
    is_refined: bool = False
    """Whether its user sorted or filtered the list once it was there."""


SETTLE_MINUTES = 30
"""Time within which clicks on a search arrive. A session that is younger may yet be clicked."""


class SessionWithEvents(Session):
    """A session and what the user did in it."""

    events: list[SessionEvent] = Field(default_factory=list)
