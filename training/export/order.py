"""The one order of a relation's edges: by source, target, time, kind, weight, then the other properties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def counting_order(keys: NDArray[np.int32], size: int) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64]]:
    """Stable order of ``keys`` (each below ``size``) and the start of every key in it, in linear time.

    Returns the permutation ``[E]`` and ``indptr`` int64 ``[size + 1]``.
    """
    # Imported here: a command line that exports nothing should not pay for SciPy.
    from scipy.sparse import csr_array

    count = len(keys)
    index = np.int32 if max(count, size) < np.iinfo(np.int32).max else np.int64
    # One entry per edge and row; turning rows into columns is a stable counting sort, in C.
    entries = csr_array(
        (np.zeros(count, dtype=np.int8), keys.astype(index, copy=False), np.arange(count + 1, dtype=index)),
        shape=(count, size),
    )
    columns = entries.tocsc()
    return columns.indices, columns.indptr.astype(np.int64)


def edge_order(
    source: NDArray[np.int32], target: NDArray[np.int32], ties: Sequence[pa.Array | pa.ChunkedArray]
) -> NDArray[np.int64]:
    """Canonical order of the edges.

    ``ties`` are the columns that order edges of one pair: time, kind and weight where declared, then the rest. They are
    looked at only where a pair has several edges.
    """
    pairs = pair_keys(source, target)
    # Stable: merging runs that are sorted already is much quicker than sorting.
    order = np.argsort(pairs, kind="stable")
    if not len(order) or not ties:
        return order
    pairs = pairs[order]
    same = pairs[1:] == pairs[:-1]
    if same.any():
        tied = np.zeros(len(order), dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        positions = np.flatnonzero(tied)
        run = np.cumsum(~np.concatenate([[False], same]))[positions]
        rows = order[positions]
        keys = [_rank(column.take(pa.array(rows))) for column in ties]
        # lexsort's last key is the first that counts.
        order[positions] = rows[np.lexsort([*reversed(keys), run])]
    return order


def pair_keys(source: NDArray[np.int32], target: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Both rows in one number, ordered by source, then target; rows are below 2^31."""
    keys: NDArray[np.uint64] = (source.astype(np.uint64) << np.uint64(32)) | target.astype(np.uint64)
    return keys


def _rank(values: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Integers in the order of the values, missing first; equal values share one."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_large_list(values.type) or pa.types.is_list(values.type):
        # Arrow ranks no lists. Only edges of pairs that have several get here.
        texts = ["" if value is None else "\x01".join(map(repr, value)) + "\x02" for value in values.to_pylist()]
        return _rank(pa.array(texts, pa.large_string()))
    ranks = np.asarray(pc.rank(values, sort_keys="ascending", tiebreaker="dense")).astype(np.int64)
    ranks[np.asarray(values.is_null())] = 0
    return ranks
