"""All convolutions: their three forms agree, each is its source's formula, and each trains to a published encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from graph_store.settings import SpaceSettings
from tests.memory_snapshot import THEMES, MemorySnapshot, project_of, themes_document, themes_snapshot
from training.edge_inputs import edge_inputs, padded_edge_inputs
from training.encoders import ENCODERS, Convolution, Edges
from training.encoders.gat import GatConv
from training.encoders.mean import MeanConv
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph
from training.encoders.pin_sage import PinSageConv
from training.encoders.r_gcn import RGcnConv
from training.graph import Graph
from training.inference import embed
from training.onnx_export import export_encoder
from training.train import train

HIDDEN, KINDS = 8, 3
MEDIANS = torch.tensor([0.0, 2.0, 0.5])
CASES = {
    "none": [],
    "one": [(1, 0, 1)],
    "many": [(0, 0, 0), (1, 0, 0), (2, 0, 2), (3, 2, 1), (4, 2, 1), (0, 2, 1), (0, 2, 2), (0, 1, 0)],
}
"""(neighbour, node, edge type) of up to three nodes and five neighbours."""


def convolution(name: str) -> Convolution:
    """With random numbers everywhere, so that nothing agrees by being zero."""
    torch.manual_seed(3)
    settings = SpaceSettings(hidden=HIDDEN, layers=1, heads=2, bases=2, dropout=0.3, encoder=name)  # type: ignore[arg-type]
    conv = ENCODERS[name](settings, KINDS).eval()
    for parameter in conv.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return conv


def states() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, neighbours, focal points."""
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(count, HIDDEN, generator=generator) for count in (3, 5, 3))  # type: ignore[return-value]


def weights(case: str) -> Tensor:
    return 0.2 + 3 * torch.rand(len(CASES[case]), generator=torch.Generator().manual_seed(5))


def listed(case: str) -> Edges:
    found = torch.tensor(CASES[case], dtype=torch.int64).reshape(-1, 3)
    return edge_inputs(found[:, :2].T, found[:, 2], weights(case), MEDIANS, nodes=3)


