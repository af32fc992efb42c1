"""How fast do edges go into Neo4j and come out of it, beside the usual loop with the official driver?

    python -m benchmarks.neo4j_load --edges 120000 --rounds 3

A Neo4j of its own (``tests/neo4j``, a heap of 1 GiB), 100,000 nodes, edges between them with a weight and a time,
skewed at the target. Each round measures every way once, in turn, each load into a relation that is empty; the figures
are medians over rounds. After each load the edges are counted and their weights added up. Before the first round every
way is run once over a tenth of the edges: Neo4j compiles what it runs often.

Load, usual: ``UNWIND $rows ... MERGE`` in transactions of 10,000 rows. Store: ``Neo4jStore.upsert_edges``, with all
that it does beside (ends checked, compared with what is there, logged); once more where all is there. The candidates
between them write 5,000 rows a statement, without any check: ends found by their key, by element id, or by Neo4j's own
number, in the order given or sorted, by one session, by two, or by ``CALL ... IN CONCURRENT TRANSACTIONS``.

Read, usual: ``for record in session.run(...)``. Store: ``Neo4jStore.scan_edges``. Both also without the time, which
costs the driver most.

Processor seconds are those of this process and of Neo4j (Linux); on a machine shared with others they say more than the
clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import neo4j
import numpy as np
import pyarrow as pa

from benchmarks._results import Results
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from tests.neo4j.server import neo4j_server

HEAP_MIB = 1024
ROWS = 5_000
MANY_ROWS = 20_000
USUAL_ROWS = 10_000
PLAYED = Triple("User", "PLAYED", "Item")
SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "User", "role": "user"}),
        NodeType.model_validate({"name": "Item", "role": "entity"}),
    ),
    relations=(
        Relation.model_validate(
            {
                "triple": PLAYED,
                "role": "engagement",
                "weight": "weight",
                "properties": {"weight": {"type": "float"}, "time": {"type": "timestamp"}},
            }
        ),
    ),
)
USUAL = "UNWIND $rows AS row MATCH (a {id: row.s}) MATCH (b {id: row.t}) MERGE (a)-[r:PLAYED]->(b) SET r += row"
_MADE = "CREATE (a)-[:PLAYED {weight: $w[i], time: datetime.fromEpoch($seconds[i], $nanoseconds[i])}]->(b)"
_BY_NUMBER = f"MATCH (a) WHERE id(a) = $s[i] MATCH (b) WHERE id(b) = $t[i] {_MADE}"
CANDIDATES = {
    "columns, ends by key": f"MATCH (a:User {{id: $s[i]}}) MATCH (b:Item {{id: $t[i]}}) {_MADE}",
    "columns, ends by element id": f"MATCH (a) WHERE elementId(a) = $s[i] MATCH (b) WHERE elementId(b) = $t[i] {_MADE}",
    "columns, ends by number": _BY_NUMBER,
    "columns, ends by number, sorted": _BY_NUMBER,
    "columns, ends by number, sorted, 20,000 rows at once": _BY_NUMBER,
    "columns, ends by number, sorted, two sessions": _BY_NUMBER,
    "columns, ends by number, sorted, concurrent transactions": (
        f"CALL (i) {{ {_BY_NUMBER} }} IN 2 CONCURRENT TRANSACTIONS OF {ROWS} ROWS"
    ),
}
Way = Callable[[], object]


class Bench:
    """A Neo4j with nodes, and edges to write there."""

    def __init__(self, driver: neo4j.Driver, store: Neo4jStore, folder: Path, *, nodes: int, edges: int) -> None:
        self._driver, self._store, self._server = driver, store, _process_of(folder)
        random = np.random.default_rng(1)
        half = nodes // 2
        pairs = random.integers(0, half, edges * 5 // 4) * half + (random.power(0.5, edges * 5 // 4) * half).astype(int)
        chosen = random.permutation(np.unique(pairs))[:edges]
        assert len(chosen) == edges, "too many edges for so few nodes"
        users, items = (np.array([f"{kind}-{number:07d}" for number in range(half)]) for kind in ("user", "item"))
        self._all = pa.table(
            {
                "source": users[chosen // half],
                "target": items[chosen % half],
                "weight": random.random(edges),
                "time": pa.array(1_600_000_000_000_000 + random.integers(0, 10**14, edges), pa.timestamp("us", "UTC")),
            }
        )
        self._all_pairs = chosen // half, chosen % half
        self.take(edges)
        store.apply_schema()
        store.upsert_nodes("User", pa.table({"id": users}))
        store.upsert_nodes("Item", pa.table({"id": items}))
        self._nodes = {"User": users, "Item": items}

    def take(self, edges: int) -> None:
        """Write and read the first so many edges from now on."""
        self.table = self._all.slice(0, edges)
        self._source, self._target = (each[:edges] for each in self._all_pairs)

    def measured(self, way: Way) -> dict[str, float]:
        """Edges a second, and microseconds of a processor for each, here and in Neo4j."""
        start, own, server = time.perf_counter(), time.process_time(), _seconds_of(self._server)
        way()
        count = self.table.num_rows
        figures = {"edges_per_s": count / (time.perf_counter() - start)}
        figures["own_us_per_edge"] = (time.process_time() - own) / count * 1e6
        figures["server_us_per_edge"] = (_seconds_of(self._server) - server) / count * 1e6
        return figures

    def loads(self) -> dict[str, Way]:
        """Every way to write the edges, by name."""
        ways: dict[str, Way] = {"usual": self._load_as_usual}
        ways |= {name: lambda name=name: self._load_as(name) for name in CANDIDATES}  # type: ignore[misc]
        return ways | {"store": self._load}

    def reads(self) -> dict[str, Way]:
        """Every way to read them."""
        short = ["weight"]
        return {
            "usual": lambda: self._read_as_usual("r.weight, r.time"),
            "store": lambda: self._read(None),
            "usual, no time": lambda: self._read_as_usual("r.weight"),
            "store, no time": lambda: self._read(short),
        }

    def _load(self) -> None:
        self._store.upsert_edges(PLAYED, self.table)

    def load_again(self) -> None:
        """The same edges where all are there."""
        assert self._store.upsert_edges(PLAYED, self.table).unchanged == self.table.num_rows

    def _load_as_usual(self) -> None:
        statement = USUAL.replace("(a {", "(a:User {").replace("(b {", "(b:Item {")  # without labels it reads them all
        names = {"source": "s", "target": "t"}
        with self._driver.session() as session:
            for part in self.table.rename_columns(names | {"weight": "weight", "time": "time"}).to_batches(USUAL_ROWS):
                rows = part.to_pylist()
                session.execute_write(lambda transaction, rows=rows: transaction.run(statement, rows=rows).consume())

    def _load_as(self, name: str) -> None:
        ends: dict[str, Any] = {"s": self.table["source"].to_numpy(), "t": self.table["target"].to_numpy()}
        if "key" not in name:
            function = "elementId" if "element" in name else "id"
            ends = {"s": self._looked_up("User", function)[self._source]}
            ends["t"] = self._looked_up("Item", function)[self._target]
        order = np.lexsort((ends["t"], ends["s"])) if "sorted" in name else np.arange(self.table.num_rows)
        micros = self.table["time"].cast(pa.int64()).to_numpy()
        columns = {**ends, "w": self.table["weight"].to_numpy()}
        columns |= {"seconds": micros // 1_000_000, "nanoseconds": micros % 1_000_000 * 1000}
        statement = f"UNWIND range(0, $rows - 1) AS i {CANDIDATES[name]}"

        def write(rows: np.ndarray) -> None:
            parameters = {key: values[rows].tolist() for key, values in columns.items()} | {"rows": len(rows)}
            with self._driver.session() as session:
                if "concurrent" in name:
                    session.run(statement, parameters).consume()
                else:
                    session.execute_write(lambda transaction: transaction.run(statement, parameters).consume())

        size = MANY_ROWS if "20,000" in name or "concurrent" in name else ROWS
        parts = np.split(order, range(size, len(order), size))
        with ThreadPoolExecutor(2 if "two sessions" in name else 1) as pool:
            list(pool.map(write, parts))

    def _looked_up(self, label: str, function: str) -> np.ndarray:
        query = f"MATCH (n:{label}) WITH n ORDER BY n.id RETURN collect({function}(n)) AS found"
        found = self._driver.execute_query(query).records[0]["found"]
        assert len(found) == len(self._nodes[label])
        return np.array(found)

    def _read_as_usual(self, properties: str) -> None:
        count = 0
        with self._driver.session() as session:
            for record in session.run(f"MATCH (a:User)-[r:PLAYED]->(b:Item) RETURN a.id, b.id, {properties}"):
                count += len(record) > 0
        assert count == self.table.num_rows

    def _read(self, columns: list[str] | None) -> None:
        assert sum(batch.num_rows for batch in self._store.scan_edges(PLAYED, columns)) == self.table.num_rows

    def check(self) -> None:
        """Every edge is there once."""
        query = "MATCH (:User)-[r:PLAYED]->(:Item) RETURN count(r) AS edges, sum(r.weight) AS weight"
        found = self._driver.execute_query(query).records[0]
        assert found["edges"] == self.table.num_rows
        assert abs(found["weight"] - self.table["weight"].to_numpy().sum()) < 1e-3

    def clear(self) -> None:
        """Delete the edges."""
        statement = f"MATCH ()-[r:PLAYED]->() WITH r LIMIT {MANY_ROWS} DELETE r RETURN count(*) AS deleted"
        while self._driver.execute_query(statement).records[0]["deleted"]:
            pass


def _process_of(folder: Path) -> int:
    """The process of the Neo4j with its files in this folder; 0 where the system does not tell."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        if f"--home-dir={folder}".encode() in command.read_bytes():
            return int(command.parent.name)
    return 0


