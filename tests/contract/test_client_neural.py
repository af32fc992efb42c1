"""The neural score through every client: over gRPC and in this process, what brute force under the score finds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from graph_store.settings import ServingSettings
from kithkin import AsyncClient, Client, F
from model_store.bundle_store import BundleStore
from server.wire.local import serve_in_thread
from tests.both_clients import Awaited
from tests.neural_bundle import expected, write_neural_bundle

KINDS = ("over gRPC", "in process", "in process with asyncio")


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    store.activate(write_neural_bundle(store))
    with (
        serve_in_thread(store.open(), ServingSettings()) as port,
        asyncio.Runner() as runner,
        Client(f"127.0.0.1:{port}", timeout=30) as remote,
        Client.local(store.root, timeout=30) as local,
    ):
        local_async = Awaited(runner, AsyncClient.local(store.root, timeout=30))
        yield dict(zip(KINDS, (remote, local, local_async), strict=True))
        local_async.close()


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def test_the_neural_score_ranks(client: Any) -> None:
    # The scorer reads the last two of the user's events.
    scores = expected([1, 2])
    results = client.recommend("u0000", target_type="Item", score="neural", top_k=20, filter=F.shelf == 7)
    best = [f"i{row:04}" for row in np.argsort(-scores, kind="stable") if row % 50 == 7][:20]
    assert results.ids == best
    np.testing.assert_allclose(results.to_numpy(), [scores[int(key[1:])] for key in best], atol=1e-5)
    assert results.info.filter_passed == 60
    assert results.info.network_calls >= 1


def test_pairs_have_the_neural_score(client: Any) -> None:
    pairs = [("u0000", "i0100"), ("u0000", "i0200")]
    scores = client.score_pairs(pairs, source_type="User", target_type="Item", score="neural")
    np.testing.assert_allclose(scores.to_numpy(), expected([1, 2])[[100, 200]], atol=1e-5)


def test_a_batch_of_it(clients: dict[str, Any]) -> None:
    users = [f"u{number % 10:04}" for number in range(130)]
    found = [
        [item.ids for item in client.recommend_batch(users, target_type="Item", score="neural", top_k=3)]
        for client in clients.values()
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][:10] == found[0][10:20] == found[0][120:]
