"""Online experiments: two releases answer the same searches, and clicks decide between them.

The version before works with these tables until the first release stands as `challenger` (`releases.stand`): it would
prune what such a release still lacks.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run the SQL beside this file as it stands: neither `%` nor `:` mean a parameter."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
