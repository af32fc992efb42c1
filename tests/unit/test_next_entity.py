"""The next entity: which engagement is asked for, and what the users' table holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_store.schema import Triple
from model_store.csr import EdgeType
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document, themes_snapshot
from training.evaluation.report import OURS, Protocol
from training.evaluation.users import next_protocol, rank_users, users_protocol
from training.export import NO_TIME
from training.holdout import first_held_out, split_newest

WATCHED = Triple("Person", "WATCHED", "Film")


def evening(*seen: tuple[str, str, int]) -> MemorySnapshot:
    """Who watched what when."""
    schema = project_of(themes_document(), Path("themes")).schema
    nodes = {
        "Film": [{"id": each} for each in sorted({film for _, film, _ in seen})],
        "Person": [{"id": each} for each in sorted({person for person, _, _ in seen})],
    }
    return MemorySnapshot(schema, nodes, {WATCHED: [(person, film, 4.0, at) for person, film, at in seen]})


def next_of(snapshot: MemorySnapshot, share: float) -> list[str | None]:
    rows = first_held_out(split_newest(snapshot, share), snapshot.schema.relation(WATCHED))
    return [None if row < 0 else snapshot.ids("Film")[int(row)].as_py() for row in rows]


def test_the_next_is_the_oldest_of_what_was_held_out() -> None:
    films = [("ann", f"f{number}", 10 * number) for number in (5, 3, 1, 4, 2, 0)]
    assert next_of(evening(*films, ("bob", "f0", 1)), 0.5) == ["f3", None]


def test_without_times_nobody_knows_what_came_next() -> None:
    films = [("ann", f"f{number}", NO_TIME) for number in range(6)]
    snapshot = evening(*films)
    assert next_of(snapshot, 0.5) == [None]
    ranked = rank_users(
        split_newest(snapshot, 0.5),
        snapshot.schema.relation(WATCHED),
        np.ones((1, 2), np.float32),
        np.ones((6, 2), np.float32),
        at=3,
        max_users=5,
    )
    assert ranked is not None
    assert next_protocol(ranked, at=(2, 3), resamplings=100) is None
    assert users_protocol(ranked, at=3, resamplings=100).scores[OURS]["Recall@3"].mean == 1.0


def test_of_several_at_once_one_is_next_and_always_the_same() -> None:
    films = [("ann", f"f{number}", 7) for number in range(8)]
    first = next_of(evening(*films), 0.5)
    assert first[0] is not None
    assert next_of(evening(*films[::-1]), 0.5) == first
    # What is next with more held out is kept with less.
    split = split_newest(evening(*films), 0.25)
    assert first[0] in {f"f{row}" for row in split.graph.csr(EdgeType(WATCHED)).indices}


@pytest.fixture(scope="module")
def measured() -> tuple[Protocol, Protocol, int]:
    """Both protocols of vectors that know what came next, and ask for it second."""
    snapshot = themes_snapshot()
    split = split_newest(snapshot, 0.3)
    relation = snapshot.schema.relation(WATCHED)
    following = first_held_out(split, relation)
    users = np.zeros((60, 80), np.float32)
    known = np.flatnonzero(following >= 0)
    users[known, following[known]] = 1.0
    users[:, 79] = 2.0  # nobody watched it, everybody is shown it
    ranked = rank_users(split, relation, users, np.eye(80, dtype=np.float32), at=10, max_users=100)
    assert ranked is not None
    found = next_protocol(ranked, at=(1, 5), resamplings=100)
    assert found is not None
    return found, users_protocol(ranked, at=5, resamplings=100), len(known)


def test_only_the_next_counts(measured: tuple[Protocol, Protocol, int]) -> None:
    found, users, known = measured
    assert (found.kind, users.kind) == ("next", "users")
    assert found.name.endswith("next entity")
    assert found.queries == known
    ours = {name: interval.mean for name, interval in found.scores[OURS].items()}
    assert ours == pytest.approx({"Recall@1": 0.0, "Recall@5": 1.0, "NDCG@5": 1 / np.log2(3), "MRR@5": 0.5})
    assert users.scores[OURS]["Recall@5"].mean < 1.0
    assert users.scores[OURS]["HitRatio@5"].mean == 1.0


def test_the_table_of_users_has_what_pyg_names(measured: tuple[Protocol, Protocol, int]) -> None:
    _, users, _ = measured
    names = "Recall NDCG MRR HitRatio Coverage AveragePopularity MAP Precision F1 Personalization"
    assert users.metrics == tuple(f"{name}@5" for name in names.split())
    assert users.table().columns == ("scorer", *users.metrics[:6])
    coverage = users.scores["popularity"]["Coverage@5"]
    assert np.isnan(coverage.low)
    assert str(coverage) == f"{coverage.mean:.4f}"
    popular, ours = users.scores["popularity"], users.scores[OURS]
    assert popular["AveragePopularity@5"].mean > ours["AveragePopularity@5"].mean
    assert popular["Personalization@5"].mean < 0.5
    assert {group.by for group in users.groups} == {"activity"}
    # A bundle's manifest keeps no order of names.
    document = users.to_json()
    document["scores"] = {name: dict(sorted(found.items())) for name, found in document["scores"].items()}
    assert Protocol.from_json(document).metrics == users.metrics
    # Nor has that of an earlier version everything.
    for name in ("metrics", "groups"):
        del document[name]
    assert set(Protocol.from_json(document).metrics) == set(users.metrics)
