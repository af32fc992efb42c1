"""Neo4j behind TLS, with certificates made here: whose are taken, routing or not, and what is said of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from graph_store.errors import ConfigError, StoreUnavailable
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings
from tests.certificates import needs_openssl, write_certificate
from tests.conftest import Neo4jServer

pytestmark = [pytest.mark.neo4j, needs_openssl]

SCHEMA = GraphSchema(node_types=(NodeType.model_validate({"name": "Movie", "role": "entity"}),), relations=())


@dataclass(frozen=True, kw_only=True)
class Secure:
    """A server that takes TLS alone, its certificate for localhost."""

    port: int
    password: str
    certificates: Path


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    from tests.neo4j.server import MavenMissing, neo4j_server

    folder = tmp_path_factory.mktemp("secure-neo4j")
    certificates = folder / "certificates" / "bolt"
    certificates.mkdir(parents=True)
    write_certificate(certificates, "authority")
    write_certificate(certificates, "server", authority="authority")
    write_certificate(certificates, "stranger")
    configuration = {
        "server.bolt.tls_level": "REQUIRED",
        "server.default_advertised_address": "localhost",
        "dbms.ssl.policy.bolt.enabled": "true",
        "dbms.ssl.policy.bolt.base_directory": str(certificates),
        "dbms.ssl.policy.bolt.private_key": "server.key",
        "dbms.ssl.policy.bolt.public_certificate": "server.pem",
    }
    running = neo4j_server(folder, configuration=configuration)
    try:
        uri, password = running.__enter__()
    except MavenMissing as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield Secure(port=int(uri.rsplit(":", 1)[1]), password=password, certificates=certificates)
    finally:
        running.__exit__(None, None, None)


@pytest.fixture
def at(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> Secure:
    """The server, with its password where the store looks."""
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", secure.password)
    return secure


def _counts(uri: str, **changes: object) -> dict[str, int]:
    settings = StoreSettings.model_validate({"uri": uri, "timeout_s": 10, **changes})
    with Neo4jStore.open(SCHEMA, settings, read_only=False) as store:
        store.apply_schema()
        return store.counts().nodes


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_a_certificate_of_the_authority_that_is_named_is_taken(at: Secure, scheme: str) -> None:
    authority = at.certificates / "authority.pem"
    assert _counts(f"{scheme}+s://localhost:{at.port}", trusted_certificates=authority) == {"Movie": 0}


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_ssc_takes_any_certificate(at: Secure, scheme: str) -> None:
    assert _counts(f"{scheme}+ssc://127.0.0.1:{at.port}") == {"Movie": 0}


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_a_certificate_that_this_machine_does_not_trust(at: Secure, scheme: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"certificate of Neo4j at .* is not trusted: unable to get") as caught:
        _counts(f"{scheme}+s://localhost:{at.port}")
    assert "store.trusted_certificates" in caught.value.hint


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_a_certificate_of_another_authority(at: Secure, scheme: str) -> None:
    stranger = at.certificates / "stranger.pem"
    with pytest.raises(StoreUnavailable, match="is not trusted") as caught:
        _counts(f"{scheme}+s://localhost:{at.port}", trusted_certificates=stranger)
    assert "stranger.pem" in caught.value.hint


def test_a_certificate_for_another_host(at: Secure) -> None:
    authority = at.certificates / "authority.pem"
    with pytest.raises(StoreUnavailable, match=r"not trusted: .*not valid for '127\.0\.0\.1'") as caught:
        _counts(f"bolt+s://127.0.0.1:{at.port}", trusted_certificates=authority)
    assert "host in store.uri" in caught.value.hint


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_without_tls_where_it_is_wanted(at: Secure, scheme: str) -> None:
    with pytest.raises(StoreUnavailable, match="cannot reach Neo4j") as caught:
        _counts(f"{scheme}://localhost:{at.port}")
    assert "write store.uri with it: neo4j+s://" in caught.value.hint


@pytest.mark.parametrize("scheme", ["neo4j", "bolt"])
def test_with_tls_where_there_is_none(clean_neo4j: Neo4jServer, scheme: str) -> None:
    address = clean_neo4j.uri.removeprefix("bolt://")
    with pytest.raises(StoreUnavailable, match="cannot reach Neo4j") as caught:
        _counts(f"{scheme}+ssc://{address}")
    assert "without +s" in caught.value.hint


def test_routing_without_tls(clean_neo4j: Neo4jServer) -> None:
    assert _counts(clean_neo4j.uri.replace("bolt", "neo4j")) == {"Movie": 0}


def test_a_file_that_holds_no_certificates(at: Secure) -> None:
    for name, words in (("server.key", "holds no certificates"), ("nowhere.pem", "cannot be read: No such file")):
        with pytest.raises(ConfigError, match=rf"store\.trusted_certificates: {words}.*{name}"):
            _counts(f"neo4j+s://localhost:{at.port}", trusted_certificates=at.certificates / name)
