"""A concept that training did not know: its features, its type's mean, and the links it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.project import load_project
from graph_store.stores import open_store
from model_store.bundle_store import BundleStore
from server.fresh.delta import Delta
from server.fresh.model import with_delta
from server.fresh.nodes import FreshNodes
from server.model.served_model import ServedModel
from tests.e2e.conftest import kithkin
from tests.integration.test_fresh_entities import SMALL, offline, write
from tests.toy import write_toy
from training.model import TrainedModel


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with a bundle, a genre that links two films, and one that links none."""
    folder = write_toy(tmp_path_factory.mktemp("toy"))
    with (folder / "kithkin.toml").open("a") as file:
        # Genres have a learned vector each; a new one gets their mean.
        file.write(SMALL.replace("[training.similar]\n", '[training.similar]\nlearned = ["concept"]\n'))
    kithkin("build", folder=folder)
    write(
        folder,
        "CREATE (:Genre {id: 'Noir'})",
        "CREATE (:Genre {id: 'Nothing'})",
        "MATCH (f:Film), (g:Genre {id: 'Noir'}) WHERE f.id IN ['s1', 'l1'] CREATE (f)-[:HAS_GENRE]->(g)",
    )
    return folder


def test_a_fresh_concept_is_encoded_and_a_published_one_keeps_its_vector(toy: Path) -> None:
    project = load_project(toy)
    bundles = BundleStore(project.work / "models")
    bundle = bundles.open(bundles.active() or "")
    assert {each.node_type for each in bundle.spaces["similar"].encoders} == {"Film", "Genre"}
    with open_store(project, read_only=True) as store:
        fresh = FreshNodes(bundle, project.schema, project.settings.publish.max_neighbours)
        (record,) = fresh.records(store, {"Genre": {"Noir", "Nothing", "Space"}})
    vectors = dict(
        zip(record.nodes.column("id").to_pylist(), record.nodes.column("vector/similar").to_pylist(), strict=True)
    )
    assert vectors["Space"] is None
    trained = TrainedModel.load(project.work / "checkpoints")
    assert trained.spaces["similar"].encoder.learned["Genre"].weight.any()
    expected = offline(project, trained, "similar", "Genre", ["Noir"])
    np.testing.assert_allclose([vectors["Noir"]], expected, atol=1e-5)
    assert np.linalg.norm(vectors["Nothing"]) == pytest.approx(1.0, abs=1e-5), "its type's mean alone"
    model = with_delta(ServedModel.load(bundle), Delta().plus([record]))
    served = {node_id: row for row, node_id in enumerate(model.bundle.ids("Genre"))}
    found = model.bundle.vectors("similar", "Genre")
    np.testing.assert_allclose(found[served["Noir"]], vectors["Noir"], atol=1e-6)
    before = bundle.vectors("similar", "Genre")[bundle.row("Genre", "Space")]
    np.testing.assert_array_equal(found[served["Space"]], before)
