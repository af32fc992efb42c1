"""Checks of a request's fields, each with the field's path in its error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graph_store.schema import NodeRole
from kithkin.v1 import types_pb2
from server.errors import InvalidField, OtherBundle, TopKOutOfRange, VectorNotFinite, WrongDimension
from server.index.vector_index import Rows, Vectors, unit_rows
from server.model.served_model import ServedModel

MOST_REASONS = 10
MOST_WITH_REASONS = 100
"""Results that come with reasons: finding evidence holds the event loop for a sixth of a millisecond each."""
MOST_EXCLUDED = 10_000
MOST_DIVERSE = 200
"""Results that are chosen by diversity: each is compared with all candidates, so the time grows with the square."""
_LARGEST = 1e30
"""Inner products with larger values overflow float32."""


def top_k(value: int, most: int) -> int:
    """``top_k`` within 1 and the server's limit."""
    if not 1 <= value <= most:
        raise TopKOutOfRange("top_k", f"{value} is not between 1 and {most}", hint="Ask for fewer, or page by exclude.")
    return value


def reasons(value: int, most: int = MOST_REASONS, field: str = "reasons", *, results: int = 1) -> int:
    """A number of reasons for each of so many results, within 0 and the limit."""
    if not 0 <= value <= most:
        raise InvalidField(field, f"{value} is not between 0 and {most}")
    if value and results > MOST_WITH_REASONS:
        raise InvalidField(
            field,
            f"are for at most {MOST_WITH_REASONS} results, top_k is {results}",
            hint="Ask for fewer, or explain those that are looked at (ExplainSimilarity).",
        )
    return value


def min_score(value: float) -> float:
    """The least score of a result."""
    if math.isnan(value):
        raise InvalidField("min_score", "is NaN")
    return value


def diversity(value: float, k: int) -> float:
    """How unlike each other k results are to be, within 0 and 1."""
    if not 0 <= value <= 1:
        raise InvalidField("diversity", f"{value} is not between 0 and 1")
    if value and k > MOST_DIVERSE:
        raise InvalidField("diversity", f"is for at most {MOST_DIVERSE} results, top_k is {k}", hint="Ask for fewer.")
    return value


def vector(model: ServedModel, given: types_pb2.Vector, space: str, field: str) -> Vectors:
    """A request's vector, checked against the space it is asked in; length 1 under cosine."""
    if given.space and model.space(given.space, f"{field}.space") != space:
        raise InvalidField(
            f"{field}.space",
            f"is {given.space!r}, this call searches {space!r}",
            hint="Vectors of spaces do not compare.",
        )
    if given.bundle_version and given.bundle_version != model.version:
        raise OtherBundle(
            f"{field}: the vector is of bundle {given.bundle_version}, {model.version} answers",
            hint="Fetch the vector again (EmbedEntities): vectors of different bundles do not compare.",
        )
    values = np.array(given.values, dtype=np.float32)
    dimension = model.bundle.spaces[model.space(space, field)].dimension
    if len(values) != dimension:
        raise WrongDimension(f"{field}.values", f"has {len(values)} values, the space {space!r} has {dimension}")
    if not np.isfinite(values).all():
        raise VectorNotFinite(f"{field}.values", f"value {int(np.argmin(np.isfinite(values)))} is NaN or infinite")
    if not model.metric_is_cosine(space):
        if np.abs(values).max(initial=0) > _LARGEST:
            raise InvalidField(f"{field}.values", f"a value is beyond {_LARGEST:g}, its inner products would overflow")
        return values
    if not values.any():
        raise VectorNotFinite(f"{field}.values", "all values are 0, which has no direction under cosine")
    # Scaled first: the squares of large float32 values overflow.
    scaled = np.asarray(values / np.abs(values).max(), dtype=np.float32)
    return np.asarray(unit_rows(scaled[None])[0])


def is_neural(score: int) -> bool:
    """Whether a request asks for the neural score. Raises InvalidField for a score that this server does not know."""
    if score not in types_pb2.Score.values():
        raise InvalidField("score", f"{score} is not a score this server knows")
    return score == types_pb2.NEURAL


def left_out(
    model: ServedModel, refs: Sequence[types_pb2.NodeRef], target_type: str, role: NodeRole = NodeRole.ENTITY
) -> set[int]:
    """Rows of the target type that ``exclude`` names, by default entities; other types and unknown ids are passed over.

    ``role`` is that of what may be named.
    """
    if len(refs) > MOST_EXCLUDED:
        what = "users" if role is NodeRole.USER else "entities"
        raise InvalidField("exclude", f"{len(refs)} {what}, send at most {MOST_EXCLUDED}")
    rows: set[int] = set()
    for number, ref in enumerate(refs):
        field = f"exclude[{number}]"
        if not ref.id:
            raise InvalidField(f"{field}.id", "is empty")
        if model.catalogue.type_named(ref.type, f"{field}.type", role) == target_type:
            row = model.bundle.row(target_type, ref.id)
            if row is not None:
                rows.add(row)
    return rows


def as_rows(rows: set[int]) -> Rows:
    return np.fromiter(rows, np.int64, len(rows))
