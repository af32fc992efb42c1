"""The encoder: attention against a plain loop, both forms alike, layer by layer as online, ONNX as torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from graph_store.settings import SpaceSettings
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from tests.memory_snapshot import MemorySnapshot, themes_snapshot
from training.encoders import Edges, PaddedEdges, SemanticConv
from training.encoders.onnx_graph import OnnxGraph
from training.errors import EncoderMismatch
from training.fit_features import fit_features
from training.graph import Graph
from training.inference import embed
from training.neighbours import top_neighbours
from training.onnx_export import export_encoder, random_inputs
from training.space_model import OnlineEncoder, SpaceModel, SpaceShape

HIDDEN, HEADS, KINDS = 8, 2, 4


@pytest.fixture
def conv() -> SemanticConv:
    torch.manual_seed(0)
    conv = SemanticConv(HIDDEN, HEADS, KINDS, dropout=0.0).eval()
    torch.nn.init.normal_(conv.edge_weight)
    torch.nn.init.normal_(conv.relation_bias)
    return conv


def edges() -> tuple[Tensor, Tensor, Tensor]:
    """Node 0: two edges of type 0, one of type 2; node 1: none; node 2: three of type 1."""
    index = torch.tensor([[0, 1, 2, 3, 4, 0], [0, 0, 0, 2, 2, 2]])
    return index, torch.tensor([0, 0, 2, 1, 1, 1]), torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])


def messages(conv: SemanticConv, nodes: Tensor, neighbours: Tensor, edges: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    index, kinds, weights = edges
    listed = Edges(index=index, type=kinds, weight=weights, share=torch.ones_like(weights))
    found: Tensor = conv(nodes, neighbours, listed, nodes)
    return found


def attention_by_loop(conv: SemanticConv, nodes: Tensor, neighbours: Tensor) -> Tensor:
    """The definition, relation by relation and head by head."""
    index, kinds, weights = edges()
    out = nodes.clone()
    for node in range(len(nodes)):
        heads = []
        for head in range(HEADS):
            part = slice(head * conv.width, (head + 1) * conv.width)
            query = conv.query(nodes[node])[part]
            relation_query = conv.relation_query(nodes[node])[part]
            scores, messages = [], []
            for kind in range(KINDS):
                mine = [e for e in range(len(kinds)) if index[1, e] == node and kinds[e] == kind]
                if not mine:
                    continue
                keys = [conv.key(neighbours[index[0, e]])[part] + conv.edge_key[kind, head] for e in mine]
                inner = torch.stack(
                    [
                        query @ key / conv.width**0.5 + conv.edge_weight[kind, head] * weights[e]
                        for e, key in zip(mine, keys, strict=True)
                    ]
                )
                values = [conv.value(neighbours[index[0, e]])[part] + conv.edge_value[kind, head] for e in mine]
                messages.append(torch.softmax(inner, 0) @ torch.stack(values))
                scores.append(
                    relation_query @ conv.relation_key[kind, head] / conv.width**0.5 + conv.relation_bias[kind, head]
                )
            if messages:
                beta = torch.softmax(torch.stack([torch.zeros(()), *scores]), 0)[1:]
                heads.append(beta @ torch.stack(messages))
            else:
                heads.append(torch.zeros(conv.width))
        out[node] = nodes[node] + conv.output(torch.nn.functional.gelu(torch.cat(heads)))
    return out


def test_one_pass_over_the_combined_key_is_the_loop_over_relations(conv: SemanticConv) -> None:
    nodes, neighbours = torch.randn(3, HIDDEN), torch.randn(5, HIDDEN)
    found = messages(conv, nodes, neighbours, edges())
    assert torch.allclose(found, attention_by_loop(conv, nodes, neighbours), atol=1e-6)


def test_padded_form_is_the_edge_list_form(conv: SemanticConv) -> None:
    nodes, neighbours = torch.randn(3, HIDDEN), torch.randn(5, HIDDEN)
    index, kinds, weights = edges()
    padded = torch.randn(3, 4, HIDDEN)  # what lies in empty slots must not matter
    kind = torch.randint(KINDS, (3, 4))
    weight = torch.randn(3, 4)
    mask = torch.zeros(3, 4, dtype=torch.bool)
    for e in range(len(kinds)):
        node = int(index[1, e])
        slot = int(mask[node].sum())
        padded[node, slot], kind[node, slot], weight[node, slot] = neighbours[index[0, e]], kinds[e], weights[e]
        mask[node, slot] = True
    found = conv.forward_padded(nodes, padded, PaddedEdges(type=kind, weight=weight, share=weight, mask=mask), nodes)
    assert torch.allclose(found, messages(conv, nodes, neighbours, edges()), atol=1e-6)


def test_a_rare_relation_is_not_drowned(conv: SemanticConv) -> None:
    """A thousand more neighbours over one relation leave the other relation's share as it was."""
    torch.nn.init.zeros_(conv.edge_value)
    node, rare, crowd = torch.randn(1, HIDDEN), torch.randn(1, HIDDEN), torch.zeros(1, HIDDEN)
    neighbours = torch.cat([rare, crowd])

    def after(count: int) -> Tensor:
        index = torch.tensor([[0, *[1] * count], [0] * (count + 1)])
        kinds = torch.tensor([2, *[0] * count])
        return messages(conv, node, neighbours, (index, kinds, torch.ones(count + 1)))

    assert torch.allclose(after(1), after(1000), atol=1e-5)
    assert not torch.allclose(after(1), node, atol=1e-3)


