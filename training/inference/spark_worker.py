"""What Spark's Python workers do of inference: Arrow tables in, Arrow tables out; nothing of Spark is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from training.inference import chunks
from training.model import TrainedModel
from training.signals import mean_of_entities
from training.space_model import SpaceModel

Floats = NDArray[np.float32]
Grouped = Callable[[pa.Table, pa.Table], pa.Table]
Mapped = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Functions for ``applyInArrow`` and ``mapInArrow``.

    Tables hold ``type``, ``bucket``, ``node`` and float32 rows as bytes; links and messages hold ``kind``,
    ``neighbour`` and ``weight`` besides.
    """

    folder: str
    """Where ``TrainedModel.save`` wrote the model."""
    space: str
    node_types: tuple[str, ...]
    """By their numbers."""
    edge_types: tuple[EdgeType, ...]
    """Of the graph, by the numbers of the links."""

    def features(self, node_type: str, *, kept: bool, signals: bool) -> Grouped:
        """From nodes with properties, and their links."""

        def work(nodes: pa.Table, links: pa.Table) -> pa.Table:
            model, transforms = _loaded(self.folder, self.space)
            nodes = nodes.sort_by("node")
            node = _ids(nodes, "node")
            own = self._adjacency(links, node)
            features = transforms.apply(node_type, nodes, own)
            with torch.no_grad():
                state = chunks.first_state(model, node_type, features, node)
                own_signals = chunks.own_signals(model, node_type, features) if signals else features[:, :0]
            return pa.table(
                {
                    **_who(nodes),
                    "state": bytes_of(state),
                    "signals": bytes_of(own_signals),
                    "known": pa.array(chunks.known(transforms.blocks[node_type], features, own)),
                    "features": bytes_of(features if kept else features[:, :0]),
                }
            )

        return work

    def signals(self) -> Grouped:
        """Of nodes without signals of their own, from links that carry those of entities."""

        def work(nodes: pa.Table, links: pa.Table) -> pa.Table:
            model, _ = _loaded(self.folder, self.space)
            nodes, width = nodes.sort_by("node"), model.shape.signal_width
            links = _ordered(links)
            # Each link brings its own row: the row's number stands for the neighbour.
            payload = rows_of(links["payload"], width)
            own = self._adjacency(links, _ids(nodes, "node"), neighbours=np.arange(links.num_rows))
            of_entities = {each.neighbour_type: payload for each in own}
            found = mean_of_entities(own, of_entities, nodes.num_rows, width)
            return pa.table({**_who(nodes), "state": nodes["state"], "signals": bytes_of(found)})

        return work

    def sent(self, layer: int) -> Mapped:
        """The map of a layer."""

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            model, _ = _loaded(self.folder, self.space)
            for batch in batches:
                with torch.no_grad():
                    payload = chunks.sent(model, layer, rows_of(batch["state"], model.settings.hidden))
                yield pa.record_batch(
                    [batch["type"], batch["node"], bytes_of(payload)], names=["neighbour_type", "neighbour", "payload"]
                )

        return work

    def received(self, layer: int) -> Grouped:
        """What nodes make of their messages: the next state."""

        def work(nodes: pa.Table, messages: pa.Table) -> pa.Table:
            model, _ = _loaded(self.folder, self.space)
            nodes, messages = nodes.sort_by("node"), _ordered(messages)
            node, hidden = _ids(nodes, "node"), model.settings.hidden
            with torch.no_grad():
                width = chunks.sent(model, layer, np.empty((0, hidden), np.float32)).shape[1]
                payload = rows_of(messages["payload"], width)
                weight = messages["weight"].fill_null(1.0)
                received = chunks.Received(
                    sent=payload,
                    sender=np.arange(len(payload)),
                    receiver=np.searchsorted(node, _ids(messages, "node")),
                    kind=_ids(messages, "kind"),
                    weight=np.asarray(weight.to_numpy(), dtype=np.float32),
                )
                state = rows_of(nodes["state"], hidden)
                focal = rows_of(nodes["focal"], hidden)
                found = chunks.next_state(model, layer, state, focal, received)
            told = {"state": bytes_of(found), "signals": nodes["signals"], "focal": nodes["focal"]}
            return pa.table({**_who(nodes), **told})

        return work

    def vectors(self) -> Mapped:
        """Vectors of nodes with their features; zeros where nothing is known."""

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            model, transforms = _loaded(self.folder, self.space)
            for batch in batches:
                kind = _ids(batch, "type")
                out = np.zeros((batch.num_rows, model.settings.dimension), np.float32)
                for number in np.unique(kind):
                    name, rows = self.node_types[number], np.flatnonzero(kind == number)
                    own = batch.take(pa.array(rows))
                    with torch.no_grad():
                        found = chunks.vectors(
                            model,
                            name,
                            rows_of(own["features"], transforms.width(name)),
                            rows_of(own["state"], model.settings.hidden),
                            rows_of(own["signals"], model.shape.signal_width),
                            joined=False,
                        )
                    out[rows] = np.where(np.asarray(own["known"])[:, None], found, 0.0)
                yield pa.record_batch([batch["type"], batch["node"], bytes_of(out)], names=["type", "node", "vector"])

        return work

    def _adjacency(
        self,
        links: pa.Table,
        node: NDArray[np.int64],
        *,
        neighbours: NDArray[np.int64] | None = None,
    ) -> dict[EdgeType, Csr]:
        """Rows are the nodes (ascending) that the links belong to; only edge types of their node type are there."""
        links = links if neighbours is not None else _ordered(links)
        kind, row = _ids(links, "kind"), np.searchsorted(node, _ids(links, "node"))
        neighbour = _ids(links, "neighbour") if neighbours is None else neighbours
        found = {}
        for number in np.unique(kind):
            own = kind == number
            weight = links["weight"].filter(pa.array(own))
            found[self.edge_types[number]] = Csr(
                indptr=np.concatenate([[0], np.cumsum(np.bincount(row[own], minlength=len(node)))]).astype(np.int64),
                indices=neighbour[own].astype(np.int32),
                weight=None if weight.null_count else np.asarray(weight.to_numpy(), dtype=np.float32),
            )
        return found


