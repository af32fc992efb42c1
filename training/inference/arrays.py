"""Where the results of a pass are kept: in memory, or in files that a pass which was killed goes on with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.durable import naming, replace_text, reserve

Floats = NDArray[np.float32]

RECORD_EVERY_S = 1.0
"""Seconds between two records of how far a stage has come: what a kill loses at most. A record waits for the disk."""


class Arrays:
    """Fills arrays chunk by chunk.

    With a folder each stage has its ``.npy`` files, read and written through memory maps, and ``<stage>.json``, which
    says how many chunks are on the disk. A stage whose record has the same ``fingerprint`` goes on after the last one.
    """

    def __init__(self, folder: Path | None, *, fingerprint: str, nodes_at_once: int) -> None:
        self.folder, self.fingerprint, self.nodes_at_once = folder, fingerprint, nodes_at_once

    def fill(
        self,
        stage: str,
        nodes: int,
        widths: Mapping[str, int],
        make: Callable[[int, int], Sequence[Floats]],
        told: Callable[[int], None],
    ) -> dict[str, Floats]:
        """Arrays ``[nodes, width]`` by name; ``make(first, last)`` gives the rows of each, in the order of ``widths``.

        ``told`` hears of the nodes of every chunk, those found on the disk included.
        """
        if self.folder is None:
            made = {name: np.empty((nodes, width), np.float32) for name, width in widths.items()}
            for first in range(0, nodes, self.nodes_at_once):
                self._chunk(made, first, nodes, make, told)
            return made
        return self._in_files(self.folder, stage, nodes, widths, make, told)

    def _in_files(
        self,
        folder: Path,
        stage: str,
        nodes: int,
        widths: Mapping[str, int],
        make: Callable[[int, int], Sequence[Floats]],
        told: Callable[[int], None],
    ) -> dict[str, Floats]:
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / f"{stage}.json"
        start = {
            "fingerprint": self.fingerprint,
            "nodes": nodes,
            "widths": dict(widths),
            "nodes_at_once": self.nodes_at_once,
        }
        paths = {name: folder / f"{stage}.{name}.npy" for name in widths}
        done = _done(record, start) if all(path.exists() for path in paths.values()) else 0
        chunks = -(-nodes // self.nodes_at_once)
        if done < chunks:
            made = {name: _opened(path, (nodes, widths[name]), anew=not done) for name, path in paths.items()}
            told(min(done * self.nodes_at_once, nodes))
            last = time.monotonic()
            for number in range(done, chunks):
                self._chunk(made, number * self.nodes_at_once, nodes, make, told)
                if number + 1 == chunks or time.monotonic() - last >= RECORD_EVERY_S:
                    for array in made.values():
                        array.flush()
                    replace_text(record, json.dumps({**start, "chunks_done": number + 1}))
                    last = time.monotonic()
        else:
            told(nodes)
        if not nodes:
            return {name: np.empty((0, width), np.float32) for name, width in widths.items()}
        return {name: np.load(path, mmap_mode="r") for name, path in paths.items()}

    def _chunk(
        self,
        arrays: Mapping[str, Floats],
        first: int,
        nodes: int,
        make: Callable[[int, int], Sequence[Floats]],
        told: Callable[[int], None],
    ) -> None:
        last = min(first + self.nodes_at_once, nodes)
        for array, rows in zip(arrays.values(), make(first, last), strict=True):
            array[first:last] = rows
        told(last - first)


def _done(record: Path, start: Mapping[str, object]) -> int:
    """Chunks of a stage that are on the disk; 0 where there is no record, or one of another start."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        chunks = int(found.pop("chunks_done"))
    except (OSError, ValueError, KeyError, AttributeError):
        return 0
    return chunks if found == start else 0


def _opened(path: Path, shape: tuple[int, int], *, anew: bool) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
    if anew:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        with naming(path), path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
            reserve(file.fileno(), file.tell() + 4 * shape[0] * shape[1])
    return np.lib.format.open_memmap(path, mode="r+")
