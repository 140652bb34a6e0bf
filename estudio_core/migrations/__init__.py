"""Numbered changes of Estudio's tables, forward only, which `estudio migrate` carries out; all else checks.

What sets up an installation runs it: `up`, `demo`, Compose's first container, and the start of the embedded server.

A change is one file, `versions/<number>_<what>.py`, for Alembic, written so that the version before goes on working:
processes of both run side by side while an installation is updated. Where that is not possible its `upgrade` says so:

    op.execute("UPDATE estudio.alembic_version SET serves_from = '<its number>'")

There is no way down. Who has to go back restores a backup.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

SCRIPTS = Path(__file__).parent


def newest() -> str:
    """Return the number of the last change that this code knows, such as `0001`; its tables are what it works with."""
    return _newest(SCRIPTS)


@lru_cache(maxsize=8)
def _newest(scripts: Path) -> str:
    return max(file.name for file in (scripts / "versions").glob("[0-9]*.py")).partition("_")[0]
