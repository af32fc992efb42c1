"""Compaction: an index over all vectors as they are takes the published one's place, and answers stay the same."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.fresh import compaction
from server.fresh.bundle import FreshBundle
from server.fresh.compaction import Compaction, due
from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaWriter, Record, delta_path
from server.fresh.delta_watch import DeltaWatch
from server.fresh.index import FreshIndex
from server.fresh.model import with_delta
from server.index.rescoring import scores_of
from server.index.scann_index import ScannIndex, ScannParameters
from server.index.selection import Selection
from server.index.vector_index import unit_rows
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from tests.bundles import ANGLES, write_toy_bundle

PLACE = ("similar", "Artist")


def artists(number: int, **angles: float) -> Record:
    """A record of artists with vectors at angles of the plane."""
    vectors = [[np.cos(np.radians(each)), np.sin(np.radians(each)), 0.0, 0.0] for each in angles.values()]
    nodes = pa.table(
        {
            "id": list(angles),
            "name": list(angles),
            "popularity": [0.0] * len(angles),
            "property:name": list(angles),
            "vector/similar": pa.array(vectors, pa.list_(pa.float32())),
        }
    )
    return Record(kind="upsert", node_type="Artist", nodes=nodes, number=number)


def gone(number: int, *ids: str) -> Record:
    return Record(kind="delete", node_type="Artist", nodes=pa.table({"id": pa.array(ids, pa.string())}), number=number)


@pytest.fixture
def base(tmp_path: Path) -> ServedModel:
    store = BundleStore(tmp_path)
    return ServedModel.load(store.open(write_toy_bundle(store, encoders=False)))


def compacted(base: ServedModel, delta: Delta) -> dict[tuple[str, str], Any]:
    each = Compaction(base, with_delta(base, delta), delta, PLACE)
    end = time.monotonic() + 60
    while each.running:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert each.failure is None
    assert each.done is not None
    return {PLACE: each.done}


@pytest.mark.parametrize("seed", range(6))
def test_behind_a_compaction_any_delta_finds_what_brute_force_finds(base: ServedModel, seed: int) -> None:
    random = np.random.default_rng(seed)
    known = [*ANGLES, "6"]
    fresh = [f"{number}" for number in random.choice(90, 10, replace=False) + 10 if f"{number}" not in known]

    def drawn(ids: list[str], number: int) -> Record:
        return artists(number, **{each: float(random.uniform(0, 90)) for each in ids})

    first = Delta().plus([drawn([*fresh[:6], known[0]], 1), gone(2, known[1], fresh[0])])
    below = compacted(base, first)
    # After it: what is new, what changed again or for the first time, what went, and what came back.
    again = [fresh[1], known[2], known[3], known[1]]
    second = first.plus([drawn(fresh[6:], 3), drawn(again, 4), gone(5, fresh[2], known[4])])
    model = with_delta(base, second, below)
    index = model.indexes[PLACE]
    assert isinstance(index, FreshIndex)
    assert index.compacted is below[PLACE]
    assert index.apart < with_delta(base, second).indexes[PLACE].apart  # type: ignore[attr-defined]
    ids = list(model.bundle.ids("Artist"))
    assert ids == sorted({*known, *fresh} - {fresh[0], fresh[2], known[4]})
    vectors = unit_rows(np.asarray(model.bundle.vectors(*PLACE)))
    exclude = random.choice(len(ids), 2, replace=False)
    allowed = Selection.of(random.choice(len(ids), len(ids) - 3, replace=False), len(ids))
    query = vectors[int(np.flatnonzero(vectors.any(axis=1))[0])]
    for left_out, selection in ((exclude, None), (np.empty(0, np.int64), allowed), (exclude, allowed)):
        (found,) = index.search(query[None], 4, [left_out], [selection])
        rows = np.setdiff1d(np.arange(len(ids)) if selection is None else selection.rows, left_out)
        rows = rows[vectors[rows].any(axis=1)]
        scores = scores_of(vectors[rows], query)
        best = np.lexsort((rows, -scores))[:4]
        assert found.rows.tolist() == rows[best].tolist()
        assert found.scores.tolist() == pytest.approx(scores[best].tolist(), abs=1e-6)


def test_void_rows_are_made_up_for_however_many_they_are() -> None:
    random = np.random.default_rng(3)
    vectors = unit_rows(random.standard_normal((4000, 8)).astype(np.float32))
    below = ScannIndex.build(vectors, ScannParameters(leaves=40, leaves_to_search=40, reorder=100), spherical=True)
    query = vectors[7]
    order = np.argsort(-scores_of(vectors, query))
    # The 300 nearest are gone: more than are asked for at first.
    new_of = np.full(4000, -1, np.int64)
    left = np.setdiff1d(np.arange(4000), order[:300])
    new_of[left] = np.arange(len(left))
    from server.fresh.bundle import OwnVectors

    none = OwnVectors(np.empty(0, np.int64), np.empty((0, 8), np.float32))
    index = FreshIndex(below, left, new_of, none)
    found = index.search(np.stack([query, vectors[order[3999]]]), 10)
    assert set(left[found[0].rows]) == set(order[300:310])
    assert [len(each.rows) for each in found] == [10, 10]
    assert len(index) == 3700


def test_a_large_index_is_built_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "FEW_VECTORS", 100)
    vectors = unit_rows(np.random.default_rng(1).standard_normal((2000, 16)).astype(np.float32))
    published = ScannIndex.build(vectors, ScannParameters(leaves=20, leaves_to_search=10, reorder=100), spherical=True)
    built = compaction._index(vectors, published, cosine=True)
    assert isinstance(built, ScannIndex)
    assert (built.parameters.leaves, built.parameters.leaves_to_search) == (45, 23), "half of the partitions"
    ours, theirs = built.search(vectors[:50], 10), published.search(vectors[:50], 10)
    same = [len(np.intersect1d(one.rows, other.rows)) for one, other in zip(ours, theirs, strict=True)]
    assert np.mean(same) > 8
    broken = np.full((200, 4), np.nan, np.float32)
    with pytest.raises(RuntimeError, match="ended with"):
        compaction._index(broken, published, cosine=False)


def test_a_build_ends_with_its_worker_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "kithkin-x"
    folder.mkdir()
    np.save(folder / "vectors.npy", np.random.default_rng(0).standard_normal((50_000, 64)).astype(np.float32))
    parameters = ScannParameters(leaves=2000, leaves_to_search=20, reorder=50)
    told = json.dumps({"parameters": asdict(parameters), "spherical": False})
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "server.fresh.compaction", str(folder), told], stdin=subprocess.PIPE
    ) as building:
        # As the kernel closes what a killed worker held.
        assert building.stdin is not None
        building.stdin.close()
        assert building.wait(60) == 1
    assert not folder.exists()


async def test_the_watch_compacts_and_no_call_notices(
    base: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_FEWEST", 3)
    state = State(settings=ServingSettings())
    state.take(base)
    watch = DeltaWatch(tmp_path, state, Application(state).take)
    writer = DeltaWriter(delta_path(tmp_path, base.version))
    writer.add(artists(0, n1=10.0, n2=20.0))
    writer.looked(80.0)
    assert await watch.look()
    assert state.retrieval is not None
    assert due(state.retrieval.model) is None
    writer.add(artists(0, n3=30.0, n4=40.0, n5=50.0))
    assert await watch.look()
    answers = []
    end = time.monotonic() + 60
    while _below(state) is None:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
        await watch.look()
        (found,) = state.retrieval.model.indexes[PLACE].search(np.array([[1, 0, 0, 0]], np.float32), 3)
        answers.append([state.retrieval.model.bundle.ids("Artist")[row] for row in found.rows])
    assert all(each == answers[0] for each in answers)
    assert len(_below(state).ids) == 12
    assert not await watch.look(), "and then it rests"
    writer.add(artists(0, n1=0.0))
    assert await watch.look()
    index = state.retrieval.model.indexes[PLACE]
    assert isinstance(index, FreshIndex)
    assert (index.apart, isinstance(state.retrieval.model.bundle, FreshBundle)) == (1, True)
    (found,) = index.search(np.array([[1, 0, 0, 0]], np.float32), 2)
    assert "n1" in [state.retrieval.model.bundle.ids("Artist")[row] for row in found.rows]


def _below(state: State) -> Any:
    assert state.retrieval is not None
    index = state.retrieval.model.indexes[PLACE]
    return index.compacted if isinstance(index, FreshIndex) else None
