"""Zoomer: three levels of attention against plain loops, all forms alike, and the space that is trained with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from tests.memory_snapshot import THEMES, MemorySnapshot, themes_snapshot
from training.batches import Batcher
from training.encoders import Batch, Edges, PaddedEdges
from training.encoders.zoomer import ZoomerConv, ZoomerEncoder
from training.fit_features import fit_features
from training.graph import Graph
from training.inference import embed
from training.neighbourhoods import neighbourhoods
from training.onnx_export import export_encoder
from training.relevance import relevance_vectors
from training.space_model import SpaceModel, SpaceShape

HIDDEN, HEADS, KINDS = 8, 2, 4


@pytest.fixture
def conv() -> ZoomerConv:
    torch.manual_seed(0)
    conv = ZoomerConv(HIDDEN, HEADS, KINDS, dropout=0.0).eval()
    torch.nn.init.constant_(conv.sharpness, 3.0)
    return conv


def edges() -> Edges:
    """Node 0: two edges of type 0, one of type 2; node 1: none; node 2: three of type 1."""
    index = torch.tensor([[0, 1, 2, 3, 4, 0], [0, 0, 0, 2, 2, 2]])
    ones = torch.ones(6)
    return Edges(index=index, type=torch.tensor([0, 0, 2, 1, 1, 1]), weight=ones, share=ones)


def by_loop(conv: ZoomerConv, nodes: Tensor, neighbours: Tensor, focal: Tensor) -> Tensor:
    """The definition, node by node, relation by relation, head by head."""
    listed, width = edges(), HIDDEN // HEADS
    out = []
    for node in range(len(nodes)):
        relations = []
        for kind in range(KINDS):
            mine = [e for e in range(6) if listed.index[1, e] == node and listed.type[e] == kind]
            if not mine:
                continue
            heads = []
            for head in range(HEADS):
                part = slice(head * width, (head + 1) * width)
                scores, values = [], []
                for e in mine:
                    other = neighbours[listed.index[0, e]]
                    added = conv.own(nodes[node])[head] + conv.other(other)[head] + conv.aim(focal[node])[head]
                    product = conv.query(focal[node])[part] @ conv.key(other)[part] / width**0.5
                    scores.append(F.leaky_relu(added, 0.2) + product)
                    values.append(conv.value(other)[part])
                heads.append(torch.softmax(torch.stack(scores), 0) @ torch.stack(values))
            relations.append((torch.cat(heads), conv.relation[kind]))
        combined = torch.zeros(HIDDEN)
        if relations:
            aim = conv.semantic(focal[node])
            cosines = torch.stack([F.cosine_similarity(aim, each, dim=0) for each, _ in relations])
            combined = torch.softmax(conv.sharpness * cosines, 0) @ torch.stack([each + own for each, own in relations])
        out.append(nodes[node] + conv.output(F.gelu(combined)))
    return torch.stack(out)


def test_edge_and_semantic_attention_are_the_loop(conv: ZoomerConv) -> None:
    nodes, neighbours, focal = torch.randn(3, HIDDEN), torch.randn(5, HIDDEN), torch.randn(3, HIDDEN)
    assert torch.allclose(conv(nodes, neighbours, edges(), focal), by_loop(conv, nodes, neighbours, focal), atol=1e-6)


def test_padded_form_is_the_edge_list_form(conv: ZoomerConv) -> None:
    nodes, neighbours, focal = torch.randn(3, HIDDEN), torch.randn(5, HIDDEN), torch.randn(3, HIDDEN)
    listed = edges()
    padded, kind = torch.randn(3, 4, HIDDEN), torch.randint(KINDS, (3, 4))  # empty slots must not matter
    mask = torch.zeros(3, 4, dtype=torch.bool)
    for e in range(6):
        node = int(listed.index[1, e])
        slot = int(mask[node].sum())
        padded[node, slot], kind[node, slot], mask[node, slot] = neighbours[listed.index[0, e]], listed.type[e], True
    ones = torch.ones(3, 4)
    found = conv.forward_padded(nodes, padded, PaddedEdges(type=kind, weight=ones, share=ones, mask=mask), focal)
    assert torch.allclose(found, conv(nodes, neighbours, listed, focal), atol=1e-6)


def test_another_focal_vector_takes_another_neighbour(conv: ZoomerConv) -> None:
    """With the neighbour that the focal vector points at, the other one hardly counts."""
    with torch.no_grad():
        for linear in (conv.own, conv.other, conv.aim):
            for parameter in linear.parameters():
                parameter.zero_()
        for linear in (conv.query, conv.key, conv.value):
            linear.weight.copy_(torch.eye(HIDDEN))
        assert isinstance(conv.query.bias, torch.nn.Parameter)
        conv.query.bias.zero_()
        conv.relation.zero_()
    one, two = 6 * torch.ones(1, HIDDEN), -6 * torch.ones(1, HIDDEN)
    index = torch.tensor([[0, 1], [0, 0]])
    listed = Edges(index=index, type=torch.zeros(2, dtype=torch.int64), weight=torch.ones(2), share=torch.ones(2))
    node = torch.randn(1, HIDDEN)
    for focal in (one, two):
        alone = Edges(
            index=torch.tensor([[0], [0]]), type=listed.type[:1], weight=listed.weight[:1], share=listed.share[:1]
        )
        found = conv(node, torch.cat([one, two]), listed, focal)
        assert torch.allclose(found, conv(node, focal, alone, focal), atol=1e-4)


def test_no_edges_and_huge_states(conv: ZoomerConv) -> None:
    none = Edges(
        index=torch.zeros((2, 0), dtype=torch.int64),
        type=torch.zeros(0, dtype=torch.int64),
        weight=torch.zeros(0),
        share=torch.zeros(0),
    )
    nodes = torch.randn(2, HIDDEN)
    expected = nodes + conv.output(torch.zeros(HIDDEN))
    assert torch.allclose(conv(nodes, nodes[:0], none, nodes), expected, atol=1e-6)
    assert torch.isfinite(
        conv(*(torch.randn(count, HIDDEN) * 1e4 for count in (3, 5)), edges(), nodes[[0, 1, 0]])
    ).all()


def test_hidden_must_be_a_multiple_of_heads() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        ZoomerConv(10, 3, 2, 0.0)


def frame(learned: bool) -> ZoomerEncoder:
    torch.manual_seed(3)
    encoder = ZoomerEncoder(
        {"Film": 6, "User": 3},
        {"Film": (2, 3, 1), "User": (2, 1)},
        convolutions=[ZoomerConv(HIDDEN, HEADS, KINDS, 0.0)],
        hidden=HIDDEN,
        dimension=4,
        dropout=0.0,
        block_dropout=0.0,
        learned={"User": 5} if learned else None,
    )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return encoder.eval()


def feature_attention(encoder: ZoomerEncoder, name: str, features: Tensor, row: int | None, focal: Tensor) -> Tensor:
    """One node's projection by the definition."""
    linear = encoder.input[name]
    assert isinstance(linear, torch.nn.Linear)
    block = encoder.get_buffer(f"block_of_{name}")
    query = encoder.feature_query(focal)
    parts = []
    for number in range(int(block.max()) + 1):
        columns = block == number
        if features[columns].abs().sum() > 0:
            parts.append(linear.weight[:, columns] @ features[columns])
    if name in encoder.learned:
        table = encoder.learned[name].weight
        assert isinstance(table, Tensor)
        parts.append(table.mean(0) if row is None else table[row])
    projected = torch.zeros(HIDDEN)
    if parts:
        share = torch.softmax(torch.stack([query @ part for part in parts]) / HIDDEN**0.5, 0)
        projected = len(parts) * (share @ torch.stack(parts))
    return projected + linear.bias


