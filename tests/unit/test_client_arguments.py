"""Arguments that are wrong whatever the server would say: refused before anything is sent, in words that help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from kithkin import AsyncClient, Client, Described, Event, Link, Ref, Tls
from kithkin._connection import Connection


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    # Nobody listens here: a call that were sent would fail with Unavailable.
    with Client("localhost:1", retries=0, timeout=0.5) as client:
        yield client


WRONG: list[tuple[type[Exception], str, Callable[[Client], Any]]] = [
    (TypeError, r"an entity or vector=\.\.\. or described=\.\.\., exactly one: got none", lambda c: c.similar()),
    (TypeError, "not entity and vector together", lambda c: c.similar("1", vector=[1.0])),
    (TypeError, r"a user or events=\.\.\. or vector=\.\.\., exactly one", lambda c: c.recommend()),
    (TypeError, "unexpected keyword argument 'topk'", lambda c: c.similar("1", topk=3)),
    (ValueError, "top_k must be at least 1", lambda c: c.similar("1", top_k=0)),
    (ValueError, r"top_k must be .* below 2\*\*31", lambda c: c.similar("1", top_k=2**31)),
    (TypeError, "top_k must be a whole number, not 2.0", lambda c: c.similar("1", top_k=2.0)),
    (TypeError, "top_k must be a whole number, not True", lambda c: c.recommend("1", top_k=True)),
    (ValueError, "reasons must be at least 0", lambda c: c.similar("1", reasons=-1)),
    (ValueError, "max_reasons must be at least 1", lambda c: c.explain("1", "2", max_reasons=0)),
    (TypeError, "entity: an entity is an id such as '1'.* not 1.0", lambda c: c.similar(1.0)),
    (TypeError, "not True", lambda c: c.similar(True)),
    (ValueError, "entity: the id is empty", lambda c: c.similar("")),
    (ValueError, r"names a node as \('Type', 'id'\)", lambda c: c.similar(("Movie", "1", "2"))),
    (TypeError, "node type must be a string", lambda c: c.similar((1, "Movie"))),
    (ValueError, "already has a type, and type='Artist' is another", lambda c: c.get(Ref("Movie", "1"), type="Artist")),
    (TypeError, "type must be a string", lambda c: c.get("1", type=3)),
    (TypeError, r"not '12'; for a single one write \['12'\]", lambda c: c.similar("1", exclude="12")),
    (TypeError, r"write \['1'\]", lambda c: c.embed("1")),
    (TypeError, "items must be a list, not 7", lambda c: c.embed(7)),
    (ValueError, "items is empty", lambda c: c.embed([])),
    (ValueError, "events is empty", lambda c: c.recommend(events=[])),
    (TypeError, "events must be a list", lambda c: c.recommend(events=Event("1"))),
    (ValueError, "events: a weight must be finite and not 0", lambda c: c.recommend(events=[Event("1", weight=0)])),
    (ValueError, "None or 'popular', not 'random'", lambda c: c.recommend("1", fallback="random")),
    (ValueError, "vector is empty", lambda c: c.similar(vector=[])),
    (ValueError, r"vector\[1\] is nan", lambda c: c.similar(vector=[0.5, float("nan")])),
    (ValueError, r"vector\[0\] is inf as float32", lambda c: c.similar(vector=np.array([1e39]))),
    (TypeError, "flat list of numbers", lambda c: c.similar(vector=["a"])),
    (TypeError, "flat list of numbers", lambda c: c.similar(vector=np.ones((2, 3)))),
    (TypeError, "flat list of numbers", lambda c: c.similar(vector=0.5)),
    (TypeError, "not text or bytes", lambda c: c.similar(vector=b"1234")),
    (ValueError, "no such key 'props'; it takes type, properties, links", lambda c: c.similar(described={"props": {}})),
    (TypeError, "kithkin.Described or a dict", lambda c: c.similar(described="a film")),
    (TypeError, "property 'year': a value is text", lambda c: c.similar(described={"properties": {"year": 1j}})),
    (TypeError, "property 'tags'", lambda c: c.similar(described={"properties": {"tags": ["a", 1]}})),
    (ValueError, "does not fit in 64 bits", lambda c: c.similar(described={"properties": {"year": 2**63}})),
    (TypeError, "links holds kithkin.Link", lambda c: c.similar(described={"links": ["Drama"]})),
    (TypeError, r"links\['HAS_TAG'\] must be a list", lambda c: c.similar(described={"links": {"HAS_TAG": "rock"}})),
    (ValueError, "links: a weight", lambda c: c.similar(described=Described(links=[Link("R", "1", float("inf"))]))),
    (TypeError, r"to look up an id use get\(", lambda c: c.find(7)),
    (ValueError, "name is empty", lambda c: c.find("")),
    (ValueError, "timeout must be finite and above 0", lambda c: c.status(timeout=0)),
    (ValueError, "timeout must be finite", lambda c: c.status(timeout=float("inf"))),
    (TypeError, "every call has a deadline", lambda c: c.status(timeout="1s")),
    (ValueError, "request_id must be 1 to 128 printable", lambda c: c.status(request_id="ä")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "call"), WRONG)
def test_wrong_arguments(client: Client, kind: type[Exception], message: str, call: Callable[[Client], Any]) -> None:
    with pytest.raises(kind, match=message) as caught:
        call(client)
    assert type(caught.value) is kind


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("localhost", "must be host:port"),
        ("", "must be host:port"),
        ("::1:50051", "must be host:port"),
        ("localhost:0", "port must be between"),
        ("localhost:70000", "port must be between"),
        ("localhost:http", "must be host:port"),
        ("http://localhost:50051/", r"is a URL; gRPC takes host:port: Client\('localhost:50051'\)"),
        ("https://films.example:443", r"Client\('films.example:443', tls=True\)"),
    ],
)
def test_wrong_targets(kind: type, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(target)


@pytest.mark.parametrize(
    "target", ["localhost:50051", "10.0.0.1:1", "[::1]:50051", "dns:///films.example:50051", "unix:/run/kithkin.sock"]
)
def test_right_targets(target: str) -> None:
    with Client(target) as client:
        assert repr(client) == f"<kithkin.Client {target}>"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"timeout": None}, TypeError, "timeout must be a number"),
        ({"timeout": -1}, ValueError, "above 0"),
        ({"retries": -1}, ValueError, "retries must be"),
        ({"retries": True}, ValueError, "retries must be"),
        ({"metadata": {"X-Team": "a"}}, ValueError, "lower-case"),
        ({"metadata": {"grpc-timeout": "a"}}, ValueError, "no name of a text header"),
        ({"metadata": {"x-team": "a\nb"}}, ValueError, "x-team must be printable"),
        ({"api_key": "a\nb"}, ValueError, "api_key must be printable ASCII.*not its value"),
        ({"tls": Tls(ca="no/such/file.pem")}, ValueError, r"Tls\.ca: .*no/such/file.pem"),
    ],
)
def test_wrong_options(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(kind, match=message):
            client(**options)


def test_half_a_client_certificate() -> None:
    with pytest.raises(ValueError, match="certificate and key belong together"):
        Tls(certificate="client.pem")


def test_a_key_does_not_travel_in_the_clear() -> None:
    with pytest.raises(ValueError, match="unencrypted: pass tls=True, or insecure=True"):
        Client("films.example:50051", api_key="k")
    for target in ("localhost.example:1", "dns://8.8.8.8/localhost:1", "ipv4:127.0.0.1:1,10.0.0.1:1", "128.0.0.1:1"):
        with pytest.raises(ValueError, match="unencrypted"):
            AsyncClient(target, api_key="k")
    for target, options in (
        ("films.example:50051", {"tls": True}),
        ("films.example:50051", {"insecure": True}),
        ("localhost:50051", {}),
        ("[::1]:50051", {}),
        ("127.0.0.7:50051", {}),
        ("dns:///localhost:50051", {}),
        ("ipv6:[::1]:50051", {}),
        ("unix:/run/kithkin.sock", {}),
    ):
        Client(target, api_key="k", **options).close()


def test_tls_reaches_the_channel(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    connection = Connection.create(
        "films.example:443",
        timeout=1,
        retries=0,
        api_key=None,
        tls=Tls(ca=pem, server_name="inside.example"),
        metadata=None,
        insecure=False,
    )
    assert isinstance(connection.credentials(), grpc.ChannelCredentials)
    assert ("grpc.ssl_target_name_override", "inside.example") in connection.options()
