"""A bundle with a neural scorer that can be worked out by hand, and enough entities to be searched and not scanned.

The score of an item is its largest inner product with an event of the user, where that is above 0, else 0: no inner
product of two vectors gives it. Items lie at random in a space of 8 dimensions; user u<j> touched items j, j + 1, j + 2
and so on, item j + 2 last. ``shelf`` is the item's number modulo 50, ``rare`` is there for the first 5 items only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper

from graph_store.schema import NodeType, Triple
from graph_store.settings import PublishSettings
from kithkin.v1 import model_service_pb2
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from model_store.neural_files import ENTITIES, GRAPH, SCORER, describe_inputs
from training.neural_metric.graph import build_graph
from training.neural_metric.settings import GraphSettings

ITEMS, USERS, DIMENSION, EVENTS = 3000, 10, 8, 3
TOUCHED = Triple("User", "TOUCHED", "Item")
ITEM = NodeType.model_validate(
    {
        "name": "Item",
        "role": "entity",
        "properties": {"shelf": {"type": "int", "filter": True}, "rare": {"type": "bool", "filter": True}},
    }
)
USER = NodeType.model_validate({"name": "User", "role": "user"})
OTHER = NodeType.model_validate({"name": "Shop", "role": "entity"})


def item_vectors() -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal((ITEMS, DIMENSION)).astype(np.float32)


def expected(events: list[int]) -> NDArray[np.float32]:
    """Scores of all items for a user of these events."""
    table = item_vectors()
    return np.maximum(table @ table[events].T, 0.0).max(axis=1) if events else np.zeros(ITEMS, np.float32)


def write_neural_bundle(store: BundleStore, *, scorer: bytes | None = None, beam: int = 120) -> str:
    """Publish the bundle (not activated); ``scorer``: another file in place of the scorer. Returns its version."""
    from server.index.publish import build_indexes

    table = item_vectors()
    with store.writer("neural") as writer:
        for kind, count in ((ITEM, ITEMS), (USER, USERS + 1), (OTHER, 1)):
            ids = [f"{kind.name[0].lower()}{number:04}" for number in range(count)]
            nodes = pa.table({"id": ids, "name": ids, "popularity": np.zeros(count)})
            if kind is ITEM:
                nodes = nodes.append_column("shelf", pa.array(np.arange(count) % 50))
                nodes = nodes.append_column("rare", pa.array([True] * 5 + [None] * (count - 5)))
            writer.write_nodes(kind, nodes)
        writer.manifest.relations.add(
            source=TOUCHED[0], name=TOUCHED[1], target=TOUCHED[2], role="engagement", edges=USERS * EVENTS
        )
        # The newest first, as they are published; the last user touched nothing.
        newest = np.concatenate([np.arange(user, user + EVENTS)[::-1] for user in range(USERS)]).astype(np.int32)
        indptr = np.append(np.arange(USERS + 1) * EVENTS, USERS * EVENTS)
        writer.write_neighbours(EdgeType(TOUCHED), Csr(indptr=indptr, indices=newest))
        space = writer.manifest.spaces.add(
            name="user", metric=model_service_pb2.INNER_PRODUCT, dimension=DIMENSION, node_types=["Item", "User"]
        )
        writer.write_vectors("user", "Item", table)
        users = np.stack([table[user : user + EVENTS].mean(axis=0) for user in range(USERS)])
        writer.write_vectors("user", "User", np.concatenate([users, np.zeros((1, DIMENSION), np.float32)]))
        assert space.name == "user"
        folder = writer.neural_folder
        write_scorer(folder / SCORER)
        if scorer is not None:
            (folder / SCORER).write_bytes(scorer)
        np.save(folder / ENTITIES, table)
        build_graph(table, GraphSettings(neighbours=8)).save(folder / GRAPH)
        neural = writer.manifest.neural
        neural.scorer = f"neural/{SCORER}"
        describe_inputs(neural, DIMENSION)
        neural.events.source, neural.events.name, neural.events.target = TOUCHED
        neural.max_events, neural.dimension, neural.beam, neural.width = 2, DIMENSION, beam, 8
        neural.share_evaluated = 0.2
        build_indexes(writer, PublishSettings())
        return writer.commit()


def write_scorer(path: Path, dimension: int = DIMENSION) -> None:
    """The largest inner product with an event that is there, at least 0."""
    nodes = [
        helper.make_node("Transpose", ["events"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["candidates", "turned"], ["products"]),
        helper.make_node("Cast", ["mask"], ["there"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["products", "there"], ["kept"]),
        helper.make_node("Relu", ["kept"], ["positive"]),
        helper.make_node("ReduceMax", ["positive", "axes"], ["scores"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("events", TensorProto.FLOAT, [1, "T", dimension]),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, "T"]),
        helper.make_tensor_value_info("candidates", TensorProto.FLOAT, ["N", dimension]),
    ]
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N"])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [0, 2])
    graph = helper.make_graph(nodes, "largest", inputs, [output], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
