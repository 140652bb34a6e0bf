"""Indexes of OpenSearch or Elasticsearch as a log, read in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from estudio_core.clickstream.log_files import Document, documents_in
from estudio_core.errors import ConfigurationError, DataError, UnavailableError
from estudio_core.redaction import redact, redact_in

if TYPE_CHECKING:
    import httpx

SCHEME = "opensearch://"
INDEXES = ("ubi_queries", "ubi_events")
_PAGE = 1_000
_SCROLL = "5m"
_TIMEOUT_S = 60.0
_TRIES = 3
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OFF = ("off", "false", "no", "0")


class OpenSearchLog:
    """A log in indexes, `opensearch://[user:password@]host[:9200][/index,…]`.

    The address is spoken to by TLS, on this machine without; `?tls=off` and `?verify=off` say otherwise, `?tls=on` asks
    for it here. Without a user in the address, one is looked for in `~/.netrc`.

    Args:
        source: The address.

    Raises:
        ConfigurationError: it names no host.
    """

    def __init__(self, source: str) -> None:
        parts = urlsplit(source)
        if not parts.hostname:
            raise ConfigurationError(
                f"{redact(source)} names no host. Give opensearch://host:9200/{','.join(INDEXES)}."
            )
        asked = {name: values[-1].lower() for name, values in parse_qs(parts.query).items()}
        plain = asked.get("tls", "off" if parts.hostname in _LOOPBACK else "on") in _OFF
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.source = source
        self._base = f"{'http' if plain else 'https'}://{host}:{parts.port or 9200}"
        self._verify = asked.get("verify", "on") not in _OFF
        self._user = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        named = tuple(name for name in parts.path.strip("/").split(",") if name)
        self.indexes = named or INDEXES
        self.size: int | None = None

    def head(self, size: int) -> bytes:
        """Return what tells this log from another."""
        return ",".join(self.indexes).encode()[:size]

    def documents(self, after: Any = None) -> Iterator[Document]:
        """Yield the documents of one index after another, by their time.

        Args:
            after: Cursor of the last one that is known; those of its moment come again.

        Raises:
            UnavailableError: the server does not answer.
            DataError: it refuses.
        """
        import httpx

        first, since = after or (0, None)
        auth = httpx.BasicAuth(*self._user) if self._user else _netrc()
        done = 0
        with httpx.Client(base_url=self._base, verify=self._verify, auth=auth, timeout=_TIMEOUT_S) as client:
            self.size = sum(self._count(client, index) for index in self.indexes)
            for number, index in enumerate(self.indexes):
                if number < first:
                    continue
                start, failed = since if number == first else None, 0
                while True:
                    try:
                        for hit in self._hits(client, index, start):
                            done, failed = done + 1, 0
                            start = (hit.get("sort") or [start])[0]
                            place = f"{hit.get('_index', index)}/{hit.get('_id')}"
                            yield from documents_in(hit, place, done, [number, start])
                        break
                    except httpx.TransportError as error:
                        failed += 1
                        if failed >= _TRIES:
                            told = redact_in(str(error) or type(error).__name__, self.source)
                            raise UnavailableError(
                                f"{redact(self.source)} does not answer: {told}. Run the import again: it goes on."
                            ) from error

    def _count(self, client: httpx.Client, index: str) -> int:
        return int(self._asked(client, "GET", f"/{index}/_count").get("count", 0))

    def _hits(self, client: httpx.Client, index: str, since: Any) -> Iterator[dict[str, Any]]:
        query = {"match_all": {}} if since is None else {"range": {"timestamp": {"gte": since, "format": _FORMAT}}}
        body = {"size": _PAGE, "query": query, "sort": [{"timestamp": {"order": "asc", "unmapped_type": "date"}}]}
        answer = self._asked(client, "POST", f"/{index}/_search?scroll={_SCROLL}", body)
        scroll = answer.get("_scroll_id")
        try:
            while hits := answer.get("hits", {}).get("hits"):
                yield from hits
                if not scroll:
                    break
                answer = self._asked(client, "POST", "/_search/scroll", {"scroll": _SCROLL, "scroll_id": scroll})
                scroll = answer.get("_scroll_id", scroll)
        finally:
            if scroll:
                _let_go(client, scroll)

    def _asked(self, client: httpx.Client, method: str, path: str, body: Any = None) -> dict[str, Any]:
        import httpx

        try:
            answer = client.request(method, path, json=body)
        except httpx.ConnectError as error:
            raise UnavailableError(
                f"{redact(self.source)} does not answer at {self._base}: {redact_in(str(error), self.source)}. "
                "?tls=on or ?tls=off says how to speak to it."
            ) from error
        if answer.status_code in (429, 502, 503, 504):
            raise UnavailableError(f"{redact(self.source)} is busy (HTTP {answer.status_code}). Try again later.")
        if answer.is_error:
            raise DataError(f"{redact(self.source)} refuses {path}: HTTP {answer.status_code} {answer.text[:200]}")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DataError(f"{redact(self.source)} does not answer as OpenSearch does: {answer.text[:80]!r}")
        return found


_FORMAT = "epoch_millis"


def _netrc() -> Any:
    import netrc

    import httpx

    try:
        return httpx.NetRCAuth()
    except (OSError, netrc.NetrcParseError):
        return None


def _let_go(client: httpx.Client, scroll: str) -> None:
    import httpx

    try:
        client.request("DELETE", "/_search/scroll", json={"scroll_id": [scroll]})
    except httpx.HTTPError:
        return  # it ends by itself