@pytest.mark.parametrize("learned", [False, True])
def test_feature_attention_is_the_softmax_over_blocks(learned: bool) -> None:
    encoder = frame(learned)
    features = torch.randn(4, 3)
    features[1, :2] = 0.0  # a block that says nothing has no share
    features[2] = 0.0
    rows = torch.tensor([0, 4, 2, 2])
    focal = torch.randn(4, HIDDEN)
    for known in (rows, None):
        found = encoder.project("User", features, known, focal)
        for node in range(4):
            row = None if known is None else int(rows[node])
            expected = feature_attention(encoder, "User", features[node], row, focal[node])
            assert torch.allclose(found[node], expected, atol=1e-5)


def test_focal_nodes_are_summed_and_a_node_is_its_own_where_none_is_given() -> None:
    encoder = frame(learned=True)
    film, user = torch.randn(3, 6), torch.randn(2, 3)
    listed = Edges(
        index=torch.tensor([[3, 4, 0], [0, 1, 4]]),
        type=torch.tensor([0, 0, 1]),
        weight=torch.ones(3),
        share=torch.ones(3),
    )

    def batch(focal: Tensor | None) -> Batch:
        return Batch(
            features={"Film": film, "User": user},
            rows={"Film": torch.arange(3), "User": torch.arange(2)},
            edges=[listed],
            focal=focal,
        )

    own, _ = encoder(batch(None), {"Film": 3})
    same, _ = encoder(batch(torch.arange(5)[:, None]), {"Film": 3})
    assert torch.allclose(own["Film"], same["Film"], atol=1e-6)

    # User 0 (position 3) and film 0 are the focal points of all.
    pair = torch.tensor([[3, 0]]).expand(5, 2)
    plain = torch.cat(
        [
            encoder.input["Film"](film),
            encoder.input["User"](user) + encoder.learned["User"].weight[:2],  # type: ignore[index]
        ]
    )
    aim = plain[[3, 0]].sum(0)
    state = torch.stack(
        [feature_attention(encoder, "Film", each, None, aim) for each in film]
        + [feature_attention(encoder, "User", each, row, aim) for row, each in enumerate(user)]
    )
    states = encoder.convs[0](state, state, listed, state[[3, 0]].sum(0).expand(5, -1))
    expected = encoder.head("Film", film, states[:3])
    found, _ = encoder(batch(pair), {"Film": 3})
    assert torch.allclose(found["Film"], expected, atol=1e-5)


