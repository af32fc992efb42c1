"""From a change in the graph to the answers: vectors as training computes them, and processes that follow a store."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from graph_store.changes import Comparison
from graph_store.graph import open_graph
from graph_store.project import Project, load_project
from graph_store.schema import Triple
from graph_store.stores import open_store
from kithkin import Client
from kithkin.errors import NotFound
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from server.fresh.catching_up import changed_nodes, changed_pairs
from server.fresh.delta_file import DeltaReader, delta_path
from server.fresh.follower import Follower, FollowOrder
from server.fresh.nodes import FreshNodes, affected_nodes
from tests.e2e.conftest import kithkin, serving
from tests.toy import LOVE, SPACE, write_toy
from training.export import export_snapshot
from training.graph import Graph
from training.inference import embed
from training.model import TrainedModel
from training.neighbours import top_neighbours
from training.space_model import OnlineEncoder

SMALL = "".join(
    f"\n[training.{space}]\nsteps = 20\nhidden = 8\nheads = 2\ndimension = 16\nlayers = 1\nfan_out = 3\n"
    for space in ("similar", "user")
)
HAS_GENRE = Triple("Film", "HAS_GENRE", "Genre")
MOST_S = 60.0
CREATE = (
    "CREATE (:Film {id: 'n1', title: 'Nova', year: 1995})",
    "MATCH (f:Film {id: 'n1'}), (g:Genre {id: 'Space'}) CREATE (f)-[:HAS_GENRE]->(g)",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with a bundle of one round of messages."""
    folder = write_toy(tmp_path_factory.mktemp("toy"))
    with (folder / "kithkin.toml").open("a") as file:
        file.write(SMALL)
    kithkin("build", folder=folder)
    return folder


