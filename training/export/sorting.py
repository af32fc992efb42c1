"""Rows in the order of a key, however many: sorted runs in files, merged window by window.

Rows are gathered up to a limit, sorted and written as a run; the runs are then read side by side. A window is what all
runs hold between two keys. The keys that cut are chosen from the first key of every batch of every run, so that windows
are of about one size, whatever the keys are (external merge sort with splitters; Knuth, volume 3, section 5.4).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store.durable import replace_text, sync_file
from training.export.order import pair_keys

_BATCH_BYTES = 1 << 20
"""Of a run in files; one such batch of each run is in memory while they are merged."""
_FEWEST_ROWS = 64
_SEALED = "runs.json"


class SortKey(Protocol):
    """What rows are sorted by."""

    def of(self, table: pa.Table) -> Any:
        """The key of every row."""
        ...

    def order(self, keys: Any) -> NDArray[np.int64]:
        """Positions of the keys, ascending."""
        ...

    def below(self, keys: Any, bound: Any) -> int:
        """How many of ascending keys are below the bound."""
        ...


class PairKey:
    """Edges by the rows of source and target."""

    def of(self, table: pa.Table) -> NDArray[np.uint64]:
        return pair_keys(*(np.asarray(table.column(name)) for name in ("source", "target")))

    def order(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return np.argsort(keys)

    def below(self, keys: NDArray[np.uint64], bound: int) -> int:
        return int(np.searchsorted(keys, np.uint64(bound)))


class IdKey:
    """Nodes by the bytes of their ids."""

    def of(self, table: pa.Table) -> pa.Array:
        ids = table.column("id")
        return ids.chunk(0) if ids.num_chunks == 1 else ids.combine_chunks()

    def order(self, keys: pa.Array) -> NDArray[np.int64]:
        # Arrow orders text by its bytes.
        return np.asarray(pc.sort_indices(keys)).astype(np.int64)

    def below(self, keys: pa.Array, bound: str) -> int:
        # Python orders text by code point, which is the order of UTF-8 bytes.
        return bisect_left(cast(Sequence[int], range(len(keys))), bound, key=lambda row: keys[row].as_py())


class Sorter:
    """Takes rows in any order and gives them back in windows whose keys go up.

    ``limit`` is how many bytes of rows are gathered before they are sorted and written; at the peak about three times
    as much is in memory. Where all rows fit, nothing is written.
    """

    def __init__(self, folder: Path, key: SortKey, schema: pa.Schema, *, limit: int) -> None:
        self.rows = 0
        """Rows taken so far."""
        self._folder, self._key, self._schema, self._limit = folder, key, schema, limit
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._bytes = 0
        self._runs: list[dict[str, Any]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the rows of a batch."""
        if not batch.num_rows:
            return
        self._held.append(batch)
        self.rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_bytes >= self._limit:
            self._spill()

    def windows(self) -> Iterator[pa.Table]:
        """All rows, in no order within a window; equal keys are in one window."""
        if not self._runs:
            yield self._gathered()
            return
        if self._held:
            self._spill()
        readers = [_Run(self._folder / run["file"], self._key) for run in self._runs]
        for bound in self._bounds():
            yield pa.concat_tables([reader.until(bound) for reader in readers])

    def seal(self) -> None:
        """All rows are taken: leave a note, by which ``sealed`` finds them again in another process."""
        if not self._runs:
            return  # nothing is in files: reading again is quick
        if self._held:
            self._spill()
        for run in self._runs:
            sync_file(self._folder / run["file"])
        replace_text(self._folder / _SEALED, json.dumps({"rows": self.rows, "bytes": self._bytes, "runs": self._runs}))

    def sealed(self) -> bool:
        """Take up what another process sealed in the same folder, where all of it is there."""
        try:
            document = json.loads((self._folder / _SEALED).read_text(encoding="utf-8"))
            if any((self._folder / run["file"]).stat().st_size != run["size"] for run in document["runs"]):
                return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        self.rows, self._bytes, self._runs = document["rows"], document["bytes"], document["runs"]
        return True

    def _gathered(self) -> pa.Table:
        table = pa.Table.from_batches(self._held, schema=self._schema)
        self._held, self._held_bytes = [], 0
        return table.combine_chunks()

    def _spill(self) -> None:
        """Sort what is gathered and write it as a run."""
        self._bytes += self._held_bytes
        batch_rows = max(_FEWEST_ROWS, min(_BATCH_BYTES, self._limit // 64) * self.rows // self._bytes)
        table = self._gathered()
        keys = self._key.of(table)
        order = self._key.order(keys)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._runs)}.arrow"
        firsts = []
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self._schema) as writer:
            for start in range(0, table.num_rows, batch_rows):
                rows = order[start : start + batch_rows]
                first = keys[int(rows[0])]
                firsts.append(first.as_py() if isinstance(first, pa.Scalar) else int(first))
                writer.write_table(table.take(pa.array(rows)))
        self._runs.append({"file": path.name, "size": path.stat().st_size, "rows": batch_rows, "firsts": firsts})

    def _bounds(self) -> Iterator[Any]:
        """Keys that cut the windows, each of about half a ``limit``; None, the end of all, is the last."""
        wanted = self._limit // 2 * self.rows // max(self._bytes, 1)
        firsts = sorted((first, run["rows"]) for run in self._runs for first in run["firsts"])
        held, last = 0, firsts[0][0]
        for first, rows in firsts:
            if held >= wanted and first > last:
                yield first
                held, last = 0, first
            held += rows
        yield None


class _Run:
    """One run, read once from its start to its end."""

    def __init__(self, path: Path, key: SortKey) -> None:
        # Not mapped: the pages of a mapped file would count as this process's memory.
        self._reader = pa.ipc.open_file(pa.OSFile(str(path), "rb"))
        self._key = key
        self._next = 0
        self._batch: pa.Table = self._reader.schema.empty_table()

    def until(self, bound: Any) -> pa.Table:
        """The rows that were not read yet, up to the bound; None: all."""
        parts = []
        while True:
            if bound is not None and self._batch.num_rows:
                end = self._key.below(self._key.of(self._batch), bound)
                if end < self._batch.num_rows:
                    parts.append(self._batch.slice(0, end))
                    self._batch = self._batch.slice(end)
                    return pa.concat_tables(parts)
            parts.append(self._batch)
            if self._next == self._reader.num_record_batches:
                self._batch = self._reader.schema.empty_table()
                return pa.concat_tables(parts)
            self._batch = pa.Table.from_batches([self._reader.get_batch(self._next)])
            self._next += 1
