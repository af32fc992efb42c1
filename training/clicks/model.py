"""The click network: GraphSAGE over both ends' neighbourhoods, and a head on the two vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graph_store.settings import ClickNetworkSettings
from training.encoders.convolution import Edges
from training.encoders.graph_sage import SageConv


@dataclass(frozen=True, kw_only=True)
class ClickBatch:
    """Nodes in one column, hop by hop, with the edges of every layer and the examples' ends.

    Receivers of a layer are the first nodes of the column, its senders too: what lies further out is needed no more.
    """

    nodes: Tensor
    """int64 [n], which node each is, numbered through the network's types in their order."""
    counts: Tensor
    """float32 [n, counts], its links at the time of the example."""
    linked: Tensor
    """bool [n], whether it has any."""
    sizes: Sequence[int]
    """Nodes after layer 0 (all of them), 1, ..., the last."""
    edges: Sequence[Edges]
    """Per layer."""
    users: Tensor
    entities: Tensor
    """int64 [examples]: places of the two ends."""


class ClickNetwork(nn.Module):
    """Logit of a click by a user on an entity; vectors of both.

    A node's input is its features (projected once, however often the node occurs), the counts of its links at the time
    of the example, and, for entities with links, a learned vector. The head reads ``[u, v, u * v]`` and a bias of each.
    """

    def __init__(
        self,
        features: Mapping[str, Tensor],
        settings: ClickNetworkSettings,
        *,
        user_type: str,
        entity_type: str,
        counts: int,
        edge_types: int,
    ) -> None:
        """``features`` per node type [nodes, width], without anything that is told by engagements."""
        super().__init__()
        self.settings, self.user_type, self.entity_type = settings, user_type, entity_type
        hidden, dimension = settings.hidden, settings.dimension
        self.first: dict[str, int] = {}
        total = 0
        for name, values in features.items():
            self.register_buffer(f"features_of_{name}", values, persistent=False)
            self.first[name] = total
            total += len(values)
        self.input = nn.ModuleDict({name: nn.Linear(values.shape[1], hidden) for name, values in features.items()})
        self.count = nn.Linear(counts, hidden, bias=False)
        self.learned = nn.Embedding(len(features[entity_type]), hidden) if settings.learned else None
        if self.learned is not None:
            nn.init.normal_(self.learned.weight, std=0.05)
        self.convs = nn.ModuleList(SageConv(hidden, edge_types, settings.dropout) for _ in range(settings.layers))
        self.dropout = nn.Dropout(settings.dropout)
        ends = (user_type, entity_type)
        self.output = nn.ModuleDict({name: nn.Linear(hidden, dimension) for name in ends})
        self.bias = nn.ModuleDict({name: nn.Linear(hidden, 1) for name in ends})
        self.head = nn.Sequential(nn.Linear(3 * dimension, dimension), nn.ReLU(), nn.Linear(dimension, 1))

    def forward(self, batch: ClickBatch) -> Tensor:
        """Logits [examples]."""
        states = self.states(batch)
        return self.logits(states[batch.users], states[batch.entities])

    def logits(self, users: Tensor, entities: Tensor) -> Tensor:
        """Logits [n] from the last states of both ends [n, hidden]."""
        u, v = self.vectors(self.user_type, users), self.vectors(self.entity_type, entities)
        own = self.bias[self.user_type](users)[:, 0] + self.bias[self.entity_type](entities)[:, 0]
        logits: Tensor = self.head(torch.cat([u, v, u * v], dim=1))[:, 0] + own
        return logits

    def vectors(self, node_type: str, states: Tensor) -> Tensor:
        """Vectors [n, dimension] from the last states [n, hidden] of users or entities."""
        vectors: Tensor = self.output[node_type](states)
        return vectors

    def states(self, batch: ClickBatch) -> Tensor:
        """States of the last layer, [nodes of the last layer, hidden]."""
        state = self._inputs(batch)
        for conv, edges, size in zip(self.convs, batch.edges, batch.sizes[1:], strict=True):
            state = conv(state[:size], state, edges, state[:size])
        return state

    def _inputs(self, batch: ClickBatch) -> Tensor:
        """States of layer 0, [n, hidden]."""
        distinct, place = torch.unique(batch.nodes, return_inverse=True)
        parts = []
        names = list(self.first)
        bounds = torch.searchsorted(distinct, torch.tensor([*self.first.values()], device=distinct.device)).tolist()
        for name, begin, end in zip(names, bounds, [*bounds[1:], len(distinct)], strict=True):
            rows = distinct[begin:end] - self.first[name]
            plain = self.dropout(self.input[name](self.get_buffer(f"features_of_{name}")[rows]))
            taught = plain
            if self.learned is not None and name == self.entity_type:
                own = self.learned(rows)
                if self.training and self.settings.learned_dropout:
                    own = own * (torch.rand(len(own), 1, device=own.device) >= self.settings.learned_dropout)
                taught = plain + own
            parts.append((taught, plain))
        # Without links nothing has taught an entity's own vector: such a node reads the second half of the table.
        table = torch.cat([part[0] for part in parts] + [part[1] for part in parts])
        state = table[place + len(distinct) * ~batch.linked] + self.count(batch.counts)
        return F.relu(state)
