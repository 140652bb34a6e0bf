"""What the service says when it does not do what was asked: a status, a kind, and a reason that names no internals."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from starlette.responses import Response

from estudio_core import exact_json
from estudio_core.errors import (
    ConcurrentReleaseError,
    ConfigurationError,
    DataError,
    EstudioError,
    NothingLiveError,
    OverloadedError,
    PluginError,
    SearchTimeoutError,
    SourceSchemaError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""Told to callers when a server behind the service is away: it looks again each second."""
KINDS: Mapping[int, str] = {
    400: "illegal_argument_exception",
    401: "security_exception",
    403: "security_exception",
    404: "resource_not_found_exception",
    405: "method_not_allowed_exception",
    409: "conflict_exception",
    413: "content_too_long_exception",
    429: "rejected_execution_exception",
    500: "internal_exception",
    503: "unavailable_exception",
    504: "timeout_exception",
}
"""By status, as OpenSearch calls them where it has a word."""


class Refused(Exception):  # noqa: N818 (an answer, which no caller of Python code meets)
    """A request that is not carried out.

    Attributes:
        status: HTTP status.
        reason: Sentence for whoever wrote the request: what is legal, what to do.
        kind: Machine-readable; by default what `KINDS` says of the status.
        headers: Of the answer.
    """

    def __init__(self, status: int, reason: str, kind: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.kind = kind or KINDS.get(status, "exception")
        self.headers = dict(headers or {})


def refuse(reason: str, kind: str | None = None) -> Refused:
    """Return the refusal of a request that is not legal."""
    return Refused(400, reason, kind)


def named(name: object) -> str:
    """Return a name from outside as a message may show it: short and printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name)[:60])


@contextmanager
def as_request() -> Iterator[None]:
    """Take what is raised inside for a mistake of the request: only its own values are looked at there.

    Raises:
        Refused: with the message.
    """
    try:
        yield
    except (ConfigurationError, DataError) as error:
        raise refuse(str(error)) from error


def refusal_of(error: Exception, request_id: str) -> Refused:
    """Return what to answer for an error; one that says something about the installation goes to the log alone."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, NothingLiveError):
        return Refused(404, "No release of this plugin is live.", "index_not_found_exception")
    if isinstance(error, PluginError | SourceSchemaError):
        logger.warning("request %s: %s: %s", request_id, type(error).__name__, error)
        what = "does not have this plugin" if isinstance(error, PluginError) else "cannot read the plugin's items"
        status = 404 if isinstance(error, PluginError) else 503
        return Refused(status, f"The service {what}; its log says why under request {request_id}.")
    internal = isinstance(error.__cause__, psycopg.Error)
    if type(error) is ConfigurationError and not internal:
        return refuse(str(error))
    if isinstance(error, DataError):
        return refuse(str(error) if not internal else "The database cannot work with a value of this request.")
    if isinstance(error, ConcurrentReleaseError):
        return Refused(409, "A release of this plugin is being built or switched. Try again.")
    if isinstance(error, EstudioError):
        logger.warning("request %s: %s: %s", request_id, type(error).__name__, error)
        if isinstance(error, SearchTimeoutError):
            return Refused(504, "The answer took longer than it may. Ask for less, or give it more time.")
        if isinstance(error, UnavailableError) or not isinstance(error, ConfigurationError):
            overloaded = isinstance(error, OverloadedError)
            seconds = error.retry_after_s if isinstance(error, OverloadedError) else RETRY_AFTER_S
            wait = {"Retry-After": str(max(1, math.ceil(seconds)))}
            what = "More is asked than can be answered now." if overloaded else "A part of the service is away."
            return Refused(429 if overloaded else 503, f"{what} Try again; request {request_id}.", headers=wait)
    else:
        logger.error("request %s: %s", request_id, type(error).__name__, exc_info=error)
    return Refused(500, f"The service failed; its log says why under request {request_id}.")


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of JSON; numbers of payloads are what they are in the database."""
    body = exact_json.dumps(content)
    return Response(body.encode("utf-8", "replace"), status, dict(headers or {}), "application/json")


def refusal_response(refused: Refused, form: str) -> Response:
    """Return a refusal in the form of the client's library: `opensearch` or `algolia`."""
    if form == "algolia":
        content: dict[str, Any] = {"message": refused.reason, "status": refused.status}
    else:
        cause = {"type": refused.kind, "reason": refused.reason}
        content = {"error": {"root_cause": [cause], **cause}, "status": refused.status}
    return json_response(content, refused.status, refused.headers)
