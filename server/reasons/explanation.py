"""Why two nodes belong together: short paths of the graph, weighed against each other and said in English.

Evidence, all on one scale (the rarity ``ln(1 + N / n)`` of a neighbour that n of N nodes have):

* a shared neighbour: its rarity, times the geometric mean of both edges' weights (relative to each node's heaviest);
* a direct semantic edge: the largest rarity there could be, times its relative weight;
* co-engagement: the same, by the edge's relative weight, or where no edge is kept by the cosine of the sets of users.

Users are never named, only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt

from kithkin.v1 import types_pb2
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from server.index.vector_index import Vectors
from server.model.catalogue import Catalogue, NodeKey
from server.model.description import Description
from server.model.encoder import OnlineEncoder
from server.model.neighbourhoods import Bond, Bonds, Neighbourhoods
from server.reasons import phrases
from server.reasons.attribution import MOST_VARIANTS, Attribution, LinkEnd, attribute

_MOST_ENGAGED = 50
"""Entities of a user, newest or heaviest first, that reasons may lead from: bounds the cost of one explanation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """One path between two nodes and how much it says."""

    strength: float
    path: tuple[NodeKey | None, ...]
    """The nodes, ends included; None stands for a described node, which the graph does not have."""
    relations: tuple[str, ...]
    text: Callable[[], str]
    """Made only of what is told: most evidence is not."""
    links: Callable[[], tuple[LinkEnd, ...]]
    """Links of the node explained (the user, or the path's first) that it rests on."""


class UserProfile:
    """What a user's entities are joined to: built once a request, compared with every result."""

    def __init__(
        self, neighbourhoods: Neighbourhoods, engaged: Sequence[tuple[str, NodeKey]], only: NodeKey | None = None
    ) -> None:
        """``only``: it will be compared with this one node, so what that is not joined to is passed over."""
        self.entities = {key: relation for relation, key in engaged[:_MOST_ENGAGED]}
        self.bonds: dict[Bond, dict[int, list[tuple[float, NodeKey]]]] = {}
        """Per shared neighbour the two entities that hold it most: the second, where the first is the result itself."""
        self.co_engaged: dict[NodeKey, list[tuple[str, NodeKey, float]]] = {}
        wanted = None if only is None else neighbourhoods.of_node(only)
        for entity in self.entities:
            bonds = neighbourhoods.of_node(entity) if wanted is None else neighbourhoods.shared(entity, wanted)
            for bond, neighbours in bonds.items():
                holders = self.bonds.setdefault(bond, {})
                for row, weight in neighbours.items():
                    held = holders.get(row)
                    # Of equals, the one touched later (or more) stays first.
                    if held is None:
                        holders[row] = [(weight, entity)]
                    elif weight > held[0][0]:
                        held[:] = (weight, entity), held[0]
                    elif len(held) == 1 or weight > held[1][0]:
                        held[1:] = [(weight, entity)]
            if only is not None:
                for relation, weight in neighbourhoods.co_edges(entity, only).items():
                    self.co_engaged.setdefault(only, []).append((relation, entity, weight))
                continue
            for (relation, other), weight in neighbourhoods.co_engaged(entity).items():
                self.co_engaged.setdefault(other, []).append((relation, entity, weight))


