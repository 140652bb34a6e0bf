"""Keys: who may ask for what. A key's secret is shown once; the database keeps a digest of it.

    est_<id>_<secret>                    the key itself
    ests_<id>.<restrictions>.<signature> one that its owner signed: the same key, restricted further

The owner of a key signs without asking the service: `signed_key` restricts it to a filter, a user, a time, on whose
behalf a browser searches. Secrets are 256 random bits, so that a fast digest is as good as a slow one. The signature is
Ed25519's, and its seed the SHA-256 of `SIGNING` and the secret: the database holds the public half alone, so that who
reads it can neither use a key nor sign one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from estudio_core import exact_json
from estudio_core.errors import ConfigurationError, shown, suggest
from estudio_core.service.scopes import BROWSER_SCOPES, PLUGIN_NAME, SCOPES, Scope
from estudio_core.strict_model import StrictModel
from estudio_core.vectordb.filters import all_of, parse_filter

if TYPE_CHECKING:
    import psycopg

EVERY = "*"
"""Stands for all plugins, or all origins."""
KNOWN_S = 10.0
"""A key that was read is taken as it was for so long; after it, what was revoked is refused by every process."""
MOST_KNOWN = 10_000
LONGEST_KEY = 8_192
SIGNING = b"estudio key signature\n"

_OWN = re.compile(r"est_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_SIGNED = re.compile(r"ests_([a-z2-7]{12})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")


@dataclass(frozen=True)
class Key:
    """A key as the database has it, or as its owner restricted it.

    Attributes:
        key_id: Public name of the key.
        name: What it is for.
        scopes: What it may do; `admin` may do all.
        plugins: Plugins that it is for; `*` for all of them.
        origins: Pages that may use it, as browsers write their origins; `*` for all; none: no page of another site.
        rate: Most requests a minute; None: as many as can be answered.
        filter: Condition that all it searches and counts has to meet.
        user_id: The only user whose personal rows it sees.
        created_at: When it was made.
        expires_at: From when on it is refused.
        revoked_at: Since when it is.
        digest: SHA-256 of the secret.
        verifier: Public half of what its owner signs with.
    """

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    plugins: tuple[str, ...]
    origins: tuple[str, ...]
    rate: int | None
    filter: Mapping[str, Any] | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    digest: bytes
    verifier: bytes
    user_id: str | None = None

    def holds(self, scope: Scope) -> bool:
        """Return whether it may do this."""
        return scope in self.scopes or "admin" in self.scopes

    def is_for(self, plugin: str) -> bool:
        """Return whether it is for this plugin."""
        return plugin in self.plugins or EVERY in self.plugins

    @property
    def only_plugin(self) -> str | None:
        """The plugin that it is for, where it is one."""
        return self.plugins[0] if len(self.plugins) == 1 and self.plugins[0] != EVERY else None

    def is_current(self, now: datetime) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Restrictions(StrictModel):
    """What a signature restricts a key to."""

    filter: dict[str, Any] | None = None
    user_id: str | None = Field(default=None, min_length=1, max_length=1024)
    expires_at: datetime | None = None
    scopes: tuple[Scope, ...] | None = None
    plugins: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None


def create_key(
    connection: psycopg.Connection,
    name: str,
    scopes: Iterable[str],
    plugins: Iterable[str],
    *,
    origins: Iterable[str] = (),
    rate: int | None = None,
    filter: Mapping[str, Any] | None = None,
    expires_at: datetime | None = None,
) -> tuple[Key, str]:
    """Make a key; return it and its text, which nobody can read again. The caller commits.

    Raises:
        ConfigurationError: an argument is not legal, or a key that pages use could do more than search and log.
    """
    if not name.strip() or len(name) > 200 or not name.isprintable():
        raise ConfigurationError("A key has a name of 1 to 200 printable characters, which says what it is for.")
    asked = as_scopes(scopes)
    for_plugins = as_plugins(plugins)
    from_origins = tuple(dict.fromkeys(map(as_origin, origins)))
    if from_origins and (more := sorted(set(asked) - BROWSER_SCOPES)):
        raise ConfigurationError(
            f"A key with origins is read by everybody who opens the page: it may search and log events, not "
            f"{', '.join(more)}. Make two keys."
        )
    if rate is not None and not 1 <= rate <= 10**9:
        raise ConfigurationError(f"rate is a number of requests a minute, at least 1; given {shown(rate)}.")
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= datetime.now(UTC)):
        raise ConfigurationError("expires_at is a moment with a zone, in the future.")
    if filter is not None:
        parse_filter(filter)
        if more := sorted(set(asked) - BROWSER_SCOPES):
            raise ConfigurationError(
                "A filter holds for what a key searches; what it writes is not looked at. A key with a filter may "
                f"search and log events, not {', '.join(more)}. Make two keys."
            )
    key_id = base64.b32encode(secrets.token_bytes(8)).decode().lower()[:12]
    secret = secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO estudio.service_keys (key_id, name, scopes, plugins, origins, rate, filter, expires_at, digest,"
        " verifier) VALUES (%s, %s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s)",
        (
            key_id,
            name,
            list(asked),
            list(for_plugins),
            list(from_origins),
            rate,
            None if filter is None else exact_json.dumps(filter),
            expires_at,
            _digest(secret),
            _signer(secret).public_key().public_bytes_raw(),
        ),
    )
    found = read_key(connection, key_id)
    assert found is not None
    return found, f"est_{key_id}_{secret}"


def as_scopes(given: Iterable[str]) -> tuple[Scope, ...]:
    """Return scopes, each once. Raises: ConfigurationError: one is unknown, or there is none."""
    found: list[Scope] = []
    for each in given:
        known = next((scope for scope in SCOPES if scope == each), None)
        if known is None:
            raise ConfigurationError(f"Unknown scope {shown(each)}. {suggest(str(each), SCOPES)}")
        found.append(known)
    if not found:
        raise ConfigurationError(f"A key holds at least one scope: {', '.join(SCOPES)}.")
    return tuple(dict.fromkeys(found))


def as_plugins(given: Iterable[str]) -> tuple[str, ...]:
    """Return names of plugins, each once. Raises: ConfigurationError: one can be no plugin's, or there is none."""
    found = tuple(dict.fromkeys(given))
    for each in found:
        if each != EVERY and not PLUGIN_NAME.fullmatch(each):
            raise ConfigurationError(f"{shown(each)} is no name of a plugin; '*' stands for all of them.")
    if not found:
        raise ConfigurationError("A key is for at least one plugin; '*' stands for all of them.")
    return found