def bytes_of(rows: Floats) -> pa.Array:
    """Float32 rows ``[N, width]`` as a binary array."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(4 * rows.shape[1])
    return pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def rows_of(column: pa.Array | pa.ChunkedArray, width: int) -> Floats:
    """Float32 rows ``[N, width]`` of a binary array without nulls."""
    parts = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [np.empty((0, width), np.float32)]
    for part in parts:
        kind = np.int64 if pa.types.is_large_binary(part.type) else np.int32
        offsets = np.frombuffer(part.buffers()[1], dtype=kind)[part.offset : part.offset + len(part) + 1]
        if len(part) and width:
            values = np.frombuffer(part.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
            found.append(values.view(np.float32).reshape(len(part), width))
        else:
            found.append(np.empty((len(part), width), np.float32))
    return np.concatenate(found)


@lru_cache(maxsize=1)
def _loaded(folder: str, space: str) -> tuple[SpaceModel, FeatureTransforms]:
    """Once a worker, which is one process of many on its machine; the factors of the transforms are memory-mapped."""
    torch.set_num_threads(1)
    trained = TrainedModel.load(Path(folder))
    return trained.spaces[space], trained.transforms


def _ordered(links: pa.Table) -> pa.Table:
    """One order whatever the shuffle did, so that sums come out alike."""
    return links.sort_by([("node", "ascending"), ("kind", "ascending"), ("neighbour", "ascending")])


def _ids(table: Any, column: str) -> NDArray[np.int64]:
    return np.asarray(table[column]).astype(np.int64)


def _who(nodes: pa.Table) -> dict[str, Any]:
    return {name: nodes[name] for name in ("type", "bucket", "node")}
