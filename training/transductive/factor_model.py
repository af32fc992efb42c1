"""A space of users and entities whose vectors are learned node by node, beside a spectral part.

The score that the published vectors keep is::

    w <unit(sum of the entities' spectral messages), entity's spectral vector> + cosine of learned vectors / temperature
        + popularity ln(entity's engagements)

Both ends are made of their links alone: of the sums of what their neighbours tell them, and a learned vector of their
own where training knew them. So users and entities that are new get vectors in the same space. Reduced to fewer columns
the score is kept best where it matters (``refinement``); what that adds to the reduced vector of a node is kept with
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from graph_store.settings import SpaceSettings
from training.encoders.onnx_graph import OnnxGraph
from training.graph import Graph, engagements
from training.space_model import SpaceModel, SpaceShape
from training.transductive.interactions import Interactions
from training.transductive.reduction import gram, reduce_inner_products
from training.transductive.refinement import onto, refine

Floats = NDArray[np.float32]
TRANSDUCTIVE = ("light_gcn", "matrix_factorisation")
_NODES_AT_ONCE = 8192
_MOST_SCORES = 20_000_000_000
"""Users times entities up to which vectors are refined: all scores are read for it."""
_LEAST = 1e-12


def factor_shape(shape: SpaceShape, graph: Graph, settings: SpaceSettings) -> SpaceShape:
    """The shape of a ``FactorModel``: engagements alone, a learned vector for every node."""
    triples = [relation.triple for relation in engagements(graph.schema)]
    kinds = tuple(each for each in graph.edge_types if each.triple in triples)
    counts = Interactions.of(graph).counts
    users = sum(count for name, count in counts.items() if name in {triple.source for triple in triples})
    width = 0 if settings.signals == 0 else min(settings.rank, users, sum(counts.values()) - users)
    return replace(shape, edge_types=kinds, medians=(0.0,) * len(kinds), learned=counts, signal_width=width)


class FactorModel(SpaceModel):
    """Learned vectors, and what the nodes tell their neighbours (``messages``); see the module."""

    spectral_scale: Tensor
    refined_users: Tensor
    refined_entities: Tensor

    def __init__(self, shape: SpaceShape, settings: SpaceSettings) -> None:
        # A space model without an encoder over features: only what is told of it in this class.
        nn.Module.__init__(self)
        self.shape, self.settings, self.whole_rows = shape, settings, None
        self.user_types = tuple(dict.fromkeys(each.triple.source for each in shape.edge_types))
        self.entity_types = tuple(dict.fromkeys(each.triple.target for each in shape.edge_types))
        users = sum(shape.learned[name] for name in self.user_types)
        entities = sum(shape.learned[name] for name in self.entity_types)
        self.learned_users = nn.Parameter(torch.zeros(users, settings.hidden))
        self.learned_entities = nn.Parameter(torch.zeros(entities, settings.hidden))
        width = shape.signal_width + settings.hidden
        self.register_buffer("messages_of_users", torch.zeros(users, width))
        self.register_buffer("messages_of_entities", torch.zeros(entities, width))
        self.register_buffer("spectral_scale", torch.ones(()))
        for side in ("users", "entities"):
            self.register_buffer(f"projection_of_{side}", torch.zeros(width + 1, settings.dimension))
        self.refined = bool(settings.refinement) and settings.dimension <= width and users * entities <= _MOST_SCORES
        for side, count in (("users", users), ("entities", entities)):
            self.register_buffer(f"refined_{side}", torch.zeros(count if self.refined else 0, settings.dimension))
        self.register_buffer("medians", torch.tensor(shape.medians or (0.0,), dtype=torch.float32))

    @property
    def state_widths(self) -> tuple[int, ...]:
        """One layer of published states: the messages."""
        return (self.shape.signal_width + self.settings.hidden,)

    def is_user(self, node_type: str) -> bool:
        return node_type in self.user_types

    def joined_rows(self, node_type: str, received: Tensor, own: Tensor, degrees: Tensor) -> Tensor:
        """Rows ``[N, width + 1]`` whose inner products are the score, before they are reduced.

        ``received`` is the sum of the neighbours' messages, ``own`` the node's learned part, ``degrees [N]`` the number
        of neighbours.
        """
        spectral, learned = received[:, : self.shape.signal_width], received[:, self.shape.signal_width :]
        learned = learned / degrees.clamp_min(1.0).sqrt()[:, None]
        if self.settings.encoder == "light_gcn":
            learned = own + learned
        else:
            # Without propagation a node has its own vector; the neighbours' stand in for it where it is new.
            learned = torch.where(own.abs().sum(1, keepdim=True) > 0, own, learned)
        learned = F.normalize(learned, dim=1, eps=_LEAST)
        if self.is_user(node_type):
            spectral = F.normalize(spectral, dim=1, eps=_LEAST) * self.spectral_scale
            popularity = torch.full_like(degrees, self.settings.popularity)[:, None]
            return torch.cat([spectral, learned / self.settings.temperature, popularity], dim=1)
        return torch.cat([spectral, learned, degrees.clamp_min(1.0).log()[:, None]], dim=1)

    def reduced(self, node_type: str, rows: Tensor) -> Tensor:
        """The vectors ``[N, dimension]`` of what is known of a node that is new."""
        return rows @ self.get_buffer(f"projection_of_{'users' if self.is_user(node_type) else 'entities'}")

    def joined_all(self, graph: Graph) -> dict[str, Floats]:
        """``joined_rows`` of all nodes ``[nodes, width + 1]``."""
        return {name: np.concatenate(list(self._chunks(graph, name, reduce=False))) for name in self.shape.learned}

    def vectors(self, graph: Graph) -> dict[str, Floats]:
        """The published vectors of all nodes ``[nodes, dimension]``; zeros where a node has no engagement."""
        return {name: np.concatenate(list(self._chunks(graph, name, reduce=True))) for name in self.shape.learned}

    def messages(self) -> dict[str, Floats]:
        """The published states ``[nodes, width]``."""
        found = {}
        for name in self.shape.learned:
            side = "users" if self.is_user(name) else "entities"
            found[name] = self.get_buffer(f"messages_of_{side}")[self._rows(name)].cpu().numpy()
        return found

    def fit_projection(self, graph: Graph) -> None:
        """Scale the spectral scores to ``signals`` times the deviation of the learned cosines, and reduce both."""
        joined = self.joined_all(graph)
        users = np.concatenate([joined[name] for name in self.user_types])
        entities = np.concatenate([joined[name] for name in self.entity_types])
        width = self.shape.signal_width
        if width:
            wanted = _deviation(users[:, width:-1], entities[:, width:-1])
            scale = self.settings.signals * wanted / max(_deviation(users[:, :width], entities[:, :width]), _LEAST)
            self.spectral_scale.fill_(scale)
            users[:, :width] *= np.float32(scale)
        # Errors count as in the factorised matrix: a popular entity's score is larger, its error no worse.
        degrees = Interactions.of(graph).entity_degrees
        weights = np.asarray(np.maximum(degrees, 1.0) ** -self.settings.entity_power, np.float32)
        for_users, for_entities = reduce_inner_products(gram(users), gram(entities, weights), self.settings.dimension)
        if self.refined:
            start, known = (users @ for_users, entities @ for_entities), Interactions.of(graph).matrix
            found = refine(users, entities, start, known, self.settings.refinement)
            for_users, for_entities = onto(entities, found[1]), onto(users, found[0])
            self.refined_users.copy_(torch.from_numpy(found[0] - users @ for_users))
            self.refined_entities.copy_(torch.from_numpy(found[1] - entities @ for_entities))
        self.get_buffer("projection_of_users").copy_(torch.from_numpy(for_users))
        self.get_buffer("projection_of_entities").copy_(torch.from_numpy(for_entities))

    def set_messages(self, users: Floats, entities: Floats) -> None:
        """What nodes tell their neighbours, ``[nodes, width]``."""
        self.get_buffer("messages_of_users").copy_(torch.from_numpy(users))
        self.get_buffer("messages_of_entities").copy_(torch.from_numpy(entities))

    def online(self, node_type: str, edge_type: Tensor, mask: Tensor, states: Tensor) -> Tensor:
        """Vectors of nodes that training did not know, from padded neighbours; see docs/architecture.md."""
        there = (mask & torch.isin(edge_type, torch.tensor(self._kinds(node_type)))).to(states.dtype)
        received = (states * there[..., None]).sum(1)
        own = received.new_zeros(len(received), self.settings.hidden)
        return self.reduced(node_type, self.joined_rows(node_type, received, own, there.sum(1)))

    def online_onnx(self, node_type: str) -> Any:
        """``online`` as an ONNX graph."""
        graph, signals, width = OnnxGraph(), self.shape.signal_width, self.state_widths[0]
        graph.input("features", TensorProto.FLOAT, ["N", self.shape.widths[node_type]])
        graph.input("edge_type", TensorProto.INT64, ["N", "K"])
        graph.input("weight", TensorProto.FLOAT, ["N", "K"])
        graph.input("mask", TensorProto.BOOL, ["N", "K"])
        graph.input("states_0", TensorProto.FLOAT, ["N", "K", width])
        same = graph.op("Equal", graph.unsqueeze("edge_type", 2), graph.integers(self._kinds(node_type)))
        wanted = graph.sum(graph.op("Cast", same, to=TensorProto.FLOAT), 2, keep=0)
        there = graph.op("Mul", wanted, graph.op("Cast", "mask", to=TensorProto.FLOAT))
        received = graph.sum(graph.op("Mul", "states_0", graph.unsqueeze(there, 2)), 1, keep=0)
        degree = graph.op("Max", graph.sum(there, 1, keep=1), graph.number(1.0))
        learned = graph.op("Div", graph.slice(received, signals, width), graph.op("Sqrt", degree))
        learned = graph.unit(learned, _LEAST)
        parts = []
        if self.is_user(node_type):
            if signals:
                spectral = graph.unit(graph.slice(received, 0, signals), _LEAST)
                parts.append(graph.op("Mul", spectral, graph.number(float(self.spectral_scale))))
            parts.append(graph.op("Div", learned, graph.number(self.settings.temperature)))
            zero = graph.op("Mul", degree, graph.number(0.0))
            parts.append(graph.op("Add", zero, graph.number(self.settings.popularity)))
        else:
            parts += [graph.slice(received, 0, signals)] if signals else []
            parts += [learned, graph.op("Log", degree)]
        rows = graph.op("Concat", *parts, axis=1)
        side = "users" if self.is_user(node_type) else "entities"
        graph.op("MatMul", rows, graph.constant(self.get_buffer(f"projection_of_{side}")), output="vector")
        return graph.model(f"{self.shape.name}_{node_type}", {"vector": ["N", self.settings.dimension]})

    @torch.no_grad()
    def _chunks(self, graph: Graph, node_type: str, *, reduce: bool) -> Iterator[Floats]:
        """Rows of a type's nodes, some at a time."""
        user = self.is_user(node_type)
        interactions = Interactions.of(graph)
        links = interactions.matrix if user else interactions.matrix.T.tocsr()
        links = links[interactions.rows_of(node_type)]
        told = self.get_buffer("messages_of_entities" if user else "messages_of_users").cpu().numpy()
        rows_of = self._rows(node_type)
        learned = (self.learned_users if user else self.learned_entities)[rows_of].detach().cpu().numpy()
        refined = (self.refined_users if user else self.refined_entities)[rows_of] if self.refined else None
        yield np.empty((0, self.settings.dimension if reduce else self.state_widths[0] + 1), np.float32)
        for first in range(0, links.shape[0], _NODES_AT_ONCE):
            part = links[first : first + _NODES_AT_ONCE]
            degrees = np.diff(part.indptr).astype(np.float32)
            own = learned[first : first + _NODES_AT_ONCE]
            rows = self.joined_rows(node_type, *(torch.from_numpy(each) for each in (part @ told, own, degrees)))
            if reduce:
                rows = self.reduced(node_type, rows)
                if refined is not None:
                    rows = rows + refined[first : first + _NODES_AT_ONCE]
            rows[torch.from_numpy(degrees) == 0] = 0.0
            yield rows.numpy()

    def _rows(self, node_type: str) -> slice:
        types = self.user_types if self.is_user(node_type) else self.entity_types
        first = sum(self.shape.learned[each] for each in types[: types.index(node_type)])
        return slice(first, first + self.shape.learned[node_type])

    def _kinds(self, node_type: str) -> list[int]:
        """Numbers of the edge types that end at the node type."""
        return [number for number, each in enumerate(self.shape.edge_types) if each.node_type == node_type]


class FactorEncoder(nn.Module):
    """``FactorModel.online`` with the inputs of ``OnlineEncoder``."""

    def __init__(self, model: FactorModel, node_type: str) -> None:
        super().__init__()
        self.model, self.node_type = model, node_type

    def forward(self, features: Tensor, edge_type: Tensor, weight: Tensor, mask: Tensor, states: Tensor) -> Tensor:
        return self.model.online(self.node_type, edge_type, mask, states)


def _deviation(users: Floats, entities: Floats) -> float:
    """Standard deviation of one user's scores over the entities, its root mean square over the users."""
    centred = entities - entities.mean(axis=0)
    total = float(np.sum(gram(users) * gram(centred)))
    return float(np.sqrt(max(total, 0.0) / max(len(users) * len(entities), 1)))
