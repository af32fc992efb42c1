"""What a server counts, read as Prometheus would: of one process and of several; and recall measured in operation."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client import generate_latest

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import retrieval_service_pb2_grpc, types_pb2
from model_store.bundle_store import BundleStore
from server.errors import StartError
from server.index.exact_index import ExactIndex
from server.index.rescoring import scores_of
from server.index.vector_index import Found, Rows, Vectors, best_first
from server.model.served_model import ServedModel
from server.observe.audit import RecallAudit, WatchedIndex
from server.observe.metrics import Metrics
from server.observe.metrics_page import FOLDER, forget, page_of, page_of_workers
from server.processes.state import DeltaCounts, State
from server.wire.application import Application
from tests.bundles import write_toy_bundle

Values = dict[str, float]


def read(text: str) -> Values:
    """Samples by name and labels, as they are written."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def page(port: int | None) -> Values:
    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return read(await asyncio.to_thread(fetch))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Application, retrieval_service_pb2_grpc.RetrievalServiceStub]]:
    store = BundleStore(tmp_path)
    state = State(settings=ServingSettings(drain_s=1, metrics_port=0, max_top_k=50))
    state.take(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))))
    application = Application(state)
    port = await application.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield application, retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
    await application.drain(notice=0)


async def test_calls_are_counted_and_timed(
    served: tuple[Application, retrieval_service_pb2_grpc.RetrievalServiceStub],
) -> None:
    application, retrieval = served
    similar = pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id="1"), top_k=2, reasons=1)
    for _ in range(3):
        await retrieval.SearchSimilarEntities(similar, timeout=10)
    await retrieval.SearchSimilarEntities(
        pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(id="1"), top_k=50), timeout=10
    )
    await retrieval.RetrieveEntitiesForUser(
        pb.RetrieveEntitiesForUserRequest(
            user=types_pb2.NodeRef(id="nobody"), top_k=2, fallback=types_pb2.FALLBACK_POPULAR
        ),
        timeout=10,
    )
    for top_k in (0, 51):
        with pytest.raises(grpc.aio.AioRpcError):
            await retrieval.SearchSimilarEntities(pb.SearchSimilarEntitiesRequest(top_k=top_k), timeout=10)
    values = await page(application.metrics_port)
    assert values['kithkin_calls_total{code="OK",method="SearchSimilarEntities"}'] == 4
    assert values['kithkin_calls_total{code="INVALID_ARGUMENT",method="SearchSimilarEntities"}'] == 2
    assert values['kithkin_refusals_total{reason="TOP_K_OUT_OF_RANGE"}'] == 2
    assert values['kithkin_call_seconds_count{method="SearchSimilarEntities"}'] == 6
    assert values['kithkin_fallbacks_total{method="RetrieveEntitiesForUser"}'] == 1
    assert values['kithkin_shortfalls_total{method="SearchSimilarEntities"}'] == 1
    assert values["kithkin_calls_in_work"] == 0
    counted = {
        stage: values[f'kithkin_stage_seconds_count{{method="SearchSimilarEntities",stage="{stage}"}}']
        for stage in ("wait", "parse", "prepare", "search", "explain", "serialise")
    }
    # Those refused were read, and got no further than being prepared.
    assert counted == {"wait": 6, "parse": 6, "prepare": 4, "search": 4, "explain": 3, "serialise": 4}
    spent = values['kithkin_call_seconds_sum{method="SearchSimilarEntities"}']
    stages = sum(values[key] for key in values if re.match(r'kithkin_stage_seconds_sum.*"SearchSimilarEntities"', key))
    assert 0.5 * spent < stages <= spent
    exact = 'kithkin_searches_total{exact="yes",node_type="Artist",path="all",space="similar"}'
    assert values[exact] == 4


async def test_what_serves_is_shown(
    served: tuple[Application, retrieval_service_pb2_grpc.RetrievalServiceStub], tmp_path: Path
) -> None:
    application, _ = served
    before = application.state.version
    store = BundleStore(tmp_path)
    values = await page(application.metrics_port)
    assert values[f'kithkin_bundle_info{{version="{before}"}}'] == 1
    assert values['kithkin_index_vectors{kind="exact",node_type="Artist",space="similar"}'] == 6
    assert values['kithkin_index_recall{node_type="Artist",space="similar"}'] == 1
    assert values["kithkin_bundle_refused"] == 0
    after = ServedModel.load(store.open(write_toy_bundle(store, encoders=False, snapshot="next")))
    await application.take(after)
    application.state.refuse(f"{after.version}: damaged")
    application.state.delta = DeltaCounts(fresh=3, changed=2, deleted=1, lag_s=0.5)
    application.state.hear(application.state.fleet)  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    values = await page(application.metrics_port)
    assert values[f'kithkin_bundle_info{{version="{before}"}}'] == 0
    assert values[f'kithkin_bundle_info{{version="{after.version}"}}'] == 1
    assert values["kithkin_bundle_refused"] == 1
    assert values['kithkin_delta_nodes{change="fresh"}'] == 3
    assert values["kithkin_delta_lag_seconds"] == 0.5
    published = after.bundle.manifest.published_at.ToNanoseconds() / 1e9
    assert values["kithkin_bundle_published_timestamp_seconds"] == pytest.approx(published)


