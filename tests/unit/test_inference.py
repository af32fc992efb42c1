"""Inference of all nodes: equal to each node's own expansion, nothing twice, gone on with where it was killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graph_store.settings import SpaceSettings
from model_store import durable
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from tests.memory_snapshot import MemorySnapshot, themes_snapshot
from training import neighbours
from training.batches import Batcher
from training.edge_inputs import edge_inputs
from training.encoders import ENCODERS
from training.fit_features import fit_features
from training.graph import Graph, kept_edges
from training.inference import Embedding, all_nodes, arrays, embed, embed_parts, known_nodes
from training.neighbourhoods import neighbourhoods
from training.neighbours import top_neighbours
from training.node_features import NodeFeatures
from training.space_model import SpaceModel, SpaceShape

TYPES = ("Film", "Genre", "Person")
Themes = tuple[MemorySnapshot, FeatureTransforms]


@pytest.fixture(scope="module")
def themes() -> Themes:
    snapshot = themes_snapshot(films=60, people=40)
    return snapshot, fit_features(Graph(snapshot), dimension=8, seed=0)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 nodes in files, each on record; a test need not survive a power cut."""
    for name in ("sync_file", "sync_folder"):
        monkeypatch.setattr(durable, name, lambda path: None)
    monkeypatch.setattr(all_nodes, "_LEAST_NODES_AT_ONCE", 16)
    monkeypatch.setattr(arrays, "RECORD_EVERY_S", 0.0)


def untrained(themes: Themes, *, inner_product: bool = False, **settings: Any) -> SpaceModel:
    """A model with random weights everywhere, so that nothing agrees by being zero."""
    snapshot, transforms = themes
    own = SpaceSettings(**{"dimension": 12, "hidden": 16, "heads": 4, "layers": 2, "fan_out": 3, **settings})
    shape = SpaceShape.of("space", Graph(snapshot), transforms, own, inner_product=inner_product)
    torch.manual_seed(5)
    model = SpaceModel(shape, own)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rng = np.random.default_rng(5)
    if shape.signal_width:
        matrix = rng.standard_normal((transforms.width("Film"), shape.signal_width)).astype(np.float32)
        model.set_signals({"Film": matrix})
        model.projection.copy_(torch.from_numpy(rng.standard_normal(tuple(model.projection.shape)).astype(np.float32)))
    return model.eval()


class NodeByNode:
    """The vector of one node from its own expansion: every state is computed anew wherever it is needed."""

    def __init__(self, themes: Themes, model: SpaceModel) -> None:
        snapshot, transforms = themes
        self.graph, self.model = Graph(snapshot), model
        self.lists = neighbourhoods(self.graph, model.settings).lists(model.settings.fan_out)
        self.features = {
            each: torch.from_numpy(transforms.apply(each, self.graph.properties(each), self.graph.links(each)))
            for each in ("Film", "Genre", "Keyword", "Person")
        }

    @torch.no_grad()
    def vector(self, node_type: str, node: int) -> np.ndarray:
        """Of a space of inner products."""
        model = self.model
        state = self._state(node_type, node, model.settings.layers)
        features = self.features[node_type][node : node + 1]
        vector = model.encoder.head(node_type, features, state)
        bias = model.encoder.bias[node_type](state)[:, 0]
        found: np.ndarray = model.finish(node_type, vector, bias, torch.zeros(1, 0))[0].numpy()
        return found

    def _state(self, node_type: str, node: int, layer: int) -> Tensor:
        if layer == 0:
            return self.model.encoder.project(
                node_type, self.features[node_type][node : node + 1], torch.tensor([node])
            )
        own = self._state(node_type, node, layer - 1)
        neighbours, kinds, weights = [own[:0]], [], []
        for number, each in enumerate(self.model.shape.edge_types):
            if each.node_type != node_type:
                continue
            csr = self.lists[each]
            for position in range(int(csr.indptr[node]), int(csr.indptr[node + 1])):
                neighbours.append(self._state(each.neighbour_type, int(csr.indices[position]), layer - 1))
                kinds.append(number)
                weights.append(1.0 if csr.weight is None else float(csr.weight[position]))
        index = torch.stack([torch.arange(len(kinds)), torch.zeros(len(kinds), dtype=torch.int64)])
        edges = edge_inputs(
            index, torch.tensor(kinds, dtype=torch.int64), torch.tensor(weights), self.model.medians, nodes=1
        )
        found: Tensor = self.model.encoder.convs[layer - 1](
            own, torch.cat(neighbours), edges, self._state(node_type, node, 0)
        )
        return found


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@pytest.mark.parametrize("layers", [1, 2])
def test_layer_by_layer_is_each_nodes_own_expansion(
    themes: Themes, encoder: str, layers: int, tmp_path: Path, small_chunks: None
) -> None:
    model = untrained(themes, encoder=encoder, layers=layers, inner_product=True, learned=("concept",))
    graph = Graph(themes[0])
    kept = embed(model, themes[1], graph, node_types=TYPES).vectors
    filed = embed(model, themes[1], graph, node_types=TYPES, folder=tmp_path, memory_mib=0).vectors
    expanded = NodeByNode(themes, model)
    for node_type in TYPES:
        for node in (0, 2, graph.num_nodes(node_type) - 1):
            own = expanded.vector(node_type, node)
            assert kept[node_type][node] == pytest.approx(own, abs=1e-5)
        assert filed[node_type] == pytest.approx(kept[node_type], abs=1e-5)
        assert kept[node_type].std() > 0.05


