"""How the settings of the store become those of the driver, and where the password comes from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import neo4j
import pytest
from pydantic import ValidationError

from cli.main import main
from graph_store.errors import ConfigError
from graph_store.neo4j.address import driver_options, password
from graph_store.neo4j.prefixed import with_prefix
from graph_store.project import load_project
from graph_store.settings import StoreSettings
from server.processes import supervisor
from tests.contract.test_graph_store import SCHEMA

WORD = "s3cret-word"


@pytest.fixture(autouse=True)
def _no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KITHKIN_STORE_PASSWORD", "KITHKIN_STORE_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)


def _settings(**given: object) -> StoreSettings:
    return StoreSettings.model_validate({"uri": "neo4j://host:7687", **given})


def test_the_environment_stands_above_its_file_and_that_above_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("named", "set"):
        (tmp_path / name).write_text(f"{WORD}-{name}\n")
    settings = _settings(password_file=tmp_path / "set")
    assert password(_settings()) == ("", "")
    assert password(settings) == (f"{WORD}-set", str(tmp_path / "set"))
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD_FILE", str(tmp_path / "named"))
    assert password(settings)[0] == f"{WORD}-named"
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", WORD)
    assert password(settings) == (WORD, "KITHKIN_STORE_PASSWORD")
    assert driver_options(settings)[1]["auth"] == ("neo4j", WORD)


@pytest.mark.parametrize(
    ("text", "read"), [("word\n", "word"), ("word\r\n", "word"), (" wo rd ", " wo rd "), ("ü", "ü")]
)
def test_only_the_end_of_the_line_is_left_out(tmp_path: Path, text: str, read: str) -> None:
    (tmp_path / "secret").write_bytes(text.encode())
    assert password(_settings(password_file=tmp_path / "secret"))[0] == read


def test_a_password_file_that_does_not_do_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "bytes").write_bytes(WORD.encode() + b"\xff")
    for name, words in (("empty", "is empty"), ("bytes", "is not UTF-8"), ("gone", "cannot be read: No such file")):
        with pytest.raises(ConfigError, match=rf"store\.password_file: {words}.*{name}") as caught:
            driver_options(_settings(password_file=tmp_path / name))
        assert WORD not in str(caught.value)


def test_paths_start_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "kithkin.toml").write_text(
        '[store]\nuri = "neo4j+s://host"\npassword_file = "secret"\ntrusted_certificates = "/etc/authority.pem"\n'
        '[nodes.Movie]\nrole = "entity"\n'
    )
    store = load_project(tmp_path, environment={}).settings.store
    assert store.password_file == tmp_path / "secret"
    assert store.trusted_certificates == Path("/etc/authority.pem")


def test_a_password_in_kithkin_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kithkin.toml").write_text(f'[store]\npassword = "{WORD}"\n[nodes.Movie]\nrole = "entity"\n')
    with pytest.raises(ConfigError, match=r"store\.password: unknown key") as caught:
        load_project(tmp_path, environment={})
    assert "store.password_file" in caught.value.hint
    assert WORD not in str(caught.value)


def test_every_bound_reaches_the_driver() -> None:
    bounds = {"timeout_s": 3, "acquisition_timeout_s": 4, "retry_s": 5, "pool_size": 6}
    _, options = driver_options(_settings(**bounds))
    assert {
        "connection_timeout": 3,
        "connection_acquisition_timeout": 4,
        "max_transaction_retry_time": 5,
        "max_connection_pool_size": 6,
    }.items() <= options.items()
    _, options = driver_options(_settings(timeout_s=7))
    assert (options["connection_acquisition_timeout"], options["max_transaction_retry_time"]) == (7, 7)
    for uri in ("neo4j://h", "neo4j+s://h", "neo4j+ssc://h", "bolt://h", "bolt+s://h", "bolt+ssc://h"):
        address, options = driver_options(_settings(uri=uri))
        assert address == uri
        neo4j.GraphDatabase.driver(address, **options).close()  # takes every key; connects to nothing yet


def test_authorities_are_for_addresses_that_check_them() -> None:
    for uri in ("neo4j://h", "neo4j+ssc://h", "bolt://h", "graph.lbug"):
        with pytest.raises(ValidationError, match="trusted_certificates are for connections with TLS"):
            _settings(uri=uri, trusted_certificates="authority.pem")


@pytest.mark.parametrize("prefix", ["Kith-", "1st", "_x", "a`b", "ü_", "K" * 65])
def test_a_prefix_is_made_of_letters_digits_and_underscores(prefix: str) -> None:
    with pytest.raises(ValidationError, match="label_prefix"):
        _settings(label_prefix=prefix)


def test_a_schema_with_a_prefix_has_it_in_every_name() -> None:
    stored = with_prefix(SCHEMA, "Kith_")
    assert [declared.name for declared in stored.node_types] == ["Kith_Artist", "Kith_User", "Kith_Tag", "Kith_Act"]
    for relation, own in zip(stored.relations, SCHEMA.relations, strict=True):
        assert relation.triple == tuple(f"Kith_{part}" for part in own.triple)
        assert relation.arrow_schema == own.arrow_schema
    assert [relation.derive.via for relation in stored.relations if relation.derive] == ["Kith_PLAYED"]
    assert with_prefix(SCHEMA, "") == SCHEMA


def test_the_follower_of_a_server_gets_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kithkin.toml").write_text(
        '[store]\nuri = "neo4j+s://host"\npassword_file = "secret"\ntrusted_certificates = "authority.pem"\n'
        'label_prefix = "Kith_"\nretry_s = 5\n[serving]\nfollow = "2s"\n[nodes.Movie]\nrole = "entity"\n'
    )
    given: list[Any] = []

    def run(root: Path, settings: object, *, follow: object, **others: Any) -> int:
        given.append(follow)
        return 0

    monkeypatch.setattr(supervisor, "serve", run)
    monkeypatch.setattr(sys, "argv", ["kithkin", "serve", "--project", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    (order,) = given
    passed_on = json.loads(json.dumps(order.overrides))  # as the supervisor hands it to the process
    assert load_project(tmp_path, overrides=passed_on).settings.store == load_project(tmp_path).settings.store
