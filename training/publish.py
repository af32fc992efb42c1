"""What training puts into a bundle: nodes, neighbour lists, transforms, vectors, states, encoders, and the manifest."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pyarrow as pa
import torch
from google.protobuf import json_format

from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeRole, NodeType
from kithkin.v1 import model_service_pb2
from model_store.csr import EdgeType
from model_store.writer import BundleWriter
from training.errors import CheckpointError
from training.evaluation.report import EvaluationReport
from training.focal_export import write_focal
from training.graph import Graph, Snapshot, engagements
from training.inference import embed
from training.model import TrainedModel
from training.neighbours import published_neighbours
from training.neural_metric.publish import write_neural
from training.node_features import NodeFeatures
from training.onnx_export import export_encoder
from training.space_model import SpaceModel


def write_contents(
    writer: BundleWriter,
    project: Project,
    snapshot: Snapshot,
    model: TrainedModel,
    evaluation: EvaluationReport,
    *,
    progress: Progress | None = None,
) -> None:
    """Fill a bundle in the making from a snapshot and a model trained on it; indexes are the server's to build.

    Raises EncoderMismatch where an exported encoder does not compute what the trained one does.
    """
    graph = Graph(snapshot)
    manifest = writer.manifest
    manifest.snapshot_hash = snapshot.content_hash
    for name, version in (("torch", torch.__version__), ("onnx", onnx.__version__), ("numpy", np.__version__)):
        manifest.software[name] = str(version)
    for node_type in snapshot.schema.node_types:
        writer.write_nodes(node_type, _nodes(graph, node_type))
    for relation in snapshot.schema.relations:
        manifest.relations.add(
            source=relation.triple.source,
            name=relation.triple.name,
            target=relation.triple.target,
            role=relation.role.value,
            edges=graph.csr(EdgeType(relation.triple)).num_edges,
            timed=relation.time is not None,
        )
    for edge_type in graph.edge_types:
        limit = project.settings.publish.max_neighbours
        writer.write_neighbours(edge_type, published_neighbours(graph, edge_type, limit))
    model.transforms.save(writer.features_folder)
    for name, space in model.spaces.items():
        _write_space(writer, project, graph, model, name, space, progress or NoProgress())
    if project.settings.training.neural.enabled:
        if model.neural is None:
            raise CheckpointError("training.neural is on, and no scorer was trained", hint="Run `kithkin train`.")
        write_neural(writer, project, snapshot, model.neural, progress=progress)
    json_format.ParseDict(evaluation.to_json(), manifest.evaluation)
    json_format.ParseDict(
        {"training": model.configuration, "metrics": model.metrics, "notes": list(model.notes)}, manifest.configuration
    )


def space_types(graph: Graph, model: SpaceModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Node types with vectors in a space, and those of them that are encoded online: concepts where they are fresh."""
    schema = graph.schema
    if model.shape.inner_product:
        ends = [relation.triple for relation in engagements(schema)]
        users = tuple(dict.fromkeys(triple.source for triple in ends))
        entities = tuple(dict.fromkeys(triple.target for triple in ends))
        return (*users, *entities), (*users, *entities)
    entities = tuple(node_type.name for node_type in schema.of_role(NodeRole.ENTITY))
    concepts = tuple(node_type.name for node_type in schema.of_role(NodeRole.CONCEPT))
    return (*entities, *concepts), (*entities, *concepts)


def _write_space(
    writer: BundleWriter,
    project: Project,
    graph: Graph,
    model: TrainedModel,
    name: str,
    space: SpaceModel,
    progress: Progress,
) -> None:
    types, described = space_types(graph, space)
    folder = project.work / "inference" / name
    embedding = embed(
        space,
        model.transforms,
        graph,
        node_types=types,
        progress=progress,
        folder=folder,
        memory_mib=project.settings.training.memory_mib,
    )
    for node_type in types:
        writer.write_vectors(name, node_type, embedding.vectors[node_type])
    for layer, states in enumerate(embedding.states):
        for node_type, state in states.items():
            writer.write_states(name, layer, node_type, state)
    shutil.rmtree(folder, ignore_errors=True)
    metric = model_service_pb2.INNER_PRODUCT if space.shape.inner_product else model_service_pb2.COSINE
    manifest = writer.manifest.spaces.add(
        name=name,
        metric=metric,
        dimension=space.settings.dimension,
        node_types=types,
        layers=len(space.state_widths),
        max_neighbours=space.settings.fan_out,
    )
    for edge_type in space.shape.edge_types:
        manifest.edge_types.add(
            source=edge_type.triple.source,
            name=edge_type.triple.name,
            target=edge_type.triple.target,
            reversed=edge_type.reversed,
        )
    for node_type in described:
        path = writer.encoder_path(name, node_type)
        difference = export_encoder(space, node_type, path)
        manifest.encoders.add(
            node_type=node_type,
            onnx=path.relative_to(writer.folder).as_posix(),
            feature_width=space.shape.widths[node_type],
            max_difference=difference,
        )
    if space.shape.inner_product:
        users = tuple(each for each in described if space.shape.roles[each] == NodeRole.USER.value)
        features = NodeFeatures(graph, model.transforms, memory_mib=0)
        write_focal(writer, manifest, space, features, graph, users)


def _nodes(graph: Graph, node_type: NodeType) -> pa.Table:
    """Table of ``id``, ``name``, ``popularity`` (engagements, in or out), then the declared properties."""
    table = graph.properties(node_type.name)
    popularity = np.zeros(table.num_rows, np.float64)
    for relation in engagements(graph.schema):
        for reverse in (False, True):
            edge_type = EdgeType(relation.triple, reverse)
            if edge_type.node_type == node_type.name:
                popularity += np.diff(graph.csr(edge_type).indptr)
    name = table[node_type.display] if node_type.display else table["id"]
    columns = [table["id"], name, pa.chunked_array([pa.array(popularity)])]
    names = ["id", "name", "popularity"]
    for declared in node_type.properties:
        columns.append(table[declared])
        names.append(declared)
    return pa.Table.from_arrays(columns, names=names)
