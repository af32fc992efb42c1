"""Co-engagement edges: which entities the same users engage with, derived from the engagements in the store.

The whole computation is one Ibis expression over a table of engagements, run here by DuckDB. Weights come from integer
counts with one final division, and ties go by the bytes of ids, so that the same graph gives the same bits anywhere.
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

from graph_store.ingest.raw import quoted
from graph_store.progress import NoProgress, Progress, Task
from graph_store.project import Project
from graph_store.schema import CoEngagement, CoEngagementWeight, Relation, Triple
from graph_store.store import GraphStore, Written

MEMORY = "2GiB"
"""What DuckDB may hold; beyond it, it writes to the staging folder."""
_SCHEMA = pa.schema(
    [("user", pa.string()), ("entity", pa.string()), ("weight", pa.float64()), ("time", pa.timestamp("us"))]
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
                edges = _compute(settings, engagements, folder)
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
    repeated engagements with one entity count once. ``newest_first`` says what ``max_per_user`` keeps, else the
    heaviest.
    """
    import ibis

    events = engagements
    if settings.window_days is not None:
        newest = events.time.max().as_scalar()
        events = events.filter(events.time >= newest - ibis.interval(seconds=round(settings.window_days * 86_400)))
    if settings.min_engagement is not None:
        events = events.filter(events.weight >= settings.min_engagement)
    once = events.group_by("user", "entity").agg(time=events.time.max(), weight=events.weight.max())

    # Numbers in place of texts: a join of pairs over strings would take several times the memory.
    numbered = once.mutate(u=ibis.dense_rank().over(order_by=once.user), e=ibis.dense_rank().over(order_by=once.entity))
    best = numbered.time.desc(nulls_first=False) if newest_first else numbered.weight.desc(nulls_first=False)
    place = ibis.row_number().over(group_by=numbered.u, order_by=[best, numbered.e.asc()])
    kept = numbered.mutate(place=place).filter(lambda table: table.place < settings.max_per_user)
    kept = kept.select("u", "e", "entity")

    ids = kept.group_by("e").agg(id=kept.entity.min(), users=kept.count())
    users = kept.u.nunique().as_scalar()
    left, right = kept.select("u", "e"), kept.select("u", other=kept.e)
    pairs = left.inner_join(right, "u").filter(lambda table: table.e < table.other)
    pairs = pairs.group_by("e", "other").agg(support=pairs.count())
    pairs = pairs.filter(pairs.support >= settings.min_support)

    sources = ids.rename(source="id", source_users="users")
    targets = ids.select(other="e", target="id", target_users="users")
    pairs = pairs.inner_join(sources, "e").inner_join(targets, "other").mutate(n=users)
    weighed = pairs.mutate(weight=_weight(pairs, settings.weight))
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


def _weight(pairs: Any, weight: CoEngagementWeight) -> Any:
    """The weight of a pair, symmetric in its ends; counts stay integers until the last step."""
    import ibis

    together, product = pairs.support, pairs.source_users * pairs.target_users
    match weight:
        case CoEngagementWeight.COUNT:
            return together.cast("float64")
        case CoEngagementWeight.COSINE:
            return together.cast("float64") / product.cast("float64").sqrt()
        case CoEngagementWeight.LIFT:
            return (together * pairs.n).cast("float64") / product.cast("float64")
        case CoEngagementWeight.NPMI:
            # Where all users engage with both, neither tells anything of the other: 0 / 0, taken as 0.
            lift = (together * pairs.n).cast("float64") / product.cast("float64")
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


def _compute(settings: CoEngagement, engagements: Sequence[Relation], folder: Path) -> pa.Table:
    import ibis

    # Ibis writes the SQL and DuckDB is asked directly: Ibis's own connection uses calls that DuckDB 2.0 deprecates.
    table = ibis.table(ibis.Schema.from_pyarrow(_SCHEMA), name="engagements")
    newest_first = all(relation.time for relation in engagements)
    query = ibis.to_sql(co_engagement_expression(table, settings, newest_first=newest_first), dialect="duckdb")
    result = folder / "edges.parquet"
    configuration: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(folder),
        "preserve_insertion_order": "false",
    }
    with duckdb.connect(str(folder / "derive.duckdb"), config=configuration) as connection:
        connection.read_parquet(str(folder / "engagements.parquet")).create_view("engagements")
        connection.execute(f"COPY ({query}) TO {quoted(str(result))} (FORMAT parquet)")
    return pq.read_table(result)


def _fitted(edges: pa.Table, relation: Relation) -> pa.Table:
    """The edges with the columns that the relation declares, in its types."""
    names = [name for name in relation.arrow_schema.names if name in edges.column_names]
    return edges.select(names).cast(pa.schema([relation.arrow_schema.field(name) for name in names]))