class Explainer:
    """Finds evidence in the neighbour lists of a bundle, at a cost bounded by their length."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue, neighbourhoods: Neighbourhoods) -> None:
        self._bundle = bundle
        self._catalogue = catalogue
        self.neighbourhoods = neighbourhoods

    def between(self, source: NodeKey, target: NodeKey, most: int) -> list[types_pb2.Reason]:
        """Reasons why two nodes belong together, the strongest first; their contributions add up to 1."""
        return self._reasons(self._ranked(self._between(source, target))[:most])

    def attributed(
        self,
        source: NodeKey,
        target: NodeKey,
        most: int,
        encoder: OnlineEncoder,
        vector: Vectors,
        *,
        unit: bool,
        profile: UserProfile | None = None,
    ) -> tuple[list[types_pb2.Reason], Attribution | None]:
        """The same by what the score with the target's ``vector`` loses without each; for a user with ``profile``.

        Where the encoder cannot tell, evidence counts by its strength, and there is no attribution.
        """
        found = self._between(source, target) if profile is None else self._for_user(profile, target)
        ranked = self._ranked(found)[:MOST_VARIANTS]
        parts = attribute(self._bundle, encoder, source, vector, ranked, unit=unit)
        if parts is None:
            return self._reasons(ranked[:most], profile=profile), None
        # Stable: what the encoder does not read comes last, the strongest first.
        order = sorted(range(len(ranked)), key=lambda number: -parts.parts[number])
        told = [ranked[number] for number in order[:most]]
        shares = [parts.parts[number] for number in order[:most]]
        return self._reasons(told, shares=shares, measured=True, profile=profile), parts

    def _between(self, source: NodeKey, target: NodeKey) -> list[Evidence]:
        graph = self.neighbourhoods
        found = list(self._shared(source, source.type, graph.of_node(source), target, graph.of_node(target)))
        found += self._direct(source, target)
        found += self._together(source, target)
        return found

    def described(self, description: Description, target: NodeKey, most: int) -> list[types_pb2.Reason]:
        """Reasons why a described node and a node of the graph belong together; the path's first node has no id."""
        graph = self.neighbourhoods
        bonds = graph.of_links(description.links)
        found = self._shared(None, description.node_type, bonds, target, graph.of_node(target))
        return self._reasons(self._ranked(found)[:most], described=description.node_type)

    def for_user(self, profile: UserProfile, target: NodeKey, most: int) -> list[types_pb2.Reason]:
        """Reasons that lead from entities the user engaged with to a result; the strongest of each shared neighbour."""
        return self._reasons(self._ranked(self._for_user(profile, target))[:most], profile=profile)

    def _for_user(self, profile: UserProfile, target: NodeKey) -> list[Evidence]:
        graph = self.neighbourhoods
        found: list[Evidence] = []
        for bond, others in graph.of_node(target).items():
            holders = profile.bonds.get(bond, {})
            for row in holders.keys() & others.keys():
                middle = NodeKey(bond.neighbour_type, row)
                held = next(((weight, entity) for weight, entity in holders[row] if entity != target), None)
                if held is None or middle in (held[1], target):
                    continue
                found.append(self._through(held[1], held[1].type, middle, target, bond, sqrt(held[0] * others[row])))
        edges: dict[tuple[NodeKey, str], float] = {}
        both_ways = [*profile.co_engaged.get(target, ())]
        both_ways += [(name, other, weight) for (name, other), weight in graph.co_engaged(target).items()]
        for name, entity, weight in both_ways:
            if entity in profile.entities and entity != target:
                edges[entity, name] = max(edges.get((entity, name), 0.0), weight)
        found += [self._co_engaged(entity, target, name, weight) for (entity, name), weight in edges.items()]
        # What the user is joined to is the path's first entity: taken away with all that leads from it.
        return [replace(each, links=partial(graph.engagement_ends, each.path[0])) for each in found]

    def _through(
        self, source: NodeKey | None, source_type: str, middle: NodeKey, target: NodeKey, bond: Bond, weight: float
    ) -> Evidence:
        """A shared neighbour."""

        def text() -> str:
            name = self._catalogue.name(middle)
            return phrases.shared(bond.relation, bond.neighbour_type, name, reverse=bond.reverse)

        return Evidence(
            strength=self.neighbourhoods.rarity(source_type, bond, middle.row) * weight,
            path=(source, middle, target),
            relations=(bond.relation, bond.relation),
            text=text,
            links=lambda: _one_link(self.neighbourhoods.edge_type(source_type, bond), middle.row),
        )

    def _co_engaged(self, source: NodeKey, target: NodeKey, relation: str, weight: float) -> Evidence:
        """A co-engagement edge, told by how many users engaged with both."""

        def text() -> str:
            users = self.neighbourhoods.shared_users(source, target)
            return phrases.together(users[1], users[0]) if users else phrases.together(None, None)

        strength = self.neighbourhoods.scale(source.type) * weight
        return Evidence(
            strength=strength,
            path=(source, target),
            relations=(relation,),
            text=text,
            links=partial(self.neighbourhoods.together_ends, source, target),
        )

    def _shared(
        self, source: NodeKey | None, source_type: str, ours: Bonds, target: NodeKey, theirs: Bonds
    ) -> Iterable[Evidence]:
        for bond, neighbours in ours.items():
            others = theirs.get(bond, {})
            for row in neighbours.keys() & others.keys():
                middle = NodeKey(bond.neighbour_type, row)
                if middle not in (source, target):
                    weight = sqrt(neighbours[row] * others[row])
                    yield self._through(source, source_type, middle, target, bond, weight)

    def _direct(self, source: NodeKey, target: NodeKey) -> Iterable[Evidence]:
        """Semantic edges between the two, whichever way they point."""
        for start, end in ((source, target), (target, source)):
            for edge_type, weight in self.neighbourhoods.direct(start, end):
                names, relation = (self._catalogue.name(start), self._catalogue.name(end)), edge_type.triple.name
                yield Evidence(
                    strength=self.neighbourhoods.scale(source.type) * weight,
                    path=(source, target),
                    relations=(relation,),
                    text=partial(phrases.direct, names[0], relation, names[1]),
                    links=partial(_one_link, edge_type if start == source else edge_type.flipped, target.row),
                )

    def _together(self, source: NodeKey, target: NodeKey) -> Iterable[Evidence]:
        graph = self.neighbourhoods
        edges: dict[str, float] = {}
        for start, end in ((source, target), (target, source)):
            for (name, other), weight in graph.co_engaged(start).items():
                if other == end:
                    edges[name] = max(edges.get(name, 0.0), weight)
        for name, weight in edges.items():
            yield self._co_engaged(source, target, name, weight)
        users = None if edges else graph.shared_users(source, target)
        if users and users[1]:
            yield self._co_engaged(source, target, users[0], users[2])

    def _ranked(self, found: Iterable[Evidence]) -> list[Evidence]:
        """The evidence, the strongest first."""
        return sorted(
            (each for each in found if each.strength > 0),
            key=lambda each: (-each.strength, each.relations, [key or ("", -1) for key in each.path]),
        )

    def _reasons(
        self,
        told: Sequence[Evidence],
        *,
        shares: Sequence[float] | None = None,
        measured: bool = False,
        described: str = "",
        profile: UserProfile | None = None,
    ) -> list[types_pb2.Reason]:
        """Evidence as reasons, by strength or by ``shares``; of a user (``profile``), told as what followed from it.

        ``measured``: the shares are parts of the score.
        """
        weights = [each.strength for each in told] if shares is None else shares
        total = sum(weights)
        unnamed = types_pb2.Node(
            ref=types_pb2.NodeRef(type=described), name=f"the described {phrases.spoken(described)}"
        )
        reasons = []
        for each, weight in zip(told, weights, strict=True):
            text, first = each.text(), each.path[0]
            if profile is not None and first is not None:
                text = phrases.engaged(profile.entities[first], self._catalogue.name(first), text)
            reason = types_pb2.Reason(
                path=[unnamed if key is None else self._catalogue.node(key) for key in each.path],
                relations=each.relations,
                contribution=weight / total if total else 0.0,
                text=phrases.sentence(text),
            )
            if measured:
                reason.score_part = weight
            reasons.append(reason)
        return reasons


def _one_link(edge_type: EdgeType, row: int) -> tuple[LinkEnd, ...]:
    return ((edge_type, row),)
