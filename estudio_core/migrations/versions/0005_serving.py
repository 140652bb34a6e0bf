"""What a release is searched and written with, kept in its row: texts of items, keys of fields; the cluster's identity.

The version before goes on working: it reads none of these, and what it starts has none of them.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Run the SQL beside this file as it stands: neither `%` nor `:` mean a parameter."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
