"""HASP: which part a node belongs to, what a part holds, and the parts on disk."""

from __future__ import annotations

import json
import socket
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_store.progress import NoProgress
from graph_store.schema import Triple
from graph_store.settings import DistributedSettings, TrainingSettings
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document, themes_snapshot
from tests.stored_snapshot import stored
from training.batches import Batcher
from training.distributed.assign import cut_edges, random_owners, restreamed_owners
from training.distributed.launch import Workers, _Reader
from training.distributed.partition import Partition, part_content, partition
from training.distributed.parts import Part, write_features, write_parts, written_parts
from training.distributed.plan import Plan, StepsFile
from training.errors import DistributedError
from training.export import Snapshot
from training.fit_features import fit_features
from training.graph import Graph
from training.holdout import Split, split_newest
from training.node_features import NodeFeatures
from training.space_model import SpaceModel, SpaceShape
from training.train import train

WATCHED = Triple("Person", "WATCHED", "Film")
CO_WATCHED = Triple("Film", "CO_WATCHED", "Film")
HAS_KEYWORD = Triple("Film", "HAS_KEYWORD", "Keyword")
SEQUEL_OF = Triple("Film", "SEQUEL_OF", "Film")
Written = tuple[Snapshot, Split, Partition, Path]


def communities(count: int, size: int, degree: int, mixing: float, seed: int) -> dict[EdgeType, Csr]:
    """A relation of nodes with themselves: ``degree`` edges each, a share ``mixing`` of them to anywhere."""
    rng = np.random.default_rng(seed)
    nodes = count * size
    source = np.repeat(np.arange(nodes), degree)
    near = source // size * size + rng.integers(size, size=len(source))
    target = np.where(rng.random(len(source)) < mixing, rng.integers(nodes, size=len(source)), near)
    shuffled = rng.permutation(nodes)  # a community's nodes do not stand side by side
    source, target = shuffled[source], shuffled[target]
    found = {}
    for reverse, (a, b) in enumerate(((source, target), (target, source))):
        order = np.argsort(a, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(a, minlength=nodes))]).astype(np.int64)
        found[EdgeType(CO_WATCHED, bool(reverse))] = Csr(indptr=indptr, indices=b[order].astype(np.int32))
    return found


