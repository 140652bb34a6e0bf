"""Two towers: a release names the model of its items beside that of its queries, and may share a collection.

Rows that are there name one model for both. Code of the version before works with them; from the first release whose
towers differ on it is refused (`releases.start_release`), because it would encode items with the model of the queries.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make room for the items' model, and for several releases of one collection."""
    op.execute("ALTER TABLE estudio.deployments ADD COLUMN item_model_name text, ADD COLUMN item_model_version text")
    op.execute("ALTER TABLE estudio.deployments DROP CONSTRAINT deployments_collection_id_key")
    op.execute("CREATE INDEX deployments_collection ON estudio.deployments (collection_id)")
