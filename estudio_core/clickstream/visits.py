"""Who made a visit: searches that name the visit alone are of the client that its other searches name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from estudio_core.clickstream.sessions import SessionWithEvents


@dataclass(frozen=True)
class Visits:
    """The client of each visit that has a search which names one, else the user.

    Without it one person counts twice: as a client, and as a visit.

    >>> named = SessionWithEvents(session_id="1", query="lamp", client_id="ana", visit_id="v")
    >>> alone = SessionWithEvents(session_id="2", query="lamp", visit_id="v")
    >>> other = SessionWithEvents(session_id="3", query="lamp", visit_id="w")
    >>> visits = Visits.of([alone, named, other])
    >>> visits.client_of(alone), visits.client_of(named), visits.client_of(other)
    ('ana', 'ana', 'w')
    """

    clients: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, sessions: Iterable[SessionWithEvents]) -> Visits:
        """Read who made the visits of a log; the first that is named counts."""
        found = cls()
        for session in sessions:
            if session.visit_id is not None:
                if session.client_id is not None:
                    found.clients.setdefault(session.visit_id, session.client_id)
                elif session.user_id is not None:
                    found.users.setdefault(session.visit_id, session.user_id)
        return found

    def client_of(self, session: SessionWithEvents) -> str | None:
        """Return who asked, as near as the log says: the client, else the user, else the visit."""
        visit = session.visit_id
        if session.client_id is not None or visit is None:
            return session.client_id
        known = self.clients.get(visit)
        if known is not None or session.user_id is not None:
            return known
        return self.users.get(visit, visit)
