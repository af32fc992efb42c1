"""Reasons of many pairs at once are those that one pair at a time gets; the nearest of all are what searches find."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from graph_store.schema import NodeType, RelationRole, Triple
from graph_store.settings import PublishSettings
from kithkin.v1 import model_service_pb2
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from server.index.nearest import NearestOfAll
from server.index.publish import build_indexes
from server.model.catalogue import Catalogue, NodeKey
from server.model.neighbourhoods import Neighbourhoods
from server.model.served_model import ServedModel
from server.reasons.explanation import Explainer
from server.reasons.strongest import StrongestEvidence

COUNTS = {"Film": 40, "Genre": 6, "Person": 9, "User": 15}
RELATIONS = {
    Triple("Film", "HAS_GENRE", "Genre"): (RelationRole.SEMANTIC, 0.3),
    Triple("Film", "DIRECTED_BY", "Person"): (RelationRole.SEMANTIC, 0.1),
    Triple("Person", "ADMIRES", "Film"): (RelationRole.SEMANTIC, 0.05),
    Triple("Film", "SEQUEL_OF", "Film"): (RelationRole.SEMANTIC, 0.05),
    Triple("Film", "CO_WATCHED", "Film"): (RelationRole.CO_ENGAGEMENT, 0.08),
    Triple("User", "WATCHED", "Film"): (RelationRole.ENGAGEMENT, 0.15),
}


@pytest.fixture(scope="module", params=[1, 2, 3])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Drawn at random: weights that tie, that are zero or all zero, lists cut at one end, films without a vector."""
    random = np.random.default_rng(request.param)
    store = BundleStore(tmp_path_factory.mktemp("bundles"))
    roles = {"Film": "entity", "Genre": "concept", "Person": "concept", "User": "user"}
    with store.writer("films") as writer:
        for name, count in COUNTS.items():
            ids = [f"{name[0]}{number:02}" for number in range(count)]
            nodes = pa.table({"id": ids, "name": [f"the {each}" for each in ids], "popularity": [0.0] * count})
            writer.write_nodes(NodeType.model_validate({"name": name, "role": roles[name]}), nodes)
        for triple, (role, share) in RELATIONS.items():
            there = random.random((COUNTS[triple.source], COUNTS[triple.target])) < share
            weights = random.integers(0, 4, there.shape).astype(np.float32)
            weights[:3] = 0
            writer.manifest.relations.add(
                source=triple.source, name=triple.name, target=triple.target, role=role.value, edges=int(there.sum())
            )
            for end in (False, True):
                if role is RelationRole.CO_ENGAGEMENT and end:
                    continue
                whole = role is RelationRole.ENGAGEMENT and not end
                weighted = triple.name != "DIRECTED_BY"
                lists = _csr(there.T if end else there, weights.T if end else weights, 50 if whole else 4, weighted)
                writer.write_neighbours(EdgeType(triple, end), lists)
        vectors = random.normal(size=(COUNTS["Film"], 8)).astype(np.float32)
        vectors[[4, 21]] = 0
        vectors[30] = vectors[31] = vectors[9]  # ties
        space = writer.manifest.spaces.add(name="similar", metric=model_service_pb2.COSINE, dimension=8)
        space.node_types.append("Film")
        writer.write_vectors("similar", "Film", vectors)
        build_indexes(writer, PublishSettings())
        version = writer.commit()
    return store.open(version)


def _csr(there: NDArray[np.bool_], weights: NDArray[np.float32], most: int, weighted: bool) -> Csr:
    rows = [sorted(np.flatnonzero(row), key=lambda at: -weights[number, at])[:most] for number, row in enumerate(there)]
    return Csr(
        indptr=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        indices=np.array([at for row in rows for at in row], np.int32),
        weight=np.array([weights[number, at] for number, row in enumerate(rows) for at in row], np.float32)
        if weighted
        else None,
    )


def test_every_pair_has_the_first_reason_of_the_explainer(bundle: Bundle) -> None:
    catalogue, graph = Catalogue(bundle), Neighbourhoods(bundle)
    explainer = Explainer(bundle, catalogue, graph)
    count = COUNTS["Film"]
    sources = np.arange(count)
    targets = np.array([[other for other in range(count) if other != film] + [-1] for film in range(count)])
    found = iter(StrongestEvidence(bundle, catalogue, graph, "Film").texts(sources, targets))
    said = set()
    for source in range(count):
        for target in targets[source].tolist():
            text = next(found)
            reasons = []
            if target >= 0:
                reasons = explainer.between(NodeKey("Film", source), NodeKey("Film", target), 1)
            assert text == (reasons[0].text if reasons else None), (source, target)
            said.add(None if text is None else reasons[0].relations[0])
    assert said == {None, *(triple.name for triple in RELATIONS)}
    assert next(found, "none left") == "none left"


def test_users_too_many_to_count_are_not_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.model.neighbourhoods._MOST_COUNTED", 1)
    catalogue, graph = Catalogue(bundle), Neighbourhoods(bundle)
    explainer = Explainer(bundle, catalogue, graph)
    sources, targets = np.arange(COUNTS["Film"]), (np.arange(COUNTS["Film"])[:, None] + [[1, 2]]) % COUNTS["Film"]
    texts = StrongestEvidence(bundle, catalogue, graph, "Film").texts(sources, targets)
    for number, (source, target) in enumerate((s, t) for s in sources.tolist() for t in targets[s].tolist()):
        reasons = explainer.between(NodeKey("Film", source), NodeKey("Film", target), 1)
        assert texts[number] == (reasons[0].text if reasons else None)
    assert "The same users engage with both" in texts


def test_the_nearest_of_all_are_what_each_search_finds(bundle: Bundle) -> None:
    index = ServedModel.load(bundle).indexes["similar", "Film"]
    every = NearestOfAll(bundle, "similar", "Film")
    batches = list(every.batches(50, 7))
    rows = np.concatenate([batch.rows for batch in batches])
    assert rows.tolist() == [row for row in range(COUNTS["Film"]) if row not in (4, 21)]
    neighbours = np.concatenate([batch.neighbours for batch in batches])
    scores = np.concatenate([batch.scores for batch in batches])
    for number, row in enumerate(rows.tolist()):
        (found,) = index.search(every.vectors[row : row + 1], 50, [np.array([row])])
        assert len(found.rows) == 37
        assert neighbours[number].tolist() == [*found.rows.tolist(), *[-1] * 13]
        assert scores[number, :37].tolist() == found.scores.tolist()
    with pytest.raises(KeyError):
        NearestOfAll(bundle, "similar", "Genre")
