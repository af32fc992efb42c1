"""Results back into the graph: the active bundle's vectors, and the nearest of each entity with score and reason."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import err, print_json, say
from cli.options import ForceOption, JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline, StepResult
from graph_store.errors import ConfigError
from graph_store.progress import Task
from graph_store.stores import open_store

if TYPE_CHECKING:
    import pyarrow as pa

    from graph_store.project import Project
    from graph_store.published import Publishing
    from graph_store.store import GraphStore
    from model_store.bundle import Bundle

NAME = "write-back"
_SOURCES_AT_ONCE = 2_000
"""Entities searched, explained and written together: 40,000 edges by the default, some megabytes."""
_VECTORS_AT_ONCE = 20_000


def write_back_command(
    remove: Annotated[bool, typer.Option("--remove", help="Remove what was written back, and write nothing.")] = False,
    project: ProjectOption = None,
    store: StoreOption = None,
    settings: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the active bundle's vectors and nearest entities back into the graph, for queries in Cypher."""
    pipeline = Pipeline(open_project(project, store=store, settings=settings), RichProgress(err), force=force)
    with pipeline.alone():
        if remove:
            _remove(pipeline)
            if as_json:
                print_json({NAME: {"removed": True}})
            return
        result = write_back(pipeline)
    if as_json:
        print_json({NAME: {"skipped": result.skipped, "seconds": result.seconds, **result.outcome}})
    else:
        state = "unchanged" if result.skipped else f"{result.seconds:.1f} s"
        say(f"{result.name:8} {state:>10}  {summary(result)}")


def write_back(pipeline: Pipeline) -> StepResult:
    """Active bundle to graph; skipped where the graph has it already. Call it inside ``pipeline.alone()``.

    Raises ConfigError where a name is declared for something else or the space cannot be written back, StoreError as
    the store does, BundleNotFound where no bundle is active.
    """
    from model_store.bundle_store import BundleStore

    started = time.perf_counter()
    bundles = BundleStore(pipeline.models)
    bundle = bundles.open()
    publishing = publishing_of(bundle, pipeline.project)
    with open_store(pipeline.project) as store:
        before = store.state_token()
        there = store.written_back()
        whole = next((each.publishing for each in there if each.complete and each.vectors), None)
        skipped = whole == publishing and not pipeline.force
        if skipped and len(there) > 1:
            store.remove_written_back(keep=publishing.bundle)
        outcome: dict[str, Any] = {"version": publishing.bundle, "relation": publishing.relation}
        if not skipped:
            written = store.write_back(publishing, BundleRows(bundle, publishing, pipeline))
            outcome |= {"edges": written.edges, "vectors": written.vectors, "unknown": written.unknown}
        if not pipeline.project.settings.store.is_neo4j:  # there others may have changed the graph meanwhile
            pipeline.graph_stayed(before, store.state_token())
    return StepResult(name=NAME, skipped=skipped, seconds=time.perf_counter() - started, outcome=outcome)


def summary(result: StepResult) -> str:
    """What was written, in one line."""
    outcome = result.outcome
    told = f"bundle {outcome['version']}"
    if not result.skipped:
        edges, vectors = sum(outcome["edges"].values()), sum(outcome["vectors"].values())
        told = f"{edges:,} {outcome['relation']} edges, {vectors:,} vectors of {told}"
        if outcome["unknown"]:
            told += f"; {outcome['unknown']:,} entities are in the graph no more"
    return told


def publishing_of(bundle: Bundle, project: Project) -> Publishing:
    """What would be written back of a bundle. Raises ConfigError where its vectors cannot be."""
    from graph_store.published import Publishing, entity_types
    from kithkin.v1 import model_service_pb2
    from server.model.served_model import SIMILAR

    settings = project.settings.publish
    space = bundle.spaces.get(SIMILAR)
    if space is None or space.metric != model_service_pb2.COSINE:
        raise ConfigError(
            f"bundle {bundle.version} has no space {SIMILAR!r} of cosines, so nothing can be written back",
            key="publish.write_back",
            hint="Publish with this release, or set publish.write_back = false.",
        )
    searched = tuple(each.node_type for each in space.indexes)
    return Publishing(
        bundle=bundle.version,
        space=SIMILAR,
        relation=settings.write_back_relation,
        property=settings.write_back_property,
        dimension=space.dimension,
        neighbours=settings.write_back_neighbours,
        node_types=entity_types(project.schema, searched),
    )


