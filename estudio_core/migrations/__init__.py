"""Numbered changes of Estudio's tables, forward only, which `estudio migrate` carries out; all else checks.

What sets up an installation runs it: `up`, `demo`, Compose's first container, and the start of the embedded server.

A change is one file, `versions/<number>_<what>.py`, for Alembic, written so that the version before goes on working:
processes of both run side by side while an installation is updated. Where that is not possible its `upgrade` says so:

    op.execute("UPDATE estudio.alembic_version SET serves_from = '<its number>'")

There is no way down. Who has to go back restores a backup.
"""

from __future__ import annotations

import os
import threading
from functools import lru_cache
from pathlib import Path

SCRIPTS = Path(__file__).parent

alembic = threading.RLock()
"""Held by whatever runs Alembic, MLflow's store included: the `op` of its scripts is one for all threads of a process,
and the change that one thread makes would go to the other's database."""


def _after_fork() -> None:
    global alembic
    alembic = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def newest() -> str:
    """Return the number of the last change that this code knows, such as `0001`; its tables are what it works with."""
    return _newest(SCRIPTS)


@lru_cache(maxsize=8)
def _newest(scripts: Path) -> str:
    return max(file.name for file in (scripts / "versions").glob("[0-9]*.py")).partition("_")[0]
