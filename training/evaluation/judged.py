"""Similar entities against judgements that never entered the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from graph_store.settings import JudgedEvaluation
from training.errors import JudgementsError
from training.evaluation.baselines import entity_popularity, similarity_baselines
from training.evaluation.groups import by_relation, by_tenths, measured, unpopular_half
from training.evaluation.metrics import (
    Interval,
    average_precision,
    bootstrap_columns,
    ndcg,
    paired_bootstrap,
    ranking,
    recall,
)
from training.evaluation.report import OURS, Group, Protocol
from training.graph import Graph

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """Queries, candidates and what is similar, as rows of the snapshot."""

    candidates: Rows
    """Ascending rows of the entities to rank."""
    queries: Rows
    """Positions in ``candidates``."""
    similar: tuple[Rows, ...]
    """Per query the positions in ``candidates`` of its similar entities."""
    tuning: NDArray[np.bool_]
    """Which queries are for tuning, never reported."""
    cold: NDArray[np.bool_]
    """Which candidates the protocol for cold entities takes the engagements from."""


def load_judgements(settings: JudgedEvaluation, folder: Path, ids: pa.StringArray) -> Judgements:
    """Read the judgements; ids the graph does not have are passed over. Raises JudgementsError."""
    table = _read(folder / settings.file, (settings.query, settings.similar))
    pairs = list(zip(table[settings.query].to_pylist(), table[settings.similar].to_pylist(), strict=True))
    if settings.candidates is not None and settings.candidates_column is not None:
        column = settings.candidates_column
        wanted = set(_read(folder / settings.candidates, (column,))[column].to_pylist())
    else:
        wanted = {each for pair in pairs for each in pair}
    row_of = {name: row for row, name in enumerate(ids.to_pylist())}
    candidates = np.array(sorted(row_of[each] for each in wanted if each in row_of), dtype=np.int64)
    place = {int(row): position for position, row in enumerate(candidates)}
    similar: dict[str, set[int]] = {}
    for query, other in pairs:
        if query in row_of and other in row_of and row_of[query] in place and row_of[other] in place and query != other:
            similar.setdefault(query, set()).add(place[row_of[other]])
    if not similar:
        raise JudgementsError(
            f"{folder / settings.file}: no judged pair is in the graph",
            hint=f"Check [[evaluation.judged]] {settings.name!r}: node, query, similar and candidates.",
        )
    queries = sorted(similar, key=lambda query: row_of[query])
    return Judgements(
        candidates=candidates,
        queries=np.array([place[row_of[query]] for query in queries], dtype=np.int64),
        similar=tuple(np.array(sorted(similar[query]), dtype=np.int64) for query in queries),
        tuning=_drawn(queries, settings.tune_modulo, settings.tune_remainder),
        cold=_drawn(ids.take(pa.array(candidates)).to_pylist(), settings.cold_modulo, settings.cold_remainder),
    )


def _drawn(ids: Sequence[str], modulo: int | None, remainder: int) -> NDArray[np.bool_]:
    """Which ids a hash draws: the same whatever else is in the file."""
    if modulo is None:
        return np.zeros(len(ids), bool)
    return np.array([int(hashlib.sha256(each.encode()).hexdigest(), 16) % modulo == remainder for each in ids], bool)


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=list(columns))
        else:
            convert = pa_csv.ConvertOptions(
                include_columns=list(columns), column_types={name: pa.string() for name in columns}
            )
            table = pa_csv.read_csv(path, convert_options=convert)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise JudgementsError(
            f"{path}: cannot be read: {error}", hint="Check the file and its columns under [[evaluation.judged]]."
        ) from error
    return table.select(list(columns)).cast(pa.schema([(name, pa.string()) for name in columns]))


def cosine_scores(vectors: NDArray[np.float32], queries: Rows, candidates: Rows) -> Scores:
    """Cosines ``[queries, candidates]``; a row of zeros is like nothing."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(length, 1e-12)
    return np.asarray(unit[queries] @ unit[candidates].T, dtype=np.float64)


def query_metrics(
    judgements: Judgements, scores: Scores, chosen: Rows, settings: JudgedEvaluation
) -> NDArray[np.float64]:
    """MAP, recall and NDCG ``[chosen, 3]`` of the chosen queries; a query is no answer to itself."""
    found = np.empty((len(chosen), 3))
    for row, query in enumerate(chosen):
        own = scores[query].astype(np.float64, copy=True)
        own[judgements.queries[query]] = -np.inf
        order = ranking(own)
        similar = judgements.similar[query]
        found[row] = (
            average_precision(order, similar),
            recall(order, similar, settings.recall_at),
            ndcg(order, similar, settings.ndcg_at),
        )
    return found


