"""Opens what encodes text for an entry: the served way for queries, the fastest verified way for items in bulk."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import cast

from estudio_core.errors import EstudioError
from estudio_core.forks import keep_for_ever
from estudio_core.inference.embedder import Embedder
from estudio_core.inference.golden import check_golden
from estudio_core.inference.host import multiplies_bfloat16
from estudio_core.inference.manifest import read_manifest, split_name
from estudio_core.inference.model_store import local_entry
from estudio_core.settings import get_settings

logger = logging.getLogger(__name__)

MAX_OPEN = 6
"""Embedders that a process keeps of plugins that it does not search (`retain`): queries and bulk of the live release
and of the one being built."""

_open: OrderedDict[tuple[object, ...], Embedder] = OrderedDict()
_opening: dict[tuple[object, ...], threading.Lock] = {}
_lock = threading.Lock()
_retained: set[str] = set()
"""Plugins whose embedders are let go by `retain` alone."""


def open_query_embedder(entry_name: str, *, repository: Path | None = None, url: str | None = None) -> Embedder:
    """Return what encodes queries with the entry: Triton or this process, as the setting `inference` says.

    It has answered the golden texts as stored; a Triton that was restarted is told to load the entry again. The same
    object is returned again in this process; do not close it.

    Args:
        entry_name: `<plugin>_v<version>`.
        repository: Root of the model repository; None: the setting.
        url: `host:port` of Triton; None: the setting.

    Raises:
        RepositoryError: the entry is missing or damaged.
        ModelError: the vectors are not those that were stored.
        InferenceUnavailableError: Triton does not answer.
    """
    entry = _entry(entry_name, repository)
    if get_settings().inference == "triton":
        address = url or _address()
        return _cached(("triton", address, str(entry)), lambda: _open_triton(address, entry))
    return _cached(("onnx", str(entry)), lambda: _open_onnx(entry))


def open_search_embedder(entry_name: str) -> Embedder:
    """Return what encodes the queries of searches: as `open_query_embedder`, but for a Triton that is away.

    Then this process encodes them itself, from the same entry, until the server answers its golden texts again.

    Raises:
        RepositoryError: the entry is missing or damaged.
        ModelError: the vectors are not those that were stored.
        InferenceUnavailableError: Triton does not answer, and this process has no ONNX Runtime.
    """
    if get_settings().inference != "triton":
        return open_query_embedder(entry_name)
    from estudio_core.inference.standby_embedder import StandbyEmbedder

    entry, address = _entry(entry_name, None), _address()
    return _cached(
        ("search", address, str(entry)),
        lambda: StandbyEmbedder(address, entry, lambda: _open_onnx(entry), get_settings().inference_timeout_s),
    )


def open_bulk_embedder(entry_name: str, *, repository: Path | None = None, url: str | None = None) -> Embedder:
    """Return the fastest implementation of the entry on this machine that gives the entry's golden vectors.

    torch on a GPU or, on CPUs that multiply it in hardware, in bfloat16; elsewhere the entry's int8 graph, if it was
    measured to rank well enough; otherwise what queries use. The same object is returned again in this process; do not
    close it.

    Raises:
        RepositoryError: the entry is missing or damaged.
        ModelError: the vectors are not those that were stored.
        InferenceUnavailableError: Triton does not answer.
    """
    entry = _entry(entry_name, repository)
    if _torch_is_fast():
        try:
            return _cached(("torch", str(entry)), lambda: _open_torch(entry))
        except EstudioError as error:
            logger.warning("Encoding %s in bulk without torch: %s", entry_name, error)
    of_queries = open_query_embedder(entry_name, repository=repository, url=url)
    if encodes_items_in_int8() and read_manifest(entry).bulk is not None:
        return _cached(("bulk", str(entry)), lambda: _open_bulk(entry, of_queries))
    return of_queries


def open_scratch_embedder(entry_name: str, *, repository: Path) -> Embedder:
    """Return what `open_bulk_embedder` would, for an entry that is about to be deleted: opened anew, yours to close.

    Raises:
        RepositoryError: the entry is missing or damaged.
        ModelError: the vectors are not those that were stored.
    """
    entry = _entry(entry_name, repository)
    if _torch_is_fast():
        return _open_torch(entry)
    exact = _open_onnx(entry)
    return exact if read_manifest(entry).bulk is None else _open_bulk(entry, exact)


def encodes_items_in_int8() -> bool:
    """Return whether this host encodes items by an entry's int8 graph, if it has one: nothing is faster here."""
    return get_settings().inference != "triton" and not _torch_is_fast()


