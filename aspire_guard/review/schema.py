"""The preparation of a database for the review queue: its tables are created, or brought to the present version."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, select, text

from aspire_guard.errors import ReviewSchemaError
from aspire_guard.review.tables import metadata, schema, tickets

VERSION = "0002"
VERSION_TABLE = "aspire_guard_review_version"

_FIRST_VERSION = "0001"
_MIGRATIONS = Path(__file__).with_name("migrations")
# The number of the lock that a process holds in PostgreSQL while it changes tables. SQLite has one writer anyway.
_MIGRATION_LOCK = 0x61737069


def is_prepared(connection: Connection) -> bool:
    """Tell whether the tables have the present version.

    Raises:
        ReviewSchemaError: the tables have a version that this release doesn't know.
    """
    if VERSION_TABLE not in inspect(connection).get_table_names():
        return False
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if found is not None and str(found) > VERSION:
        raise _make_version_error(str(found))
    return found == VERSION


def prepare_tables(connection: Connection) -> bool:
    """Create the tables, or bring the tables of an earlier version to the present one, within a transaction.

    Returns:
        True if there were tables of an earlier version.

    Raises:
        ReviewSchemaError: there are tables of these names that are not ours, or of an unknown version.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    if is_prepared(connection):
        return False
    present = set(inspect(connection).get_table_names()) & {*metadata.tables, VERSION_TABLE}
    is_first_version = bool(present) and VERSION_TABLE not in present
    if is_first_version:
        _check_first_version(connection, present)
    _migrate(connection, start=_FIRST_VERSION if is_first_version else None)
    return bool(present)


def _check_first_version(connection: Connection, present: set[str]) -> None:
    """Make sure that the tables are those that the first releases wrote."""
    if schema.name not in present:
        raise ReviewSchemaError(
            f"expected tables of aspire-guard, found a table {min(present)!r} without {schema.name!r}; "
            "use another database, or rename that table"
        )
    columns = {column["name"] for column in inspect(connection).get_columns(schema.name)}
    if "version" not in columns:
        raise ReviewSchemaError(
            f"expected the column version in the table {schema.name!r}, found none; use another database"
        )
    found = connection.execute(select(schema.c.version)).scalar()
    if found != 1 or tickets.name not in present:
        raise _make_version_error(str(found))


def _make_version_error(found: str) -> ReviewSchemaError:
    return ReviewSchemaError(
        f"expected version {int(VERSION)} of the review tables or an earlier one, found {found.lstrip('0')}; "
        "use the release of aspire-guard that wrote them, or another database"
    )


def _migrate(connection: Connection, start: str | None) -> None:
    # Imported here, because most processes find the tables ready.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if start is not None:
        command.stamp(config, start)
    command.upgrade(config, VERSION)
