"""Queries in groups, so that a mean does not hide for whom vectors do well."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import Relation, RelationRole
from model_store.csr import EdgeType
from training.evaluation.metrics import bootstrap_columns
from training.evaluation.report import Group
from training.graph import Graph

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


def unpopular_half(popularity: Values) -> Mask:
    """The queries up to the median popularity, those at the median among them."""
    return popularity <= np.median(popularity) if len(popularity) else np.zeros(0, bool)


def by_tenths(popularity: Values) -> list[tuple[str, Mask]]:
    """Queries cut at the deciles of their popularity; equals stay together, in the lower group.

    So there are fewer than ten groups where many queries are equally popular, and none where all are. A group is named
    by its least and greatest popularity.
    """
    if not len(popularity):
        return []
    cuts = np.quantile(popularity, np.arange(1, 10) / 10, method="inverted_cdf")
    tenth = np.searchsorted(cuts, popularity, side="left")
    groups = []
    for each in np.unique(tenth):
        inside = tenth == each
        low, high = popularity[inside].min(), popularity[inside].max()
        groups.append((f"{low:g}" if low == high else f"{low:g} to {high:g}", inside))
    return groups if len(groups) > 1 else []


def by_relation(
    graph: Graph, node_type: str, rows: NDArray[np.int64], *, but: Relation | None = None
) -> list[tuple[str, Mask]]:
    """For each relation of a node type: the queries with an edge of it, and those without.

    ``rows`` are the nodes that the queries ask for. A relation from the type to itself counts from either end; one that
    no query or every query has an edge of gives no groups. ``but`` is left out, and so is derived co-engagement.
    """
    groups = []
    for relation in graph.schema.relations:
        if relation == but or (relation.role is RelationRole.CO_ENGAGEMENT and relation.derive is not None):
            continue
        edges = np.zeros(len(rows), np.int64)
        for reverse in (False, True):
            edge_type = EdgeType(relation.triple, reverse)
            if edge_type.node_type == node_type:
                edges += np.diff(graph.csr(edge_type).indptr)[rows]
        if (edges > 0).any() and (edges == 0).any():
            name = _name(graph, relation)
            groups += [(f"with {name}", edges > 0), (f"without {name}", edges == 0)]
    return groups


def measured(by: str, groups: list[tuple[str, Mask]], values: dict[str, Values], resamplings: int) -> list[Group]:
    """The groups with each scorer's mean; ``values`` are those of the queries, by scorer."""
    found = []
    for name, inside in groups:
        if not inside.any():
            continue
        columns = np.stack([each[inside] for each in values.values()], axis=1)
        intervals = bootstrap_columns(columns, resamplings)
        scores = dict(zip(values, intervals, strict=True))
        found.append(Group(by=by, name=name, queries=int(inside.sum()), scores=scores))
    return found


def _name(graph: Graph, relation: Relation) -> str:
    alike = [each for each in graph.schema.relations if each.triple.name == relation.triple.name]
    return relation.triple.name if len(alike) == 1 else str(relation.triple)
