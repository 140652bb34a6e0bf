"""Code of several versions: folders of migrations that this process takes for its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from estudio_core import migrations

THIS = migrations.SCRIPTS


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A copy of this version's migrations, for a version that comes after it."""
    return Path(shutil.copytree(THIS, tmp_path / "newer", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def write_migration(scripts: Path) -> Callable[[str], None]:
    """Writes a migration of the given SQL after this version's last one; written again, it takes its place."""
    last = migrations.newest()
    number = f"{int(last) + 1:04d}"

    def write(statements: str) -> None:
        (scripts / "versions" / f"{number}_change.py").write_text(
            f"from alembic import op\n\nrevision, down_revision = {number!r}, {last!r}\n\n\n"
            f"def upgrade():\n    op.execute({statements!r})\n"
        )

    return write


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes this process one of the version that has the migrations of a folder."""
    return lambda folder: monkeypatch.setattr(migrations, "SCRIPTS", folder)
