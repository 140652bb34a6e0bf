"""Who asks, and whether they may: key, scope, plugin, origin, rate."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio.to_thread
from starlette.requests import Request

from estudio_core.errors import EstudioError
from estudio_core.service import metrics
from estudio_core.service.caller import Caller
from estudio_core.service.endpoints import KEY_PARAMETERS, Endpoint, plugin_of
from estudio_core.service.keys import EVERY, Key
from estudio_core.service.refusals import Refused
from estudio_core.service.scopes import Scope

if TYPE_CHECKING:
    from estudio_core.service.state import State

HOUSEHOLD = 64
"""Bits of an IPv6 address that say which network it is of: who has one address of it has them all."""

logger = logging.getLogger(__name__)


async def identify(request: Request, endpoint: Endpoint, state: State) -> Caller:
    """Return who asks.

    Raises:
        Refused: the key that they bring is none that counts.
    """
    text = given_key(request, endpoint)
    if text is None:
        return Caller()
    if not state.keys.needs_reading(text) and (key := state.keys.find(text)) is not None:
        return Caller(key)
    guesser = f"guesses {address_of(request)}"
    per_minute = state.settings.service_anonymous_rate
    new = state.keys.is_new(text)
    if new:
        _take(state, guesser, per_minute)  # before the database is asked; what proves right is given back
    key = await _found(text, state)
    if key is None:
        if not new:
            _take(state, guesser, per_minute)
        raise _refused(401, "This key is not known, or not any more.", "key")
    if new:
        state.rates.give_back(guesser, per_minute)
    return Caller(key)


async def admit(request: Request, endpoint: Endpoint, caller: Caller, state: State) -> None:
    """Make sure that the caller may ask this endpoint.

    Raises:
        Refused: they may not.
    """
    plugin = plugin_of(request)
    if origin_allowed(request, caller) is False:
        raise _refused(403, "This key may not be used by a page of this origin.", "origin")
    if endpoint.scope is None:
        return
    if caller.key is None:
        await _admit_stranger(request, endpoint, plugin, state)
        return
    if not caller.holds(endpoint.scope):
        raise _refused(403, f"This key does not hold the scope [{endpoint.scope}].", "scope")
    if plugin is not None and not caller.key.is_for(plugin):
        raise _refused(403, f"This key is not for the plugin [{plugin}].", "plugin")
    charge(request, caller, state)


async def _admit_stranger(request: Request, endpoint: Endpoint, plugin: str | None, state: State) -> None:
    if endpoint.scope == "search":
        charge(request, Caller(), state)  # before anything is done for them
        if plugin is None or await is_public(plugin, state):
            return
    raise _refused(401, f"A key with the scope [{endpoint.scope}] is needed: Authorization: Bearer …", "no key")


def charge(request: Request, caller: Caller, state: State, times: int = 1) -> None:
    """Count requests of the caller: by their key, or by their address.

    A request that holds several searches counts as so many; its first was counted when it was let in.

    Raises:
        Refused: they ask more often than they may.
    """
    if times < 1:
        return
    if caller.key is None:
        _take(state, f"address {address_of(request)}", state.settings.service_anonymous_rate, times)
    elif caller.key.rate is not None:
        _take(state, f"key {caller.key.key_id}", caller.key.rate, times)


def require_plugin(caller: Caller, plugin: str, scope: Scope) -> None:
    """Make sure that the caller may do this with a plugin that the body names.

    Raises:
        Refused: they may not.
    """
    if caller.key is None or not caller.key.is_for(plugin):
        raise _refused(403 if caller.key else 401, f"This key is not for the plugin [{plugin}].", "plugin")
    if not caller.holds(scope):
        raise _refused(403, f"This key does not hold the scope [{scope}].", "scope")


async def require_readable(caller: Caller, plugin: str, state: State) -> None:
    """Make sure that the caller may search a plugin that the body names. Raises: as `require_plugin`."""
    if caller.key is None and await is_public(plugin, state):
        return
    require_plugin(caller, plugin, "search")


def given_key(request: Request, endpoint: Endpoint) -> str | None:
    """Return the key that a request brings, wherever clients of its kind put it; None where it brings none.

    Raises:
        Refused: it brings credentials of another kind.
    """
    header = request.headers.get("authorization")
    if header:
        kind, _, value = header.strip().partition(" ")
        if kind.lower() in ("bearer", "apikey") and value.strip():
            return value.strip()
        if kind.lower() == "basic":
            with suppress(binascii.Error, UnicodeDecodeError):
                name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
                return password or name
        raise _refused(401, "Authorization is 'Bearer <key>', or Basic with the key as its password.", "key")
    if found := request.headers.get("x-algolia-api-key"):
        return found.strip()
    if endpoint.key_in_address:
        for name, value in request.query_params.multi_items():
            if name.lower() in KEY_PARAMETERS and value:
                return value
    return None


async def _found(text: str, state: State) -> Key | None:
    if state.keys.needs_reading(text):
        return await anyio.to_thread.run_sync(state.keys.find, text, limiter=state.small_reads)
    return state.keys.find(text)


def origin_allowed(request: Request, caller: Caller) -> bool | None:
    """Return whether the page that asks may; None where no page of another site does."""
    origin = request.headers.get("origin")
    if origin is None or _is_own(request, origin):
        return None
    if caller.key is None:
        return True  # what a plugin shows to everybody, it shows to every page; nothing of a visitor's is sent along
    return EVERY in caller.key.origins or origin.lower() in caller.key.origins


def _is_own(request: Request, origin: str) -> bool:
    """Return whether the page came from this service: browsers name the origin of their own site too."""
    return origin.partition("://")[2].lower() == request.headers.get("host", "").lower()


def address_of(request: Request) -> str:
    """Return where a request comes from, as it is counted: for IPv6 its network.

    It is the address that connected, or what a proxy that uvicorn trusts (`FORWARDED_ALLOW_IPS`) says of it.
    """
    given = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(given)
    except ValueError:
        return given[:100]
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.ip_network((int(address), HOUSEHOLD), strict=False))


def _take(state: State, name: str, per_minute: int, times: int = 1) -> None:
    wait = state.rates.take(name, per_minute, times)
    if wait == 0:
        return
    if wait == math.inf:
        reason = f"{times:,} more searches at once are more than {per_minute:,} a minute: send them in pieces."
        raise _refused(429, reason, "rate")
    reason = f"At most {per_minute:,} requests a minute."
    raise _refused(429, reason, "rate", {"Retry-After": str(max(1, math.ceil(wait)))})


def _refused(status: int, reason: str, why: str, headers: Mapping[str, str] | None = None) -> Refused:
    metrics.REFUSED.labels(why).inc()
    told = {"WWW-Authenticate": "Bearer", **(headers or {})} if status == 401 else headers
    return Refused(status, reason, headers=told)


async def is_public(plugin: str, state: State) -> bool:
    """Return whether the plugin says that everybody may search it; not where its file is not here."""

    async def look() -> frozenset[str]:
        return await anyio.to_thread.run_sync(_public_plugins, limiter=state.small_reads)

    return plugin in await state.public.get("", look)


def _public_plugins() -> frozenset[str]:
    """Return the plugins that everybody may search. All are opened at once: strangers ask for names that are none."""
    from estudio_core.plugin.registry import PluginManager

    found = set()
    manager = PluginManager()
    for name in manager.plugin_names:
        try:
            if manager.open_plugin(name).public:
                found.add(name)
        except (EstudioError, ModuleNotFoundError) as error:
            logger.warning("Whether plugin %s is public cannot be told, so it is not: %s", name, error)
    return frozenset(found)
