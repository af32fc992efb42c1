"""What changed in the store since a bundle's snapshot was taken, before anybody followed it.

Nodes compare by id and by the properties that the bundle carries. Edges compare by their ends with the bundle's
neighbour lists; of a pair that only lists of full length could tell of, nothing is known, and it counts as unchanged.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph_store.rows import difference, not_in
from graph_store.schema import GraphSchema, RelationRole, Triple
from graph_store.store import GraphStore
from model_store import layout
from model_store.bundle import Bundle

Rows = NDArray[np.int64]


def changed_nodes(bundle: Bundle, schema: GraphSchema, store: GraphStore) -> dict[str, set[str]]:
    """Ids by type of nodes that are new, differ, or are gone. Raises StoreError as every scan does."""
    found: dict[str, set[str]] = {}
    for node_type in schema.node_types:
        if node_type.name not in bundle.node_types:
            continue
        carried = {
            each.name: layout.property_column(each.name)
            for each in bundle.node_types[node_type.name].properties
            if each.name in node_type.properties
        }
        table = bundle.nodes(node_type.name)
        types = [node_type.arrow_schema.field(name).type for name in carried]
        published = pa.table(
            {"id": table.column(0).cast(pa.string())}
            | {name: table.column(at).cast(kind) for (name, at), kind in zip(carried.items(), types, strict=True)}
        )
        batches = list(store.scan_nodes(node_type.name, list(carried)))
        now = pa.Table.from_batches(batches) if batches else published.slice(0, 0)
        differs = difference(now, published, ["id"])
        gone = not_in(published, now, ["id"]) if published.num_rows else published
        ids = [part.column("id").to_pylist() for part in (differs.new, differs.changed, gone)]
        found[node_type.name] = {node_id for part in ids for node_id in part}
    return found


def changed_pairs(
    bundle: Bundle, schema: GraphSchema, store: GraphStore, max_neighbours: int
) -> dict[Triple, list[tuple[str, str]]]:
    """Source and target of edges that came or went. Raises StoreError as every scan does."""
    found: dict[Triple, list[tuple[str, str]]] = {}
    for relation in schema.relations:
        triple = relation.triple
        lists = [each for each in bundle.edge_types if each.triple == triple]
        if triple not in bundle.relations or not lists:
            continue
        sources, targets = bundle.nodes(triple.source).column(0), bundle.nodes(triple.target).column(0)
        width = max(len(targets), 1)
        listed, whole = [], {False: np.zeros(len(sources), bool), True: np.zeros(len(targets), bool)}
        for each in lists:
            csr = bundle.neighbours(each)
            degree = np.diff(csr.indptr)
            uncut = relation.role is RelationRole.ENGAGEMENT and not each.reversed
            whole[each.reversed] = np.ones(len(degree), bool) if uncut else degree < max_neighbours
            own, other = np.repeat(np.arange(csr.num_rows), degree), csr.indices.astype(np.int64)
            listed.append(other * width + own if each.reversed else own * width + other)
        published = np.unique(np.concatenate(listed))
        codes: list[Rows] = []
        pairs: list[tuple[str, str]] = []
        for batch in store.scan_edges(triple, []):
            at = [_places(batch.column(name), ids) for name, ids in (("source", sources), ("target", targets))]
            known = (at[0] >= 0) & (at[1] >= 0)
            codes.append(at[0][known] * width + at[1][known])
            fresh = batch.filter(pa.array(~known))
            pairs += zip(fresh.column("source").to_pylist(), fresh.column("target").to_pylist(), strict=True)
        now = np.unique(np.concatenate(codes)) if codes else np.empty(0, np.int64)
        new = np.setdiff1d(now, published, assume_unique=True)
        new = new[whole[False][new // width] | whole[True][new % width]]
        for code in np.concatenate([new, np.setdiff1d(published, now, assume_unique=True)]).tolist():
            pairs.append((sources[code // width].as_py(), targets[code % width].as_py()))
        if pairs:
            found[triple] = pairs
    return found


def _places(column: pa.Array, ids: pa.ChunkedArray) -> Rows:
    found = pc.index_in(column, value_set=ids.combine_chunks().cast(column.type))
    return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)
