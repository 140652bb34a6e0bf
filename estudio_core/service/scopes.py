"""What a key may do, and what plugins are called: what keys and endpoints have in common."""

from __future__ import annotations

from typing import Literal, get_args

from estudio_core.ids import PLUGIN_NAME as PLUGIN_NAME

Scope = Literal["search", "events", "items", "admin"]
"""What a key may do: search; log what users did; write items; judge, compare and run the installation."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
BROWSER_SCOPES = frozenset({"search", "events"})
"""What a key may hold that everybody can read in a page."""
