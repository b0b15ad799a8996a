"""The tables of the review queue, and the types of their columns."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

# A character that Unicode reserves for internal use. It stands before the number of a character that PostgreSQL or
# UTF-8 can't hold: NUL, lone surrogates, and the character itself.
_ESCAPE = "\ufdd0"
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff\ufdd0]")
# The format of SQLAlchemy's own times, in which version 1 wrote them.
_SQLITE_TIME = "%Y-%m-%d %H:%M:%S.%f"
_ESCAPED = re.compile(rf"{_ESCAPE}([0-9a-f]{{4}})")


class AnyText(TypeDecorator[str]):
    """Text of any characters, NUL and lone surrogates included."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Write each character that the database can't hold as its number."""
        return None if value is None else escape_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Read the characters back."""
        if value is None or _ESCAPE not in value:
            return value
        return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, which SQLite keeps as text.

    A text that is no time is handed on as it is, so that it spoils its own ticket only and not a whole list.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Keep text in SQLite."""
        is_sqlite = dialect.name == "sqlite"
        return dialect.type_descriptor(Text() if is_sqlite else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Turn the time into UTC."""
        if value is None:
            return None
        utc_time = value.astimezone(UTC)
        return utc_time.strftime(_SQLITE_TIME) if dialect.name == "sqlite" else utc_time

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """Read the time, with its time zone."""
        if isinstance(value, str):
            try:
                return datetime.strptime(value, _SQLITE_TIME).replace(tzinfo=UTC)
            except ValueError:
                return value
        return value.astimezone(UTC) if isinstance(value, datetime) else value


def escape_text(text: str) -> str:
    """Return a text in which each character that a database can't hold is written as its number."""
    return _UNSTORABLE.sub(lambda found: f"{_ESCAPE}{ord(found[0]):04x}", text)


metadata = MetaData()

schema = Table(
    "aspire_guard_schema",
    metadata,
    # The table has one row. Its version is 2 for good: the releases that know version 1 alone refuse the database, and
    # Alembic keeps the real version.
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

tickets = Table(
    "aspire_guard_reviews",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", AnyText, nullable=False, unique=True),
    Column("question", AnyText, nullable=False),
    Column("context", AnyText),
    Column("answer", AnyText, nullable=False),
    Column("confidence", Float),
    Column("reason", AnyText, nullable=False),
    Column("group", AnyText),
    Column("metadata", Text, nullable=False),
    Column("created", UtcTime, nullable=False),
    # The final decision. With a second reviewer it is the one that settles the ticket.
    Column("action", String(16)),
    Column("text", AnyText),
    Column("reviewer", AnyText),
    Column("comment", AnyText),
    Column("decided", UtcTime),
    Column("status", String(16), nullable=False, server_default="open"),
    Column("expires", UtcTime),
    Column("claimed_by", AnyText),
    Column("claimed_until", UtcTime),
    Column("needs_second_opinion", Boolean, nullable=False, server_default="0"),
    Column("n_opinions", Integer, nullable=False, server_default="0"),
    Column("delivered", UtcTime),
    Column("thread_id", AnyText),
    Column("is_released", Boolean, nullable=False, server_default="0"),
    # The fields of the item that no filter needs, as JSON.
    Column("details", Text, nullable=False, server_default="{}"),
    # Question and answer in lower case, for the filter by text.
    Column("search_text", Text, nullable=False, server_default=""),
    # The last three are there so that tickets are counted without reading their rows.
    Index(
        "ix_aspire_guard_reviews_status",
        "status",
        "created",
        "id",
        "expires",
        "claimed_until",
        "confidence",
    ),
    Index("ix_aspire_guard_reviews_created", "created", "id"),
    Index("ix_aspire_guard_reviews_expires", "status", "expires"),
    Index("ix_aspire_guard_reviews_reviewer", "reviewer"),
)

opinions = Table(
    "aspire_guard_review_opinions",
    metadata,
    Column("ticket", String(32), ForeignKey(tickets.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("action", String(16), nullable=False),
    Column("text", AnyText),
    Column("reviewer", AnyText),
    Column("comment", AnyText),
    Column("time", UtcTime, nullable=False),
    Column("undone", UtcTime),
    UniqueConstraint("ticket", "number"),
)

audit = Table(
    "aspire_guard_review_audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("ticket", String(32), nullable=False, index=True),
    Column("event", String(16), nullable=False),
    Column("time", UtcTime, nullable=False),
    # These three are erased with the ticket. The digest stays, so the chain of hashes stays whole.
    Column("actor", AnyText),
    Column("details", Text),
    Column("salt", String(32)),
    Column("digest", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

# The last entry of the audit trail. Whoever appends an entry holds its only row.
audit_head = Table(
    "aspire_guard_review_audit_head",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

webhooks = Table(
    "aspire_guard_review_webhooks",
    metadata,
    Column("name", String(64), primary_key=True),
    # The number of the last entry of the audit trail that was sent.
    Column("sent", BigInteger, nullable=False),
    # The process that sends now has the webhook for itself until then.
    Column("leased_until", UtcTime),
)