@pytest.mark.parametrize(("parts", "most"), [(2, 0.10), (4, 0.12)])
def test_parts_follow_communities_and_are_balanced(parts: int, most: float) -> None:
    edges = communities(8, 100, 20, 0.1, seed=3)
    owners = restreamed_owners({"Film": 800}, edges, parts, seed=1)
    total = edges[EdgeType(CO_WATCHED)].num_edges
    # A tenth goes anywhere, of which 1 - 1 / parts lands in another part: that much no partition can save.
    unavoidable = 0.1 * (1 - 1 / parts)
    assert unavoidable * 0.8 < cut_edges(owners, edges) / total < most
    at_random = random_owners({"Film": 800}, parts, seed=1)
    assert cut_edges(at_random, edges) / total == pytest.approx(1 - 1 / parts, abs=0.05)
    assert np.bincount(at_random["Film"]).tolist() == [800 // parts] * parts
    sizes = np.bincount(owners["Film"], minlength=parts)
    degrees = np.bincount(owners["Film"], np.diff(edges[EdgeType(CO_WATCHED)].indptr), minlength=parts)
    assert sizes.max() <= 800 / parts * 1.06 + 1
    assert degrees.max() <= total / parts * 1.06


def test_the_same_seed_gives_the_same_parts() -> None:
    edges = communities(4, 50, 10, 0.2, seed=1)
    first, again, other = (restreamed_owners({"Film": 200}, edges, 3, seed=seed)["Film"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nodes_without_edges_are_shared_evenly_and_a_heavy_one_fits_somewhere() -> None:
    assert np.bincount(restreamed_owners({"Film": 10}, {}, 3, seed=1)["Film"]).tolist() == [4, 3, 3]
    star = np.zeros(50, np.int32)
    edges = {
        EdgeType(CO_WATCHED): Csr(indptr=np.arange(51, dtype=np.int64), indices=star),
        EdgeType(CO_WATCHED, True): Csr(indptr=np.array([0] + [50] * 50), indices=np.arange(50, dtype=np.int32)),
    }
    owners = restreamed_owners({"Film": 50}, edges, 4, seed=1)["Film"]
    assert set(owners.tolist()) == {0, 1, 2, 3}


@pytest.fixture(scope="module")
def snapshot() -> MemorySnapshot:
    return themes_snapshot()


def settings_of(**values: Any) -> DistributedSettings:
    # SEQUEL_OF and HAS_GENRE are rare here, keywords are not.
    return DistributedSettings(**{"rare_share": 0.04, **values})


def edges_of(snapshot: MemorySnapshot | Snapshot, triple: Triple) -> list[tuple[str, str]]:
    csr = snapshot.csr(EdgeType(triple))
    source = snapshot.ids(triple.source).to_pylist()
    target = snapshot.ids(triple.target).to_pylist()
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    return [(source[a], target[b]) for a, b in zip(rows, csr.indices, strict=True)]


@pytest.mark.parametrize("halo", ["none", "users", "all"])
def test_a_part_has_whole_concepts_and_rare_relations_and_the_edges_of_its_own(
    snapshot: MemorySnapshot, halo: str
) -> None:
    split = partition(snapshot, settings_of(halo=halo), parts=2, seed=1)
    assert split.whole == {SEQUEL_OF, Triple("Film", "HAS_GENRE", "Genre")}
    assert set(split.owners) == {"Film", "Person"}
    contents = [part_content(snapshot, split, part) for part in (0, 1)]
    film, person = split.owners["Film"], split.owners["Person"]
    for part, content in enumerate(contents):
        assert len(content.rows["Genre"]) == 4
        assert len(content.rows["Keyword"]) == 20
        assert content.edges[SEQUEL_OF].all()
        assert content.owned["Film"] == (film == part).sum()
        assert set(np.flatnonzero(film == part)) <= set(content.rows["Film"])
        watched = snapshot.csr(EdgeType(WATCHED))
        users = np.repeat(np.arange(watched.num_rows), np.diff(watched.indptr))
        expected = {
            "none": (person[users] == part) & (film[watched.indices] == part),
            "users": film[watched.indices] == part,
            "all": (person[users] == part) | (film[watched.indices] == part),
        }[halo]
        assert np.array_equal(content.edges[WATCHED], expected)
        assert set(users[expected]) <= set(content.rows["Person"])
        keywords = snapshot.csr(EdgeType(HAS_KEYWORD))
        films = np.repeat(np.arange(keywords.num_rows), np.diff(keywords.indptr))
        assert np.array_equal(content.edges[HAS_KEYWORD], film[films] == part)
        together = snapshot.csr(EdgeType(CO_WATCHED))
        ends = film[np.repeat(np.arange(80), np.diff(together.indptr))] == part, film[together.indices] == part
        assert np.array_equal(content.edges[CO_WATCHED], ends[0] | ends[1] if halo == "all" else ends[0] & ends[1])
    times = sum(content.edges[WATCHED].astype(int) for content in contents)
    crossing = split.cut[WATCHED]
    assert crossing > 0
    lost, twice = int((times == 0).sum()), int((times == 2).sum())
    assert (lost, twice) == {"none": (crossing, 0), "users": (0, 0), "all": (0, crossing)}[halo]


def test_hasp_cuts_fewer_edges_than_chance(snapshot: MemorySnapshot) -> None:
    cut = {
        method: sum(partition(snapshot, settings_of(partition=method), parts=2, seed=1).cut.values())
        for method in ("hasp", "random")
    }
    assert cut["hasp"] < 0.6 * cut["random"]


@pytest.fixture(scope="module")
def written(snapshot: MemorySnapshot, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("parts")
    whole = stored(snapshot, folder / "whole")
    split = split_newest(whole, 0.2)
    transforms = fit_features(split.graph, dimension=8, seed=1)
    transforms.save(folder / "features")
    chosen = partition(whole, settings_of(), parts=2, seed=1)
    write_parts(folder / "parts", whole, split, transforms, chosen, method="hasp")
    return whole, split, chosen, folder / "parts"


def parts_of(written: Written) -> list[Part]:
    whole, _, _, folder = written
    return [Part.open(folder / str(part), parent=whole.content_hash, part=part, parts=2) for part in (0, 1)]


def test_parts_are_snapshots_of_their_own(written: Written) -> None:
    whole, _, chosen, folder = written
    parts = parts_of(written)
    assert len({whole.content_hash, *(part.snapshot.content_hash for part in parts)}) == 3
    watched: list[tuple[str, str]] = []
    for number, part in enumerate(parts):
        part.snapshot.verify()
        assert part.snapshot.schema == whole.schema
        for name, rows in part.rows.items():
            assert part.snapshot.nodes(name).equals(whole.nodes(name).take(rows))
        assert edges_of(part.snapshot, SEQUEL_OF) == edges_of(whole, SEQUEL_OF)
        content = part_content(whole, chosen, number)
        for triple, held in content.edges.items():
            assert edges_of(part.snapshot, triple) == [
                edge for edge, kept in zip(edges_of(whole, triple), held, strict=True) if kept
            ]
            properties = part.snapshot.edges(triple)
            assert properties.equals(whole.edges(triple).take(np.flatnonzero(held))) or not properties.num_columns
        watched += edges_of(part.snapshot, WATCHED)
    assert sorted(watched) == sorted(edges_of(whole, WATCHED))
    described = written_parts(folder, whole.content_hash)
    assert described is not None
    assert [each["content_hash"] for each in described["parts"]] == [part.snapshot.content_hash for part in parts]
    assert sum(each["shares"]["engagement_and_co_engagement"] for each in described["parts"]) == pytest.approx(
        1 - chosen.cut[CO_WATCHED] / (whole.num_edges(WATCHED) + whole.num_edges(CO_WATCHED))
    )


def test_what_is_kept_for_evaluation_stays_out_of_every_part(written: Written) -> None:
    whole, split, _, _ = written
    trained_on: list[tuple[str, str]] = []
    for part in parts_of(written):
        graph = part.training_graph()
        csr = graph.csr(EdgeType(WATCHED))
        people, films = (part.snapshot.ids(name).to_pylist() for name in ("Person", "Film"))
        rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        trained_on += [(people[a], films[b]) for a, b in zip(rows, csr.indices, strict=True)]
        assert EdgeType(CO_WATCHED) not in graph.edge_types
    kept = split.graph.csr(EdgeType(WATCHED))
    rows = np.repeat(np.arange(kept.num_rows), np.diff(kept.indptr))
    people, films = (whole.ids(name).to_pylist() for name in ("Person", "Film"))
    assert sorted(trained_on) == sorted((people[a], films[b]) for a, b in zip(rows, kept.indices, strict=True))


def test_a_node_with_all_its_links_has_the_features_it_has_in_the_whole(
    written: Written,
) -> None:
    whole, _, _, folder = written
    transforms = FeatureTransforms.load(folder.parent / "features")
    expected = transforms.apply("Film", whole.nodes("Film"), Graph(whole).links("Film"))
    compared = 0
    for part in parts_of(written):
        links, all_links = Graph(part.snapshot).links("Film"), Graph(whole).links("Film")
        found = part.transforms.apply("Film", part.snapshot.nodes("Film"), links)
        rows = part.rows["Film"]
        same = np.ones(len(rows), bool)
        for edge_type, csr in links.items():
            same &= np.diff(csr.indptr) == np.diff(all_links[edge_type].indptr)[rows]
        assert np.allclose(found[same], expected[rows[same]], atol=1e-6)
        compared += int(same.sum())
    assert compared > 10


def test_every_node_keeps_the_features_of_the_whole_graph(written: Written) -> None:
    whole, _, _, folder = written
    transforms = FeatureTransforms.load(folder.parent / "features")
    features = NodeFeatures(Graph(whole), transforms, memory_mib=100)
    write_features(folder, 2, features)
    for part in parts_of(written):
        stored_here = part.node_features()
        for name, rows in part.rows.items():
            chosen = np.arange(len(rows))[::-3]
            assert np.array_equal(stored_here.take(name, chosen), features.take(name, rows[chosen]))
            assert np.array_equal(stored_here.part(name, 1, 3), features.take(name, rows[1:3]))


def test_parts_of_another_snapshot_are_refused(written: Written, tmp_path: Path) -> None:
    whole, _, _, folder = written
    with pytest.raises(DistributedError, match=r"is part 0 of 2 of snapshot .* wanted is part 0 of 2 of snapshot 0000"):
        Part.open(folder / "0", parent="0" * 64, part=0, parts=2)
    with pytest.raises(DistributedError, match="wanted is part 0 of 3"):
        Part.open(folder / "0", parent=whole.content_hash, part=0, parts=3)
    with pytest.raises(DistributedError, match="is not a part of a graph"):
        Part.open(tmp_path, parent=whole.content_hash, part=0, parts=2)
    assert written_parts(folder, "0" * 64) is None
    assert written_parts(tmp_path, whole.content_hash) is None


def test_learned_vectors_are_looked_up_by_the_row_in_the_whole(written: Written, tmp_path: Path) -> None:
    whole = written[0]
    part = parts_of(written)[1]
    own = project_of(
        themes_document(), tmp_path, {"training.similar.learned": ["entity"], "training.similar.layers": 0}
    ).settings.training.similar
    shape = SpaceShape.of("similar", Graph(whole), part.transforms, own, inner_product=False)
    model = SpaceModel(shape, own).eval()
    torch.nn.init.normal_(model.encoder.learned["Film"].weight)
    batcher = Batcher(Graph(part.snapshot), part.transforms, shape, own, max_neighbours=5, seed=1)
    films = np.array([30, 0, 25])
    batch = batcher.batch({"Film": films}, key=0)
    model.whole_rows = {name: torch.from_numpy(rows) for name, rows in part.rows.items()}
    found = model.encode(batch, {"Film": 3})[0]["Film"]
    encoder = model.encoder
    rows = torch.from_numpy(part.rows["Film"][films])
    expected = encoder.head("Film", batch.features["Film"], encoder.project("Film", batch.features["Film"], rows))
    assert torch.allclose(found, expected, atol=1e-6)
    assert not np.array_equal(part.rows["Film"][films], films)


def test_a_plan_is_read_as_it_was_written(written: Written, tmp_path: Path) -> None:
    whole, _, _, folder = written
    settings = TrainingSettings(workers=2)
    shape = SpaceShape.of(
        "similar", Graph(whole), parts_of(written)[0].transforms, settings.similar, inner_product=False
    )
    plan = Plan(
        folder=tmp_path / "similar",
        parts=folder,
        parent=whole.content_hash,
        start="s",
        shape=shape,
        edges=7,
        max_neighbours=5,
        settings=settings,
    )
    assert Plan.read(plan.write()) == plan
    with pytest.raises(DistributedError, match="is no plan"):
        Plan.read(tmp_path / "nowhere.json")


def test_progress_is_read_line_by_line_and_never_goes_back(tmp_path: Path) -> None:
    told = StepsFile(tmp_path / "steps.jsonl")
    with told.task("train similar", 9) as task:
        for _ in range(3):
            task.advance(1, loss=0.5)
    with told.task("train similar", 9) as task:  # started again from step 2
        task.advance(2)
        task.advance(2, loss=0.25)
    told.say(event="end", peak_mib=[1.5, 2.5])
    text = (tmp_path / "steps.jsonl").read_text()
    seen: list[tuple[int, dict[str, object]]] = []

    class Task:
        def advance(self, steps: int = 1, **fields: object) -> None:
            seen.append((steps, fields))

    file = StringIO()
    reader = _Reader(file, Task())
    for first in range(0, len(text), 7):  # a line may be read while it is written
        place = file.tell()
        file.seek(0, 2)
        file.write(text[first : first + 7])
        file.seek(place)
        reader.read()
    assert sum(steps for steps, _ in seen) == 4
    assert seen[-1] == (1, {"loss": 0.25})
    assert reader.end == {"event": "end", "peak_mib": [1.5, 2.5]}
    assert json.loads(text.splitlines()[0]) == {"done": 1, "loss": 0.5}


def workers_of(written: Written, folder: Path, **distributed: Any) -> Workers:
    whole, split, _, parts = written
    transforms = FeatureTransforms.load(parts.parent / "features")
    settings = TrainingSettings(workers=3, distributed=DistributedSettings(**distributed))
    return Workers(
        settings,
        whole,
        split,
        transforms,
        max_neighbours=5,
        folder=folder,
        start="s",
        resume=True,
        progress=NoProgress(),
    )


def test_settings_that_cannot_work_are_refused(written: Written, tmp_path: Path) -> None:
    with pytest.raises(DistributedError, match="3 workers cannot be shared evenly by 2 machines"):
        workers_of(written, tmp_path, machines=2, rendezvous="localhost:1")
    with pytest.raises(DistributedError, match="do not know where to meet"):
        workers_of(written, tmp_path, machines=3)


def test_a_port_in_use_is_told_before_workers_wait_for_it(written: Written, tmp_path: Path) -> None:
    whole = written[0]
    own = TrainingSettings().similar.model_copy(update={"steps": 1})
    shape = SpaceShape.of("similar", Graph(whole), parts_of(written)[0].transforms, own, inner_product=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        workers = workers_of(written, tmp_path, rendezvous=f"127.0.0.1:{port}")
        with pytest.raises(DistributedError, match=f"nothing can listen on 127.0.0.1:{port}: Address already in use"):
            workers.fit(SpaceModel(shape, own), 1)
    with pytest.raises(DistributedError, match="HOST:PORT"):
        workers_of(written, tmp_path, rendezvous="nowhere")


def test_a_snapshot_that_is_no_export_is_trained_by_one_worker(snapshot: MemorySnapshot, tmp_path: Path) -> None:
    settings = {
        "training.workers": 2,
        "training.threads": 1,
        "training.input_dimension": 4,
        "training.similar.steps": 1,
        "training.similar.batch_size": 8,
        "training.similar.dimension": 8,
        "training.similar.hidden": 8,
        "training.user.steps": 0,
    }
    model = train(project_of(themes_document(), tmp_path, settings), snapshot, folder=tmp_path)
    assert any("trained by one worker" in note for note in model.notes)
