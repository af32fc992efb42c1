"""HASP: what of a graph each part holds (SemanticGNN, arXiv 2312.04071; docs/methods/hasp.md says what we decided).

Entities and users are split; concepts, and relations that are rare, are whole in every part. Of the other relations a
part has the edges of its own entities. A node of another part that stands at the end of an edge is there as a guest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import GraphSchema, NodeRole, Relation, RelationRole, Triple
from graph_store.settings import DistributedSettings
from model_store.csr import EdgeType
from training.distributed.assign import Owners, cut_edges, random_owners, restreamed_owners
from training.graph import Snapshot

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A graph's nodes over some parts."""

    parts: int
    owners: Owners
    """Part of every entity and user, by type ``[nodes]``; types that are not here are whole in every part."""
    whole: frozenset[Triple]
    """Relations that every part has whole."""
    halo: Literal["none", "users", "all"]
    """Whose edges to nodes of other parts are kept: see ``DistributedSettings.halo``."""
    cut: dict[Triple, int]
    """Edges between two parts, of the relations that are not whole."""


@dataclass(frozen=True, kw_only=True)
class PartContent:
    """What one part holds of the graph."""

    rows: dict[str, NDArray[np.int64]]
    """Rows of its nodes in the whole graph, ascending, by type."""
    owned: dict[str, int]
    """How many of them are its own, by type; concepts are everybody's own."""
    edges: dict[Triple, Mask]
    """Which edges it has, in the order of the forward adjacency."""


def partition(snapshot: Snapshot, settings: DistributedSettings, *, parts: int, seed: int) -> Partition:
    """Split a snapshot; ``settings.partition`` random: any node anywhere, all else alike, for comparison."""
    schema = snapshot.schema
    roles = {node_type.name: node_type.role for node_type in schema.node_types}
    counts = {relation.triple: snapshot.csr(EdgeType(relation.triple)).num_edges for relation in schema.relations}
    total = sum(counts.values())
    split = [name for role in (NodeRole.ENTITY, NodeRole.USER) for name, own in roles.items() if own is role]
    whole = frozenset(
        triple
        for triple, count in counts.items()
        if count <= settings.rare_share * total or not {triple.source, triple.target} & set(split)
    )
    sizes = {name: snapshot.num_nodes(name) for name in split}
    between = [
        relation.triple
        for relation in schema.relations
        if relation.triple not in whole and {relation.triple.source, relation.triple.target} <= set(split)
    ]
    edges = {each: snapshot.csr(each) for triple in between for each in (EdgeType(triple), EdgeType(triple, True))}
    if settings.partition == "random":
        owners = random_owners(sizes, parts, seed)
    else:
        owners = restreamed_owners(sizes, edges, parts, seed)
    cut = {each.triple: cut_edges(owners, {each: csr}) for each, csr in edges.items() if not each.reversed}
    return Partition(parts=parts, owners=owners, whole=whole, halo=settings.halo, cut=cut)


def part_content(snapshot: Snapshot, split: Partition, part: int) -> PartContent:
    """The nodes and edges of one part."""
    schema = snapshot.schema
    own = {
        node_type.name: split.owners[node_type.name] == part
        if node_type.name in split.owners
        else np.ones(snapshot.num_nodes(node_type.name), bool)
        for node_type in schema.node_types
    }
    here = {name: mask.copy() for name, mask in own.items()}
    edges: dict[Triple, Mask] = {}
    for relation in schema.relations:
        triple = relation.triple
        csr = snapshot.csr(EdgeType(triple))
        source = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        target = np.asarray(csr.indices)
        edges[triple] = (
            np.ones(csr.num_edges, bool)
            if triple in split.whole
            else _kept(schema, relation, split, own[triple.source][source], own[triple.target][target])
        )
        here[triple.source][source[edges[triple]]] = True
        here[triple.target][target[edges[triple]]] = True
    return PartContent(
        rows={name: np.flatnonzero(mask) for name, mask in here.items()},
        owned={name: int(mask.sum()) for name, mask in own.items()},
        edges=edges,
    )


def _kept(schema: GraphSchema, relation: Relation, split: Partition, source: Mask, target: Mask) -> Mask:
    """Which edges of a relation a part has, from whether each end is its own."""
    ends = relation.triple.source, relation.triple.target
    if not set(ends) <= set(split.owners):  # One end is a concept, which is everybody's.
        return source & target
    if split.halo == "all":
        return source | target
    users = [schema.node_type(name).role is NodeRole.USER for name in ends]
    if split.halo == "users" and relation.role is RelationRole.ENGAGEMENT and users[0] != users[1]:
        return target if users[0] else source
    return source & target


def shares(schema: GraphSchema, counts: Mapping[Triple, int], content: PartContent) -> dict[str, float]:
    """A part's share of all edges, and of the edges of engagement and co-engagement."""
    held = {triple: int(mask.sum()) for triple, mask in content.edges.items()}
    company = [
        relation.triple
        for relation in schema.relations
        if relation.role in (RelationRole.ENGAGEMENT, RelationRole.CO_ENGAGEMENT)
    ]
    return {
        "edges": sum(held.values()) / max(sum(counts.values()), 1),
        "engagement_and_co_engagement": sum(held[each] for each in company)
        / max(sum(counts[each] for each in company), 1),
    }