def as_origin(given: str) -> str:
    """Return an origin as browsers write it.

    >>> as_origin("https://Shop.example/")
    'https://shop.example'

    Raises:
        ConfigurationError: it is none.
    """
    origin = given.strip().rstrip("/").lower()
    if origin == EVERY:
        return origin
    if not _ORIGIN.fullmatch(origin):
        raise ConfigurationError(f"An origin is written https://shop.example, without a path; given {shown(given)}.")
    scheme, _, place = origin.partition("://")
    default = ":80" if scheme == "http" else ":443"
    return f"{scheme}://{place.removesuffix(default)}"


def list_keys(connection: psycopg.Connection) -> list[Key]:
    """Return all keys, the newest first."""
    return [_key(row) for row in connection.execute(f"{_SELECT} ORDER BY created_at DESC, key_id").fetchall()]


def read_key(connection: psycopg.Connection, key_id: str) -> Key | None:
    """Return a key; None where there is none."""
    row = connection.execute(f"{_SELECT} WHERE key_id = %s", (key_id,)).fetchone()
    return None if row is None else _key(row)


def revoke_key(connection: psycopg.Connection, key_id: str) -> Key:
    """Have a key refused, and all that its owner signed with it, from `KNOWN_S` from now on. The caller commits.

    Raises:
        ConfigurationError: there is none.
    """
    connection.execute(
        "UPDATE estudio.service_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE key_id = %s",
        (key_id,),
    )
    found = read_key(connection, key_id)
    if found is None:
        raise ConfigurationError(f"There is no key {shown(key_id)}. estudio keys list shows them.")
    return found


def signed_key(
    key: str,
    *,
    filter: Mapping[str, Any] | None = None,
    user_id: str | None = None,
    expires_at: datetime | None = None,
    scopes: Sequence[Scope] | None = None,
    plugins: Sequence[str] | None = None,
    origins: Sequence[str] | None = None,
) -> str:
    """Return a key that may do no more than `key`, for a page of the owner's: only search and log, at most.

    It is made without the service and without the database. What is not given stays as the key has it, but that
    scopes beyond search and events, and no others, fall away.

    Args:
        key: Text of the key, as `create_key` returned it.
        filter: Condition beside that of the key.
        user_id: Whose personal rows are searched.
        expires_at: From when on it is refused, with a zone.
        scopes: Those of the key's that stay.
        plugins: Likewise.
        origins: Pages that may use it.

    Raises:
        ConfigurationError: `key` is none that can sign, or an argument is not legal.
    """
    match = _OWN.fullmatch(key)
    if match is None:
        raise ConfigurationError("Only a key of the form est_… signs; one that was signed cannot.")
    if filter is not None:
        parse_filter(filter)
    if expires_at is not None and expires_at.tzinfo is None:
        raise ConfigurationError("expires_at has no zone. Use an aware datetime, such as datetime.now(UTC).")
    if origins is not None:
        origins = tuple(map(as_origin, origins))
    restrictions = Restrictions(
        filter=None if filter is None else dict(filter),
        user_id=user_id,
        expires_at=expires_at,
        scopes=None if scopes is None else as_scopes(scopes),
        plugins=None if plugins is None else as_plugins(plugins),
        origins=None if origins is None else tuple(origins),
    )
    content = exact_json.dumps(
        {name: _plain(value) for name, value in restrictions.model_dump(exclude_none=True).items()}
    ).encode()
    signature = _signer(match[2]).sign(content)
    return f"ests_{match[1]}.{_base64(content)}.{_base64(signature)}"


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else list(value) if isinstance(value, tuple) else value


