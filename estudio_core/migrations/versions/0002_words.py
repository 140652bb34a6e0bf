"""Words beside vectors: the functions that read and weigh them, and what a release ranks by.

Collections that are there have no words; their releases go on ranking by vectors alone until the next one is built.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run the SQL beside this file as it stands: neither `%` nor `:` mean a parameter."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