@pytest.mark.parametrize("sampler", ["random_walk", "region_of_interest"])
def test_it_is_so_whoever_counts_as_a_neighbour(themes: Themes, sampler: str) -> None:
    model = untrained(themes, sampler=sampler, inner_product=True)
    found = embed(model, themes[1], Graph(themes[0]), node_types=("Film",)).vectors["Film"]
    expanded = NodeByNode(themes, model)
    for node in (0, 7, 59):
        assert found[node] == pytest.approx(expanded.vector("Film", node), abs=1e-5)


class Counted:
    """Counts the nodes that each part of the work is done for."""

    def __init__(self, model: SpaceModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: Counter[str] = Counter()
        encoder = model.encoder

        def counting(owner: Any, name: str, label: str, place: int) -> None:
            original = getattr(owner, name)

            def wrapped(*arguments: Any) -> Any:
                self.nodes[label] += len(arguments[place])
                return original(*arguments)

            monkeypatch.setattr(owner, name, wrapped)

        counting(encoder, "project", "project", 1)
        counting(encoder, "head", "head", 1)
        for layer, conv in enumerate(encoder.convs):
            counting(conv, "sent", f"sent {layer}", 0)
            counting(conv, "received", f"received {layer}", 0)


@pytest.mark.parametrize("in_files", [False, True])
def test_no_node_is_computed_twice(
    themes: Themes, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    model, graph = untrained(themes), Graph(themes[0])
    counted = Counted(model, monkeypatch)
    featured: Counter[str] = Counter()
    apply = FeatureTransforms.apply

    def applied(self: FeatureTransforms, node_type: str, properties: Any, links: Any) -> Any:
        featured[node_type] += properties.num_rows
        return apply(self, node_type, properties, links)

    monkeypatch.setattr(FeatureTransforms, "apply", applied)
    embed(model, themes[1], graph, node_types=("Film",), folder=tmp_path, memory_mib=0 if in_files else 4096)
    every = graph.total_nodes
    assert counted.nodes == {
        "project": every,
        "sent 0": every,
        "received 0": every,
        "sent 1": every,
        "received 1": every,
        "head": graph.num_nodes("Film"),
    }
    assert featured == {each.name: graph.num_nodes(each.name) for each in graph.schema.node_types}
    assert any(tmp_path.iterdir()) == in_files


class Killed(Exception):
    pass


class KillsAfter:
    """Progress that ends the work after so many nodes."""

    def __init__(self, nodes: int) -> None:
        self.nodes, self.told, self.total = nodes, 0, 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[KillsAfter]:
        self.total = total or 0
        yield self

    def advance(self, steps: int = 1, **fields: object) -> None:
        self.told += steps
        if self.told >= self.nodes:
            raise Killed


def same(one: Embedding, other: Embedding) -> bool:
    pairs = [(one.vectors, other.vectors), *zip(one.states, other.states, strict=True)]
    return all(left[name].tobytes() == right[name].tobytes() for left, right in pairs for name in left)


@pytest.mark.parametrize("nodes", [20, 150, 290, 390])
def test_a_pass_that_was_killed_goes_on_where_it_stopped(
    themes: Themes, nodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None
) -> None:
    model, graph = untrained(themes), Graph(themes[0])
    whole = embed(model, themes[1], graph, node_types=TYPES, folder=tmp_path / "whole", memory_mib=0)
    with pytest.raises(Killed):
        embed(
            model,
            themes[1],
            graph,
            node_types=TYPES,
            folder=tmp_path / "killed",
            memory_mib=0,
            progress=KillsAfter(nodes),
        )
    counted = Counted(model, monkeypatch)
    told = KillsAfter(10**9)
    resumed = embed(model, themes[1], graph, node_types=TYPES, folder=tmp_path / "killed", memory_mib=0, progress=told)
    assert same(whole, resumed)
    assert told.told == told.total
    # The chunk under way is done again, and so is one that was finished but not yet on record.
    again = sum(counted.nodes[each] for each in ("project", "received 0", "received 1", "head")) - (told.total - nodes)
    assert 0 <= again <= 2 * 16
    counted.nodes.clear()
    assert same(whole, embed(model, themes[1], graph, node_types=TYPES, folder=tmp_path / "killed", memory_mib=0))
    assert not counted.nodes.total()


def test_a_pass_of_another_model_or_graph_begins_anew(themes: Themes, tmp_path: Path, small_chunks: None) -> None:
    snapshot, transforms = themes
    model = untrained(themes)
    before = embed(model, transforms, Graph(snapshot), node_types=TYPES, folder=tmp_path, memory_mib=0)
    kept = np.array(before.vectors["Film"])
    watched = EdgeType(snapshot.schema.relations[0].triple, True)
    fewer = snapshot.csr(watched)
    graph = Graph(snapshot, replaced={watched: kept_edges(fewer, np.arange(fewer.num_edges) % 2 == 0)})
    assert graph.content_hash != Graph(snapshot).content_hash
    changed = embed(model, transforms, graph, node_types=TYPES, folder=tmp_path, memory_mib=0)
    assert not np.allclose(changed.vectors["Film"], kept, atol=1e-3)
    with torch.no_grad():
        model.encoder.output.weight += 1.0
    other = embed(model, transforms, Graph(snapshot), node_types=TYPES, folder=tmp_path, memory_mib=0)
    assert other.vectors["Film"] == pytest.approx(in_memory(themes, model), abs=1e-5)


def in_memory(themes: Themes, model: SpaceModel) -> np.ndarray:
    """Vectors of the films, made in memory."""
    return embed(model, themes[1], Graph(themes[0]), node_types=TYPES).vectors["Film"]


def test_a_record_without_its_file_is_not_believed(themes: Themes, tmp_path: Path, small_chunks: None) -> None:
    model, graph = untrained(themes), Graph(themes[0])
    whole = embed(model, themes[1], graph, node_types=TYPES, folder=tmp_path, memory_mib=0)
    (tmp_path / "layer-1.Film.state.npy").unlink()
    (tmp_path / "layer-2.Film.json").write_text("{")
    assert same(whole, embed(model, themes[1], graph, node_types=TYPES, folder=tmp_path, memory_mib=0))


def test_files_without_a_folder_are_temporary(themes: Themes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_nodes.tempfile, "tempdir", str(tmp_path))
    model, graph = untrained(themes), Graph(themes[0])
    found = embed(model, themes[1], graph, node_types=TYPES, memory_mib=0)
    assert found.vectors["Film"] == pytest.approx(in_memory(themes, model), abs=1e-5)
    parts = embed_parts(model, themes[1], graph, node_types=("Film",), memory_mib=0)["Film"]
    assert parts.shape == (60, 24)
    assert not list(tmp_path.iterdir())


def test_less_memory_makes_smaller_chunks(themes: Themes) -> None:
    model = untrained(themes)

    def nodes_at_once(memory_mib: float) -> int:
        return all_nodes._Pass(model, themes[1], Graph(themes[0]), TYPES, None, memory_mib).nodes_at_once

    assert nodes_at_once(4096) == 8192
    assert nodes_at_once(0.05) == 64
    assert not all_nodes._Pass(model, themes[1], Graph(themes[0]), TYPES, None, 1.0).in_files


def test_features_of_some_nodes_are_those_of_all(themes: Themes, tmp_path: Path) -> None:
    snapshot, transforms = themes
    graph = Graph(snapshot)
    held, made = (NodeFeatures(graph, transforms, memory_mib=memory) for memory in (64, 0))
    filed = NodeFeatures(graph, transforms, memory_mib=0, folder=tmp_path)
    assert [each.in_memory for each in (held, made, filed)] == [True, False, False]
    assert not list(tmp_path.iterdir())  # nothing stays when the process ends
    rows = np.array([5, 0, 33, 5])
    for each in graph.schema.node_types:
        whole = transforms.apply(each.name, graph.properties(each.name), graph.links(each.name))
        count = graph.num_nodes(each.name)
        chosen = rows % count
        for features in (held, made, filed):
            assert np.array_equal(features.part(each.name, 1, count), whole[1:])
            assert np.array_equal(features.take(each.name, chosen), whole[chosen])
        assert made.take(each.name, rows[:0]).shape == (0, transforms.width(each.name))
        assert known_nodes(graph, transforms, each.name, whole).any()


def test_a_batch_is_the_same_whether_features_are_held_or_made(themes: Themes) -> None:
    snapshot, transforms = themes
    model = untrained(themes)
    batches = [
        Batcher(
            Graph(snapshot), transforms, model.shape, model.settings, max_neighbours=5, seed=3, memory_mib=memory
        ).batch({"Film": np.array([4, 40])}, key=1)
        for memory in (64, 0)
    ]
    for name, features in batches[0].features.items():
        assert torch.equal(features, batches[1].features[name])


def test_rows_of_an_adjacency() -> None:
    csr = Csr(
        indptr=np.array([0, 2, 2, 5]),
        indices=np.array([7, 8, 1, 2, 3], np.int32),
        weight=np.array([0.5, 1, 2, 3, 4], np.float32),
    )
    part = csr.part(1, 3)
    assert part.indptr.tolist() == [0, 0, 3]
    assert part.indices.tolist() == [1, 2, 3]
    taken = csr.take(np.array([2, 0, 1, 2]))
    assert taken.indptr.tolist() == [0, 3, 5, 5, 8]
    assert taken.indices.tolist() == [1, 2, 3, 7, 8, 1, 2, 3]
    assert taken.weight is not None
    assert taken.weight.tolist() == [2, 3, 4, 0.5, 1, 2, 3, 4]
    assert taken.time is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("timed", [False, True])
def test_the_first_of_many_neighbours_are_those_of_the_sorted(
    weighted: bool, timed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    degree = rng.integers(0, 12, 50)
    edges = int(degree.sum())
    csr = Csr(
        indptr=np.concatenate([[0], np.cumsum(degree)]),
        indices=rng.integers(0, 20, edges).astype(np.int32),
        weight=rng.integers(1, 4, edges).astype(np.float32) if weighted else None,
        time=rng.choice([-(2**63), 5, 9], edges) if timed else None,
    )
    for limit in (1, 4, 40):
        expected = top_neighbours(csr, limit)
        with monkeypatch.context() as patched:
            patched.setattr(neighbours, "_FEW_EDGES", 0)
            found = top_neighbours(csr, limit)
        for name in ("indptr", "indices", "weight", "time"):
            assert np.array_equal(getattr(found, name), getattr(expected, name))