class BundleRows:
    """The rows of a publishing, made from its bundle batch by batch; see ``graph_store.published.PublishedRows``."""

    def __init__(self, bundle: Bundle, publishing: Publishing, pipeline: Pipeline) -> None:
        from server.index.nearest import NearestOfAll
        from server.model.catalogue import Catalogue
        from server.model.neighbourhoods import Neighbourhoods

        self._bundle = bundle
        self._publishing = publishing
        self._progress = pipeline.progress
        self._catalogue, self._neighbourhoods = Catalogue(bundle), Neighbourhoods(bundle)
        self._nearest = {name: NearestOfAll(bundle, publishing.space, name) for name in publishing.node_types}
        self._entities = sum(len(each.rows) for each in self._nearest.values())

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        """See ``PublishedRows``."""
        with self._progress.task("write back edges", total=self._entities, unit="entities") as task:
            for node_type in self._publishing.node_types:
                yield from self._edges_of(node_type, task)

    def _edges_of(self, node_type: str, task: Task) -> Iterator[tuple[str, pa.Table]]:
        import numpy as np
        import pyarrow as pa

        from graph_store.published import EDGES
        from server.reasons.strongest import StrongestEvidence

        ids = self._bundle.nodes(node_type).column(0).cast(pa.string())
        reasons = StrongestEvidence(self._bundle, self._catalogue, self._neighbourhoods, node_type)
        for batch in self._nearest[node_type].batches(self._publishing.neighbours, _SOURCES_AT_ONCE):
            there = batch.neighbours >= 0
            texts = reasons.texts(batch.rows, batch.neighbours)
            source, rank = np.nonzero(there)
            yield (
                node_type,
                pa.table(
                    [
                        ids.take(pa.array(batch.rows[source])),
                        ids.take(pa.array(batch.neighbours[there])),
                        pa.array(batch.scores[there].astype(np.float64)),
                        pa.array(texts, pa.string()).filter(pa.array(there.ravel())),
                        pa.array(rank + 1),
                    ],
                    schema=EDGES,
                ),
            )
            task.advance(len(batch.rows))

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        """See ``PublishedRows``."""
        import numpy as np
        import pyarrow as pa

        from graph_store.published import VECTORS

        with self._progress.task("write back vectors", total=self._entities, unit="entities") as task:
            for node_type in self._publishing.node_types:
                nearest = self._nearest[node_type]
                ids = self._bundle.nodes(node_type).column(0).cast(pa.string())
                for start in range(0, len(nearest.rows), _VECTORS_AT_ONCE):
                    rows = nearest.rows[start : start + _VECTORS_AT_ONCE]
                    values = np.ascontiguousarray(nearest.vectors[rows], np.float32)
                    offsets = np.arange(len(rows) + 1, dtype=np.int32) * values.shape[1]
                    vectors = pa.ListArray.from_arrays(offsets, values.ravel())
                    yield node_type, pa.table([ids.take(pa.array(rows)), vectors], schema=VECTORS)
                    task.advance(len(rows))


def written_back_version(store: GraphStore) -> str | None:
    """Version of the bundle that was written back whole; None: none was."""
    return next((each.publishing.bundle for each in store.written_back() if each.complete), None)


def _remove(pipeline: Pipeline) -> None:
    with open_store(pipeline.project) as store:
        before = store.state_token()
        version = written_back_version(store)
        store.remove_written_back()
        if not pipeline.project.settings.store.is_neo4j:
            pipeline.graph_stayed(before, store.state_token())
    say(
        f"removed what was written back of bundle {version}"
        if version
        else "nothing whole was written back; rests removed"
    )
