"""Inference of graphs beyond one machine, on Spark: a map makes what nodes send, a join brings it to the receivers.

The same work as ``training.inference.all_nodes``, done by the same functions on chunks of nodes in Spark's Python
workers, which need this package, and ``folder`` on a file system that they share with the caller. All that is shuffled
are ids and float32 rows as bytes. Each stage is written as Parquet; a call that was cut short goes on after the last
whole stage.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as sql

from graph_store.schema import NodeRole
from model_store.durable import replace_text
from model_store.features import FeatureTransforms
from training.graph import Graph
from training.inference.all_nodes import Embedding
from training.inference.fingerprint import fingerprint
from training.inference.spark_tables import write_links, write_nodes
from training.inference.spark_worker import Grouped, Worker, rows_of
from training.model import TrainedModel
from training.neighbourhoods import neighbourhoods
from training.space_model import SpaceModel

Floats = NDArray[np.float32]
_NODES_AT_ONCE = 1024
"""Nodes that a worker computes at once: their neighbours' messages are in its memory."""
_STATE = "type int, bucket long, node long, state binary, signals binary"


def embed_on_spark(
    spark: SparkSession,
    model: SpaceModel,
    transforms: FeatureTransforms,
    graph: Graph,
    *,
    node_types: tuple[str, ...],
    folder: Path,
    nodes_at_once: int = _NODES_AT_ONCE,
) -> Embedding:
    """Vectors and states as ``embed`` makes them, to 1e-5; the arrays are memory-mapped files in ``folder``.

    The caller removes the folder when it has read the result. Stages of another model or graph are made anew.
    """
    return _SparkPass(spark, model.eval(), transforms, graph, node_types, folder, nodes_at_once).run()


