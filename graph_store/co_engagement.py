"""Co-engagement edges: which entities the same users engage with, derived from the engagements in the store.

The whole computation is one Ibis expression over a table of engagements, run by DuckDB or by Spark. Weights come from
integer counts with one final division, and ties go by the bytes of ids, so that the same graph gives the same bits.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.errors import StoreError
from graph_store.ingest.raw import quoted
from graph_store.progress import NoProgress, Progress, Task
from graph_store.project import Project
from graph_store.schema import CoEngagement, CoEngagementWeight, Relation, Triple
from graph_store.store import GraphStore, Written

_DAY_S = 86_400
_WHOLE = 1 << 20
"""What an engagement of the newest moment counts under a half-life: shares are whole millionths or so."""
MEMORY = "2GiB"
"""What DuckDB may hold; beyond it, it writes to the staging folder."""
_SCHEMA = pa.schema(
    [("user", pa.string()), ("entity", pa.string()), ("weight", pa.float64()), ("time", pa.timestamp("us"))]
)
_EDGES = pa.schema(
    [("source", pa.string()), ("target", pa.string()), ("weight", pa.float64()), ("support", pa.int64())]
)
_SILENT = NoProgress()


def derive(project: Project, store: GraphStore, *, progress: Progress = _SILENT) -> dict[Triple, Written]:
    """Make every derived relation hold exactly what the engagements in the store say now.

    Edges are directed: ``a -> b`` stands where b is among the ``top_k`` heaviest of a, each direction by its own list.
    """
    written: dict[Triple, Written] = {}
    derived = [relation for relation in project.schema.relations if relation.derive is not None]
    for relation in derived:
        triple, settings = relation.triple, relation.derive
        assert settings is not None
        project.work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="co_engagement-", dir=project.work))
        try:
            engagements = project.schema.engagements(settings.via, triple.target)
            with progress.task(f"read {settings.via}") as task:
                _stage(store, engagements, folder / "engagements.parquet", task)
            with progress.task(f"derive {triple}", total=1, unit="relations") as task:
                newest_first = all(each.time for each in engagements)
                edges = compute_edges(settings, folder, project.settings.ingest.engine, newest_first=newest_first)
                task.advance()
            with progress.task(f"write {triple}", total=len(edges)) as task:
                written[triple] = store.replace_edges(triple, _fitted(edges, relation))
                task.advance(len(edges))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return written


def co_engagement_expression(engagements: Any, settings: CoEngagement, *, newest_first: bool) -> Any:
    """The edges as an Ibis expression: source, target (ids), weight (float64), support (int64: users in common).

    ``engagements`` is an Ibis table of user, entity (texts), weight (float64) and time (UTC, or null). A user's
    repeated engagements with one entity count once. ``newest_first`` says what ``max_per_user`` and ``max_per_entity``
    keep, else the heaviest.
    """
    import ibis

    events = engagements.mutate(second=engagements.time.epoch_seconds())
    newest = events.second.max().as_scalar()
    if settings.window_days is not None:
        events = events.filter(events.second >= newest - round(settings.window_days * _DAY_S))
    if settings.min_engagement is not None:
        events = events.filter(events.weight >= settings.min_engagement)
    events = _with_sittings(events, settings)
    once = events.group_by("user", "sitting", "entity").agg(
        time=events.time.max(), second=events.second.max(), weight=events.weight.max()
    )

    # Numbers in place of texts: a join of pairs over strings would take several times the memory.
    users, entities = once.select("user", "sitting").distinct(), once.select("entity").distinct()
    users = users.mutate(u=ibis.row_number().over(order_by=[users.user, users.sitting]))
    entities = entities.mutate(e=ibis.row_number().over(order_by=entities.entity))
    numbered = once.inner_join(users, ["user", "sitting"]).inner_join(entities, "entity")
    numbered = numbered.mutate(share=_share(numbered, newest, settings))
    best = numbered.time.desc(nulls_first=False) if newest_first else numbered.weight.desc(nulls_first=False)
    place = ibis.row_number().over(group_by=numbered.u, order_by=[best, numbered.e.asc()])
    kept = numbered.mutate(place=place).filter(lambda table: table.place < settings.max_per_user)
    if settings.max_per_entity is not None:
        best = kept.time.desc(nulls_first=False) if newest_first else kept.weight.desc(nulls_first=False)
        place = ibis.row_number().over(group_by=kept.e, order_by=[best, kept.u.asc()])
        kept = kept.mutate(popular=place).filter(lambda table: table.popular < settings.max_per_entity)
    kept = kept.select("u", "e", "entity", "share")

    ids = kept.group_by("e").agg(id=kept.entity.min(), users=kept.share.sum())
    total = kept.group_by("u").agg(share=kept.share.max()).share.sum().as_scalar()
    left, right = kept.select("u", "e", "share"), kept.select("u", other=kept.e, other_share=kept.share)
    pairs = left.inner_join(right, "u").filter(lambda table: table.e < table.other)
    # Together no longer ago than the older of the two.
    together = ibis.least(pairs.share, pairs.other_share)
    pairs = pairs.mutate(together=together).group_by("e", "other")
    pairs = pairs.agg(support=lambda table: table.count(), together=lambda table: table.together.sum())
    pairs = pairs.filter(pairs.support >= settings.min_support)

    sources = ids.rename(source="id", source_users="users")
    targets = ids.select(other="e", target="id", target_users="users")
    pairs = pairs.inner_join(sources, "e").inner_join(targets, "other").mutate(n=total)
    weighed = pairs.mutate(weight=_weight(pairs, settings))
    if settings.weight is CoEngagementWeight.NPMI:
        weighed = weighed.filter(weighed.weight > 0)
    forward = weighed.select("e", "other", "source", "target", "weight", "support")
    backward = weighed.select(
        e="other", other="e", source="target", target="source", weight="weight", support="support"
    )
    edges = forward.union(backward)
    rank = ibis.row_number().over(group_by=edges.e, order_by=[edges.weight.desc(), edges.other.asc()])
    return (
        edges.mutate(rank=rank)
        .filter(lambda table: table.rank < settings.top_k)
        .select("source", "target", "weight", "support")
    )


def _with_sittings(events: Any, settings: CoEngagement) -> Any:
    """The events with the number of the sitting of its user that each falls into; 0 where they are not told apart."""
    import ibis

    if settings.session_gap_minutes is None:
        return events.mutate(sitting=ibis.literal(0, "int64"))
    order = [events.second, events.entity]
    events = events.mutate(before=events.second.lag().over(group_by=events.user, order_by=order))
    begins = events.second - events.before > round(settings.session_gap_minutes * 60)
    events = events.mutate(begins=begins.fill_null(False).cast("int64"))
    order = [events.second, events.entity]
    return events.mutate(sitting=events.begins.sum().over(ibis.cumulative_window(group_by=events.user, order_by=order)))


def _share(once: Any, newest: Any, settings: CoEngagement) -> Any:
    """What an engagement counts, a whole number: sums of these are the same in any order, on any engine."""
    import ibis

    if settings.half_life_days is None:
        return ibis.literal(1, "int64")
    age = (newest - once.second).cast("float64") / (settings.half_life_days * _DAY_S)
    return (ibis.literal(2.0).pow(-age) * float(_WHOLE)).round().cast("int64").fill_null(0)


def _weight(pairs: Any, settings: CoEngagement) -> Any:
    """The weight of a pair, symmetric in its ends; counts stay integers until the last step."""
    import ibis

    together, product = pairs.together, pairs.source_users * pairs.target_users
    if settings.half_life_days is not None:
        # Products of shares would not fit into 64 bits.
        product = pairs.source_users.cast("float64") * pairs.target_users.cast("float64")
    match settings.weight:
        case CoEngagementWeight.COUNT:
            return together.cast("float64") / float(1 if settings.half_life_days is None else _WHOLE)
        case CoEngagementWeight.COSINE:
            return together.cast("float64") / product.cast("float64").sqrt()
        case CoEngagementWeight.LIFT:
            return (together.cast("float64") * pairs.n.cast("float64")) / product.cast("float64")
        case CoEngagementWeight.NPMI:
            # Where all users engage with both, neither tells anything of the other: 0 / 0, taken as 0.
            lift = (together.cast("float64") * pairs.n.cast("float64")) / product.cast("float64")
            rarity = (pairs.n.cast("float64") / together.cast("float64")).ln()
            return ibis.ifelse(together < pairs.n, lift.ln() / rarity, 0.0)


def _stage(store: GraphStore, engagements: Sequence[Relation], path: Path, task: Task) -> None:
    """Write the engagements of all user types to one Parquet file."""
    with pq.ParquetWriter(path, _SCHEMA, compression="lz4") as writer:
        for number, relation in enumerate(engagements):
            columns = [name for name in (relation.weight, relation.time) if name]
            for batch in store.scan_edges(relation.triple, columns=columns):
                rows = len(batch)
                users = batch.column("source").cast(pa.string())
                if len(engagements) > 1:  # ids are unique per type only
                    users = pa.compute.binary_join_element_wise(str(number), users, ":")
                weight = batch.column(relation.weight).cast(pa.float64()) if relation.weight else _ones(rows)
                time: pa.Array = pa.nulls(rows, _SCHEMA.field("time").type)
                if relation.time:
                    time = batch.column(relation.time).cast(pa.timestamp("us"))
                entities = batch.column("target").cast(pa.string())
                writer.write_batch(pa.RecordBatch.from_arrays([users, entities, weight, time], schema=_SCHEMA))
                task.advance(rows)


def _ones(rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(1.0, pa.float64()), rows)


def compute_edges(settings: CoEngagement, folder: Path, engine: str, *, newest_first: bool) -> pa.Table:
    """The edges (source, target, weight, support) of ``engagements.parquet`` in a folder, which is also written to.

    ``engine``: ``duckdb`` or ``spark``. Raises StoreError where Spark is asked for and not installed.
    """
    result = folder / "edges.parquet"
    if engine == "spark":
        _by_spark(settings, folder / "engagements.parquet", result, newest_first=newest_first)
        return pq.read_table(result, schema=_EDGES)
    query = sql_of(settings, newest_first=newest_first, dialect="duckdb")
    configuration: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder),
        "preserve_insertion_order": "false",
    }
    with duckdb.connect(str(folder / "derive.duckdb"), config=configuration) as connection:
        # Progress is told by us; DuckDB would draw a bar of its own over it.
        connection.execute("SET enable_progress_bar = false")
        connection.read_parquet(str(folder / "engagements.parquet")).create_view("engagements")
        connection.execute(f"COPY ({query}) TO {quoted(str(result))} (FORMAT parquet)")
    return pq.read_table(result)


def sql_of(settings: CoEngagement, *, newest_first: bool, dialect: str) -> str:
    """The expression over a table ``engagements`` as SQL: ``duckdb`` or ``pyspark``."""
    import ibis

    if dialect == "pyspark":
        # Ibis knows the options of a dialect once its backend was loaded.
        _ = ibis.pyspark
    # Ibis writes the SQL and the engine is asked directly: Ibis's own DuckDB connection uses calls that DuckDB 2.0
    # deprecates, and its Spark one wants versions of its own.
    table = ibis.table(ibis.Schema.from_pyarrow(_SCHEMA), name="engagements")
    expression = co_engagement_expression(table, settings, newest_first=newest_first)
    return str(ibis.to_sql(expression, dialect=dialect))


def _by_spark(settings: CoEngagement, engagements: Path, result: Path, *, newest_first: bool) -> None:
    """Run the expression on Spark, as SPARK_HOME and its settings say; without, on this machine."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise StoreError(
            "co-engagement is to be derived by Spark, and pyspark is not installed",
            hint="pip install 'kithkin-service[spark]', or set ingest.engine = \"duckdb\".",
        ) from None
    spark = SparkSession.builder.appName("kithkin co-engagement").getOrCreate()
    # Times carry no zone; by another one an hour would be lost or doubled where clocks change.
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.read.parquet(str(engagements)).createOrReplaceTempView("engagements")
    query = sql_of(settings, newest_first=newest_first, dialect="pyspark")
    spark.sql(query).write.mode("overwrite").parquet(str(result))


def _fitted(edges: pa.Table, relation: Relation) -> pa.Table:
    """The edges with the columns that the relation declares, in its types."""
    names = [name for name in relation.arrow_schema.names if name in edges.column_names]
    return edges.select(names).cast(pa.schema([relation.arrow_schema.field(name) for name in names]))
