"""The models that searches will need: opened before their release is live, and let go once nothing names them.

While a process searches, a thread of it asks every second which releases its plugins have. The model of one that is
built, while it is verified and before it is switched to, is opened then, so that nobody waits for it after the switch.
Models are kept open that a pointer names (the live release and the one before it), a challenger's, those that are
coming, and those that were searched by lately; no others, however many releases come and go.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time

import psycopg

from estudio_core import database
from estudio_core.errors import EstudioError
from estudio_core.inference import opening
from estudio_core.inference.query_vectors import query_vectors
from estudio_core.vectordb.reader import search_url

LOOK_S = 1.0
REMEMBERED_S = 60.0
"""A plugin that nobody has searched for so long is looked after no more, and its models may go."""

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_searched: dict[str, dict[str, float]] = {}
"""By plugin, its models that were searched by, with the time of the last search by `time.monotonic()`."""
_thread: threading.Thread | None = None
_ending = threading.Event()
atexit.register(lambda: _ending.set())  # before the pools close, which were imported first

_NEEDED = (
    b"SELECT d.plugin, d.model_name, coalesce(d.item_model_name, d.model_name),"
    b" d.state IN ('built', 'verified', 'challenger', 'live')"
    b" FROM estudio.deployments d LEFT JOIN estudio.pointers p ON p.plugin = d.plugin WHERE d.plugin = ANY(%s)"
    b" AND (d.state IN ('built', 'verified', 'challenger') OR d.release_id IN (p.release_id, p.previous_release_id))"
)


def searched(plugin: str, model_name: str) -> None:
    """Note that a plugin was searched with a model."""
    global _thread
    models = _searched.get(plugin)
    if models is not None and _thread is not None:
        models[model_name] = time.monotonic()
        return
    with _lock:
        _searched.setdefault(plugin, {})[model_name] = time.monotonic()
        if _thread is None:
            _thread = threading.Thread(target=_look, name="estudio-coming-models", daemon=True)
            _thread.start()


def look() -> None:
    """Open what is coming, and let go of what is named no more; for plugins that were searched lately."""
    lately = time.monotonic() - REMEMBERED_S
    with _lock:
        for plugin in [each for each, models in _searched.items() if max(list(models.values())) < lately]:
            del _searched[plugin]
        # A search notes its model without the lock.
        plugins = {
            plugin: {name for name, at in list(models.items()) if at > lately} for plugin, models in _searched.items()
        }
    if not plugins or database.url_needs_a_start():
        return
    with database.connection(url=search_url()) as conn:
        rows = conn.execute(_NEEDED, (list(plugins),)).fetchall()
    for plugin, used in plugins.items():
        needed = [row for row in rows if row[0] == plugin]
        queries = {model for _, model, _, _ in needed} | used
        opening.retain(plugin, queries | {items for _, _, items, _ in needed})
        query_vectors.retain(plugin, queries)
    for _, model, _, ahead in rows:
        if ahead:
            opening.open_search_embedder(model)


def _look() -> None:
    global _thread
    while not _ending.is_set():
        try:
            look()
        except Exception as error:  # whatever it is, the next look comes
            if not _ending.is_set():
                known = isinstance(error, EstudioError | psycopg.Error | OSError)
                logger.info("Which models searches will need is not known: %s", error, exc_info=not known)
        with _lock:
            if not _searched:
                _thread = None
                return
        _ending.wait(LOOK_S)


def _after_fork() -> None:
    global _ending, _lock, _thread
    _ending, _lock, _thread = threading.Event(), threading.Lock(), None
    _searched.clear()


os.register_at_fork(after_in_child=_after_fork)
