"""Writes a folder of the model repository as a whole or not at all, also when killed, also beside other writers.

Entries are prepared in a work folder on the repository's file system but outside of what Triton scans, and renamed. Per
name one writer holds a lock there; whoever holds it may clean what a killed predecessor left. The system frees the lock
of a killed process.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from estudio_core.durable import flush, flush_tree
from estudio_core.errors import RepositoryError

LOCK_TIMEOUT_S = 3600.0
"""Longest wait for another process that writes the same name; exports and copies take seconds to minutes."""


def work_folder(repository: Path) -> Path:
    """Return the folder for unfinished entries: beside the repository, or inside where that is another file system.

    Inside (a repository that is a mounted volume) its name starts with a dot and Triton, which loads explicitly named
    models only, leaves it alone.
    """
    repository = repository.resolve()
    beside = repository.parent
    same_device = beside.stat().st_dev == repository.stat().st_dev
    if same_device and os.access(beside, os.W_OK) and _moves_into(beside, repository):
        return beside / f".{repository.name}.work"
    return repository / ".work"


@cache
def _moves_into(source: Path, target: Path) -> bool:
    """Return False where a folder cannot be renamed across: two mounts may be of one device."""
    probe = source / f".estudio-probe-{uuid.uuid4().hex}"
    landed = target / probe.name
    with suppress(OSError):  # what else is wrong is told by whoever writes
        probe.mkdir()
        try:
            probe.rename(landed)
        except OSError as error:
            probe.rmdir()
            return error.errno != errno.EXDEV
        landed.rmdir()
    return True


@contextmanager
def repository_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system into RepositoryError: full disk, missing rights, read-only volume."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full. Free space there, or drop old releases: a release run with fewer to keep",
            errno.EDQUOT: "the disk quota is used up. Free space there",
            errno.EFBIG: "the file is larger than this process may write (ulimit -f)",
            errno.EACCES: "this user may not write there. Change its rights",
            errno.EPERM: "this user may not write there. Change its rights",
            errno.EROFS: "the file system is read-only. Mount it writable",
        }
        reason = reasons.get(error.errno or 0, f"{error.strerror or error}. Make it a writable folder")
        raise RepositoryError(
            f"Cannot write to {error.filename or path}: {reason}, or set ESTUDIO_TRITON_REPOSITORY to another folder. "
            "Entries that were published before are unchanged."
        ) from error


def prepare(repository: Path) -> Path:
    """Create repository and work folder where they are missing, and return the latter.

    Raises:
        RepositoryError: they cannot be created.
    """
    with repository_errors(repository):
        repository.mkdir(parents=True, exist_ok=True)
        work = work_folder(repository)
        work.mkdir(exist_ok=True)
    return work


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        RepositoryError: less than `needed_bytes` are free at `folder`.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise RepositoryError(
            f"The disk of {folder} has {free / 1e6:.0f} MB left, publishing needs {needed_bytes / 1e6:.0f} MB. "
            "Free space there, or set ESTUDIO_TRITON_REPOSITORY to another folder."
        )


@contextmanager
def only_writer(work: Path, name: str, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock of `name`; leftovers of killed holders are gone when the block starts.

    Raises:
        RepositoryError: another process held it for `timeout_s`.
    """
    # Where the file system has no locks, a file that only says so would outlive a killed holder.
    lock = FileLock(work / f"{name}.lock", timeout=timeout_s, fallback_to_soft=False)
    with repository_errors(work):
        try:
            held = lock.acquire()
        except Timeout:
            raise RepositoryError(
                f"Another process has been writing {name!r} for {timeout_s:.0f} s (lock {lock.lock_file}). "
                "Find and end it, then run this again."
            ) from None
        with held:
            for leftover in work.glob(f"{name}.*-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            yield


@contextmanager
def staged(work: Path, name: str, final: Path) -> Iterator[Path]:
    """Yield an empty folder; at the end of the block its content is on disk and has become `final`.

    To be used inside `only_writer`. `final` must not exist.
    """
    folder = work / f"{name}.staged-{uuid.uuid4().hex[:8]}"
    try:
        with repository_errors(folder):
            folder.mkdir()
            yield folder
            flush_tree(folder)
            folder.rename(final)
            flush(final.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def retire(work: Path, name: str, entry: Path) -> None:
    """Take `entry` out of the repository in one step, then delete it. To be used inside `only_writer`."""
    trash = work / f"{name}.retired-{uuid.uuid4().hex[:8]}"
    with repository_errors(entry):
        entry.rename(trash)
        flush(entry.parent)
    shutil.rmtree(trash, ignore_errors=True)


def remove(entry: Path) -> bool:
    """Remove an entry of the repository in one step; return whether there was one.

    Raises:
        RepositoryError: the repository cannot be written.
    """
    if not entry.is_dir():
        return False
    work = prepare(entry.parent)
    with only_writer(work, entry.name):
        if not entry.is_dir():
            return False
        retire(work, entry.name, entry)
    return True


def sweep(work: Path) -> None:
    """Delete what killed writers left of any name; a name that somebody writes just now is left alone."""
    for name in sorted({leftover.name.rpartition(".")[0] for leftover in work.glob("*.*-*") if leftover.is_dir()}):
        # Whoever holds the lock of a name cleans up after its predecessors.
        with suppress(RepositoryError), only_writer(work, name, timeout_s=0.0):
            pass
