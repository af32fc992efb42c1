"""GraphSAGE's convolution is algorithm 1 with mean aggregation, one matrix for each edge type."""

from __future__ import annotations

import pytest
import torch

from training.encoders.convolution import Edges
from training.encoders.graph_sage import SageConv

HIDDEN = 6


def edges(*each: tuple[int, int, int]) -> Edges:
    """(neighbour, node, edge type)."""
    found = torch.tensor(each, dtype=torch.int64).reshape(-1, 3)
    ones = torch.ones(len(found))
    return Edges(index=found[:, :2].T, type=found[:, 2], weight=7 * ones, share=0.1 * ones)


def test_of_one_relation_it_is_a_linear_map_of_the_node_and_the_mean_side_by_side() -> None:
    torch.manual_seed(1)
    conv = SageConv(HIDDEN, 1, dropout=0.5).eval()
    nodes, neighbours = torch.randn(2, HIDDEN), torch.randn(3, HIDDEN)
    with torch.no_grad():
        found = conv(nodes, neighbours, edges((0, 1, 0), (2, 1, 0)), nodes)
        joined = torch.cat([nodes[1], (neighbours[0] + neighbours[2]) / 2])
        matrix = torch.cat([conv.own.weight, *conv.neighbours.parameters()], dim=1)  # W of the source
        assert found[1].numpy() == pytest.approx(torch.relu(matrix @ joined + conv.own.bias).numpy(), abs=1e-6)
        assert found[0].numpy() == pytest.approx(torch.relu(conv.own(nodes[0])).numpy(), abs=1e-6)


def test_a_crowd_over_one_relation_does_not_drown_another() -> None:
    torch.manual_seed(2)
    conv = SageConv(HIDDEN, 2, dropout=0.0).eval()
    nodes, neighbours = torch.randn(1, HIDDEN), torch.randn(2, HIDDEN)
    with torch.no_grad():
        few = conv(nodes, neighbours, edges((0, 0, 0), (1, 0, 1)), nodes)
        many = conv(nodes, neighbours, edges((0, 0, 0), *[(1, 0, 1)] * 1000), nodes)
        swapped = conv(nodes, neighbours, edges((0, 0, 1), (1, 0, 0)), nodes)
    assert few.numpy() == pytest.approx(many.numpy(), abs=1e-4)
    assert not torch.allclose(few, swapped, atol=1e-3)