def test_every_parameter_is_trained() -> None:
    encoder = frame(learned=True).train()
    batch = Batch(
        features={"Film": torch.randn(3, 6), "User": torch.randn(2, 3)},
        rows={"Film": torch.arange(3), "User": torch.tensor([0, 1])},
        edges=[Edges(**{**vars(edges()), "index": torch.tensor([[0, 1, 2, 3, 4, 0], [0, 0, 0, 2, 2, 2]])})],
        focal=torch.tensor([[3, 0]]).expand(5, 2),
    )
    vectors, biases = encoder(batch, {"Film": 3, "User": 2})
    weight = torch.randn(4)
    loss = sum((vectors[name] @ weight).sum() + biases[name].sum() for name in vectors)
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.fixture(scope="module")
def themes() -> tuple[MemorySnapshot, FeatureTransforms]:
    snapshot = themes_snapshot(films=40, people=30)
    return snapshot, fit_features(Graph(snapshot), dimension=8, seed=0)


def settings(layers: int = 1) -> SpaceSettings:
    return SpaceSettings(
        dimension=12,
        hidden=16,
        layers=layers,
        fan_out=3,
        sampled_fan_out=3,
        encoder="zoomer",
        sampler="region_of_interest",
        learned=("concept",),
        signals=0.0,
        block_dropout=0.0,
    )


def untrained(themes: tuple[MemorySnapshot, FeatureTransforms], layers: int = 1) -> SpaceModel:
    snapshot, transforms = themes
    own = settings(layers)
    shape = SpaceShape.of("similar", Graph(snapshot), transforms, own, inner_product=False)
    torch.manual_seed(5)
    model = SpaceModel(shape, own)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("layers", [1, 2])
def test_onnx_computes_what_torch_does(
    themes: tuple[MemorySnapshot, FeatureTransforms], layers: int, tmp_path: Path
) -> None:
    model = untrained(themes, layers)
    for node_type in ("Film", "Genre"):
        assert export_encoder(model, node_type, tmp_path / f"{node_type}.onnx") < 1e-5


@pytest.mark.parametrize("layers", [1, 2])
def test_a_batch_is_encoded_as_layer_by_layer(themes: tuple[MemorySnapshot, FeatureTransforms], layers: int) -> None:
    """Sampled regions of interest are the lists that inference reads: nothing is left to chance."""
    snapshot, transforms = themes
    model, graph = untrained(themes, layers), Graph(snapshot)
    expected = embed(model, transforms, graph, node_types=("Film",)).vectors["Film"]
    batcher = Batcher(graph, transforms, model.shape, model.settings, max_neighbours=50, seed=1)
    films = np.array([0, 7, 39])
    with torch.no_grad():
        found, _ = model.encode(batcher.batch({"Film": films}, key=0), {"Film": 3})
    assert found["Film"].numpy() == pytest.approx(expected[films], abs=1e-5)


def test_relevant_films_are_those_of_the_same_theme() -> None:
    snapshot = themes_snapshot()
    vectors = relevance_vectors(Graph(snapshot), dimension=8)
    assert {name: len(each) for name, each in vectors.items()} == {
        name: snapshot.num_nodes(name) for name in ("Film", "Genre", "Keyword", "Person")
    }
    theme = np.arange(len(vectors["Film"])) % THEMES
    cosine = vectors["Film"] @ vectors["Film"].T
    same = theme[:, None] == theme
    assert cosine[same].mean() > cosine[~same].mean() + 0.5
    # Other types stand in the same space: a genre is nearest to the films of its theme.
    assert (np.argmax(vectors["Genre"] @ vectors["Film"].T, axis=1) % THEMES == np.arange(THEMES)).all()
    assert all(np.isfinite(each).all() for each in vectors.values())


def test_lists_hold_the_most_relevant_of_the_theme() -> None:
    snapshot = themes_snapshot()
    graph = Graph(snapshot)
    near = neighbourhoods(graph, settings())
    watched = next(each for each in near.edge_types if each.triple.name == "WATCHED" and not each.reversed)
    kept, whole = near.lists(3)[watched], graph.csr(watched)

    def share(csr: object, people: int = 60) -> float:
        return float(
            np.mean([np.mean(csr.indices[csr.row(each)] % THEMES == each % THEMES) for each in range(people)])  # type: ignore[attr-defined]
        )

    assert np.diff(kept.indptr).max() == 3
    assert share(kept) > share(whole) + 0.1


def test_a_graph_without_links_has_no_relevance() -> None:
    snapshot = themes_snapshot(films=8, people=4)
    empty = MemorySnapshot(snapshot.schema, {"Film": [{"id": "a", "title": None, "year": None}]}, {})
    vectors = relevance_vectors(Graph(empty))
    assert not vectors["Film"].any()
    assert vectors["Genre"].shape == (0, 32)
