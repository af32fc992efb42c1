"""What was written back, in Neo4j: edges, a vector property under a vector index, and markers that tell what is whole.

One transaction cannot hold it. The new edges are written beside the old ones, each with its bundle; then the vectors,
with ``<property>_bundle`` beside; then the markers are switched, in one transaction; then what is old is removed. A
publishing has a node ``(:KithkinPublished)``: ``complete`` says that its edges are all there, ``vectors`` that every
vector in the index is its own. Ended anywhere, the same call again removes the rests and completes it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import neo4j
import pyarrow as pa

from graph_store.errors import StoreConflict, StoreError
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.schema import note_label
from graph_store.published import (
    MARKER,
    Published,
    PublishedRows,
    Publishing,
    WrittenBack,
    bundle_property,
    check_names,
    foreign_relation,
    refuse_declared,
)
from graph_store.schema import GraphSchema

_EDGES_AT_ONCE = 20_000
"""Edges of one transaction."""
_VECTORS_AT_ONCE = 2_000
"""Vectors of one transaction: some megabytes."""
_SOURCES_AT_ONCE = 1_000
"""Nodes whose old edges and vectors one transaction removes."""
_INDEX_PAUSE_S = 0.25
Check = Callable[[neo4j.ManagedTransaction], None]


def published(connection: Neo4jConnection) -> tuple[Published, ...]:
    """What was written back; see ``GraphStore.written_back``."""
    return connection.read(lambda transaction: _markers(transaction, connection.label_prefix))


def check_declared(connection: Neo4jConnection, schema: GraphSchema) -> None:
    """Raises StoreConflict where the schema, names with their prefix, declares edges that were written back."""
    prefix = connection.label_prefix
    found = published(connection)
    refuse_declared(schema, tuple(replace(each, publishing=_stored(each.publishing, prefix)) for each in found))


def write(connection: Neo4jConnection, schema: GraphSchema, publishing: Publishing, rows: PublishedRows) -> WrittenBack:
    """Replace what was written back; see ``GraphStore.write_back``. Names of ``schema`` have their prefix.

    Raises StoreConflict where edges of that name are there that were not written back, where another write-back took
    over meanwhile, or where an index is lacking that this user may not make.
    """
    prefix = connection.label_prefix
    check_names(schema, _stored(publishing, prefix))
    lacking = connection.read(lambda transaction: _lacking_indexes(transaction, prefix, publishing))
    _refuse_indexes(connection, publishing, lacking)
    token = uuid.uuid4().hex
    ours = partial(_still_ours, prefix=prefix, token=token)
    kept, before = connection.write(lambda transaction: _begin(transaction, prefix, publishing, token))
    if any(each.publishing.bundle != kept for each in before):
        _remove_others(connection, before, kept, ours)
    written = WrittenBack()
    _write_edges(connection, publishing, rows, token, written)
    _write_vectors(connection, publishing, rows, token, written)
    if connection.create_constraints:
        for label in lacking:
            connection.command(_index_statement(label, publishing))
        _wait_for_indexes(connection, publishing)
    connection.write(lambda transaction: _switch(transaction, prefix, publishing, token))
    _remove_others(connection, before, publishing.bundle, ours)
    connection.write(lambda transaction: _forget_others(transaction, prefix, token))
    return written


def remove(connection: Neo4jConnection, keep: str | None) -> None:
    """Remove what was written back but for the whole publishing of the bundle ``keep``.

    Where none is kept the indexes go too, if this user may drop them.
    """
    prefix = connection.label_prefix

    def others_incomplete(transaction: neo4j.ManagedTransaction) -> tuple[Published, ...]:
        # Without the note of a schema nobody begins a write-back, and the markers themselves are locked next.
        _lock(transaction, prefix, needed=False)
        transaction.run(
            f"MATCH (p:`{prefix}{MARKER}`) WHERE NOT (p.complete AND coalesce(p.bundle = $keep, false)) "
            "SET p.complete = false, p.vectors = false, p.token = null",
            keep=keep,
        ).consume()
        return _markers(transaction, prefix)

    before = connection.write(others_incomplete)
    # Of one that is not whole nothing is kept: no marker would tell of it any more.
    kept = keep if any(each.complete for each in before) else None
    _remove_others(connection, before, kept, partial(_nobody_writes, prefix=prefix))
    if connection.create_constraints and not any(each.complete for each in before):
        for name in sorted({name for each in before for name in each.publishing.node_types}):
            connection.command(f"DROP INDEX `{index_name(prefix + name)}` IF EXISTS")
    connection.write(
        lambda transaction: transaction.run(
            f"MATCH (p:`{prefix}{MARKER}`) WHERE NOT p.complete AND p.token IS NULL DELETE p"
        ).consume()
    )


def _stored(publishing: Publishing, prefix: str) -> Publishing:
    """With the names as they stand in the database."""
    node_types = tuple(prefix + name for name in publishing.node_types)
    return replace(publishing, relation=prefix + publishing.relation, node_types=node_types)


def index_name(label: str) -> str:
    """What our vector index over the nodes of a label is called."""
    return f"kithkin_{label}_vector"


def _begin(
    transaction: neo4j.ManagedTransaction, prefix: str, publishing: Publishing, token: str
) -> tuple[str | None, tuple[Published, ...]]:
    """Put up the marker of the new one; the bundle whose edges stay meanwhile, and all markers there were."""
    _lock(transaction, prefix)
    before = _markers(transaction, prefix)
    if all(each.publishing.relation != publishing.relation for each in before):
        found = transaction.run(f"MATCH ()-[r:`{prefix}{publishing.relation}`]->() RETURN r LIMIT 1").single()
        if found is not None:
            raise foreign_relation(publishing.relation)
    kept = next((each.publishing.bundle for each in before if each.complete), None)
    if kept == publishing.bundle:  # the same one anew: what is there of it cannot be told from what comes
        transaction.run(f"MATCH (p:`{prefix}{MARKER}`) SET p.complete = false, p.vectors = false").consume()
        kept = None
    transaction.run(
        f"CREATE (p:`{prefix}{MARKER}`) SET p = $values",
        values={
            "space": publishing.space,
            "bundle": publishing.bundle,
            "complete": False,
            "vectors": False,
            "relation": publishing.relation,
            "property": publishing.property,
            "dimension": publishing.dimension,
            "neighbours": publishing.neighbours,
            "node_types": list(publishing.node_types),
            "token": token,
        },
    ).consume()
    # A write-back that somebody else has under way ends at its next part: its marker has no token any more.
    transaction.run(f"MATCH (p:`{prefix}{MARKER}`) WHERE p.token <> $token SET p.token = null", token=token).consume()
    return kept, before


def _lock(transaction: neo4j.ManagedTransaction, prefix: str, *, needed: bool = True) -> None:
    record = transaction.run(
        f"MATCH (k:`{note_label(prefix)}`) SET k.written_back = coalesce(k.written_back, 0) + 1 "
        "RETURN count(k) AS found"
    ).single(strict=True)
    if needed and not record["found"]:
        raise StoreConflict(
            "the store has no schema yet", hint="Run `kithkin ingest`, which applies the schema of kithkin.toml."
        )


def _markers(transaction: neo4j.ManagedTransaction, prefix: str) -> tuple[Published, ...]:
    names = ("bundle", "space", "relation", "property", "dimension", "neighbours")
    returned = ", ".join(f"p.{name} AS {name}" for name in (*names, "node_types", "complete", "vectors"))
    records = transaction.run(f"MATCH (p:`{prefix}{MARKER}`) RETURN {returned} ORDER BY complete DESC, bundle DESC")
    return tuple(
        Published(
            publishing=Publishing(
                **{name: record[name] for name in names}, node_types=tuple(record["node_types"] or ())
            ),
            complete=bool(record["complete"]),
            vectors=bool(record["vectors"]),
        )
        for record in records
    )


def _write_edges(
    connection: Neo4jConnection, publishing: Publishing, rows: PublishedRows, token: str, written: WrittenBack
) -> None:
    prefix = connection.label_prefix
    for node_type, edges in rows.edges():
        label, columns = f"`{prefix}{node_type}`", ("source", "target", "score", "reason", "rank")
        statement = (
            f"UNWIND range(0, $rows - 1) AS i MATCH (a:{label} {{id: $source[i]}}) "
            f"MATCH (b:{label} {{id: $target[i]}}) CREATE (a)-[:`{prefix}{publishing.relation}` "
            "{score: $score[i], reason: $reason[i], rank: $rank[i], bundle: $bundle}]->(b) RETURN count(*) AS found"
        )
        for part in _parts(edges, _EDGES_AT_ONCE):
            values: dict[str, Any] = {name: part.column(name).to_pylist() for name in columns}
            values |= {"rows": part.num_rows, "bundle": publishing.bundle}
            found = _run(connection, statement, values, token)
            written.edges[node_type] = written.edges.get(node_type, 0) + found


def _write_vectors(
    connection: Neo4jConnection, publishing: Publishing, rows: PublishedRows, token: str, written: WrittenBack
) -> None:
    prefix = connection.label_prefix
    # From here on the index holds vectors of both.
    _run(connection, f"MATCH (p:`{prefix}{MARKER}`) SET p.vectors = false RETURN count(*) AS found", {}, token)
    if connection.create_constraints:
        for name in connection.read(lambda transaction: _unfit_indexes(transaction, prefix, publishing)):
            connection.command(f"DROP INDEX `{name}` IF EXISTS")
    named = f"n.`{publishing.property}` = $vector[i], n.`{bundle_property(publishing.property)}` = $bundle"
    for node_type, vectors in rows.vectors():
        statement = (
            f"UNWIND range(0, $rows - 1) AS i MATCH (n:`{prefix}{node_type}` {{id: $id[i]}}) SET {named} "
            "RETURN count(n) AS found"
        )
        for part in _parts(vectors, _VECTORS_AT_ONCE):
            values: dict[str, Any] = {name: part.column(name).to_pylist() for name in ("id", "vector")}
            values |= {"rows": part.num_rows, "bundle": publishing.bundle}
            found = _run(connection, statement, values, token)
            written.vectors[node_type] = written.vectors.get(node_type, 0) + found
            written.unknown += part.num_rows - found


def _run(connection: Neo4jConnection, statement: str, parameters: dict[str, Any], token: str) -> int:
    """One part in a transaction of its own, which ends the write-back where another has taken over; rows found."""

    def work(transaction: neo4j.ManagedTransaction) -> int:
        _still_ours(transaction, connection.label_prefix, token)
        return int(transaction.run(statement, parameters).single(strict=True)["found"])

    return connection.write(work)


def _still_ours(transaction: neo4j.ManagedTransaction, prefix: str, token: str) -> None:
    record = transaction.run(
        f"MATCH (p:`{prefix}{MARKER}` {{token: $token}}) SET p.token = $token RETURN count(p) AS found", token=token
    ).single(strict=True)
    if not record["found"]:
        raise StoreConflict(
            "another write-back into this database has taken over", hint="Wait until it is done, and run it again."
        )


def _switch(transaction: neo4j.ManagedTransaction, prefix: str, publishing: Publishing, token: str) -> None:
    _still_ours(transaction, prefix, token)
    transaction.run(
        f"MATCH (p:`{prefix}{MARKER}`) WITH p, coalesce(p.token = $token, false) AS new "
        "SET p.complete = new, p.vectors = new",
        token=token,
    ).consume()


def _forget_others(transaction: neo4j.ManagedTransaction, prefix: str, token: str) -> None:
    """Take down the markers of what is gone."""
    _still_ours(transaction, prefix, token)
    transaction.run(
        f"MATCH (p:`{prefix}{MARKER}`) WHERE p.token IS NULL OR p.token <> $token DELETE p", token=token
    ).consume()


def _nobody_writes(transaction: neo4j.ManagedTransaction, prefix: str) -> None:
    record = transaction.run(
        f"MATCH (p:`{prefix}{MARKER}`) WHERE NOT p.complete AND p.token IS NOT NULL RETURN count(p) AS found"
    ).single(strict=True)
    if record["found"]:
        raise StoreConflict("a write-back into this database has begun", hint="Wait until it is done.")


def _remove_others(connection: Neo4jConnection, before: tuple[Published, ...], kept: str | None, check: Check) -> None:
    """Remove edges and vectors that are not of the bundle ``kept``, wherever a marker says that some may be.

    ``check`` raises, in each transaction, where another write-back has begun whose rows would be taken for old ones.
    """
    prefix = connection.label_prefix
    places = dict.fromkeys(
        (name, each.publishing.relation, each.publishing.property)
        for each in before
        for name in each.publishing.node_types
    )
    for node_type, relation, property_ in places:
        edge, bundle = f"`{prefix}{relation}`", bundle_property(property_)
        edges = f"MATCH (a)-[r:{edge}]->() WHERE r.bundle IS NOT NULL AND ($kept IS NULL OR r.bundle <> $kept) DELETE r"
        vectors = (
            f"WITH a WHERE a.`{bundle}` IS NOT NULL AND ($kept IS NULL OR a.`{bundle}` <> $kept) "
            f"REMOVE a.`{property_}`, a.`{bundle}`"
        )

        _in_pages(connection, f"`{prefix}{node_type}`", (edges, vectors), kept, check)


def _in_pages(
    connection: Neo4jConnection, label: str, statements: tuple[str, ...], kept: str | None, check: Check
) -> None:
    """Run statements on every node ``a`` of a label, so many nodes a transaction."""

    def work(transaction: neo4j.ManagedTransaction, last: str | None) -> str | None:
        check(transaction)
        after = "a.id IS NOT NULL" if last is None else "a.id > $last"
        page = f"MATCH (a:{label}) WHERE {after} WITH a ORDER BY a.id LIMIT {_SOURCES_AT_ONCE}"
        found: str | None = transaction.run(f"{page} RETURN max(a.id) AS last", last=last).single(strict=True)["last"]
        if found is not None:
            for statement in statements:
                transaction.run(f"{page} {statement}", last=last, kept=kept).consume()
        return found

    last = connection.write(partial(work, last=None))
    while last is not None:
        last = connection.write(partial(work, last=last))


def _index_statement(label: str, publishing: Publishing) -> str:
    # A space whose score is no cosine is not written back.
    options = f"`vector.dimensions`: {publishing.dimension}, `vector.similarity_function`: 'cosine'"
    return (
        f"CREATE VECTOR INDEX `{index_name(label)}` IF NOT EXISTS FOR (n:`{label}`) ON (n.`{publishing.property}`) "
        f"OPTIONS {{indexConfig: {{{options}}}}}"
    )


def _indexes(transaction: neo4j.ManagedTransaction) -> Iterator[neo4j.Record]:
    yield from transaction.run(
        "SHOW VECTOR INDEXES YIELD name, labelsOrTypes, properties, options, state, populationPercent "
        "RETURN name, labelsOrTypes AS labels, properties, state, populationPercent AS percent, "
        "options.indexConfig['vector.dimensions'] AS dimension, "
        "toUpper(options.indexConfig['vector.similarity_function']) AS similarity"
    )


def _fits(index: neo4j.Record, publishing: Publishing) -> bool:
    wanted = ([publishing.property], publishing.dimension, "COSINE")
    return (index["properties"], index["dimension"], index["similarity"]) == wanted


def _lacking_indexes(
    transaction: neo4j.ManagedTransaction, prefix: str, publishing: Publishing
) -> dict[str, list[str]]:
    """Labels without an index of these vectors, each with the indexes that stand in its place.

    Where one has the name, or is over the same property, Neo4j makes no other and says nothing.
    """
    lacking: dict[str, list[str]] = {}
    indexes = list(_indexes(transaction))
    for label in (prefix + name for name in publishing.node_types):
        over = [each for each in indexes if each["labels"] == [label] and each["properties"] == [publishing.property]]
        if not any(_fits(each, publishing) for each in over):
            named = [each for each in indexes if each["name"] == index_name(label)]
            lacking[label] = sorted({each["name"] for each in (*over, *named)})
    return lacking


def _refuse_indexes(connection: Neo4jConnection, publishing: Publishing, lacking: dict[str, list[str]]) -> None:
    """Raises StoreConflict where an index is lacking that we may not make, or somebody else's is in its place."""
    theirs = sorted({name for label, names in lacking.items() for name in names if name != index_name(label)})
    if not theirs and (connection.create_constraints or not lacking):
        return
    statements = [
        statement
        for label, names in lacking.items()
        for statement in (*(f"DROP INDEX `{name}` IF EXISTS" for name in names), _index_statement(label, publishing))
    ]
    why = f"Neo4j lacks {len(lacking)} vector indexes, and store.create_constraints is false"
    if connection.create_constraints:
        why = f"vector indexes of another length or similarity stand in the place of ours: {', '.join(theirs)}"
    hint = "Have somebody run, who may:\n  " + "\n  ".join(f"{each};" for each in statements)
    raise StoreConflict(why, hint=hint)


def _unfit_indexes(transaction: neo4j.ManagedTransaction, prefix: str, publishing: Publishing) -> list[str]:
    """Our indexes over other properties, or vectors of another length."""
    ours = {index_name(prefix + name) for name in publishing.node_types}
    return [each["name"] for each in _indexes(transaction) if each["name"] in ours and not _fits(each, publishing)]


def _wait_for_indexes(connection: Neo4jConnection, publishing: Publishing) -> None:
    """Until the indexes answer. Raises StoreError where one failed."""
    labels = {connection.label_prefix + name for name in publishing.node_types}
    while True:
        found = connection.read(lambda transaction: list(_indexes(transaction)))
        states = {each["name"]: each["state"] for each in found if set(each["labels"]) & labels}
        failed = [name for name, state in states.items() if state == "FAILED"]
        if failed:
            raise StoreError(
                f"Neo4j could not fill the vector index {failed[0]}",
                hint="Its log says why; drop it, and run `kithkin write-back` again.",
            )
        if all(state == "ONLINE" for state in states.values()):
            return
        time.sleep(_INDEX_PAUSE_S)


def _parts(rows: pa.Table, most: int) -> Iterator[pa.Table]:
    return (rows.slice(start, most) for start in range(0, rows.num_rows, most))
