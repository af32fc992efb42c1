"""Co-engagement edges in the store: made of what the engagements there say now."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.co_engagement.engines import ENGAGEMENTS, compute_edges
from graph_store.progress import NoProgress, Progress, Task
from graph_store.project import Project
from graph_store.schema import Relation, Triple
from graph_store.store import GraphStore, Written

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
            edges = compute_edges(
                settings,
                folder,
                project.settings.ingest.engine,
                newest_first=all(each.time for each in engagements),
                progress=progress,
                name=str(triple),
            )
            with progress.task(f"write {triple}", total=len(edges)) as task:
                written[triple] = store.replace_edges(triple, _fitted(edges, relation))
                task.advance(len(edges))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return written


def _stage(store: GraphStore, engagements: Sequence[Relation], path: Path, task: Task) -> None:
    """Write the engagements of all user types to one Parquet file."""
    with pq.ParquetWriter(path, ENGAGEMENTS, compression="lz4") as writer:
        for number, relation in enumerate(engagements):
            columns = [name for name in (relation.weight, relation.time) if name]
            for batch in store.scan_edges(relation.triple, columns=columns):
                rows = len(batch)
                users = batch.column("source").cast(pa.string())
                if len(engagements) > 1:  # ids are unique per type only
                    users = pa.compute.binary_join_element_wise(str(number), users, ":")
                weight = batch.column(relation.weight).cast(pa.float64()) if relation.weight else _ones(rows)
                time: pa.Array = pa.nulls(rows, ENGAGEMENTS.field("time").type)
                if relation.time:
                    time = batch.column(relation.time).cast(pa.timestamp("us"))
                entities = batch.column("target").cast(pa.string())
                writer.write_batch(pa.RecordBatch.from_arrays([users, entities, weight, time], schema=ENGAGEMENTS))
                task.advance(rows)


def _ones(rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(1.0, pa.float64()), rows)


def _fitted(edges: pa.Table, relation: Relation) -> pa.Table:
    """The edges with the columns that the relation declares, in its types."""
    names = [name for name in relation.arrow_schema.names if name in edges.column_names]
    return edges.select(names).cast(pa.schema([relation.arrow_schema.field(name) for name in names]))
