"""The tables of earlier versions are taken over, on SQLite and on PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from aspire_guard.review import Decision, ReviewItem, ReviewQueue, TicketFilter
from aspire_guard.review.schema import VERSION_TABLE
from aspire_guard.review.tables import metadata

# As the first releases wrote them.
FIRST_TABLES = """
CREATE TABLE aspire_guard_schema (
    id INTEGER NOT NULL CHECK (id = 1), version INTEGER NOT NULL, PRIMARY KEY (id)
);
CREATE TABLE aspire_guard_reviews (
    id VARCHAR(32) NOT NULL, key VARCHAR(200) NOT NULL, question TEXT NOT NULL, context TEXT,
    answer TEXT NOT NULL, confidence FLOAT, reason TEXT NOT NULL, "group" TEXT,
    metadata TEXT NOT NULL, created {time} NOT NULL, action VARCHAR(16), text TEXT,
    reviewer TEXT, comment TEXT, decided {time}, PRIMARY KEY (id), UNIQUE (key)
);
CREATE INDEX ix_aspire_guard_reviews_created ON aspire_guard_reviews (created);
CREATE INDEX ix_aspire_guard_reviews_action ON aspire_guard_reviews (action);
INSERT INTO aspire_guard_schema (id, version) VALUES (1, 1);
INSERT INTO aspire_guard_reviews VALUES (
    '{one}', 'key 1', 'Who?', 'Ada keeps it.', 'Ada', 0.25, 'low', 'acme', '{{"tries": 2}}',
    '2026-01-02 03:04:05.000006', 'edit', 'Ada B.', 'bea', 'spelling', '2026-01-02 04:00:00.000000'
);
INSERT INTO aspire_guard_reviews VALUES (
    '{two}', 'key 2', 'When?', NULL, 'NOON', NULL, '', NULL, '{{}}',
    '2026-01-03 03:04:05.000006', NULL, NULL, NULL, NULL, NULL
);
"""
ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture
def first_version(url: str, connect: Engine) -> str:
    """The URL of a database of the first releases, with a decided and an open ticket."""
    is_sqlite = connect.dialect.name == "sqlite"
    time = "DATETIME" if is_sqlite else "TIMESTAMP WITH TIME ZONE"
    script = FIRST_TABLES.format(time=time, one=ONE, two=TWO)
    with connect.begin() as connection:
        if not is_sqlite:
            connection.execute(text("SET TIME ZONE 'UTC'"))
        for statement in script.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement.strip())
    return url


def test_the_tickets_of_the_first_releases_are_taken_over(first_version: str) -> None:
    """Both tickets, the decision and its reviewer are there, and the new methods work on them."""
    queue = ReviewQueue(first_version)
    decided, waiting = queue.list()
    item = ReviewItem(
        question="Who?", context="Ada keeps it.", answer="Ada", confidence=0.25, reason="low",
        group="acme", metadata={"tries": 2}, key="key 1",
    )  # fmt: skip
    assert (decided.id, decided.item, decided.status) == (ONE, item, "decided")
    assert decided.created == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    edit = Decision(action="edit", text="Ada B.", reviewer="bea", comment="spelling")
    assert decided.decision == edit
    assert [opinion.decision for opinion in queue.opinions(ONE)] == [edit]
    assert (waiting.id, waiting.status) == (TWO, "open")
    assert queue.list(TicketFilter(text="noon")).tickets == (waiting,)
    assert [entry.event for entry in queue.history(ONE)] == ["imported"]
    approve = Decision(action="approve", reviewer="cem")
    assert queue.claim("cem") is not None
    assert queue.decide(TWO, approve).decision == approve
    assert queue.verify().is_whole


def test_many_processes_may_meet_an_old_database(first_version: str) -> None:
    """One of them brings it to the present version."""
    with ThreadPoolExecutor(6) as pool:
        totals = list(pool.map(lambda _: ReviewQueue(first_version).list().total, range(6)))
    assert totals == [2] * 6
    assert ReviewQueue(first_version).verify().n_entries == 2


def test_the_migrations_make_the_tables_that_the_code_expects(
    first_version: str, connect: Engine
) -> None:
    """A database that was migrated has every table, column and index, and no other."""
    ReviewQueue(first_version).list()
    # SQLite keeps times as text.
    has_times = connect.dialect.name == "postgresql"
    options = {"version_table": VERSION_TABLE, "compare_type": has_times}
    with connect.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_a_release_of_the_first_version_refuses_a_new_database(url: str, connect: Engine) -> None:
    """It looks for version 1, and would otherwise write tickets past the audit trail."""
    ReviewQueue(url).list()
    with connect.connect() as connection:
        found = connection.execute(text("SELECT version FROM aspire_guard_schema")).scalar()
    assert found == 2
