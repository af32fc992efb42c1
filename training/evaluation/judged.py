"""Similar entities against judgements that never entered the graph."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
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
from training.evaluation.metrics import Interval, average_precision, bootstrap, ndcg, paired_bootstrap, ranking, recall
from training.evaluation.report import OURS, Protocol
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
        tuning=np.array([_is_tuning(query, settings) for query in queries], dtype=bool),
    )


def _is_tuning(query: str, settings: JudgedEvaluation) -> bool:
    if settings.tune_modulo is None:
        return False
    return int(hashlib.sha256(query.encode()).hexdigest(), 16) % settings.tune_modulo == settings.tune_remainder


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
    popularity = entity_popularity(graph, settings.node)[rows[chosen]]
    unpopular = popularity < np.median(popularity) if len(chosen) else np.zeros(0, bool)
    headline = f"NDCG@{settings.ndcg_at}"
    names = ("MAP", f"Recall@{settings.recall_at}", headline)

    def scored() -> Iterator[tuple[str, Scores]]:
        if baselines:
            yield from similarity_baselines(graph, settings.node, rows, judgements.candidates)
        yield OURS, cosine_scores(vectors, rows, judgements.candidates)

    values: dict[str, NDArray[np.float64]] = {}
    scores: dict[str, dict[str, Interval]] = {}
    for name, each in scored():
        found = query_metrics(judgements, each, chosen, settings)
        values[name] = found[:, 2]
        scores[name] = {metric: bootstrap(found[:, place], resamplings) for place, metric in enumerate(names)}
        scores[name]["unpopular half"] = bootstrap(found[unpopular, 2], resamplings)
        scores[name]["popular half"] = bootstrap(found[~unpopular, 2], resamplings)
    best = max((name for name in values if name != OURS), key=lambda name: values[name].mean(), default="")
    reported = "The queries for tuning." if tuning else ""
    if settings.tune_modulo is not None and not tuning:
        reported = f"Left out: the {int(judgements.tuning.sum()):,} queries for tuning."
    return Protocol(
        name=settings.name,
        kind="judged",
        queries=len(chosen),
        note=f"{len(judgements.candidates):,} candidates. {reported}".strip(),
        headline=headline,
        scores=scores,
        best_baseline=best,
        gain=paired_bootstrap(values[OURS], values[best], resamplings) if best and len(chosen) else None,
    )
