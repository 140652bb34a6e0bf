"""Data that travels between tasks: `<root>/<plugin>/<run id>/<step>/`, in a folder or an object store.

A step writes into a staging folder that is published as a whole at its end. A killed step leaves only
staging behind, which the next attempt removes; a published step is replaced as a whole.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from estudio_core.durable import flush, flush_tree
from estudio_core.errors import DataError
from estudio_core.settings import get_settings

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe_name(text: str) -> str:
    """Return `text` as a file name; a short hash keeps different texts different.

    >>> safe_name("demo_catalog")
    'demo_catalog'
    >>> safe_name("manual__2026-01-01T00:00:00+00:00")
    'manual__2026-01-01T00-00-00-00-00.1e8dc70c'
    """
    cleaned = _UNSAFE.sub("-", text).strip(".-")[:150] or "unnamed"
    if cleaned == text:
        return text
    return f"{cleaned}.{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class ArtifactStore:
    """Steps' folders below a root, which is a local path or an fsspec URL such as `s3://bucket/estudio`."""

    def __init__(self, root: str | None = None) -> None:
        import fsspec

        self.root = (root or get_settings().artifacts_root).rstrip("/")
        self._fs, self._path = fsspec.core.url_to_fs(self.root)
        self._local = "file" in _protocols(self._fs)

    def uri(self, plugin: str, run_id: str, step: str) -> str:
        """Return where a step's data is or will be."""
        return "/".join([self.root, safe_name(plugin), safe_name(run_id), safe_name(step)])

    def exists(self, uri: str) -> bool:
        """Return whether a step is published at `uri`."""
        path = self._fs._strip_protocol(uri)
        return Path(path).is_dir() if self._local else bool(self._fs.exists(f"{path}/.complete"))

    @contextmanager
    def publish(self, plugin: str, run_id: str, step: str) -> Iterator[Path]:
        """Yield a local folder to write into; publish it under `uri(...)` when the block ends well."""
        target = self.uri(plugin, run_id, step)
        if self._local:
            final = Path(self._fs._strip_protocol(target))
            staging = final.with_name(f".{final.name}.staging")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            yield staging
            retired = final.with_name(f".{final.name}.retired")
            shutil.rmtree(retired, ignore_errors=True)
            if final.exists():
                final.rename(retired)
            flush_tree(staging)  # after a loss of power a folder with this name would hold empty files
            staging.rename(final)
            flush(final.parent)
            shutil.rmtree(retired, ignore_errors=True)
            return
        with tempfile.TemporaryDirectory(prefix="estudio-") as folder:
            yield Path(folder)
            path = self._fs._strip_protocol(target)
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    self._fs.put_file(str(file), f"{path}/{file.relative_to(folder).as_posix()}")
            self._fs.pipe_file(f"{path}/.complete", b"")

    @contextmanager
    def fetch(self, uri: str, *, keep: Path | None = None) -> Iterator[Path]:
        """Yield a local folder with the content of a published step.

        Args:
            uri: Of a published step.
            keep: Folder to fetch into from an object store, and to leave: a later call finds it complete, or fetches
                anew. None: a temporary one. A store that is a folder here yields its own.

        Raises:
            DataError: nothing complete is published there.
        """
        path = self._fs._strip_protocol(uri)
        if not self.exists(uri):
            raise DataError(f"Nothing complete is published at {uri}. Clear the task that writes it and run it again.")
        if self._local:
            yield Path(path)
            return
        if keep is not None:
            if not keep.is_dir():
                staging = keep.with_name(f".{keep.name}.staging")
                shutil.rmtree(staging, ignore_errors=True)
                staging.mkdir(parents=True)
                self._fs.get(f"{path}/", str(staging), recursive=True)
                staging.rename(keep)
            yield keep
            return
        with tempfile.TemporaryDirectory(prefix="estudio-") as folder:
            self._fs.get(f"{path}/", folder, recursive=True)
            yield Path(folder)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
