"""Version 1: one table of tickets with one decision each.

A database that the first releases wrote has these tables already. It is marked as being at this version.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Create the tables of version 1."""
    op.create_table(
        "aspire_guard_schema",
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False
        ),
        sa.Column("version", sa.Integer, nullable=False),
    )
    op.execute("INSERT INTO aspire_guard_schema (id, version) VALUES (1, 1)")
    op.create_table(
        "aspire_guard_reviews",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(200), nullable=False, unique=True),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("context", sa.Text),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("group", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("action", sa.String(16), index=True),
        sa.Column("text", sa.Text),
        sa.Column("reviewer", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("decided", sa.DateTime(timezone=True)),
    )
