"""Compaction: an index built anew over all vectors as they are, where too many lie beside the one that is searched.

ScaNN's index cannot be added to. What is fresh is searched exactly beside it and what went is left out afterwards,
which costs more with each: beyond a twentieth of the index or 10,000 vectors another index is built, in a process of
low priority (a thread of one would keep the interpreter's lock from those that answer calls), and the model made next
has it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from server.fresh.bundle import FreshBundle
from server.fresh.delta import Delta
from server.fresh.index import Compacted, FreshIndex
from server.fresh.model import Place
from server.index.exact_index import ExactIndex
from server.index.publish import FEW_VECTORS
from server.index.scann_index import ScannIndex, ScannParameters
from server.index.vector_index import VectorIndex, Vectors, unit_rows
from server.model.served_model import ServedModel

_MOST, _SHARE, _FEWEST = 10_000, 0.05, 500
_NICE = 19
_VECTORS = "vectors.npy"


def due(model: ServedModel) -> Place | None:
    """The index that is to be compacted first, if one is."""
    found: list[tuple[int, Place]] = []
    for place, index in model.indexes.items():
        # An index that is watched (``server.observe.audit``) is so below this one.
        if isinstance(index, FreshIndex) and index.apart > max(_FEWEST, min(_MOST, _SHARE * len(index.base))):
            found.append((index.apart, place))
    return max(found)[1] if found else None


class Compaction:
    """One index being built."""

    def __init__(self, base: ServedModel, model: ServedModel, delta: Delta, place: Place) -> None:
        """``base``: as published; ``model``: with the delta, whose vectors are taken."""
        self.base, self.place = base, place
        self.done: Compacted | None = None
        self.failure: Exception | None = None
        self._bundle = model.bundle
        self._number = int(delta.types[place[1]].numbers.max(initial=0))
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="kithkin-compaction", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        started = time.monotonic()
        try:
            self.done = self._built()
        except Exception as error:
            self.failure = error
        self.seconds = time.monotonic() - started
        # What it held is let go with the delta's next model.
        del self._bundle

    def _built(self) -> Compacted:
        space, node_type = self.place
        assert isinstance(self._bundle, FreshBundle)
        vectors: Vectors = np.asarray(self._bundle.vectors(space, node_type), np.float32)
        cosine = self.base.metric_is_cosine(space)
        if cosine:
            vectors = unit_rows(vectors)
        ids = self._bundle.rows[node_type].ids.combine_chunks().cast(pa.string())
        index = _index(vectors, self.base.indexes[self.place], cosine=cosine)
        return Compacted(index=index, vectors=vectors, ids=ids, number=self._number)


def _index(vectors: Vectors, published: VectorIndex, *, cosine: bool) -> VectorIndex:
    """As the published one is searched: the same share of the partitions, the same number of candidates."""
    count = int(np.count_nonzero(vectors.any(axis=1)))
    tuned: ScannParameters | None = getattr(published, "parameters", None)
    if tuned is None or count < FEW_VECTORS:
        return ExactIndex(vectors)
    leaves = max(10, round(count**0.5))
    parameters = ScannParameters(
        leaves=leaves,
        leaves_to_search=min(leaves, -(-tuned.leaves_to_search * leaves // tuned.leaves)),
        reorder=tuned.reorder,
    )
    with tempfile.TemporaryDirectory(prefix="kithkin-") as name:
        folder = Path(name)
        np.save(folder / _VECTORS, vectors)
        told = json.dumps({"parameters": asdict(parameters), "spherical": cosine})
        # -P: a folder of the user's called `server` is not ours.
        command = [sys.executable, "-P", "-m", "server.fresh.compaction", name, told]
        # Its standard input stays open as long as this process lives.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as building:
            assert building.stderr is not None
            errors = building.stderr.read()
        if building.returncode:
            raise RuntimeError(f"building it ended with {building.returncode}: {errors[-500:]}")
        return ScannIndex.load(folder, vectors, parameters)


def _end_with_worker(folder: Path) -> None:
    """Where the worker is gone nobody wants the index, and nobody else removes the folder."""
    # Not ``sys.stdin``, whose lock this thread would hold when the process ends as it should.
    os.read(0, 1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main() -> int:
    """Build one index of the vectors in a folder into it; returns the process's exit code."""
    folder, told = Path(sys.argv[1]), json.loads(sys.argv[2])
    threading.Thread(target=_end_with_worker, args=(folder,), daemon=True).start()
    os.nice(_NICE)
    vectors = np.load(folder / _VECTORS)
    parameters = ScannParameters(**told["parameters"])
    # One thread: the other processors are for those who answer calls.
    ScannIndex.build(vectors, parameters, spherical=told["spherical"], threads=1).save(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