class KnownKeys:
    """Keys that this process has read lately.

    Args:
        read: Returns the key of an id from the database.
    """

    def __init__(self, read: Callable[[str], Key | None]) -> None:
        self._read = read
        self._rows: OrderedDict[str, tuple[Key, float]] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._verified: OrderedDict[bytes, tuple[Key, Key]] = OrderedDict()
        self._lock = threading.Lock()

    def needs_reading(self, text: str) -> bool:
        """Return whether `find` would ask the database."""
        key_id = _id_of(text)
        return key_id is not None and self._fresh(key_id) is None

    def is_new(self, text: str) -> bool:
        """Return whether nothing is known of it but that it looks like a key: it may be a guess."""
        key_id = _id_of(text)
        with self._lock:
            return key_id is not None and key_id not in self._rows

    def find(self, text: str) -> Key | None:
        """Return the key that a text is, with what it was restricted to; None where it is none that counts now."""
        key_id = _id_of(text)
        if key_id is None:
            return None
        row = self._row(key_id)
        if row is None or not row.is_current(datetime.now(UTC)):
            return None
        if (own := _OWN.fullmatch(text)) is not None:
            return row if hmac.compare_digest(_digest(own[2]), row.digest) else None
        restricted = self._restricted(text, row)
        return restricted if restricted is not None and restricted.is_current(datetime.now(UTC)) else None

    def _restricted(self, text: str, row: Key) -> Key | None:
        mark = hashlib.sha256(text.encode()).digest()
        with self._lock:
            known = self._verified.get(mark)
            if known is not None and known[0] == row:
                self._verified.move_to_end(mark)
                return known[1]
        found = _restricted(text, row)
        if found is not None:
            with self._lock:
                _remember(self._verified, mark, (row, found))
        return found

    def _fresh(self, key_id: str) -> tuple[Key | None] | None:
        """Return what is known of a key, None in it where there is none; None where it has to be read."""
        oldest = time.monotonic() - KNOWN_S
        with self._lock:
            known = self._rows.get(key_id)
            if known is not None:
                self._rows.move_to_end(key_id)
                return (known[0],) if known[1] > oldest else None
            return (None,) if self._absent.get(key_id, -math.inf) > oldest else None

    def _row(self, key_id: str) -> Key | None:
        if (known := self._fresh(key_id)) is not None:
            return known[0]
        row = self._read(key_id)
        with self._lock:
            if row is None:  # apart from those that there are, which no number of guesses pushes out
                self._rows.pop(key_id, None)
                _remember(self._absent, key_id, time.monotonic())
            else:
                self._absent.pop(key_id, None)
                _remember(self._rows, key_id, (row, time.monotonic()))
        return row


def _remember(known: OrderedDict[Any, Any], name: Any, value: Any) -> None:
    known[name] = value
    known.move_to_end(name)
    while len(known) > MOST_KNOWN:
        known.popitem(last=False)


def _id_of(text: str) -> str | None:
    if len(text) > LONGEST_KEY:
        return None
    match = _OWN.fullmatch(text) or _SIGNED.fullmatch(text)
    return None if match is None else match[1]


def _restricted(text: str, row: Key) -> Key | None:
    """Return what a signed key is; None where its signature is not its owner's."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    match = _SIGNED.fullmatch(text)
    assert match is not None
    try:
        content, signature = _bytes(match[2]), _bytes(match[3])
        Ed25519PublicKey.from_public_bytes(row.verifier).verify(signature, content)
        given = Restrictions.model_validate(exact_json.loads(content))
    except (InvalidSignature, ValueError, ValidationError, ConfigurationError):
        return None
    ends = [moment for moment in (row.expires_at, given.expires_at) if moment is not None]
    plugins = row.plugins if given.plugins is None else tuple(each for each in given.plugins if row.is_for(each))
    wanted = SCOPES if given.scopes is None else given.scopes
    scopes = tuple(scope for scope in wanted if scope in BROWSER_SCOPES and row.holds(scope))
    origins = row.origins if given.origins is None else given.origins
    if row.origins and EVERY not in row.origins:
        origins = tuple(each for each in origins if each in row.origins) if EVERY not in origins else row.origins
    return replace(
        row,
        scopes=scopes,
        plugins=plugins,
        origins=origins,
        filter=all_of(row.filter, given.filter),
        user_id=given.user_id,
        expires_at=min(ends, default=None),
    )


def _signer(secret: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(SIGNING + secret.encode()).digest())


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


_SELECT = (
    "SELECT key_id, name, scopes, plugins, origins, rate, filter, created_at, expires_at, revoked_at, digest, verifier"
    " FROM estudio.service_keys"
)


def _key(row: tuple[Any, ...]) -> Key:
    key_id, name, scopes, plugins, origins, rate, condition, created, expires, revoked, digest, verifier = row
    if isinstance(condition, str):
        condition = json.loads(condition)
    return Key(
        key_id=key_id,
        name=name,
        scopes=tuple(scopes),
        plugins=tuple(plugins),
        origins=tuple(origins),
        rate=rate,
        filter=condition,
        created_at=created,
        expires_at=expires,
        revoked_at=revoked,
        digest=bytes(digest),
        verifier=bytes(verifier),
    )
