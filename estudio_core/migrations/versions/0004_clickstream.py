"""Clickstream: ids are those of an application, pages of a search merge, imports go on, clients can be forgotten."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run the SQL beside this file as it stands: neither `%` nor `:` mean a parameter."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
