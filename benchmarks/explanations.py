"""Does a pair's score hang on what an explanation names first, and what does explaining cost?

    python -m benchmarks.explanations --bundles .kithkin/bundles --pairs 1000

Pairs are random entities with one of their ten most similar (``similar``), and random users with one of the ten
entities retrieved for them (``user``). For each, the evidence that contributes most is taken away from the first node,
and for comparison as many links of the same kind drawn at random from that node's own (the same relation, also where
the two do not share them); both are encoded anew and scored. A pair counts as right where the named evidence lowers the
score more, and is passed over where its node has too few other links of that kind. Times are of ExplainSimilarity,
request to response, without gRPC.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import Results
from graph_store.schema import NodeRole
from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.index.rescoring import scores_of
from server.index.vector_index import Vectors, unit_rows
from server.model.catalogue import NodeKey
from server.model.served_model import SIMILAR, USER, ServedModel
from server.reasons.attribution import links_of, properties_of, without


def measure(bundles: Path, space: str, pairs: int, seed: int) -> dict[str, Any]:
    """Figures of so many pairs of one space."""
    model = ServedModel.load(BundleStore(bundles).open())
    retrieval = Retrieval(model, ServingSettings())
    rng = np.random.default_rng(seed)
    node_type = model.catalogue.types_of(NodeRole.USER if space == USER else NodeRole.ENTITY)[0]
    named, drawn, taken, gaps = [], [], [], []
    explained = told = looked_at = 0
    for row in rng.permutation(model.bundle.node_types[node_type].count).tolist():
        if len(taken) == pairs:
            break
        source = NodeKey(node_type, row)
        target = one_result(model, retrieval, space, source, rng)
        if target is None:
            continue
        request = pb.ExplainSimilarityRequest(source=ref(model, source), target=ref(model, target), max_reasons=50)
        begun = time.perf_counter()
        answer = retrieval.explain_similarity(request, Deadline(None))
        taken.append(time.perf_counter() - begun)
        looked_at += 1
        told += bool(answer.reasons)
        if not answer.HasField("explained_score"):
            continue
        explained += 1
        gaps.append(abs(sum(each.score_part for each in answer.reasons) - answer.explained_score))
        compared = losses(model, space, source, target, answer.reasons[0], rng)
        if compared is not None:
            named.append(compared[0])
            drawn.append(compared[1])
    right = np.array(named) > np.array(drawn)
    milliseconds = np.array(taken) * 1000
    return {
        "pairs": looked_at,
        "with_reasons": told,
        "with_parts": explained,
        "compared": len(right),
        "named_lowers_more": round(float(right.mean()), 4),
        "mean_loss_named": round(float(np.mean(named)), 4),
        "mean_loss_random": round(float(np.mean(drawn)), 4),
        "largest_gap_to_explained": round(float(max(gaps)), 4),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
    }


def ref(model: ServedModel, key: NodeKey) -> types_pb2.NodeRef:
    """A node as requests name it."""
    return types_pb2.NodeRef(type=key.type, id=model.catalogue.id(key))


def one_result(
    model: ServedModel, retrieval: Retrieval, space: str, source: NodeKey, rng: np.random.Generator
) -> NodeKey | None:
    """One of the ten results of a node at random; None where it has no vector or no results."""
    if model.vector(space, source.type, source.row, "") is None:
        return None
    if space == USER:
        asked = pb.RetrieveEntitiesForUserRequest(user=ref(model, source), top_k=10)
        found: Any = retrieval.retrieve_entities_for_user(asked, Deadline(None))
    else:
        found = retrieval.search_similar_entities(
            pb.SearchSimilarEntitiesRequest(entity=ref(model, source), top_k=10), Deadline(None)
        )
    if not found.results:
        return None
    chosen = found.results[int(rng.integers(len(found.results)))].node.ref
    return model.catalogue.resolve(chosen, "")


def losses(
    model: ServedModel, space: str, source: NodeKey, target: NodeKey, reason: types_pb2.Reason, rng: np.random.Generator
) -> tuple[float, float] | None:
    """What the score loses without the reason's links, and without as many random ones; None: there are none."""
    links = links_of(model.bundle, source)
    if space == USER or len(reason.path) == 3:
        end = model.catalogue.resolve(reason.path[0 if space == USER else 1].ref, "")
        named = [(kind, end.row) for kind in links if kind.neighbour_type == end.type]
        if space != USER:
            named = [each for each in named if each[0].triple.name == reason.relations[0]]
    else:
        # Two nodes alone: an edge between them, and for co-engagement the users they share.
        named = list(model.explainer.neighbourhoods.together_ends(source, target))
        named += [(kind, target.row) for kind in links if kind.triple.name == reason.relations[0]]
    held = {(kind, link.row) for kind, each in links.items() for link in each}
    named = [each for each in named if each in held]
    if not named:
        return None
    drawn = []
    for kind in {kind for kind, _ in named}:
        taken = {row for other, row in named if other == kind}
        others = [link.row for link in links[kind] if link.row not in taken]
        drawn += [(kind, others[place]) for place in rng.permutation(len(others))[: len(taken)].tolist()]
    if len(drawn) < len(named):
        return None
    encoder = model.encoder(space, source.type, "")
    variants = [links, without(links, named), without(links, drawn)]
    vectors: Vectors = encoder.encode_variants(properties_of(model.bundle, source), variants)
    if model.metric_is_cosine(space):
        vectors = unit_rows(vectors)
    vector = model.vector(space, target.type, target.row, "")
    assert vector is not None
    scores = scores_of(vectors, vector)
    return float(scores[0] - scores[1]), float(scores[0] - scores[2])


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=Path(".kithkin/bundles"), help="folder of the bundles")
    parser.add_argument("--name", default="", help="what the rows are called; the project's name by default")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("explanations", again=chosen.again)
    bundle = BundleStore(chosen.bundles).open()
    name = chosen.name or bundle.manifest.project
    for space in (SIMILAR, USER):
        settings = {"bundle": name, "space": space, "pairs": chosen.pairs, "seed": chosen.seed}
        figures = results.row(settings, lambda space=space: measure(chosen.bundles, space, chosen.pairs, chosen.seed))
        print(f"{name} {space}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
