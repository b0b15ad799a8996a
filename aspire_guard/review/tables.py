"""The tables of the review queue, and the version of their schema."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    inspect,
    select,
)
from sqlalchemy.exc import OperationalError, ProgrammingError

from aspire_guard.errors import ReviewSchemaError

VERSION = 1

metadata = MetaData()

schema = Table(
    "aspire_guard_schema",
    metadata,
    # The table has one row: a process that comes second finds it there.
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

tickets = Table(
    "aspire_guard_reviews",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(200), nullable=False, unique=True),
    Column("question", Text, nullable=False),
    Column("context", Text),
    Column("answer", Text, nullable=False),
    Column("confidence", Float),
    Column("reason", Text, nullable=False),
    Column("group", Text),
    Column("metadata", Text, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False, index=True),
    Column("action", String(16), index=True),
    Column("text", Text),
    Column("reviewer", Text),
    Column("comment", Text),
    Column("decided", DateTime(timezone=True)),
)


def prepare_tables(connection: Connection) -> None:
    """Create the tables if they don't exist yet, and check their version.

    Raises:
        ReviewSchemaError: there are tables of these names that are not ours, or of another version.
    """
    present = set(inspect(connection).get_table_names()) & set(metadata.tables)
    if present == {tickets.name}:
        raise ReviewSchemaError(
            f"expected tables of aspire-guard, found a table {tickets.name!r} without {schema.name!r}; "
            "use another database, or rename that table"
        )
    if not present:
        metadata.create_all(connection)
        connection.execute(schema.insert().values(id=1, version=VERSION))
    try:
        version = connection.execute(select(schema.c.version)).scalar()
    except (OperationalError, ProgrammingError) as error:
        raise ReviewSchemaError(
            f"expected the column version in the table {schema.name!r}, found none; use another database"
        ) from error
    has_tickets = tickets.name in inspect(connection).get_table_names()
    if version != VERSION or not has_tickets:
        raise ReviewSchemaError(
            f"expected version {VERSION} of the review tables, found {version}; "
            "use the release of aspire-guard that wrote them, or another database"
        )