@pytest.fixture
def toy(built: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test to change."""
    import shutil

    return Path(shutil.copytree(built, tmp_path / "toy"))


def eventually(check: Callable[[], bool]) -> float:
    """Wait until a check holds; how long that took."""
    started = time.monotonic()
    while not check():
        assert time.monotonic() < started + MOST_S, "it did not happen in time"
        time.sleep(0.1)
    return time.monotonic() - started


def write(folder: Path, *statements: str) -> None:
    """Another program's Cypher."""
    with open_store(load_project(folder)) as store:
        for statement in statements:
            store.query(statement, write=True)


def offline(project: Project, trained: TrainedModel, space: str, node_type: str, ids: list[str]) -> np.ndarray:
    """Vectors by training's own encoder: the graph as it is now, the published nodes' layers as they were."""
    model = trained.spaces[space]
    snapshots = project.work / "snapshots"
    (old_folder,) = snapshots.iterdir()
    from training.export import Snapshot

    old = Graph(Snapshot.open(old_folder))
    published = embed(model, trained.transforms, old, node_types=(node_type,)).states
    with open_store(project, read_only=True) as store:
        new = Graph(export_snapshot(store, project.schema, project.work / "now"))
    rows = {each.name: new.properties(each.name).column("id").to_pylist() for each in project.schema.node_types}
    before = {each.name: old.properties(each.name).column("id").to_pylist() for each in project.schema.node_types}
    vectors = []
    for node_id in ids:
        row = rows[node_type].index(node_id)
        links: dict[EdgeType, Csr] = {}
        kinds, weights, states = [], [], []
        for edge_type in (each for each in new.edge_types if each.node_type == node_type):
            csr = top_neighbours(new.csr(edge_type), None)
            names = [rows[edge_type.neighbour_type][each] for each in csr.indices[csr.row(row)]]
            weight = np.ones(len(names)) if csr.weight is None else csr.weight[csr.row(row)]
            known = [(before[edge_type.neighbour_type].index(n), w) for n, w in zip(names, weight, strict=True)
                     if n in before[edge_type.neighbour_type]]  # fmt: skip
            links[edge_type] = Csr(
                indptr=np.array([0, len(known)], np.int64),
                indices=np.array([at for at, _ in known], np.int32),
                weight=np.array([w for _, w in known], np.float32),
            )
            if edge_type in model.shape.edge_types:
                for at, w in known[: model.settings.fan_out]:
                    kinds.append(model.shape.edge_types.index(edge_type))
                    weights.append(w)
                    states.append(published[0][edge_type.neighbour_type][at])
        own = new.properties(node_type).slice(row, 1)
        features = torch.from_numpy(trained.transforms.apply(node_type, own, links))
        inputs = [
            torch.tensor([kinds]),
            torch.tensor(np.array([weights], np.float32)),
            torch.ones(1, len(kinds), dtype=torch.bool),
            torch.from_numpy(np.array([states], np.float32)),
        ]
        with torch.no_grad():
            vectors.append(OnlineEncoder(model, node_type).eval()(features, *inputs).numpy()[0])
    return np.array(vectors)


def test_fresh_vectors_are_those_that_training_computes(toy: Path) -> None:
    project = load_project(toy)
    write(
        toy,
        *CREATE,
        "CREATE (:User {id: 'gil'})",
        "MATCH (u:User {id: 'gil'}), (f:Film {id: 's1'}) "
        "CREATE (u)-[:WATCHED {stars: 5.0, at: CAST('2026-01-02 00:00:00' AS TIMESTAMP_TZ)}]->(f)",
        "MATCH (u:User {id: 'gil'}), (f:Film {id: 's5'}) "
        "CREATE (u)-[:WATCHED {stars: 4.0, at: CAST('2026-01-03 00:00:00' AS TIMESTAMP_TZ)}]->(f)",
        "MATCH (f:Film {id: 'l5'}) SET f.year = 1990",
    )
    bundles = BundleStore(project.work / "models")
    bundle = bundles.open(bundles.active() or "")
    limit = project.settings.publish.max_neighbours
    with open_store(project, read_only=True) as store:
        nodes = changed_nodes(bundle, project.schema, store)
        pairs = changed_pairs(bundle, project.schema, store, limit)
        assert nodes == {"Film": {"n1", "l5"}, "Genre": set(), "User": {"gil"}}
        assert {str(triple): sorted(each) for triple, each in pairs.items()} == {
            "(Film)-[HAS_GENRE]->(Genre)": [("n1", "Space")],
            "(User)-[WATCHED]->(Film)": [("gil", "s1"), ("gil", "s5")],
        }
        affected = affected_nodes(nodes, pairs)
        assert affected["Film"] == {"n1", "l5", "s1", "s5"}
        fresh = FreshNodes(bundle, project.schema, limit)
        records = {each.node_type: each.nodes for each in fresh.records(store, affected)}
    trained = TrainedModel.load(project.work / "checkpoints")
    for space, node_type in (("similar", "Film"), ("user", "Film"), ("user", "User")):
        found = records[node_type]
        ids = found.column("id").to_pylist()
        vectors = np.array(found.column(f"vector/{space}").to_pylist())
        expected = offline(project, trained, space, node_type, ids)
        np.testing.assert_allclose(vectors, expected, atol=1e-5, err_msg=f"{space} {node_type} {ids}")
    genres = {row["id"]: row for row in records["Genre"].to_pylist()}
    assert "n1" in genres["Space"][f"links/{EdgeType(HAS_GENRE, True).key}"]
    watchers = {row["id"]: row["popularity"] for row in records["Film"].to_pylist()}
    assert watchers == {"n1": 0.0, "l5": 0.0, "s1": 4.0, "s5": 1.0}


def test_what_the_log_tells_is_not_compared(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project(toy)
    bundles = BundleStore(project.work / "models")
    version = bundles.active() or ""
    follower = Follower(FollowOrder(root=str(bundles.root), project=str(project.file), overrides={}, every_s=1))
    reader = DeltaReader(delta_path(bundles.root, version))

    def told() -> dict[str, set[str]]:
        follower.look(version)
        found: dict[str, set[str]] = {}
        for record in reader.poll()[1]:
            found.setdefault(f"{record.node_type} {record.kind}", set()).update(record.nodes.column("id").to_pylist())
        return found

    assert told() == {}
    compared = []
    compare = Comparison.changes_since
    monkeypatch.setattr(Comparison, "changes_since", lambda *given: compared.append(1) or compare(*given))
    with open_graph(project) as graph:
        graph.upsert(
            [
                {"type": "Film", "id": "n1", "properties": {"title": "Nova"}},
                {"relation": "HAS_GENRE", "source": "n1", "target": "Space"},
            ]
        )
    assert told() == {"Film upsert": {"n1"}, "Genre upsert": {"Space"}}
    with open_graph(project) as graph:
        graph.delete({"relation": "HAS_GENRE", "source": "n1", "target": "Space"})
    assert told() == {"Film upsert": {"n1"}, "Genre upsert": {"Space"}}
    assert (told(), compared) == ({}, []), "the chain of the log is whole"
    with open_graph(project) as graph:
        graph.delete({"type": "Film", "id": "s1"})
        graph.store.query("MATCH (f:Film {id: 's2'}) SET f.year = 2000", write=True)
    found = told()
    assert found["Film delete"] == {"s1"}
    assert {"s2", "n1"} <= found["Film upsert"]
    assert found["User upsert"] == {"ann", "bob", "cem"}, "those who watched what went"
    assert (told(), compared) == ({}, [1])


def status(address: str) -> model_service_pb2.DeltaStatus:
    with grpc.insecure_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        return stub.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10).delta


@pytest.fixture(params=["embedded", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def followed(request: pytest.FixtureRequest, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """The toy served and its store followed: folder and address."""
    if request.param == "neo4j":
        monkeypatch.setenv("KITHKIN_STORE__URI", request.getfixturevalue("clean_neo4j").uri)
        kithkin("ingest", folder=toy)
    with serving(toy, "--set", 'serving.follow="0.2s"') as address:
        eventually(lambda: status(address).HasField("lag"))
        yield toy, address


def test_what_cypher_changes_is_answered_with(followed: tuple[Path, str]) -> None:
    folder, address = followed
    with Client(address, timeout=20) as client:
        assert set(client.similar("s1", top_k=4).ids) == set(SPACE) - {"s1"}
        write(folder, *CREATE)
        eventually(lambda: "n1" in client.similar("s1", top_k=5).ids)
        assert set(client.similar("n1", top_k=5).ids) == set(SPACE)
        assert client.get("n1", type="Film").name == "Nova"
        assert client.find("nova")[0].id == "n1"
        (reason, *_) = client.explain("n1", "s1").reasons
        assert [node.id for node in reason.path] == ["n1", "Space", "s1"]
        write(folder, "MATCH (f:Film {id: 'n1'}) SET f.title = 'Supernova'")
        eventually(lambda: client.get("n1", type="Film").name == "Supernova")
        write(folder, "MATCH (f:Film) WHERE f.id IN ['n1', 's2'] DETACH DELETE f")
        eventually(lambda: "s2" not in client.similar("s1", top_k=5).ids)
        eventually(lambda: status(address).fresh == 0)
        assert set(client.similar("s1", top_k=9).ids) == (set(SPACE) | set(LOVE)) - {"s1", "s2"}
        for gone in ("n1", "s2"):
            for ask in (lambda: client.similar(gone), lambda: client.get(gone, type="Film")):  # noqa: B023
                with pytest.raises(NotFound):
                    ask()
        assert status(address).deleted == 1


def test_a_killed_follower_comes_back(toy: Path) -> None:
    with serving(toy, "--set", 'serving.follow="0.2s"') as address, Client(address, timeout=20) as client:
        eventually(lambda: status(address).HasField("lag"))
        write(toy, *CREATE)
        eventually(lambda: "n1" in client.similar("s1", top_k=5).ids)
        os.kill(_follower(toy), signal.SIGKILL)
        assert "n1" in client.similar("s1", top_k=5).ids, "what is served needs no follower"
        write(toy, "MATCH (f:Film {id: 's2'}) DETACH DELETE f")
        eventually(lambda: "s2" not in client.similar("s1", top_k=5).ids)
        assert "n1" in client.similar("s1", top_k=5).ids


def test_a_store_that_is_away_or_written_harms_nothing(toy: Path) -> None:
    store = toy / ".kithkin" / "graph.lbug"
    follow = ("--set", 'serving.follow="0.2s"', "--set", "store.timeout_s=0.5")
    with serving(toy, *follow) as address, Client(address, timeout=20) as client:
        # Not only there: the first look may take longer than the lag asked for below.
        eventually(lambda: status(address).HasField("lag") and status(address).lag.ToMilliseconds() < 1000)
        store.rename(store.with_name("away"))
        eventually(lambda: status(address).lag.ToMilliseconds() > 1500)
        assert set(client.similar("s1", top_k=4).ids) == set(SPACE) - {"s1"}
        # It is told once the look that was under way has given up.
        eventually(lambda: "cannot be followed" in (toy / "server.observe.log").read_text())
        store.with_name("away").rename(store)
        eventually(lambda: status(address).lag.ToMilliseconds() < 1000)
        with open_store(load_project(toy)) as writer:
            # The writer stays, and writes again and again beside the follower.
            for statement in CREATE:
                writer.query(statement, write=True)
            for number in range(30):
                writer.query(f"MATCH (f:Film {{id: 'n1'}}) SET f.year = {1990 + number % 5}", write=True)
            eventually(lambda: "n1" in client.similar("s1", top_k=5).ids)
        eventually(lambda: status(address).lag.ToMilliseconds() < 1000)
    assert kithkin("cypher", "MATCH (f:Film) RETURN count(f) AS films", "--json", folder=toy).json == [{"films": 11}]


def _follower(folder: Path) -> int:
    """The process id of the follower of the server that runs in a folder."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if b"server.fresh.follower" in words and str(folder).encode() in words:
                return int(process.name)
    raise AssertionError("no follower runs")
