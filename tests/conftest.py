"""Fixtures for all tests: one Neo4j server a run, started by the first test that needs it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, kw_only=True)
class Neo4jServer:
    """Where the tests' Neo4j listens."""

    uri: str
    user: str
    password: str


def pytest_sessionstart() -> None:
    """A run that is ended (by ``timeout``, say) stops as one by Ctrl-C does: a Neo4j would outlive it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Maven the tests that need Neo4j are skipped, unless KITHKIN_REQUIRE_NEO4J=1: then they fail."""
    needing = [item for item in items if item.get_closest_marker("neo4j")]
    if not needing or os.environ.get("KITHKIN_REQUIRE_NEO4J") == "1":
        return
    from tests.neo4j.server import lacking

    if (reason := lacking()) is not None:
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def neo4j_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jServer]:
    """A real Neo4j for the whole run, stopped at its end; KITHKIN_TEST_NEO4J=newest: of the newest version."""
    from tests.neo4j.server import MavenMissing, neo4j_server

    running = neo4j_server(tmp_path_factory.mktemp("neo4j"))
    try:
        uri, password = running.__enter__()
    except MavenMissing as error:
        pytest.fail(f"{error}, and KITHKIN_REQUIRE_NEO4J=1 wants the tests that need it", pytrace=False)
    try:
        yield Neo4jServer(uri=uri, user="neo4j", password=password)
    finally:
        running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def newest_neo4j_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jServer]:
    """The newest Neo4j beside that of the run, for the tests that run on both."""
    from tests.neo4j.server import jars, neo4j_server, version

    if version("newest") == version():
        pytest.skip("all tests of this run have the newest Neo4j")
    try:
        jars("newest")
    except RuntimeError as error:
        if os.environ.get("KITHKIN_REQUIRE_NEO4J") == "1":
            pytest.fail(f"{error}, and KITHKIN_REQUIRE_NEO4J=1 wants the tests that need it", pytrace=False)
        pytest.skip(str(error))
    with neo4j_server(tmp_path_factory.mktemp("newest-neo4j"), line="newest") as (uri, password):
        yield Neo4jServer(uri=uri, user="neo4j", password=password)


@pytest.fixture
def clean_neo4j(neo4j_server: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> Neo4jServer:
    """The Neo4j with nothing in it, its password where the store looks for it."""
    return _emptied(neo4j_server, monkeypatch)


@pytest.fixture
def clean_newest_neo4j(newest_neo4j_server: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> Neo4jServer:
    """The same of the newest version."""
    return _emptied(newest_neo4j_server, monkeypatch)


def _emptied(server: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> Neo4jServer:
    import neo4j

    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", server.password)
    with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
        driver.execute_query("MATCH (n) DETACH DELETE n")
        for record in driver.execute_query("SHOW CONSTRAINTS YIELD name").records:
            driver.execute_query(f"DROP CONSTRAINT `{record['name']}`")
        for record in driver.execute_query("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name").records:
            driver.execute_query(f"DROP INDEX `{record['name']}`")
    return server


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """A test that sets the server's log up leaves it so to no other: pytest listens to such a logger in another way."""
    yield
    logger = logging.getLogger("kithkin.server")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
