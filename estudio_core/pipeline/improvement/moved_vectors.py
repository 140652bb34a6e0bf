"""Moved vectors on their way from `adjust`, which measures them, to `apply`, which writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from estudio_core.improvement import ledger

if TYPE_CHECKING:
    from estudio_core.improvement.learning import Key, Vectors

_FILE = "moved.npz"


def save_moved(
    folder: Path, moved: Mapping[Key, Vectors], base: Mapping[Key, Vectors], hashes: Mapping[Key, str]
) -> None:
    """Store the moved vectors in `folder`.

    Args:
        folder: Where to write.
        moved: Part vectors [parts, dimensions] as they are to be, by object and user.
        base: Those that the model gave, of these objects and others.
        hashes: What they were computed from.
    """
    import numpy as np

    keys = sorted(moved, key=lambda key: (key[0], key[1] or ""))
    width = next(iter(base.values())).shape[1] if base else 0
    empty = np.empty((0, width), dtype=np.float32)
    np.savez(
        folder / _FILE,
        objects=np.array([key[0] for key in keys], dtype=np.str_),
        users=np.array([key[1] or "" for key in keys], dtype=np.str_),
        personal=np.array([key[1] is not None for key in keys], dtype=bool),
        hashes=np.array([hashes[key] for key in keys], dtype=np.str_),
        counts=np.array([len(moved[key]) for key in keys], dtype=np.int64),
        base=np.concatenate([empty, *(base[key] for key in keys)]),
        vectors=np.concatenate([empty, *(moved[key] for key in keys)]),
    )


def read_moved(folder: Path) -> list[ledger.MovedObject]:
    """Return the objects that `adjust` moved, from the folder that its manifest names."""
    import numpy as np

    with np.load(folder / _FILE, allow_pickle=False) as stored:
        read = {name: stored[name] for name in stored.files}
    ends = np.cumsum(read["counts"])
    names = zip(read["objects"], read["users"], read["personal"], read["hashes"], read["counts"], ends, strict=True)
    return [
        ledger.MovedObject(
            str(object_id),
            str(user) if personal else None,
            str(content_hash),
            read["base"][end - count : end],
            read["vectors"][end - count : end],
        )
        for object_id, user, personal, content_hash, count, end in names
    ]