class _SparkPass:
    """Tables, features, layer 0, the layers, the vectors; each stage a folder of Parquet files."""

    def __init__(
        self,
        spark: SparkSession,
        model: SpaceModel,
        transforms: FeatureTransforms,
        graph: Graph,
        node_types: tuple[str, ...],
        folder: Path,
        nodes_at_once: int,
    ) -> None:
        self.spark, self.model, self.transforms, self.graph = spark, model, transforms, graph
        self.node_types, self.nodes_at_once = node_types, nodes_at_once
        self.every = tuple(node_type.name for node_type in graph.schema.node_types)
        self.entities = frozenset(each.name for each in graph.schema.of_role(NodeRole.ENTITY))
        start = fingerprint(model, transforms, graph, [*node_types, nodes_at_once])
        # Stages of another start are left to whoever made them.
        self.folder = folder / start[:16]
        self.worker = Worker(
            folder=str(self.folder / "model"),
            space=model.shape.name,
            node_types=self.every,
            edge_types=graph.edge_types,
        )

    def run(self) -> Embedding:
        self._write_tables()
        features = self._stage("features", self._features)
        state = self._stage("layer-0", lambda: self._layer_zero(features))
        states = [state]
        layers = self.model.settings.layers
        if layers:
            lists = self._stage("lists", self._lists)
            for layer in range(layers):
                state = self._stage(f"layer-{layer + 1}", partial(self._layer, layer, state, lists))
                states.append(state)
        self._stage("vectors", lambda: self._vectors(features, state))
        vectors = self._collected("vectors", "vector", self.model.settings.dimension, self.node_types)
        widths = self.model.state_widths
        published = [
            self._collected(f"layer-{layer}", "state", width, self.every) for layer, width in enumerate(widths)
        ]
        return Embedding(vectors=vectors, states=tuple(published))

    def _write_tables(self) -> None:
        tables = self.folder / "tables"
        if (self.folder / "tables.done").exists():
            return
        for node_type in self.every:
            write_nodes(self.graph, self.transforms, node_type, tables / f"nodes.{node_type}.parquet")
        write_links(
            self.graph, {each: self.graph.csr(each) for each in self.graph.edge_types}, tables / "links.parquet"
        )
        if self.model.settings.layers and self.model.settings.sampler != "uniform":
            near = neighbourhoods(self.graph, self.model.settings)
            found = near.lists(self.model.settings.fan_out)
            write_links(self.graph, {each: found[each] for each in near.edge_types}, tables / "lists.parquet")
        TrainedModel(transforms=self.transforms, spaces={self.model.shape.name: self.model}).save(self.folder / "model")
        replace_text(self.folder / "tables.done", "")

    def _features(self) -> DataFrame:
        """State of layer 0, own signals and whether anything is known; features where they are read again."""
        links = self._table("links")
        parts = []
        for number, node_type in enumerate(self.every):
            nodes = self._table(f"nodes.{node_type}").withColumn("type", sql.lit(number))
            own = links.where(sql.col("type") == number)
            kept, signals = node_type in self.node_types, node_type in self.entities
            work = self.worker.features(node_type, kept=kept, signals=signals)
            parts.append(self._joined(nodes, own, work, f"{_STATE}, known boolean, features binary"))
        return reduce(DataFrame.unionByName, parts)

    def _layer_zero(self, features: DataFrame) -> DataFrame:
        """States and signals; of nodes that have no signals of their own the mean of their entities'."""
        found = features.select("type", "bucket", "node", "state", "signals")
        if self.model.shape.signal_width:
            entities = sql.col("type").isin([number for number, name in enumerate(self.every) if name in self.entities])
            giving = found.where(entities).select(
                sql.col("type").alias("neighbour_type"),
                sql.col("node").alias("neighbour"),
                sql.col("signals").alias("payload"),
            )
            links = self._table("links").where(~entities).join(giving, ["neighbour_type", "neighbour"])
            others = self._joined(found.where(~entities), links, self.worker.signals(), _STATE)
            found = found.where(entities).unionByName(others)
        return found.withColumn("focal", sql.col("state"))

    def _lists(self) -> DataFrame:
        """The first ``fan_out`` neighbours of each node and edge type: newest, then heaviest, then by index."""
        limit = self.model.settings.fan_out
        if self.model.settings.sampler != "uniform":
            return self._table("lists")
        order = Window.partitionBy("kind", "node").orderBy(sql.desc("time"), sql.desc("weight"), sql.asc("neighbour"))
        ranked = self._table("links").withColumn("place", sql.row_number().over(order))
        return ranked.where(sql.col("place") <= limit).drop("place")

    def _layer(self, layer: int, state: DataFrame, lists: DataFrame) -> DataFrame:
        """The map, the join, and what each node makes of it."""
        sent = state.mapInArrow(self.worker.sent(layer), "neighbour_type int, neighbour long, payload binary")
        messages = lists.join(sent, ["neighbour_type", "neighbour"])
        return self._joined(state, messages, self.worker.received(layer), f"{_STATE}, focal binary")

    def _joined(self, nodes: DataFrame, edges: DataFrame, work: Grouped, columns: str) -> DataFrame:
        """Chunks of nodes, each with its edges, in a worker."""
        left, right = (each.withColumn("bucket", self._bucket()).groupBy("type", "bucket") for each in (nodes, edges))
        return left.cogroup(right).applyInArrow(work, columns)

    def _vectors(self, features: DataFrame, state: DataFrame) -> DataFrame:
        wanted = sql.col("type").isin([number for number, name in enumerate(self.every) if name in self.node_types])
        read = features.where(wanted).select("type", "node", "features", "known")
        joined = state.where(wanted).select("type", "node", "state", "signals").join(read, ["type", "node"])
        return joined.mapInArrow(self.worker.vectors(), "type int, node long, vector binary")

    def _collected(self, stage: str, column: str, width: int, names: tuple[str, ...]) -> dict[str, Floats]:
        """A column of a stage as arrays ``[nodes, width]``, filled batch by batch."""
        found: dict[str, Floats] = {}
        for name in names:
            path, shape = self.folder / f"{stage}.{column}.{name}.npy", (self.graph.num_nodes(name), width)
            found[name] = (
                np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
                if shape[0]
                else np.empty(shape, np.float32)
            )
        data = ds.dataset(self.folder / stage, format="parquet")
        wanted = pa.array([number for number, name in enumerate(self.every) if name in names], pa.int32())
        for batch in data.to_batches(columns=["type", "node", column], filter=ds.field("type").isin(wanted)):
            kind, node, rows = batch["type"].to_numpy(), batch["node"].to_numpy(), rows_of(batch[column], width)
            for number in np.unique(kind):
                found[self.every[number]][node[kind == number]] = rows[kind == number]
        return found

    def _stage(self, name: str, make: Callable[[], DataFrame]) -> DataFrame:
        path = self.folder / name
        if not (path / "_SUCCESS").exists():
            make().write.mode("overwrite").parquet(str(path))
        return self.spark.read.parquet(str(path))

    def _table(self, name: str) -> DataFrame:
        return self.spark.read.parquet(str(self.folder / "tables" / f"{name}.parquet"))

    def _bucket(self) -> Column:
        return sql.floor(sql.col("node") / self.nodes_at_once).cast("long")
