"""What a node is joined to, weighed: the evidence that explanations compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import NodeRole, RelationRole
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from server.index.vector_index import Rows
from server.model.catalogue import NodeKey
from server.model.encoder import Link

_CACHED_NODES = 4096
_MOST_COUNTED = 20_000_000
"""Engagements of one relation up to which shared users are counted: turned around they take 4 bytes each."""


class Bond(NamedTuple):
    """A kind of meaning: a relation, its direction, and the type at its end."""

    relation: str
    reverse: bool
    neighbour_type: str


Bonds = Mapping[Bond, Mapping[int, float]]
"""Neighbour row to weight in (0, 1], relative to the node's heaviest, by kind."""


class Neighbourhoods:
    """Reads the neighbour lists of a bundle as evidence."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        roles = {name: each.role for name, each in bundle.node_types.items()}
        role = {triple: relation.role for triple, relation in bundle.relations.items()}
        self._semantic: dict[str, list[EdgeType]] = {}
        self._co_engagements: dict[str, list[EdgeType]] = {}
        self._engagement: dict[str, list[EdgeType]] = {}
        for edge_type in bundle.edge_types:
            kind = role[edge_type.triple]
            if kind == RelationRole.SEMANTIC.value and roles[edge_type.neighbour_type] != NodeRole.USER.value:
                self._semantic.setdefault(edge_type.node_type, []).append(edge_type)
            elif kind == RelationRole.CO_ENGAGEMENT.value and not edge_type.reversed:
                self._co_engagements.setdefault(edge_type.node_type, []).append(edge_type)
            elif kind == RelationRole.ENGAGEMENT.value and not edge_type.reversed:
                self._engagement.setdefault(edge_type.neighbour_type, []).append(edge_type)
        self._rarity: dict[EdgeType, NDArray[np.float64]] = {}
        self._rarity_of_bond: dict[tuple[str, Bond], NDArray[np.float64]] = {}
        # One request compares a node with many; what comes back is shared, and must not be changed.
        self.of_node = lru_cache(maxsize=_CACHED_NODES)(self._of_node)
        self.co_engaged = lru_cache(maxsize=_CACHED_NODES)(self._co_engaged)
        self._users: dict[EdgeType, Csr | None] = {}

    def prepare(self) -> None:
        """Count what explanations need, once: how rare each neighbour is, and who engaged with each entity."""
        for edge_types in self._semantic.values():
            for edge_type in edge_types:
                self._rarities(edge_type)
        for edge_types in self._engagement.values():
            for edge_type in edge_types:
                self._users_by_entity(edge_type)

    def semantic(self, node_type: str) -> Sequence[EdgeType]:
        """The edge types of meaning of a node type, both ways."""
        return self._semantic.get(node_type, ())

    def co_engagements(self, node_type: str) -> Sequence[EdgeType]:
        """The co-engagement edge types that start at a node type."""
        return self._co_engagements.get(node_type, ())

    def engagements_with(self, node_type: str) -> EdgeType | None:
        """The engagement by which shared users are counted, seen from the users; None where there is none."""
        return next(iter(self._engagement.get(node_type, ())), None)

    def rarities(self, edge_type: EdgeType) -> NDArray[np.float64]:
        """``rarity`` of every neighbour, ``[neighbours]``."""
        return self._rarities(edge_type)

    def users_of(self, edge_type: EdgeType) -> Csr | None:
        """The users of each entity, ascending, each once; None where there are too many engagements to count."""
        return self._users_by_entity(edge_type)

    def _of_node(self, key: NodeKey) -> dict[Bond, dict[int, float]]:
        """What a node is joined to by semantic relations."""
        found: dict[Bond, dict[int, float]] = {}
        for edge_type in self._semantic.get(key.type, ()):
            neighbours = self._row(edge_type, key.row)
            if neighbours:
                found.setdefault(_bond(edge_type), {}).update(neighbours)
        return found

    def shared(self, key: NodeKey, wanted: Bonds) -> dict[Bond, dict[int, float]]:
        """Of what a node is joined to, what is wanted: cheaper than all of it where little is."""
        found: dict[Bond, dict[int, float]] = {}
        for edge_type in self._semantic.get(key.type, ()):
            rows = wanted.get(_bond(edge_type))
            if not rows:
                continue
            csr = self._bundle.neighbours(edge_type)
            part = csr.row(key.row)
            common = [(place, row) for place, row in enumerate(csr.indices[part].tolist()) if row in rows]
            if common:
                weights = None if csr.weight is None else csr.weight[part]
                most = 0.0 if weights is None else float(weights.max())
                found.setdefault(_bond(edge_type), {}).update(
                    (row, 1.0 if weights is None or most <= 0 else float(weights[place]) / most)
                    for place, row in common
                    if weights is None or most <= 0 or weights[place] > 0
                )
        return found

    def co_edges(self, source: NodeKey, target: NodeKey) -> dict[str, float]:
        """Co-engagement edges of ``source`` that lead to ``target``, with their relative weight, by relation."""
        found: dict[str, float] = {}
        for edge_type in self._co_engagements.get(source.type, ()):
            csr = self._bundle.neighbours(edge_type)
            part = csr.row(source.row)
            if edge_type.neighbour_type == target.type and np.any(csr.indices[part] == target.row):
                found[edge_type.triple.name] = self._row(edge_type, source.row).get(target.row, 0.0)
        return found

    def of_links(self, links: Mapping[EdgeType, Iterable[Link]]) -> dict[Bond, dict[int, float]]:
        """The same of links that are told and not in the graph."""
        found: dict[Bond, dict[int, float]] = {}
        for edge_type, each in links.items():
            if edge_type in self._semantic.get(edge_type.node_type, ()):
                rows = {link.row: link.weight for link in each}
                found[_bond(edge_type)] = _relative(list(rows), list(rows.values()))
        return found

    def rarity(self, node_type: str, bond: Bond, neighbour: int) -> float:
        """``ln(1 + N / n)``: N nodes of the type, n of them joined to this neighbour (idf, Spärck Jones 1972)."""
        rarities = self._rarity_of_bond.get((node_type, bond))
        if rarities is None:
            rarities = self._rarity_of_bond[node_type, bond] = self._rarities(self.edge_type(node_type, bond))
        return float(rarities[neighbour])

    def edge_type(self, node_type: str, bond: Bond) -> EdgeType:
        """The edge type of a bond, seen from a type. StopIteration where the type has none."""
        return next(each for each in self._semantic[node_type] if _bond(each) == bond)

    def together_ends(self, source: NodeKey, target: NodeKey) -> tuple[tuple[EdgeType, int], ...]:
        """Links of ``source`` that its co-engagement with ``target`` rests on: the edges, and the users they share."""
        found = [
            (edge_type, target.row)
            for edge_type in self._co_engagements.get(source.type, ())
            if edge_type.neighbour_type == target.type
        ]
        for edge_type in self._engagement.get(source.type, ()):
            users = self._shared_users(source, target, edge_type)
            found += [(edge_type.flipped, user) for user in users.tolist()]
        return tuple(found)

    def engagement_ends(self, entity: NodeKey | None) -> tuple[tuple[EdgeType, int], ...]:
        """Links by which a user may be joined to an entity."""
        if entity is None:
            return ()
        return tuple((edge_type, entity.row) for edge_type in self._engagement.get(entity.type, ()))

    def scale(self, node_type: str) -> float:
        """Evidence of a direct edge of full weight: that of a neighbour nobody else has."""
        return float(np.log1p(self._bundle.node_types[node_type].count))

    def direct(self, source: NodeKey, target: NodeKey) -> Iterable[tuple[EdgeType, float]]:
        """Semantic edges from source to target, with their relative weight (call it both ways)."""
        for edge_type in self._semantic.get(source.type, ()):
            if not edge_type.reversed and edge_type.neighbour_type == target.type:
                weight = self._row(edge_type, source.row).get(target.row)
                if weight is not None:
                    yield edge_type, weight

    def _co_engaged(self, key: NodeKey) -> dict[tuple[str, NodeKey], float]:
        """Entities of a node's co-engagement lists with their relative weight, by relation."""
        return {
            (edge_type.triple.name, NodeKey(edge_type.neighbour_type, row)): weight
            for edge_type in self._co_engagements.get(key.type, ())
            for row, weight in self._row(edge_type, key.row).items()
        }

    def _shared_users(self, source: NodeKey, target: NodeKey, edge_type: EdgeType) -> NDArray[np.int32]:
        for other in self._engagement.get(target.type, ()):
            if other.triple.name == edge_type.triple.name and other.node_type == edge_type.node_type:
                first, second = self._users_by_entity(edge_type), self._users_by_entity(other)
                if first is not None and second is not None:
                    one, two = first.indices[first.row(source.row)], second.indices[second.row(target.row)]
                    return np.intersect1d(one, two, assume_unique=True)
        return np.empty(0, np.int32)

    def shared_users(self, source: NodeKey, target: NodeKey) -> tuple[str, int, float] | None:
        """How many users engaged with both: relation, count, cosine of the two sets; None where that is not known."""
        for edge_type in self._engagement.get(source.type, ()):
            for other in self._engagement.get(target.type, ()):
                if other.triple.name != edge_type.triple.name or other.node_type != edge_type.node_type:
                    continue
                first, second = self._users_by_entity(edge_type), self._users_by_entity(other)
                if first is None or second is None:
                    return None
                one, two = first.indices[first.row(source.row)], second.indices[second.row(target.row)]
                count = _common(one, two)
                return edge_type.triple.name, count, count / max((len(one) * len(two)) ** 0.5, 1.0)
        return None

    def engaged(self, user: NodeKey, most: int | None = None) -> list[tuple[str, NodeKey]]:
        """Entities a user engaged with and by which relation, in the order of the lists (newest or heaviest first)."""
        found: dict[NodeKey, str] = {}
        for edge_types in self._engagement.values():
            for edge_type in edge_types:
                if edge_type.node_type == user.type:
                    csr = self._bundle.neighbours(edge_type)
                    for row in csr.indices[csr.row(user.row)][:most].tolist():
                        found.setdefault(NodeKey(edge_type.neighbour_type, row), edge_type.triple.name)
        return [(relation, key) for key, relation in found.items()]

    def engaged_with(self, entity: NodeKey, user_type: str) -> Rows:
        """Rows of the users of a type who engaged with an entity, ascending, by the full lists of the users."""
        found = [np.empty(0, np.int64)]
        for edge_type in self._engagement.get(entity.type, ()):
            if edge_type.node_type != user_type:
                continue
            users = self._users_by_entity(edge_type)
            if users is not None:
                found.append(users.indices[users.row(entity.row)].astype(np.int64))
            else:
                csr = self._bundle.neighbours(edge_type)
                places = np.flatnonzero(csr.indices == entity.row)
                found.append(np.searchsorted(csr.indptr, places, side="right") - 1)
        return np.unique(np.concatenate(found))

    def engagement_name(self, entity_type: str) -> str | None:
        """Name of the first engagement relation that reaches a type."""
        return next((each.triple.name for each in self._engagement.get(entity_type, ())), None)

    def _row(self, edge_type: EdgeType, row: int) -> dict[int, float]:
        csr = self._bundle.neighbours(edge_type)
        part = csr.row(row)
        return _relative(csr.indices[part].tolist(), None if csr.weight is None else csr.weight[part].tolist())

    def _rarities(self, edge_type: EdgeType) -> NDArray[np.float64]:
        if edge_type not in self._rarity:
            csr = self._bundle.neighbours(edge_type)
            count = self._bundle.node_types[edge_type.neighbour_type].count
            joined = np.bincount(csr.indices, minlength=count)
            self._rarity[edge_type] = np.log1p(csr.num_rows / np.maximum(joined, 1))
        return self._rarity[edge_type]

    def _users_by_entity(self, edge_type: EdgeType) -> Csr | None:
        """The lists of users turned around: lists seen from entities are cut in the bundle, these are whole."""
        if edge_type not in self._users:
            csr = self._bundle.neighbours(edge_type)
            if csr.num_edges > _MOST_COUNTED:
                self._users[edge_type] = None
            else:
                count = self._bundle.node_types[edge_type.neighbour_type].count
                users = np.repeat(np.arange(csr.num_rows, dtype=np.int32), np.diff(csr.indptr))
                # One entry a user and entity, however often they met; sorted by entity, then user.
                pairs = np.unique(csr.indices.astype(np.int64) * max(csr.num_rows, 1) + users)
                entities, users = np.divmod(pairs, max(csr.num_rows, 1))
                indptr = np.searchsorted(entities, np.arange(count + 1)).astype(np.int64)
                self._users[edge_type] = Csr(indptr=indptr, indices=users.astype(np.int32))
        return self._users[edge_type]


def _bond(edge_type: EdgeType) -> Bond:
    return Bond(edge_type.triple.name, edge_type.reversed, edge_type.neighbour_type)


def _relative(rows: list[int], weights: list[float] | None) -> dict[int, float]:
    if weights is None:
        return dict.fromkeys(rows, 1.0)
    most = max(weights, default=0.0)
    if most <= 0:
        return dict.fromkeys(rows, 1.0)
    return {row: weight / most for row, weight in zip(rows, weights, strict=True) if weight > 0}


def _common(one: NDArray[np.int32], two: NDArray[np.int32]) -> int:
    """Size of the intersection of two sorted sets, at the cost of the smaller one."""
    if len(one) > len(two):
        one, two = two, one
    if not len(two):
        return 0
    places = np.minimum(np.searchsorted(two, one), len(two) - 1)
    return int(np.count_nonzero(two[places] == one))
