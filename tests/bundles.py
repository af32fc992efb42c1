"""A small bundle whose right answers can be worked out by hand, made without torch.

    u1 -- Slowdive, Ride             shoegaze: Slowdive, Ride, Lush          dream pop: Slowdive, Lush
    u2 -- Ride, Lush, Slowdive       metal:    Slayer, Opeth                 swedish:   Opeth
    u3 -- Slayer, Opeth              Slowdive and Ride: co-played; Slayer was influenced by Opeth
    u4 -- nothing                    Lush and "ride" (another one, unplayed) and Blank (nothing known)

Vectors of ``similar`` (cosine) lie in a plane by angle: shoegaze near 0 degrees, metal near 90. Those of ``user``
(inner product): first coordinate for shoegaze, second for metal.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import pyarrow as pa

from graph_store.schema import GraphSchema, NodeType, Relation, RelationRole, Triple
from graph_store.settings import PublishSettings
from kithkin.v1 import bundle_pb2, model_service_pb2
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms, NumberBlock
from model_store.writer import BundleWriter

# Ids are out of the order of names on purpose, and sorted by bytes: "10" comes before "2".
ARTISTS = {"1": "Slowdive", "10": "Ride", "2": "Lush", "3": "Slayer", "4": "Opeth", "5": "ride", "6": "Blank"}
YEARS = {"1": 1991, "10": 1990, "2": 1992, "3": 1986, "4": 1995, "5": None, "6": None}
PLAYS = {"1": 2.0, "10": 2.0, "2": 1.0, "3": 1.0, "4": 1.0, "5": 0.0, "6": 0.0}
ANGLES = {"1": 0.0, "10": 10.0, "2": 15.0, "3": 90.0, "4": 80.0, "5": 12.0}
TASTE = {"1": (1.0, 0.0), "10": (0.9, 0.1), "2": (0.8, 0.0), "3": (0.0, 1.0), "4": (0.1, 0.9), "5": (0.7, 0.0)}
USERS = {"u1": (1.0, 0.0), "u2": (2.0, 0.1), "u3": (0.0, 1.0), "u4": (0.0, 0.0)}
TAGS = {"t1": "shoegaze", "t2": "dream pop", "t3": "metal", "t4": "swedish"}

HAS_TAG = Triple("Artist", "HAS_TAG", "Tag")
PLAYED = Triple("User", "PLAYED", "Artist")
CO_PLAYED = Triple("Artist", "CO_PLAYED", "Artist")
INFLUENCED = Triple("Artist", "INFLUENCED_BY", "Artist")

SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate(
            {
                "name": "Artist",
                "role": "entity",
                "display": "name",
                "properties": {
                    "name": {"type": "string", "show": True},
                    "year": {"type": "int", "feature": "number", "show": True, "filter": True},
                    "styles": {"type": "strings", "show": True},
                    "born": {"type": "date", "show": True},
                    "secret": {"type": "string"},
                },
            }
        ),
        NodeType.model_validate({"name": "User", "role": "user"}),
        NodeType.model_validate(
            {
                "name": "Tag",
                "role": "concept",
                "display": "label",
                "properties": {"label": {"type": "string", "show": True}},
            }
        ),
    ),
    relations=(
        Relation.model_validate(
            {
                "triple": HAS_TAG,
                "role": "semantic",
                "weight": "count",
                "properties": {"count": {"type": "int"}},
            }
        ),
        Relation.model_validate(
            {
                "triple": PLAYED,
                "role": "engagement",
                "weight": "plays",
                "properties": {"plays": {"type": "int"}},
            }
        ),
        Relation.model_validate({"triple": CO_PLAYED, "role": "co_engagement", "derive": {"via": "PLAYED"}}),
        Relation.model_validate({"triple": INFLUENCED, "role": "semantic"}),
    ),
)

EDGES: dict[Triple, list[tuple[str, str, float]]] = {
    HAS_TAG: [
        ("1", "t1", 10),
        ("1", "t2", 5),
        ("10", "t1", 8),
        ("2", "t1", 4),
        ("2", "t2", 4),
        ("3", "t3", 9),
        ("4", "t3", 3),
        ("4", "t4", 6),
    ],
    PLAYED: [
        ("u1", "1", 5),
        ("u1", "10", 2),
        ("u2", "10", 7),
        ("u2", "2", 3),
        ("u2", "1", 1),
        ("u3", "3", 4),
        ("u3", "4", 1),
    ],
    CO_PLAYED: [("1", "10", 1.0), ("10", "1", 1.0)],
    INFLUENCED: [("3", "4", 1.0)],
}
DIMENSION = 4


def write_toy_bundle(store: BundleStore, *, albums: bool = False, encoders: bool = True, snapshot: str = "toy") -> str:
    """Publish the toy bundle (not activated); ``albums``: with a second entity type. Returns its version."""
    from server.index.publish import build_indexes

    with store.writer("toy") as writer:
        fill(writer, albums=albums, encoders=encoders, snapshot=snapshot)
        build_indexes(writer, PublishSettings())
        return writer.commit()


def fill(writer: BundleWriter, *, albums: bool = False, encoders: bool = True, snapshot: str = "toy") -> None:
    """Write everything but the indexes."""
    ids = _write_nodes(writer)
    manifest = writer.manifest
    manifest.snapshot_hash = snapshot
    for relation in SCHEMA.relations:
        triple = relation.triple
        manifest.relations.add(
            source=triple.source,
            name=triple.name,
            target=triple.target,
            role=relation.role.value,
            edges=len(EDGES[triple]),
        )
        for end in (False, True):
            if relation.role is not RelationRole.CO_ENGAGEMENT or not end:
                writer.write_neighbours(EdgeType(triple, end), _csr(EdgeType(triple, end), ids))
    if albums:
        writer.write_nodes(
            NodeType.model_validate({"name": "Album", "role": "entity"}),
            pa.table({"id": ["a1"], "name": ["Souvlaki"], "popularity": [0.0]}),
        )
    plane = {key: (cos(radians(angle)), sin(radians(angle)), 0.0, 0.0) for key, angle in ANGLES.items()}
    _write_space(
        writer,
        "similar",
        model_service_pb2.COSINE,
        {"Artist": _matrix(ids["Artist"], plane), "Tag": _matrix(ids["Tag"], {"t1": (1, 0, 0, 0), "t3": (0, 1, 0, 0)})}
        | ({"Album": np.array([[1, 0, 0, 0]], np.float32)} if albums else {}),
    )
    _write_space(
        writer,
        "user",
        model_service_pb2.INNER_PRODUCT,
        {"Artist": _matrix(ids["Artist"], TASTE), "User": _matrix(ids["User"], USERS)},
    )
    if encoders:
        _write_encoders(writer, ids)


def _write_nodes(writer: BundleWriter) -> dict[str, list[str]]:
    artists, users, tags = sorted(ARTISTS), sorted(USERS), sorted(TAGS)
    writer.write_nodes(
        SCHEMA.node_type("Artist"),
        pa.table(
            {
                "id": artists,
                "name": [ARTISTS[key] for key in artists],
                "popularity": [PLAYS[key] for key in artists],
                "year": pa.array([YEARS[key] for key in artists], pa.int64()),
                "styles": pa.array([["loud"] if key == "3" else None for key in artists], pa.list_(pa.string())),
                "born": pa.array([7305 if key == "10" else None for key in artists], pa.date32()),
            }
        ),
    )
    writer.write_nodes(
        SCHEMA.node_type("User"), pa.table({"id": users, "name": users, "popularity": [0.0] * len(users)})
    )
    writer.write_nodes(
        SCHEMA.node_type("Tag"),
        pa.table({"id": tags, "name": [TAGS[key] for key in tags], "popularity": [0.0] * len(tags)}),
    )
    return {"Artist": artists, "User": users, "Tag": tags}


def _csr(edge_type: EdgeType, ids: Mapping[str, list[str]]) -> Csr:
    rows, columns = ids[edge_type.node_type], ids[edge_type.neighbour_type]
    lists: list[list[tuple[int, float]]] = [[] for _ in rows]
    for source, target, weight in EDGES[edge_type.triple]:
        here, there = (target, source) if edge_type.reversed else (source, target)
        lists[rows.index(here)].append((columns.index(there), weight))
    ordered = [sorted(each, key=lambda edge: (-edge[1], edge[0])) for each in lists]
    flat = [edge for each in ordered for edge in each]
    return Csr(
        indptr=np.cumsum([0, *(len(each) for each in ordered)]).astype(np.int64),
        indices=np.array([row for row, _ in flat], np.int32),
        weight=None if edge_type.triple == INFLUENCED else np.array([weight for _, weight in flat], np.float32),
    )


def _matrix(ids: list[str], values: Mapping[str, tuple[float, ...]]) -> np.ndarray:
    matrix = np.zeros((len(ids), DIMENSION), np.float32)
    for key, value in values.items():
        matrix[ids.index(key), : len(value)] = value
    return matrix


def _write_space(
    writer: BundleWriter, name: str, metric: model_service_pb2.Metric, vectors: dict[str, np.ndarray]
) -> None:
    space = writer.manifest.spaces.add(name=name, metric=metric, dimension=DIMENSION, max_neighbours=50)
    for node_type, matrix in vectors.items():
        space.node_types.append(node_type)
        writer.write_vectors(name, node_type, matrix)


def _write_encoders(writer: BundleWriter, ids: Mapping[str, list[str]]) -> None:
    """An encoder that gives the (weighted) mean of the neighbours' states, and the features' year a small say."""
    year = NumberBlock(column="year", knots=(1990.0,), mean=1990.0, deviation=5.0)
    FeatureTransforms({"Artist": [year], "User": []}).save(writer.features_folder)
    similar, user = writer.manifest.spaces
    _write_encoder(writer, similar, "Artist", [EdgeType(HAS_TAG), EdgeType(INFLUENCED)], width=4, unit=True)
    _write_encoder(writer, user, "User", [EdgeType(PLAYED)], width=1, unit=False)
    for space in (similar, user):
        for node_type in ids:
            if node_type in space.node_types:
                matrix = np.load(writer.folder / f"spaces/{space.name}/{node_type}.npy")
            else:
                matrix = np.zeros((len(ids[node_type]), DIMENSION), np.float32)
            writer.write_states(space.name, 0, node_type, matrix)


def _write_encoder(
    writer: BundleWriter,
    space: bundle_pb2.SpaceManifest,
    node_type: str,
    edge_types: list[EdgeType],
    *,
    width: int,
    unit: bool,
) -> None:
    path = writer.encoder_path(space.name, node_type)
    write_mean_encoder(path, width=width, unit=unit)
    space.layers = 1
    for edge_type in edge_types:
        space.edge_types.add(
            source=edge_type.triple.source,
            name=edge_type.triple.name,
            target=edge_type.triple.target,
            reversed=edge_type.reversed,
        )
    space.encoders.add(
        node_type=node_type, onnx=path.relative_to(writer.folder).as_posix(), feature_width=width, max_difference=0.0
    )


def write_mean_encoder(path: Path, *, width: int, unit: bool) -> None:
    """``vector = features W + sum_k mask weight states / max(sum_k mask weight, 1e-6)``.

    W passes a hundredth of features column 1 to the last coordinate.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    projection = np.zeros((width, DIMENSION), np.float32)
    if width > 1:
        projection[1, 3] = 0.01
    nodes = [
        helper.make_node("Cast", ["mask"], ["mask_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["weight", "mask_float"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "last"], ["kept_wide"]),
        helper.make_node("Mul", ["kept_wide", "states_0"], ["messages"]),
        helper.make_node("ReduceSum", ["messages", "slots"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["kept", "slots"], ["mass"], keepdims=1),
        helper.make_node("Max", ["mass", "small"], ["divisor"]),
        helper.make_node("Div", ["summed", "divisor"], ["mean"]),
        helper.make_node("MatMul", ["features", "projection"], ["own"]),
        helper.make_node("Add", ["own", "mean"], ["vector" if not unit else "sum"]),
    ]
    if unit:
        nodes.append(helper.make_node("LpNormalization", ["sum"], ["vector"], axis=-1, p=2))
    graph = helper.make_graph(
        nodes,
        "mean",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width]),
            helper.make_tensor_value_info("edge_type", TensorProto.INT64, ["N", "K"]),
            helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["N", "K"]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", "K"]),
            helper.make_tensor_value_info("states_0", TensorProto.FLOAT, ["N", "K", DIMENSION]),
        ],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["N", DIMENSION])],
        [
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array([1], np.int64), "slots"),
            numpy_helper.from_array(np.array(1e-6, np.float32), "small"),
            numpy_helper.from_array(projection, "projection"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
