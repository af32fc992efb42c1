"""The edges seen from the target: the forward arrays turned round on disk, in two passes over them.

The places of a target's edges are known once they are counted. The first pass sends every edge to the part of the new
arrays that its range of targets will fill, in the old order; the second sorts each part where it lies, in memory. A
target with more edges than a part holds has a part of its own, which needs no sorting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_store.progress import Progress
from graph_store.schema import Relation
from training.export.array_file import ArrayFile
from training.export.node_rows import Scratch
from training.export.order import counting_order

_BYTES_AN_EDGE = 48
"""That sorting a part takes at its peak."""
_FEWEST_EDGES = 1 << 12
"""That the first pass reads at once, however little memory there is."""


def write_backward(
    relation: Relation,
    targets: int,
    csr: Path,
    work: Path,
    scratch: Scratch,
    *,
    limit: int,
    progress: Progress,
) -> None:
    """Write the reversed arrays of a relation into ``csr``, where the forward ones are.

    ``limit`` is how many bytes a part may take, ``work`` a folder for a file that is not kept.
    """
    key = relation.triple.key
    indptr = np.load(csr / f"{key}.indptr.npy", mmap_mode="r")
    edges = int(indptr[-1])
    names = ["indices", *(["weight"] if relation.weight else []), *(["time"] if relation.time else [])]
    forward = {name: ArrayFile.open(csr / f"{key}.{name}.npy") for name in names}
    starts = scratch.array("indptr_rev", np.int64, targets + 1)
    block = max(_FEWEST_EDGES, limit >> 8)
    for low in range(0, edges, block):
        np.add.at(starts, forward["indices"].read(low, min(low + block, edges)) + 1, 1)
    np.cumsum(starts, out=starts)
    with ArrayFile.make(csr / f"{key}__rev.indptr.npy", np.int64, len(starts)) as file:
        file.write(0, starts)
    cuts = _cuts(starts, max(1, limit // _BYTES_AN_EDGE))
    work.mkdir(parents=True, exist_ok=True)
    # As SciPy chooses the index type of a matrix of so many entries and columns.
    index = np.int32 if max(edges, targets) < np.iinfo(np.int32).max else np.int64
    with ExitStack() as files, progress.task(f"turn {relation.triple}", 2 * edges, "edges") as task:
        types = {name: file.dtype for name, file in forward.items()} | {"position": np.dtype(index)}
        new = {
            name: files.enter_context(ArrayFile.make(csr / f"{key}__rev.{name}.npy", dtype, edges))
            for name, dtype in types.items()
        }
        ends = files.enter_context(ArrayFile.make(work / "targets.npy", np.int32, edges))
        heads = np.asarray(starts[cuts[:-1]])
        for low in range(0, edges, block):
            high = min(low + block, edges)
            columns = {name: file.read(low, high) for name, file in forward.items()}
            target = columns["indices"]
            columns |= {"indices": _sources(indptr, low, high), "position": np.arange(low, high, dtype=index)}
            for part, rows in _parted(target, cuts):
                place = int(heads[part])
                ends.write(place, target[rows])
                for name, values in columns.items():
                    new[name].write(place, values[rows])
                heads[part] += len(rows)
            task.advance(high - low)
        for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            low, high = int(starts[first]), int(starts[last])
            if last - first > 1 and high > low:
                order, _ = counting_order(ends.read(low, high) - np.int32(first), last - first)
                for file in new.values():
                    file.write(low, file.read(low, high)[order])
            task.advance(high - low)


def _cuts(starts: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The first target of every part, and the number of targets: at most so many edges a part, or one target."""
    cuts, targets = [0], len(starts) - 1
    while cuts[-1] < targets:
        end = int(np.searchsorted(starts, starts[cuts[-1]] + most, side="right")) - 1
        cuts.append(min(max(end, cuts[-1] + 1), targets))
    return np.array(cuts, dtype=np.int64)


def _parted(target: NDArray[np.int32], cuts: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The parts that have some of these edges, and which, in their order."""
    part = np.searchsorted(cuts, target, side="right") - 1
    # NumPy sorts numbers of 16 bits by counting.
    order = np.argsort(part.astype(np.uint16) if len(cuts) <= 1 << 16 else part, kind="stable")
    first = np.flatnonzero(np.diff(part[order], prepend=-1))
    yield from zip(part[order[first]].tolist(), np.split(order, first[1:]), strict=True)


def _sources(indptr: NDArray[np.int64], low: int, high: int) -> NDArray[np.int32]:
    """The source of each of the edges ``low`` to ``high``."""
    first, last = (int(np.searchsorted(indptr, edge, side="right")) - 1 for edge in (low, high - 1))
    ends = np.clip(indptr[first : last + 2], low, high)
    return np.repeat(np.arange(first, last + 1, dtype=np.int32), ends[1:] - ends[:-1])
