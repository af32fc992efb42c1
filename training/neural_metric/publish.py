"""The neural scorer in a bundle: its files, and the beam that finds what brute force finds, audited."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import Triple
from model_store.beam_search import BeamFound, SearchSettings, beam_search
from model_store.csr import EdgeType
from model_store.durable import save_array
from model_store.neighbour_graph import NeighbourGraph
from model_store.neural_files import ENTITIES, GRAPH, SCORER, describe_inputs
from model_store.onnx_scorer import OnnxScorer
from model_store.writer import BundleWriter
from training.errors import CheckpointError
from training.neural_metric.histories import batches, histories
from training.neural_metric.train import REPORT, Engagements, scorer_file

BEAMS = (100, 150, 200, 300, 400, 600, 800)
_AT = 100
_FEW = 4
"""Times ``at``: with fewer entities than this the best ``at`` say nothing of a search."""
_PAIRS = 8_000_000
"""Pairs of user and entity that brute force scores for the audit, about."""
_LEAST_USERS = 20
_TOGETHER = 16_384


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a search found beside brute force under the same score; means over users."""

    beam: int
    overlap: float
    share: float
    """Of all entities, evaluated."""
    calls: float
    at: int
    users: int


def write_neural(
    writer: BundleWriter, project: Project, snapshot: Engagements, folder: Path, *, progress: Progress | None = None
) -> None:
    """Put the scorer that training left in ``folder`` into a bundle, or the one that the settings name.

    Call it after the nodes are written. Raises ScorerMismatch where the file does not compute scores of these entities,
    CheckpointError where the folder cannot be read.
    """
    settings = project.settings.training.neural
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        relation = Triple(*report["relation"])
        entities: NDArray[np.float32] = np.load(folder / ENTITIES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: no neural scorer can be read there: {error}", hint="Train again: `kithkin train`."
        ) from None
    own = scorer_file(project)
    scorer = OnnxScorer(own or folder / SCORER, entities.shape[1])
    target = writer.neural_folder
    shutil.copyfile(own or folder / SCORER, target / SCORER)
    save_array(target / ENTITIES, entities)
    graph = NeighbourGraph.load(folder / GRAPH)
    graph.save(target / GRAPH)
    limit = int(report["settings"]["events"])
    users = min(settings.audit_users, max(_LEAST_USERS, _PAIRS // max(len(entities), 1)))
    events = recent_events(snapshot, relation, limit, users, seed=project.settings.training.seed)
    search = SearchSettings(beam=settings.beam or BEAMS[-1], width=settings.width)
    beams = BEAMS if settings.beam is None else (settings.beam,)
    audit = choose_beam(
        graph, scorer, entities, events, search, beams=beams, target=settings.overlap_target, progress=progress
    )

    lowest = graph.layers[0]
    neural = writer.manifest.neural
    neural.scorer = (target / SCORER).relative_to(writer.folder).as_posix()
    describe_inputs(neural, entities.shape[1])
    neural.events.source, neural.events.name, neural.events.target = relation
    neural.max_events, neural.dimension = limit, entities.shape[1]
    neural.mean_degree = len(lowest.indices) / len(lowest.nodes)
    neural.max_degree, neural.layers = lowest.degree, len(graph.layers)
    neural.beam, neural.width = audit.beam, settings.width
    if own is None:
        neural.max_difference = float(report["metrics"]["onnx_difference"])
    else:
        neural.source = own.name
    neural.overlap, neural.overlap_target = audit.overlap, settings.overlap_target
    neural.share_evaluated, neural.network_calls = audit.share, audit.calls
    neural.audited_at, neural.audited_users = audit.at, audit.users


def recent_events(
    snapshot: Engagements, relation: Triple, limit: int, users: int, *, seed: int
) -> list[NDArray[np.int64]]:
    """The last ``limit`` events, oldest first, of ``users`` drawn at random among those that have any."""
    known = histories(snapshot.csr(EdgeType(relation)), seed=seed)
    able = np.flatnonzero(np.diff(known.indptr))
    drawn = np.random.default_rng([seed, 31]).permutation(able)[:users]
    return [known.of(int(user))[-limit:].astype(np.int64) for user in drawn]


def choose_beam(
    graph: NeighbourGraph,
    scorer: OnnxScorer,
    entities: NDArray[np.float32],
    events: Sequence[NDArray[np.int64]],
    search: SearchSettings,
    *,
    beams: Sequence[int] = BEAMS,
    target: float = 0.95,
    progress: Progress | None = None,
) -> Audit:
    """The narrowest beam that finds ``target`` of brute force's best 100, by one standard error more; else the widest.

    It is chosen by every other user, and what is told of it is of the rest. ``events`` are one array of entity rows a
    user. Every score is computed once, by brute force; the searches look it up.
    """
    at = max(1, min(_AT, len(entities) // _FEW))
    found: list[list[BeamFound]] = []
    overlap = np.zeros((len(beams), len(events)))
    with (progress or NoProgress()).task("audit neural search", len(events), "users") as task:
        for number, rows in enumerate(events):
            scores = all_scores(scorer, entities, rows)
            best = np.lexsort((np.arange(len(scores)), -scores))[:at]
            found.append(
                [beam_search(graph, scores.__getitem__, k=at, settings=replace(search, beam=beam)) for beam in beams]
            )
            overlap[:, number] = [np.isin(best, each.entities).mean() for each in found[-1]]
            task.advance()
    chosen = next((place for place, each in enumerate(overlap[:, ::2]) if _reaches(each, target)), len(beams) - 1)
    # With one user there is no other half.
    told = slice(1, None, 2) if len(events) > 1 and len(beams) > 1 else slice(None)
    kept = [each[chosen] for each in found[told]]
    return Audit(
        beam=beams[chosen],
        overlap=float(overlap[chosen, told].mean()),
        share=float(np.mean([each.evaluations for each in kept])) / len(entities),
        calls=float(np.mean([each.rounds for each in kept])),
        at=at,
        users=len(kept),
    )


def _reaches(overlap: NDArray[np.float64], target: float) -> bool:
    """Whether the mean reaches the target by one standard error more."""
    error = overlap.std(ddof=1) / np.sqrt(len(overlap)) if len(overlap) > 1 else 0.0
    return bool(overlap.mean() - error >= target)


def all_scores(scorer: OnnxScorer, entities: NDArray[np.float32], events: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores ``[entities]`` of everything for one user's events (entity rows, oldest first)."""
    vectors, mask = np.asarray(entities[events]), np.ones(len(events), bool)
    parts = [scorer(vectors, mask, np.asarray(entities[part])) for part in batches(len(entities), _TOGETHER)]
    return np.concatenate(parts)