def slots(case: str, filler: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Neighbours, types, raw weights and mask [3, K] with the edges in every other slot, ``filler`` in the rest."""
    count = 2 * max(1, len(CASES[case]))
    neighbours = torch.full((3, count, HIDDEN), filler)
    kinds, raw = torch.full((3, count), KINDS - 1), torch.full((3, count), abs(filler))
    mask = torch.zeros(3, count, dtype=torch.bool)
    for number, (neighbour, node, kind) in enumerate(CASES[case]):
        slot = 2 * number + 1
        neighbours[node, slot] = states()[1][neighbour]
        kinds[node, slot], raw[node, slot], mask[node, slot] = kind, weights(case)[number], True
    return neighbours, kinds, raw, mask


def by_onnx(conv: Convolution, case: str) -> np.ndarray:
    nodes, _, focal = states()
    neighbours, kinds, raw, mask = slots(case, 7.0)
    edges = padded_edge_inputs(kinds, raw, mask, MEDIANS)
    member = ((kinds[..., None] == torch.arange(KINDS)) & mask[..., None]).float()
    inputs = {
        "nodes": nodes,
        "neighbours": neighbours,
        "focal": focal,
        "type": kinds,
        "weight": edges.weight[..., None],
        "share": edges.share[..., None],
        "mask": mask[..., None].float(),
        "member": member,
    }
    graph = OnnxGraph()
    for name, value in inputs.items():
        shape = [f"{name}_{axis}" for axis in range(value.dim())]
        graph.input(name, TensorProto.INT64 if name == "type" else TensorProto.FLOAT, shape)
    names = OnnxEdges(type="type", weight="weight", share="share", mask="mask", member="member")
    result = conv.to_onnx(graph, "nodes", "neighbours", names, "focal")
    graph.op("Identity", result, output="result")
    model = graph.model("conv", {"result": ["n", HIDDEN]}).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    read = {each.name for each in session.get_inputs()}
    found: np.ndarray = session.run(["result"], {name: each.numpy() for name, each in inputs.items() if name in read})[
        0
    ]
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ENCODERS)
def test_list_padded_form_and_onnx_agree(name: str, case: str) -> None:
    conv = convolution(name)
    nodes, neighbours, focal = states()
    with torch.no_grad():
        expected = conv(nodes, neighbours, listed(case), focal)
        assert torch.isfinite(expected).all()
        for filler in (7.0, -100.0):  # what lies in empty slots must not matter
            states_, kinds, raw, mask = slots(case, filler)
            padded = conv.forward_padded(nodes, states_, padded_edge_inputs(kinds, raw, mask, MEDIANS), focal)
            assert padded.numpy() == pytest.approx(expected.numpy(), abs=1e-5)
        assert by_onnx(conv, case) == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_neighbours_matter_to_who_has_them_alone(name: str) -> None:
    conv = convolution(name)
    nodes, neighbours, focal = states()
    with torch.no_grad():
        without, one = (conv(nodes, neighbours, listed(case), focal) for case in ("none", "one"))
    assert not torch.allclose(one[0], without[0], atol=1e-4)
    assert torch.allclose(one[1:], without[1:], atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    conv = convolution(name)
    nodes, neighbours, focal = states()
    factors = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(6))
    (conv(nodes, neighbours, listed("many"), focal) * factors).sum().backward()
    for parameter_name, parameter in conv.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", [name for name in ENCODERS if not convolution(name).reads_relations])
def test_a_relation_blind_convolution_does_not_read_edge_types(name: str) -> None:
    conv = convolution(name)
    nodes, neighbours, focal = states()
    edges = listed("many")
    other = Edges(index=edges.index, type=(edges.type + 1) % KINDS, weight=edges.weight, share=edges.share)
    with torch.no_grad():
        assert torch.equal(conv(nodes, neighbours, edges, focal), conv(nodes, neighbours, other, focal))


@pytest.mark.parametrize("pooling", ["importance", "mean"])
def test_pin_sage_is_algorithm_1(pooling: str) -> None:
    torch.manual_seed(0)
    conv = PinSageConv(HIDDEN, pooling, 0.0).eval()  # type: ignore[arg-type]
    nodes, neighbours, focal = states()
    # One edge type, visited 6, 3 and 1 times of 10.
    index = torch.tensor([[0, 1, 2], [1, 1, 1]])
    edges = edge_inputs(index, torch.zeros(3, dtype=torch.int64), torch.tensor([0.6, 0.3, 0.1]), MEDIANS, nodes=3)
    alpha = torch.tensor([0.6, 0.3, 0.1]) if pooling == "importance" else torch.full((3,), 1 / 3)
    with torch.no_grad():
        message = torch.relu(neighbours[:3] @ conv.message.weight.T + conv.message.bias)
        joined = torch.cat([nodes[1], alpha @ message])
        expected = torch.relu(conv.output.weight @ joined + conv.output.bias)
        found = conv(nodes, neighbours, edges, focal)[1]
    assert found.numpy() == pytest.approx((expected / expected.norm()).numpy(), abs=1e-6)


def test_gat_is_one_softmax_over_the_neighbours_and_the_node() -> None:
    conv = convolution("gat")
    assert isinstance(conv, GatConv)
    nodes, neighbours, focal = states()
    edges = listed("many")
    with torch.no_grad():
        found = conv(nodes, neighbours, edges, focal)
        for node in range(3):
            mine = [number for number in range(len(edges.type)) if edges.index[1, number] == node]
            heads = []
            for head in range(conv.heads):
                part = slice(head * conv.width, (head + 1) * conv.width)
                own = conv.receiver(nodes[node])[part]
                sent = [conv.sender(neighbours[edges.index[0, number]])[part] for number in mine]
                sent.append(conv.sender(nodes[node])[part])
                weight = [*edges.weight[mine].tolist(), 0.0]
                scores = [
                    conv.attention[head] @ torch.nn.functional.leaky_relu(own + each + w * conv.edge[head], 0.2)
                    for each, w in zip(sent, weight, strict=True)
                ]
                heads.append(torch.softmax(torch.stack(scores), 0) @ torch.stack(sent))
            expected = nodes[node] + torch.nn.functional.elu(torch.cat(heads))
            assert found[node].numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_r_gcn_is_a_matrix_for_each_relation_over_its_mean() -> None:
    conv = convolution("r_gcn")
    assert isinstance(conv, RGcnConv)
    nodes, neighbours, focal = states()
    edges = listed("many")
    basis = conv.basis.view(conv.bases, HIDDEN, HIDDEN)
    with torch.no_grad():
        found = conv(nodes, neighbours, edges, focal)
        for node in range(3):
            total = conv.own(nodes[node])
            for kind in range(KINDS):
                mine = [n for n in range(len(edges.type)) if edges.index[1, n] == node and edges.type[n] == kind]
                if mine:
                    matrix = torch.einsum("b,bij->ij", conv.coefficient[kind], basis)
                    total = total + neighbours[edges.index[0, mine]].mean(0) @ matrix
            assert found[node].numpy() == pytest.approx(torch.relu(total).numpy(), abs=1e-5)


def test_r_gcn_has_no_more_bases_than_relations() -> None:
    assert RGcnConv(HIDDEN, 8, 2, 0.0).bases == 2


def test_mean_is_the_plain_mean() -> None:
    conv = convolution("mean")
    assert isinstance(conv, MeanConv)
    nodes, neighbours, focal = states()
    with torch.no_grad():
        found = conv(nodes, neighbours, listed("many"), focal)[2]
        mean = conv.value(neighbours[[3, 4, 0, 0]]).mean(0)
        expected = nodes[2] + conv.output(torch.nn.functional.gelu(mean))
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        GatConv(10, 3, 0.0)


@pytest.fixture(scope="module")
def themes() -> MemorySnapshot:
    return themes_snapshot(films=48, people=36)


@pytest.mark.parametrize(("name", "sampler"), [*((name, "uniform") for name in ENCODERS), ("pin_sage", "random_walk")])
def test_every_encoder_trains_and_is_exported(name: str, sampler: str, themes: MemorySnapshot, tmp_path: Path) -> None:
    shared = {"encoder": name, "sampler": sampler, "dimension": 16, "hidden": 16, "batch_size": 128, "fan_out": 4}
    settings = {"similar": {**shared, "signals": 0.0, "steps": 20}, "user": {**shared, "steps": 6, "negatives": 20}}
    document = {**themes_document(), "training": {"threads": 1, "input_dimension": 8, **settings}}
    model = train(project_of(document, tmp_path), themes, folder=tmp_path)
    graph = Graph(themes)
    for space, types in (("similar", ("Film",)), ("user", ("Person", "Film"))):
        vectors = embed(model.spaces[space], model.transforms, graph, node_types=types).vectors
        for node_type in types:
            assert np.isfinite(vectors[node_type]).all()
            assert export_encoder(model.spaces[space], node_type, tmp_path / f"{space}.onnx") < 1e-5
        if space == "similar":
            films = vectors["Film"]
            nearest = np.argsort(-(films @ films.T - 2 * np.eye(len(films))), axis=1)[:, :5]
            right = nearest % THEMES == (np.arange(len(films)) % THEMES)[:, None]
            assert right.mean() > 0.6  # by chance 0.24
