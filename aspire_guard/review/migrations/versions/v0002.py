"""Version 2: states, claims, several opinions on a ticket, and the audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"

_TICKETS = "aspire_guard_reviews"
_OPINIONS = "aspire_guard_review_opinions"
_AUDIT = "aspire_guard_review_audit"
_AUDIT_HEAD = "aspire_guard_review_audit_head"
_TIME = sa.DateTime(timezone=True)

_FIRST_OPINIONS = f"""
INSERT INTO {_OPINIONS} (ticket, number, action, text, reviewer, comment, time)
SELECT id, 1, action, text, reviewer, comment, decided FROM {_TICKETS} WHERE action IS NOT NULL
"""

# An entry can lose its personal data and nothing else.
_SQLITE_TRIGGERS = (
    f"""
    CREATE TRIGGER {_AUDIT}_no_delete BEFORE DELETE ON {_AUDIT}
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END
    """,
    f"""
    CREATE TRIGGER {_AUDIT}_no_update BEFORE UPDATE ON {_AUDIT}
    WHEN NEW.number IS NOT OLD.number OR NEW.ticket IS NOT OLD.ticket OR NEW.event IS NOT OLD.event
        OR NEW.time IS NOT OLD.time OR NEW.digest IS NOT OLD.digest OR NEW.hash IS NOT OLD.hash
        OR NEW.actor IS NOT NULL OR NEW.details IS NOT NULL OR NEW.salt IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END
    """,
)
_POSTGRESQL_TRIGGERS = (
    f"""
    CREATE FUNCTION {_AUDIT}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'the audit trail is append-only'; END $$
    """,
    f"""
    CREATE TRIGGER {_AUDIT}_no_delete BEFORE DELETE ON {_AUDIT}
    FOR EACH ROW EXECUTE FUNCTION {_AUDIT}_refuse()
    """,
    f"""
    CREATE TRIGGER {_AUDIT}_no_update BEFORE UPDATE ON {_AUDIT}
    FOR EACH ROW WHEN (
        (NEW.number, NEW.ticket, NEW.event, NEW.time, NEW.digest, NEW.hash)
        IS DISTINCT FROM (OLD.number, OLD.ticket, OLD.event, OLD.time, OLD.digest, OLD.hash)
        OR NEW.actor IS NOT NULL OR NEW.details IS NOT NULL OR NEW.salt IS NOT NULL
    ) EXECUTE FUNCTION {_AUDIT}_refuse()
    """,
)


def upgrade() -> None:
    """Add the columns and the tables, and take over the decisions of version 1."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    _extend_tickets()
    if is_postgresql:
        # A key with escaped characters may be longer than 200. SQLite sets no limit anyway.
        op.alter_column(_TICKETS, "key", type_=sa.Text)
    _add_opinions()
    _add_audit_trail()
    for trigger in _POSTGRESQL_TRIGGERS if is_postgresql else _SQLITE_TRIGGERS:
        op.execute(trigger)
    op.create_table(
        "aspire_guard_review_webhooks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("leased_until", _TIME),
    )
    # Releases that know version 1 alone look here, and refuse the database.
    op.execute("UPDATE aspire_guard_schema SET version = 2")


def _extend_tickets() -> None:
    no = sa.false()
    for column in (
        sa.Column("status", sa.String(16), nullable=False, server_default="open"),
        sa.Column("expires", _TIME),
        sa.Column("claimed_by", sa.Text),
        sa.Column("claimed_until", _TIME),
        sa.Column("needs_second_opinion", sa.Boolean, nullable=False, server_default=no),
        sa.Column("n_opinions", sa.Integer, nullable=False, server_default="0"),
        sa.Column("delivered", _TIME),
        sa.Column("thread_id", sa.Text),
        sa.Column("is_released", sa.Boolean, nullable=False, server_default=no),
        sa.Column("details", sa.Text, nullable=False, server_default="{}"),
        sa.Column("search_text", sa.Text, nullable=False, server_default=""),
    ):
        op.add_column(_TICKETS, column)
    op.drop_index("ix_aspire_guard_reviews_created", _TICKETS)
    op.drop_index("ix_aspire_guard_reviews_action", _TICKETS)
    counted = ["status", "created", "id", "expires", "claimed_until", "confidence"]
    op.create_index("ix_aspire_guard_reviews_status", _TICKETS, counted)
    op.create_index("ix_aspire_guard_reviews_created", _TICKETS, ["created", "id"])
    op.create_index("ix_aspire_guard_reviews_expires", _TICKETS, ["status", "expires"])
    op.create_index("ix_aspire_guard_reviews_reviewer", _TICKETS, ["reviewer"])
    op.execute(f"UPDATE {_TICKETS} SET status = 'decided', n_opinions = 1 WHERE action IS NOT NULL")


def _add_opinions() -> None:
    op.create_table(
        _OPINIONS,
        sa.Column("ticket", sa.String(32), sa.ForeignKey(f"{_TICKETS}.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("reviewer", sa.Text),
        sa.Column("comment", sa.Text),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("undone", _TIME),
        # No two reviewers can give the same opinion on a ticket its number.
        sa.UniqueConstraint("ticket", "number"),
    )
    op.execute(_FIRST_OPINIONS)


def _add_audit_trail() -> None:
    op.create_table(
        _AUDIT,
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ticket", sa.String(32), nullable=False, index=True),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("details", sa.Text),
        sa.Column("salt", sa.String(32)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        _AUDIT_HEAD,
        sa.Column(
            "id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False
        ),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.execute(f"INSERT INTO {_AUDIT_HEAD} (id, number, hash) VALUES (1, 0, '')")
