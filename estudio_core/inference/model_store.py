"""Published models in an object store: the model repository on this machine is a cache of it then.

Where `ESTUDIO_MODEL_STORE` names one (`s3://bucket/models`, any URL that fsspec opens), a published entry is copied
there, file by file and its manifest last; whoever needs an entry that the repository lacks copies it here, compares
every digest, and renames it into its place; earlier versions that the store has no longer go from here then. Entries
are written once and never changed, so that a copy never goes stale. Triton may read the same bucket as its model
repository.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from estudio_core.errors import MissingDependencyError, RepositoryError
from estudio_core.inference import staging
from estudio_core.inference.manifest import (
    MANIFEST_FILE,
    EntryManifest,
    compare_files,
    read_manifest,
    split_name,
)
from estudio_core.redaction import redact, redact_in
from estudio_core.settings import get_settings

logger = logging.getLogger(__name__)


def local_entry(name: str, repository: Path | None = None) -> Path:
    """Return the folder of an entry in the repository, fetched from the store where it is not here yet.

    The folder may be missing: whoever reads it says so.

    Args:
        name: `<plugin>_v<version>`.
        repository: Root of another repository than that of the settings, which no store stands behind.

    Raises:
        RepositoryError: the store cannot be read, or has a damaged entry.
    """
    split_name(name)
    own = get_settings().triton_repository.resolve()
    folder = (repository.resolve() if repository is not None else own) / name
    if folder.parent == own and get_settings().model_store is not None and not folder.is_dir():
        _fetch(name, folder)
    return folder


def entry_of(model_name: str) -> EntryManifest:
    """Return the manifest of a published entry, such as that of `Release.model_name`.

    Raises:
        RepositoryError: as `local_entry`; or there is no such entry, or its manifest cannot be read.
    """
    return read_manifest(local_entry(model_name))


def push_entry(name: str) -> bool:
    """Copy an entry of the repository into the store, where there is one; return whether anything was copied.

    Repeated after a kill, it completes what is there.

    Raises:
        RepositoryError: the store cannot be written, or has another model of this name.
    """
    store = get_settings().model_store
    if store is None:
        return False
    folder = get_settings().triton_repository.resolve() / name
    manifest = read_manifest(folder)
    with _opened(store) as (filesystem, root):
        known = _manifest(filesystem, f"{root}/{name}")
        if known is not None and known.digest != manifest.digest:
            raise RepositoryError(
                f"{redact(store)} has another model as {name!r}: its digest is {known.digest[:12]}…, that of the "
                f"repository {manifest.digest[:12]}…. A name is written once: register a new version."
            )
        if known is not None and known.files == manifest.files:
            return False
        for file in (*sorted(manifest.files), MANIFEST_FILE):
            filesystem.put_file(str(folder / file), f"{root}/{name}/{file}")
        return True


def remove_stored(name: str) -> bool:
    """Remove an entry from the store, its manifest first; return whether there was one.

    Raises:
        RepositoryError: the store cannot be written.
    """
    store = get_settings().model_store
    if store is None:
        return False
    split_name(name)
    with _opened(store) as (filesystem, root):
        path = f"{root}/{name}"
        if not filesystem.exists(path):
            return False
        if filesystem.exists(f"{path}/{MANIFEST_FILE}"):
            filesystem.rm_file(f"{path}/{MANIFEST_FILE}")
        filesystem.rm(path, recursive=True)
        return True


def stored_entries() -> list[str]:
    """Return the names of the entries in the store, unfinished ones included; none where there is no store.

    Raises:
        RepositoryError: the store cannot be read.
    """
    store = get_settings().model_store
    if store is None:
        return []
    with _opened(store) as (filesystem, root):
        filesystem.invalidate_cache()
        found = filesystem.ls(root, detail=False) if filesystem.exists(root) else []
    return sorted(name for path in found if _is_entry(name := str(path).rstrip("/").rpartition("/")[2]))


def _is_entry(name: str) -> bool:
    try:
        split_name(name)
    except RepositoryError:
        return False
    return True


def _fetch(name: str, folder: Path) -> None:
    """Copy an entry from the store into its place; nothing where the store has it not."""
    store = str(get_settings().model_store)
    with _opened(store) as (filesystem, root):
        manifest = _manifest(filesystem, f"{root}/{name}")
    if manifest is None:
        return
    work = staging.prepare(folder.parent)
    with staging.only_writer(work, name):
        if folder.is_dir():  # another process was faster
            return
        with staging.staged(work, name, folder) as staged:
            with _opened(store) as (filesystem, root):
                for file in (*manifest.files, MANIFEST_FILE):
                    target = staged / file
                    if not target.resolve().is_relative_to(staged.resolve()):
                        raise RepositoryError(
                            f"{redact(store)}/{name} lists the file {file!r}, which is outside of it."
                        )
                    target.parent.mkdir(parents=True, exist_ok=True)
                    filesystem.get_file(f"{root}/{name}/{file}", str(target))
            compare_files(staged, manifest)
    try:
        _forget_earlier(name, folder.parent)
    except RepositoryError as error:
        logger.warning("Earlier versions of %s stay where they are: %s", name, error)


def _forget_earlier(name: str, repository: Path) -> None:
    """Remove earlier versions that the store has no longer: no release that is kept needs them.

    A later one may be published just now, and stand here before it stands there.
    """
    plugin, version = split_name(name)
    stored = stored_entries()
    for folder in repository.glob(f"{plugin}_v*/"):
        if _is_entry(folder.name) and folder.name not in stored:
            other, number = split_name(folder.name)
            if other == plugin and int(number) < int(version):
                staging.remove(folder)


def _manifest(filesystem: Any, path: str) -> EntryManifest | None:
    filesystem.invalidate_cache()
    try:
        return EntryManifest.model_validate_json(filesystem.cat_file(f"{path}/{MANIFEST_FILE}"))
    except FileNotFoundError:
        return None


@contextmanager
def _opened(store: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of a store and the path of its root."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError("ESTUDIO_MODEL_STORE needs fsspec. Run: pip install 'estudio[s3]'") from error
    try:
        filesystem, root = fsspec.core.url_to_fs(store.rstrip("/"))
        yield filesystem, root.rstrip("/")
    except RepositoryError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise RepositoryError(
            f"The model store {redact(store)} cannot be used: {redact_in(str(error), store)}. Correct "
            "ESTUDIO_MODEL_STORE, or the rights of its keys."
        ) from error