def _seconds_of(process: int) -> float:
    if not process:
        return float("nan")
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(edges: int, nodes: int, rounds: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """What was measured, the way, and its figures."""
    password = "only-for-this-benchmark"
    os.environ["KITHKIN_STORE_PASSWORD"] = password
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        with neo4j_server(folder, password=password, heap_mib=HEAP_MIB) as (uri, _):
            settings = StoreSettings(uri=uri, timeout_s=300)
            with (
                neo4j.GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver,
                Neo4jStore.open(SCHEMA, settings, read_only=False) as store,
            ):
                bench = Bench(driver, store, folder, nodes=nodes, edges=edges)
                bench.take(edges // 10)
                for load in bench.loads().values():
                    bench.clear()
                    load()
                for read in bench.reads().values():
                    read()
                bench.take(edges)
                for number in range(rounds):
                    for name, way in bench.loads().items():
                        bench.clear()
                        figures = bench.measured(way)
                        bench.check()
                        yield "load", name, figures
                        print(f"{number + 1} load {name}: {figures['edges_per_s']:,.0f} edges/s", flush=True)
                    yield "load", "store, all there", bench.measured(bench.load_again)
                    for name, way in bench.reads().items():
                        yield "read", name, (figures := bench.measured(way))
                        print(f"{number + 1} read {name}: {figures['edges_per_s']:,.0f} edges/s", flush=True)


def medians(edges: int, nodes: int, rounds: int) -> Mapping[str, Any]:
    """Per way the medians over rounds, and how many times the usual way each is."""
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    for what, way, figures in measure(edges, nodes, rounds):
        seen.setdefault((what, way), []).append(figures)
    found: dict[str, dict[str, dict[str, float]]] = {"load": {}, "read": {}}
    for (what, way), each in seen.items():
        usual = seen[what, "usual, no time" if "no time" in way else "usual"]
        ratios = [mine["edges_per_s"] / theirs["edges_per_s"] for mine, theirs in zip(each, usual, strict=True)]
        ours, peer = ([_processor(figures) for figures in rows] for rows in (each, usual))
        found[what][way] = {key: round(statistics.median(one[key] for one in each), 2) for key in each[0]} | {
            "times_usual": round(statistics.median(ratios), 2),
            "least_times_usual": round(min(ratios), 2),
            "times_usual_by_processor": round(statistics.median(peer) / statistics.median(ours), 2),
        }
    return found


def _processor(figures: Mapping[str, float]) -> float:
    return figures["own_us_per_edge"] + figures["server_us_per_edge"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.neo4j_load", description=__doc__)
    parser.add_argument("--edges", type=int, default=120_000)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure anew what is in results/ already")
    options = parser.parse_args()
    results = Results("neo4j_load", again=options.again)
    settings = {"edges": options.edges, "nodes": options.nodes, "rounds": options.rounds, "heap_mib": HEAP_MIB}
    figures = results.row(settings, lambda: medians(options.edges, options.nodes, options.rounds))
    for what, ways in figures.items():
        print(f"{what:64}{'edges/s':>10}{'x usual':>9}{'least':>7}{'by cpu':>8}{'own us':>8}{'Neo4j us':>10}")
        for way, each in ways.items():
            print(
                f"  {way:62}{each['edges_per_s']:10,.0f}{each['times_usual']:9.1f}{each['least_times_usual']:7.1f}"
                f"{each['times_usual_by_processor']:8.1f}{each['own_us_per_edge']:8.1f}{each['server_us_per_edge']:10.1f}"
            )


if __name__ == "__main__":
    main()