def ensure_served(entry_name: str, *, repository: Path | None = None, url: str | None = None) -> None:
    """Have the entry served and tried with its golden texts: loaded into Triton, or opened in this process.

    Raises:
        RepositoryError: the entry is missing or damaged; it is never loaded then.
        ModelError: it cannot be loaded, or the vectors are not those that were stored.
        InferenceUnavailableError: Triton does not answer.
    """
    if get_settings().inference == "triton":
        _load(url or _address(), _entry(entry_name, repository))
    open_query_embedder(entry_name, repository=repository, url=url)


def stop_serving(entry_name: str, *, url: str | None = None) -> None:
    """Unload the entry from Triton, where Triton serves; its files stay. What is not loaded is left alone.

    Raises:
        ModelError: Triton refuses.
        InferenceUnavailableError: Triton does not answer.
    """
    split_name(entry_name)
    if get_settings().inference == "triton":
        from estudio_core.inference.triton_control import TritonControl

        control = TritonControl(url or _address())
        try:
            control.unload(entry_name)
        finally:
            control.close()


def retain(plugin: str, entry_names: set[str]) -> None:
    """Keep the embedders of these entries open, as long as they are named, and let go of all others of the plugin."""
    with _lock:
        _retained.add(plugin)
        for key in [
            each for each in _open if _plugin_of(each) == plugin and Path(str(each[-1])).name not in entry_names
        ]:
            del _open[key]  # not closed, as above


def open_entries() -> list[str]:
    """Return the names of the entries that this process holds open."""
    with _lock:
        return sorted({Path(str(key[-1])).name for key in _open})


def is_open(entry_name: str) -> bool:
    """Return whether queries can be encoded with the entry at once."""
    with _lock:
        return any(key[1] not in ("torch", "bulk") and Path(str(key[-1])).name == entry_name for key in _open)


def _plugin_of(key: tuple[object, ...]) -> str:
    return split_name(Path(str(key[-1])).name)[0]


def _after_fork() -> None:
    """Begin anew: sessions and channels do not survive a fork, and a lock may have been held at that moment."""
    global _lock
    keep_for_ever(_open.copy())
    _open.clear()
    _opening.clear()
    _retained.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def close_embedders() -> None:
    """Close everything that this process holds open."""
    with _lock:
        _retained.clear()
        while _open:
            _open.popitem()[1].close()


def _address() -> str:
    settings = get_settings()
    return f"{settings.inference_host}:{settings.inference_grpc_port}"


def _entry(name: str, repository: Path | None) -> Path:
    return local_entry(name, repository)


def _cached(key: tuple[object, ...], build: Callable[[], Embedder]) -> Embedder:
    """Return the open embedder of `key`, of this process: sessions and channels do not survive a fork.

    While one is opened, which takes seconds, others are given out: searches go on during a release.
    """
    key = (os.getpid(), *key)
    with _lock:
        if key in _open:
            _open.move_to_end(key)
            return _open[key]
        opening = _opening.setdefault(key, threading.Lock())
    with opening:
        with _lock:
            if key in _open:
                return _open[key]
        embedder = build()
        with _lock:
            others = [each for each in _open if _plugin_of(each) not in _retained]
            if _plugin_of(key) not in _retained:
                for oldest in others[: max(0, len(others) - MAX_OPEN + 1)]:
                    # Not closed: somebody may be computing with it. Its memory goes when the last user does.
                    del _open[oldest]
            _open[key] = embedder
            _opening.pop(key, None)
        return embedder


def _open_onnx(entry: Path) -> Embedder:
    from estudio_core.inference.onnx_embedder import OnnxEmbedder

    embedder = OnnxEmbedder(entry)
    embedder.check()
    return embedder


def _open_bulk(entry: Path, queries: Embedder) -> Embedder:
    from estudio_core.inference.onnx_embedder import BulkEmbedder

    embedder = BulkEmbedder(entry, queries)
    embedder.check()
    return embedder


def _open_triton(url: str, entry: Path) -> Embedder:
    from estudio_core.inference.triton_embedder import TritonEmbedder

    embedder = TritonEmbedder(url, entry, timeout_s=get_settings().inference_timeout_s, load=lambda: _load(url, entry))
    try:
        check_golden(embedder, embedder.manifest, where=f"Triton at {url}")
    except EstudioError:
        embedder.close()
        raise
    return embedder


def _load(url: str, entry: Path) -> None:
    from estudio_core.inference.triton_control import TritonControl

    control = TritonControl(url)
    try:
        control.load(entry)
    finally:
        control.close()


def _open_torch(entry: Path) -> Embedder:
    from estudio_core.inference.torch_embedder import TorchEmbedder

    return cast(Embedder, TorchEmbedder(entry))  # it checks itself


def _torch_is_fast() -> bool:
    """Return whether torch beats ONNX Runtime here; without GPU or bfloat16 in hardware both are equally fast."""
    if not all(map(_is_installed, ("torch", "transformers"))):
        return False
    if multiplies_bfloat16():
        return True
    import torch

    return torch.cuda.is_available()


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