async def test_refusals_of_an_overload_are_counted(
    served: tuple[Application, retrieval_service_pb2_grpc.RetrievalServiceStub],
) -> None:
    application, retrieval = served
    application.admission.in_work = application.admission.most
    with pytest.raises(grpc.aio.AioRpcError):
        await retrieval.GetEntity(pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1")), timeout=10)
    application.admission.in_work = 0
    values = await page(application.metrics_port)
    assert values['kithkin_refusals_total{reason="OVERLOADED"}'] == 1
    assert values['kithkin_calls_total{code="RESOURCE_EXHAUSTED",method="GetEntity"}'] == 1


def test_every_answer_tells_of_itself() -> None:
    for method in pb.DESCRIPTOR.services_by_name["RetrievalService"].methods:
        metrics = Metrics()
        response = getattr(pb, method.output_type.name)()
        response.info.shortfall_reason = "only 1"
        if method.name.startswith("Batch"):
            response.items.add().response.info.shortfall_reason = "only 1"
        metrics.described(method.name, response)
        values = read(generate_latest(metrics.registry).decode())
        assert values[f'kithkin_shortfalls_total{{method="{method.name}"}}'] == 1, method.name


async def test_what_goes_wrong_with_counting_takes_no_answer_away(
    served: tuple[Application, retrieval_service_pb2_grpc.RetrievalServiceStub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Metrics, "described", lambda *_: 1 / 0)
    _, retrieval = served
    assert (await retrieval.GetEntity(pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1")), timeout=10)).nodes


def test_no_series_bear_names_of_nodes(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    metrics = Metrics()
    metrics.bundle(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))), refused=False)
    labels = set(re.findall(r"(\w+)=\"", generate_latest(metrics.registry).decode()))
    bounded = "method code stage reason space node_type kind version path exact le change outcome"
    assert labels <= set(bounded.split())


class HalfBlind:
    """An index that finds what lies in even rows only, and calls itself approximate."""

    kind = "scann"

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: Vectors, k: int, exclude: list[Rows] | None = None, allowed: object = None
    ) -> list[Found]:
        found = []
        for number, query in enumerate(queries):
            rows = np.arange(0, len(self._vectors), 2)
            if exclude is not None:
                rows = np.setdiff1d(rows, exclude[number])
            rows, scores = best_first(rows, scores_of(self._vectors[rows], query), k)
            found.append(Found(rows=rows, scores=scores, exact=False, scored=len(rows)))
        return found


def watched(share: float) -> tuple[WatchedIndex, RecallAudit, Vectors]:
    vectors = np.random.default_rng(1).normal(size=(400, 8)).astype(np.float32)
    audit = RecallAudit(share, Metrics(), seed=1)
    return WatchedIndex(HalfBlind(vectors), ("similar", "Artist"), ExactIndex(vectors), audit), audit, vectors


def audited(audit: RecallAudit) -> Values:
    audit.close()
    return read(generate_latest(audit.metrics.registry).decode())


def test_recall_is_measured_on_the_searches_that_come() -> None:
    index, audit, vectors = watched(1.0)
    hits = 0
    for row in range(20):
        (found,) = index.search(vectors[row][None], 10, [np.array([row])])
        right = np.argsort(-(vectors @ vectors[row]), kind="stable")
        hits += len(np.intersect1d(found.rows, [other for other in right if other != row][:10]))
    values = audited(audit)
    place = 'node_type="Artist",space="similar"'
    assert values[f"kithkin_audits_total{{{place}}}"] == 20
    assert values[f"kithkin_audit_expected_total{{{place}}}"] == 200
    assert values[f"kithkin_audit_found_total{{{place}}}"] == hits
    assert values[f"kithkin_online_recall{{{place}}}"] == pytest.approx(hits / 200)
    assert 0.3 < hits / 200 < 0.7, "it sees half of them"


def test_a_share_of_the_searches_is_audited() -> None:
    index, audit, vectors = watched(0.1)
    for _ in range(10):
        index.search(vectors[:30], 5)
    # The queue holds 64, and a slow machine may leave some out.
    assert 0 < audited(audit)['kithkin_audits_total{node_type="Artist",space="similar"}'] < 64


def test_an_answer_of_the_watched_index_is_the_index_s_own() -> None:
    index, audit, vectors = watched(0.5)
    alone = HalfBlind(vectors).search(vectors[:4], 5)
    for mine, its in zip(index.search(vectors[:4], 5), alone, strict=True):
        assert mine.rows.tolist() == its.rows.tolist()
    assert (len(index), index.kind) == (400, "scann")
    audit.close()


WORKER = """
import sys
from server.observe.metrics import Metrics
from server.deadline import Deadline
metrics = Metrics(lambda: int(sys.argv[1]))
for _ in range(int(sys.argv[1])):
    metrics.answered("GetEntity", "OK", Deadline())
metrics.add_up()
print(sys.argv[1], flush=True)
sys.stdin.read()
"""


async def test_the_numbers_of_several_workers_add_up() -> None:
    assert FOLDER not in os.environ
    with page_of_workers(ServingSettings(metrics_port=0)) as port:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, calls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for calls in ("3", "4")
        ]
        for worker in workers:
            assert worker.stdout is not None
            await asyncio.to_thread(worker.stdout.readline)
        values = await page(port)
        assert values['kithkin_calls_total{code="OK",method="GetEntity"}'] == 7
        assert values['kithkin_call_seconds_count{method="GetEntity"}'] == 7
        assert values["kithkin_calls_in_work"] == 7
        workers[0].communicate()
        forget(workers[0].pid)
        values = await page(port)
        assert values['kithkin_calls_total{code="OK",method="GetEntity"}'] == 7, "a counter never falls"
        assert values["kithkin_calls_in_work"] == 4, "what has ended does nothing"
        workers[1].communicate()
    assert FOLDER not in os.environ


def test_a_port_that_is_taken_is_told() -> None:
    metrics = Metrics()
    settings = ServingSettings(metrics_port=0)
    with (
        page_of(metrics.registry, settings) as port,
        pytest.raises(StartError, match=r"cannot show metrics on 127\.0\.0\.1"),
        page_of(metrics.registry, settings.model_copy(update={"metrics_port": port})),
    ):
        pass
