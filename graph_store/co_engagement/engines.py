"""The engines that run the expressions: DuckDB on this machine, or Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.co_engagement import expression
from graph_store.errors import StoreError
from graph_store.ingest.raw import quoted
from graph_store.progress import NoProgress, Progress
from graph_store.schema import CoEngagement

MEMORY = "2GiB"
"""What DuckDB may hold; beyond it, it writes to the staging folder."""
_PAIRS = 25_000_000
"""Pairs of engagements that DuckDB counts at once: its table of them fits the memory."""
ENGAGEMENTS = pa.schema(
    [("user", pa.string()), ("entity", pa.string()), ("weight", pa.float64()), ("time", pa.timestamp("us"))]
)
_KEPT = pa.schema([("u", pa.int64()), ("e", pa.int64()), ("entity", pa.string()), ("share", pa.int64())])
_IDS = pa.schema([("e", pa.int64()), ("id", pa.string()), ("users", pa.int64())])
_UNITS = pa.schema([("n", pa.int64())])
_PAIRS_SCHEMA = pa.schema([("e", pa.int64()), ("other", pa.int64()), ("support", pa.int64()), ("together", pa.int64())])
_EDGES = pa.schema(
    [("source", pa.string()), ("target", pa.string()), ("weight", pa.float64()), ("support", pa.int64())]
)
_SILENT = NoProgress()


def compute_edges(
    settings: CoEngagement,
    folder: Path,
    engine: str,
    *,
    newest_first: bool,
    progress: Progress = _SILENT,
    name: str = "co-engagement",
) -> pa.Table:
    """The edges (source, target, weight, support) of ``engagements.parquet`` in a folder, which is also written to.

    ``engine``: ``duckdb`` or ``spark``. Raises StoreError where Spark is asked for and not installed.
    """
    result = folder / "edges.parquet"
    if engine == "spark":
        with progress.task(f"derive {name}", total=1, unit="relations") as task:
            _by_spark(settings, folder / "engagements.parquet", result, newest_first=newest_first)
            task.advance()
        return pq.read_table(result, schema=_EDGES)
    _by_duckdb(settings, folder, result, newest_first=newest_first, progress=progress, name=name)
    return pq.read_table(result)


def _by_duckdb(
    settings: CoEngagement, folder: Path, result: Path, *, newest_first: bool, progress: Progress, name: str
) -> None:
    """The expression in steps with tables between them, the pairs a part of the entities at a time.

    In one piece the pairs of a hundred million events would be written to disk before they are counted, some fifty
    bytes for each of more than a billion.
    """
    configuration: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder),
        "preserve_insertion_order": "false",
    }
    with duckdb.connect(str(folder / "derive.duckdb"), config=configuration) as connection:
        # Progress is told by us; DuckDB would draw a bar of its own over it.
        connection.execute("SET enable_progress_bar = false")
        connection.read_parquet(str(folder / "engagements.parquet")).create_view("engagements")
        kept, ids, units, pairs = (
            _table(table, schema)
            for table, schema in (("kept", _KEPT), ("ids", _IDS), ("units", _UNITS), ("pairs", _PAIRS_SCHEMA))
        )

        def sql(of: Any) -> str:
            return _sql(of, "duckdb")

        with progress.task(f"choose events of {name}", total=1, unit="steps") as task:
            events = _table("engagements", ENGAGEMENTS)
            chosen = expression.kept_expression(events, settings, newest_first=newest_first)
            connection.execute(f"CREATE TABLE kept AS {sql(chosen)}")
            connection.execute(f"CREATE TABLE ids AS {sql(expression.ids_expression(kept))}")
            connection.execute(f"CREATE TABLE units AS {sql(expression.units_expression(kept))}")
            ((size,),) = connection.execute(sql(expression.size_expression(kept))).fetchall()
            parts = max(1, round((size or 0) / _PAIRS))
            task.advance()
        with progress.task(f"count pairs of {name}", total=parts, unit="parts") as task:
            columns = ", ".join(f"{field.name} BIGINT" for field in _PAIRS_SCHEMA)
            connection.execute(f"CREATE TABLE pairs ({columns})")
            for part in range(parts):
                some = expression.pairs_expression(kept, settings, part=part, parts=parts)
                connection.execute(f"INSERT INTO pairs BY NAME {sql(some)}")
                task.advance()
        with progress.task(f"weigh pairs of {name}", total=1, unit="steps") as task:
            edges = expression.edges_expression(pairs, ids, units, settings)
            connection.execute(f"COPY ({sql(edges)}) TO {quoted(str(result))} (FORMAT parquet)")
            task.advance()


def _by_spark(settings: CoEngagement, engagements: Path, result: Path, *, newest_first: bool) -> None:
    """Run the expression on Spark, as SPARK_HOME and its settings say; without, on this machine."""
    import ibis

    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise StoreError(
            "co-engagement is to be derived by Spark, and pyspark is not installed",
            hint="pip install 'kithkin-service[spark]', or set ingest.engine = \"duckdb\".",
        ) from None
    # Ibis knows the options of a dialect once its backend was loaded.
    _ = ibis.pyspark
    spark = SparkSession.builder.appName("kithkin co-engagement").getOrCreate()
    # Times carry no zone; by another one an hour would be lost or doubled where clocks change.
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.read.parquet(str(engagements)).createOrReplaceTempView("engagements")
    events = _table("engagements", ENGAGEMENTS)
    query = _sql(expression.co_engagement_expression(events, settings, newest_first=newest_first), "pyspark")
    spark.sql(query).write.mode("overwrite").parquet(str(result))


def _table(name: str, schema: pa.Schema) -> Any:
    import ibis

    return ibis.table(ibis.Schema.from_pyarrow(schema), name=name)


def _sql(of: Any, dialect: str) -> str:
    # Ibis writes the SQL and the engine is asked directly: Ibis's own DuckDB connection uses calls that DuckDB 2.0
    # deprecates, and its Spark one wants versions of its own.
    import ibis

    return str(ibis.to_sql(of, dialect=dialect))
