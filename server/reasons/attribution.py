"""What a pair's score loses when evidence is taken away: the encoder is asked again without it.

Occlusion (Zeiler and Fergus 2014, arXiv 1311.2901) on the links of the first node: each variant leaves out what one
piece of evidence rests on, one more leaves out all of it, and all are encoded in one call. So a relation counts by the
attention and the blocks that the trained encoder gives it, not by how rare its neighbours are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from model_store import layout
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from server.index.rescoring import scores_of
from server.index.vector_index import Vectors, unit_rows
from server.model.catalogue import NodeKey
from server.model.encoder import Link, Links, OnlineEncoder

if TYPE_CHECKING:
    from server.reasons.explanation import Evidence

MOST_VARIANTS = 24
"""Pieces of evidence that are taken away one by one: bounds the cost of one explanation."""

LinkEnd = tuple[EdgeType, int]
"""A link of the first node: its edge type, and the row at the other end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribution:
    """Parts of a pair's score."""

    parts: tuple[float, ...]
    """Of each piece of evidence, in the order given; none is negative, and they add up to ``explained``."""
    explained: float
    """What the score loses without any of the evidence."""


def attribute(
    bundle: Bundle,
    encoder: OnlineEncoder,
    source: NodeKey,
    target: Vectors,
    evidence: Sequence[Evidence],
    *,
    unit: bool,
) -> Attribution | None:
    """Divide what the score of ``source`` with the vector ``target`` loses among the evidence (at most MOST_VARIANTS).

    ``unit``: the score is a cosine. Evidence that rests on the same links shares by its strength. None where the
    encoder does not see the links, or the score loses nothing without them.
    """
    links = links_of(bundle, source)
    resting: dict[tuple[LinkEnd, ...], list[int]] = {}
    for number, each in enumerate(evidence):
        ends = each.links()
        if ends:
            resting.setdefault(ends, []).append(number)
    if not resting:
        return None
    every = tuple({end for ends in resting for end in ends})
    variants: list[Links] = [links, *(without(links, ends) for ends in resting), without(links, every)]
    vectors = encoder.encode_variants(properties_of(bundle, source), variants)
    scores = scores_of(unit_rows(vectors) if unit else vectors, target)
    explained = float(scores[0] - scores[-1])
    losses = [max(float(scores[0] - score), 0.0) for score in scores[1:-1]]
    if explained <= 0 or not sum(losses):
        return None
    parts = [0.0] * len(evidence)
    for loss, members in zip(losses, resting.values(), strict=True):
        strength = sum(evidence[number].strength for number in members)
        for number in members:
            parts[number] = explained * loss / sum(losses) * evidence[number].strength / strength
    return Attribution(parts=tuple(parts), explained=explained)


def without(links: Links, ends: Sequence[LinkEnd]) -> Links:
    """The links but for those of these ends."""
    gone: dict[EdgeType, set[int]] = {}
    for edge_type, row in ends:
        gone.setdefault(edge_type, set()).add(row)
    return {
        edge_type: [link for link in each if link.row not in gone[edge_type]] if edge_type in gone else each
        for edge_type, each in links.items()
    }


def links_of(bundle: Bundle, key: NodeKey) -> dict[EdgeType, list[Link]]:
    """The links of a node of the graph, in the order of the bundle's lists."""
    found: dict[EdgeType, list[Link]] = {}
    for edge_type in bundle.edge_types:
        if edge_type.node_type != key.type:
            continue
        csr = bundle.neighbours(edge_type)
        part = csr.row(key.row)
        rows = csr.indices[part].tolist()
        weights = [1.0] * len(rows) if csr.weight is None else csr.weight[part].tolist()
        if rows:
            found[edge_type] = [Link(row=row, weight=weight) for row, weight in zip(rows, weights, strict=True)]
    return found


def properties_of(bundle: Bundle, key: NodeKey) -> pa.Table:
    """A node's properties as one row, as the transforms read them."""
    table = bundle.nodes(key.type).slice(key.row, 1)
    names = [each.name for each in bundle.node_types[key.type].properties]
    if not names:
        # A row without columns: Arrow counts rows by columns, so one that says nothing stands for it.
        return pa.table({"id": pa.nulls(1, pa.string())})
    return pa.table({name: table[layout.property_column(name)] for name in names})