def evaluate_judged(
    settings: JudgedEvaluation,
    folder: Path,
    graph: Graph,
    vectors: NDArray[np.float32],
    *,
    resamplings: int,
    baselines: bool = True,
    tuning: bool = False,
) -> Protocol:
    """The judged protocol for vectors ``[nodes, dimension]`` of the judged type, beside the baselines.

    With ``tuning`` the queries for tuning are measured in place of the others.
    """
    judgements = load_judgements(settings, folder, graph.snapshot.ids(settings.node))
    chosen = np.flatnonzero(judgements.tuning == tuning)
    rows = judgements.candidates[judgements.queries]
    # Where the halves and the deciles lie does not depend on which of the queries are for tuning.
    popularity = entity_popularity(graph, settings.node)[rows]
    names = tuple(_metrics(settings))
    found = _measure(judgements, settings, graph, vectors, chosen, baselines=baselines)
    values = {name: each[:, -1] for name, each in found.items()}
    scores = _intervals(found, names, resamplings)
    unpopular = unpopular_half(popularity)[chosen]
    for label, half in (("unpopular half", unpopular), ("popular half", ~unpopular)):
        within = _intervals({name: each[half, None] for name, each in values.items()}, (label,), resamplings)
        scores = {name: {**scores[name], **within[name]} for name in scores}
    tenths = [(name, inside[chosen]) for name, inside in by_tenths(popularity)]
    relations = by_relation(graph, settings.node, rows[chosen])
    reported = "The queries for tuning." if tuning else ""
    if settings.tune_modulo is not None and not tuning:
        reported = f"Left out: the {int(judgements.tuning.sum()):,} queries for tuning."
    return _protocol(
        settings,
        "judged",
        scores,
        values,
        resamplings,
        note=f"{len(judgements.candidates):,} candidates. {reported}".strip(),
        groups=(
            *measured("popularity", tenths, values, resamplings),
            *measured("relation", relations, values, resamplings),
        ),
    )


def evaluate_cold(
    settings: JudgedEvaluation,
    folder: Path,
    graph: Graph,
    vectors: NDArray[np.float32],
    *,
    resamplings: int,
    tuning: bool = False,
) -> Protocol:
    """The cold entities as queries, all candidates ranked; ``graph`` and ``vectors`` are without their engagements.

    With ``tuning`` those of them that are for tuning are measured in place of the others.
    """
    judgements = load_judgements(settings, folder, graph.snapshot.ids(settings.node))
    chosen = np.flatnonzero(judgements.cold[judgements.queries] & (judgements.tuning == tuning))
    found = _measure(judgements, settings, graph, vectors, chosen, baselines=True)
    values = {name: each[:, -1] for name, each in found.items()}
    rows = judgements.candidates[judgements.queries[chosen]]
    return _protocol(
        settings,
        "cold",
        _intervals(found, tuple(_metrics(settings)), resamplings),
        values,
        resamplings,
        note=(
            f"{int(judgements.cold.sum()):,} of the {len(judgements.candidates):,} candidates lost all engagements "
            "before training; those that are judged are the queries."
        ),
        groups=tuple(measured("relation", by_relation(graph, settings.node, rows), values, resamplings)),
    )


def _metrics(settings: JudgedEvaluation) -> tuple[str, str, str]:
    return ("MAP", f"Recall@{settings.recall_at}", f"NDCG@{settings.ndcg_at}")


def _measure(
    judgements: Judgements,
    settings: JudgedEvaluation,
    graph: Graph,
    vectors: NDArray[np.float32],
    chosen: Rows,
    *,
    baselines: bool,
) -> dict[str, NDArray[np.float64]]:
    """Metrics ``[chosen, 3]`` of the baselines and of ours, by scorer."""
    rows = judgements.candidates[judgements.queries]

    def scored() -> Iterator[tuple[str, Scores]]:
        if baselines:
            yield from similarity_baselines(graph, settings.node, rows, judgements.candidates)
        yield OURS, cosine_scores(vectors, rows, judgements.candidates)

    return {name: query_metrics(judgements, each, chosen, settings) for name, each in scored()}


def _intervals(
    found: dict[str, NDArray[np.float64]], names: tuple[str, ...], resamplings: int
) -> dict[str, dict[str, Interval]]:
    intervals = iter(bootstrap_columns(np.concatenate(list(found.values()), axis=1), resamplings))
    return {scorer: {name: next(intervals) for name in names} for scorer in found}


def _protocol(
    settings: JudgedEvaluation,
    kind: str,
    scores: dict[str, dict[str, Interval]],
    values: dict[str, NDArray[np.float64]],
    resamplings: int,
    *,
    note: str,
    groups: tuple[Group, ...],
) -> Protocol:
    queries = len(values[OURS])
    others = [name for name in values if name != OURS] if queries else []
    best = max(others, key=lambda name: values[name].mean(), default="")
    return Protocol(
        name=settings.name + (", cold entities" if kind == "cold" else ""),
        kind=kind,
        queries=queries,
        note=note,
        headline=_metrics(settings)[-1],
        scores=scores,
        best_baseline=best,
        gain=paired_bootstrap(values[OURS], values[best], resamplings) if best else None,
        groups=groups,
    )