def test_no_edges_leave_a_node_as_it_is_but_for_the_constant(conv: SemanticConv) -> None:
    nodes = torch.randn(2, HIDDEN)
    none = torch.zeros((2, 0), dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    expected = nodes + conv.output(torch.zeros(HIDDEN))
    assert torch.allclose(messages(conv, nodes, nodes[:0], none), expected, atol=1e-6)


def test_huge_scores_do_not_overflow(conv: SemanticConv) -> None:
    nodes, neighbours = torch.randn(3, HIDDEN) * 1e4, torch.randn(5, HIDDEN) * 1e4
    assert torch.isfinite(messages(conv, nodes, neighbours, edges())).all()


def test_every_parameter_is_trained() -> None:
    torch.manual_seed(1)
    conv = SemanticConv(HIDDEN, HEADS, KINDS, dropout=0.0)
    messages(conv, torch.randn(3, HIDDEN), torch.randn(5, HIDDEN), edges()).pow(2).sum().backward()
    for name, parameter in conv.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_hidden_must_be_a_multiple_of_heads() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        SemanticConv(10, 3, 2, 0.0)


@pytest.fixture(scope="module")
def themes() -> tuple[MemorySnapshot, FeatureTransforms]:
    snapshot = themes_snapshot(films=40, people=30)
    return snapshot, fit_features(Graph(snapshot), dimension=8, seed=0)


def untrained(
    themes: tuple[MemorySnapshot, FeatureTransforms], *, layers: int, inner_product: bool, signals: float = 1.0
) -> SpaceModel:
    """A model with random weights everywhere, so that nothing agrees by being zero."""
    snapshot, transforms = themes
    settings = SpaceSettings(dimension=12, hidden=16, heads=4, layers=layers, fan_out=3, signals=signals)
    graph = Graph(snapshot, derived=not inner_product)
    shape = SpaceShape.of("space", graph, transforms, settings, inner_product=inner_product)
    torch.manual_seed(5)
    model = SpaceModel(shape, settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rng = np.random.default_rng(5)
    if model.shape.signal_width:
        width = transforms.width("Film")
        model.set_signals({"Film": rng.standard_normal((width, model.shape.signal_width)).astype(np.float32)})
        model.projection.copy_(torch.from_numpy(rng.standard_normal(tuple(model.projection.shape)).astype(np.float32)))
    return model.eval()


CASES = [
    pytest.param(1, False, 1.0, id="similar, one layer"),
    pytest.param(2, False, 1.0, id="similar, two layers"),
    pytest.param(1, False, 0.0, id="similar, encoder alone"),
    pytest.param(0, False, 1.0, id="similar, no layer"),
    pytest.param(1, True, 0.0, id="user, one layer"),
]


@pytest.mark.parametrize(("layers", "inner_product", "signals"), CASES)
def test_layer_by_layer_is_the_online_encoder_node_by_node(
    themes: tuple[MemorySnapshot, FeatureTransforms], layers: int, inner_product: bool, signals: float
) -> None:
    snapshot, transforms = themes
    model = untrained(themes, layers=layers, inner_product=inner_product, signals=signals)
    graph = Graph(snapshot)
    types = ("Person", "Film") if inner_product else ("Film",)
    embedding = embed(model, transforms, graph, node_types=types)
    assert len(embedding.states) == layers
    for node_type in types:
        online = OnlineEncoder(model, node_type).eval()
        features = transforms.apply(node_type, graph.properties(node_type), graph.links(node_type))
        for node in (0, 3, graph.num_nodes(node_type) - 1):
            inputs = [torch.from_numpy(features[node : node + 1])]
            if layers:
                inputs += online_inputs(model, graph, embedding.states, node_type, node)
            with torch.no_grad():
                found = online(*inputs)[0].numpy()
            assert found == pytest.approx(embedding.vectors[node_type][node], abs=1e-5)


def online_inputs(
    model: SpaceModel, graph: Graph, states: tuple[dict[str, np.ndarray], ...], node_type: str, node: int
) -> list[Tensor]:
    """Padded neighbours of one node, as a server makes them: the head of each list, one empty slot at the end."""
    kinds, weights, slots = [], [], []
    for number, edge_type in enumerate(model.shape.edge_types):
        if edge_type.node_type != node_type:
            continue
        csr = top_neighbours(graph.csr(edge_type), model.settings.fan_out)
        for position in range(*csr.row(node).indices(csr.num_edges)):
            kinds.append(number)
            weights.append(1.0 if csr.weight is None else float(csr.weight[position]))
            slots.append([state[edge_type.neighbour_type][csr.indices[position]] for state in states])
    empty = [np.full(state[node_type].shape[1], 7.0, np.float32) for state in states]
    count = len(kinds) + 1
    mask = torch.ones(1, count, dtype=torch.bool)
    mask[0, -1] = False
    layers = [
        torch.from_numpy(np.stack([*(slot[layer] for slot in slots), empty[layer]]))[None]
        for layer in range(len(states))
    ]
    return [torch.tensor([[*kinds, 0]]), torch.tensor([[*weights, 1.0]]), mask, *layers]


@pytest.mark.parametrize(("layers", "inner_product", "signals"), CASES)
def test_onnx_computes_what_torch_does(
    themes: tuple[MemorySnapshot, FeatureTransforms], layers: int, inner_product: bool, signals: float, tmp_path: Path
) -> None:
    model = untrained(themes, layers=layers, inner_product=inner_product, signals=signals)
    for node_type in ("Film", "Person") if inner_product else ("Film", "Genre"):
        assert export_encoder(model, node_type, tmp_path / f"{node_type}.onnx") < 1e-5


def test_onnx_has_the_documented_inputs(themes: tuple[MemorySnapshot, FeatureTransforms], tmp_path: Path) -> None:
    import onnxruntime

    model = untrained(themes, layers=2, inner_product=False)
    export_encoder(model, "Film", tmp_path / "film.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "film.onnx"), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    assert names == ["features", "edge_type", "weight", "mask", "states_0", "states_1"]
    inputs = random_inputs(model, "Film", nodes=5, slots=2, filled=1, rng=np.random.default_rng(0))
    vector = session.run(["vector"], dict(zip(names, inputs, strict=True)))[0]
    assert vector.shape == (5, 12)
    assert np.linalg.norm(vector, axis=1) == pytest.approx(np.ones(5), abs=1e-5)


def test_an_encoder_that_differs_is_refused(
    themes: tuple[MemorySnapshot, FeatureTransforms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(themes, layers=1, inner_product=False)
    # A graph that forgets the residual.
    original = OnnxGraph.linear
    monkeypatch.setattr(
        OnnxGraph,
        "linear",
        lambda self, name, linear: original(
            self, name, linear if linear.bias is None else torch.nn.Linear(*linear.weight.T.shape)
        ),
    )
    with pytest.raises(EncoderMismatch, match="ONNX differs from torch"):
        export_encoder(model, "Film", tmp_path / "film.onnx")


def test_a_node_of_which_nothing_is_known_is_zeros() -> None:
    snapshot = themes_snapshot(films=8, people=4)
    empty = MemorySnapshot(
        snapshot.schema, {"Film": [{"id": "a", "title": None, "year": None}, {"id": "b", "title": None, "year": 3}]}, {}
    )
    transforms = fit_features(Graph(empty), dimension=8, seed=0)
    model = untrained((empty, transforms), layers=1, inner_product=False)
    vectors = embed(model, transforms, Graph(empty), node_types=("Film",)).vectors["Film"]
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1.0, abs=1e-5)


def test_neighbour_lists_are_newest_or_heaviest_first_with_ties_by_index() -> None:
    csr = Csr(
        indptr=np.array([0, 4, 5]),
        indices=np.array([0, 1, 2, 3, 0], np.int32),
        weight=np.array([1, 5, 5, 2, 1], np.float32),
    )
    assert top_neighbours(csr, 3).indices.tolist() == [1, 2, 3, 0]
    assert top_neighbours(csr, 3).indptr.tolist() == [0, 3, 4]
    timed = Csr(indptr=csr.indptr, indices=csr.indices, weight=csr.weight, time=np.array([3, 9, -(2**63), 9, 0]))
    assert top_neighbours(timed, None).indices.tolist() == [1, 3, 0, 2, 0]


def test_edge_types_are_named_once() -> None:
    snapshot = themes_snapshot(films=8, people=4)
    assert len({EdgeType(each.triple, each.reversed) for each in snapshot.edge_types}) == 10
