"""The statements of docs/neo4j.md: those of every edition run, those of Enterprise are understood."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import neo4j
import pytest

from graph_store.settings import StoreSettings
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

PAGE = (Path(__file__).parents[2] / "docs" / "neo4j.md").read_text(encoding="utf-8")


@pytest.fixture
def driver(clean_neo4j: Neo4jServer) -> Iterator[neo4j.Driver]:
    with neo4j.GraphDatabase.driver(clean_neo4j.uri, auth=(clean_neo4j.user, clean_neo4j.password)) as driver:
        yield driver


def _statements(kind: str) -> list[str]:
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [statement.strip() for block in blocks for statement in block.split(";") if statement.strip()]


def test_what_kithkin_left_is_taken_out_by_hand(driver: neo4j.Driver) -> None:
    driver.execute_query("CREATE CONSTRAINT kithkin_Kith_Film_id FOR (n:Kith_Film) REQUIRE n.id IS UNIQUE")
    driver.execute_query(
        "CREATE (:Kith_Film:Kith_Entity {id: 'f1'})-[:Kith_IS]->(:Kith_Tag), (:Kith_KithkinSchema), (:Film)"
    )
    shown, *others = _statements("cypher")
    assert [record.data() for record in driver.execute_query(shown).records] == [
        {"name": "kithkin_Kith_Film_id", "labelsOrTypes": ["Kith_Film"]}
    ]
    for statement in others:
        driver.execute_query(statement)
    assert driver.execute_query(shown).records == []
    assert driver.execute_query("MATCH (k:Kith_KithkinSchema) RETURN count(k) AS n").records[0]["n"] == 0
    with driver.session() as session:
        for statement in _statements("cypher commits"):
            session.run(statement).consume()
    assert [record["l"] for record in driver.execute_query("MATCH (n) RETURN labels(n) AS l").records] == [["Film"]]


def test_the_statements_for_enterprise_are_understood(driver: neo4j.Driver) -> None:
    statements = _statements("cypher enterprise")
    assert len(statements) > 15
    for statement in statements:
        if statement.startswith("CREATE USER"):
            continue  # that Community does
        with pytest.raises(neo4j.exceptions.ClientError) as caught:
            driver.execute_query(statement, database_="system")
        assert caught.value.code == "Neo.ClientError.Statement.UnsupportedAdministrationCommand", statement


def test_the_settings_shown_are_settings() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    StoreSettings.model_validate(tomllib.loads(block)["store"])
