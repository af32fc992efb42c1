"""Fitted feature transforms: what an encoder reads of a node, the same function in training and in serving.

A node's features are blocks side by side. A block is a *direction* (a unit vector, or zeros where the node has no
value) followed by a few *extras* (presence flags, log counts). Blocks come from declared properties and from the
node's links: a link block adds up one factor per neighbour, so a node that nobody has seen gets its block from its
links alone. NumPy and Arrow only; no pickle: ``features.json`` and one ``.npy`` per array.
"""

from __future__ import annotations

import json
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from model_store.durable import naming, save_array
from model_store.errors import BundleCorrupt

FORMAT_VERSION = 1
Floats = NDArray[np.float32]
Links = Mapping[EdgeType, Csr]

_MICROSECONDS_PER_DAY = 86_400_000_000.0
_ROWS_AT_ONCE = 65_536


class Block(Protocol):
    """One block of a node type's features."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """What it is made of: a property, or ``links:`` and the neighbours' type."""
        ...

    @property
    def direction(self) -> int:
        """Columns of the direction, the first of the block."""
        ...

    @property
    def width(self) -> int:
        """All columns: the direction and the extras."""
        ...

    def apply(self, rows: int, properties: pa.Table, links: Links) -> Floats:
        """The block of every node, ``[rows, width]``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberBlock:
    """A number or a time: near values get near directions, through hat functions over the fitted quantiles.

    Extras: the standardised value (clipped to +-4, divided by 4) and a flag that is 1 where the value is missing.
    """

    kind: ClassVar[str] = "number"
    column: str
    knots: tuple[float, ...]
    """Ascending quantiles of the fitted values; at least one."""
    mean: float
    deviation: float

    @property
    def name(self) -> str:
        return self.column

    @property
    def direction(self) -> int:
        return len(self.knots)

    @property
    def width(self) -> int:
        return len(self.knots) + 2

    def apply(self, rows: int, properties: pa.Table, links: Links) -> Floats:
        values = numbers(_column(properties, self.column, rows))
        known = np.isfinite(values)
        filled = np.where(known, values, self.mean)
        knots = np.asarray(self.knots)
        out = np.zeros((rows, self.width), np.float32)
        if len(knots) == 1:
            out[:, 0] = 1.0
        else:
            clipped = np.clip(filled, knots[0], knots[-1])
            left = np.clip(np.searchsorted(knots, clipped, side="right") - 1, 0, len(knots) - 2)
            share = (clipped - knots[left]) / (knots[left + 1] - knots[left])
            every = np.arange(rows)
            out[every, left] = 1.0 - share
            out[every, left + 1] = share
        unit = _unit(out[:, : len(knots)])
        out[:, : len(knots)] = np.where(known[:, None], unit, 0.0)
        out[:, -2] = np.where(known, np.clip((filled - self.mean) / self.deviation, -4.0, 4.0) / 4.0, 0.0)
        out[:, -1] = ~known
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBlock:
    """Values or words hashed to columns, weighted by log count times the root of idf, then projected.

    Extra: a flag that is 1 where no known token occurs.
    """

    kind: ClassVar[str] = "tokens"
    column: str
    text: bool
    """True: words and their character trigrams; false: each value is one token."""
    buckets: int
    """Columns tokens are hashed to (CRC-32 of the UTF-8 bytes, modulo this)."""
    columns: NDArray[np.int64]
    """Buckets that carry something, ascending; a token in another bucket is passed over."""
    factors: Floats
    """``[columns, direction]``, idf included."""

    @property
    def name(self) -> str:
        return self.column

    @property
    def direction(self) -> int:
        return int(self.factors.shape[1])

    @property
    def width(self) -> int:
        return self.direction + 1

    def apply(self, rows: int, properties: pa.Table, links: Links) -> Floats:
        row, bucket, count = token_counts(_column(properties, self.column, rows), self.text, self.buckets)
        place = np.searchsorted(self.columns, bucket)
        place = np.minimum(place, max(len(self.columns) - 1, 0))
        known = self.columns[place] == bucket if len(self.columns) else np.zeros(len(bucket), bool)
        row, place, count = row[known], place[known], count[known]
        indptr = np.searchsorted(row, np.arange(rows + 1))
        total = _sum_factors(indptr, place, (1.0 + np.log(count)).astype(np.float32), self.factors)
        out = np.empty((rows, self.width), np.float32)
        out[:, :-1] = _unit(total)
        out[:, -1] = np.diff(indptr) == 0
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorBlock:
    """A vector property less its mean, to unit length. Extra: a flag that is 1 where it is missing."""

    kind: ClassVar[str] = "vector"
    column: str
    mean: Floats

    @property
    def name(self) -> str:
        return self.column

    @property
    def direction(self) -> int:
        return len(self.mean)

    @property
    def width(self) -> int:
        return len(self.mean) + 1

    def apply(self, rows: int, properties: pa.Table, links: Links) -> Floats:
        values, known = vectors(_column(properties, self.column, rows), len(self.mean))
        out = np.empty((rows, self.width), np.float32)
        out[:, :-1] = np.where(known[:, None], _unit(values - self.mean), 0.0)
        out[:, -1] = ~known
        return out


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkBlock:
    """Neighbours of one type added up: ``unit(sum_j f(w_j) V[j])``; see ``link_weight`` for ``f``.

    Extras: a flag that is 1 where there is no link, and ``ln(1 + links) / 10``.
    """

    kind: ClassVar[str] = "links"
    neighbour_type: str
    role: str
    edge_types: tuple[EdgeType, ...]
    medians: tuple[float, ...]
    """Median weight per edge type; 0: the relation has no weight."""
    bounds: tuple[float, float]
    """Least and most that ``f`` of a link counts; the most 0: no bound."""
    factors: Floats
    """``[nodes of the neighbour type when fitted, direction]``; neighbours beyond it count as links only."""

    @property
    def name(self) -> str:
        return f"links:{self.role}:{self.neighbour_type}"

    @property
    def direction(self) -> int:
        return int(self.factors.shape[1])

    @property
    def width(self) -> int:
        return self.direction + 2

    def apply(self, rows: int, properties: pa.Table, links: Links) -> Floats:
        total = np.zeros((rows, self.direction), np.float32)
        count = np.zeros(rows, np.int64)
        for edge_type, median in zip(self.edge_types, self.medians, strict=True):
            csr = links.get(edge_type)
            if csr is None:
                continue
            if csr.num_rows != rows:
                raise ValueError(f"{edge_type.key}: {csr.num_rows} rows of links for {rows} nodes")
            count += np.diff(csr.indptr)
            total += _sum_factors(csr.indptr, csr.indices, link_weight(csr, median, self.bounds), self.factors)
        return self.of_sums(total, count)

    def of_sums(self, total: Floats, count: NDArray[np.int64]) -> Floats:
        """The block ``[rows, width]`` from each node's sum of factors and its number of links."""
        out = np.empty((len(total), self.width), np.float32)
        out[:, :-2] = _unit(total)
        out[:, -2] = count == 0
        out[:, -1] = np.log1p(count) / 10.0
        return out


_KINDS: dict[str, type[Any]] = {block.kind: block for block in (NumberBlock, TokenBlock, VectorBlock, LinkBlock)}


class FeatureTransforms:
    """The fitted blocks of every node type."""

    def __init__(self, blocks: Mapping[str, Sequence[Block]]) -> None:
        self.blocks = {node_type: tuple(each) for node_type, each in blocks.items()}

    def width(self, node_type: str) -> int:
        """Columns of a type's features; at least one (a constant 1, the last column, is always there)."""
        return sum(block.width for block in self.blocks[node_type]) + 1

    def apply(self, node_type: str, properties: pa.Table, links: Links) -> Floats:
        """Features ``[N, width]`` of the nodes of a table with the declared properties (missing columns: no values).

        ``links`` hold a row per node for each edge type of the node type (missing: no links), with neighbour rows as in
        the snapshot fitted on. Raises KeyError for an unknown type, ValueError where links and nodes differ in number.
        """
        rows = properties.num_rows
        parts = [block.apply(rows, properties, links) for block in self.blocks[node_type]]
        return np.concatenate([*parts, np.ones((rows, 1), np.float32)], axis=1)

    def save(self, folder: Path) -> None:
        """Write ``features.json`` and the arrays into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        shared: dict[int, str] = {}
        document: dict[str, Any] = {"format_version": FORMAT_VERSION, "node_types": {}}
        for node_type, blocks in self.blocks.items():
            document["node_types"][node_type] = [_describe(block, folder, shared) for block in blocks]
        with naming(folder / "features.json"):
            (folder / "features.json").write_text(json.dumps(document, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> FeatureTransforms:
        """Read what ``save`` wrote; the arrays are memory-mapped. Raises BundleCorrupt."""
        file = folder / "features.json"
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            if document["format_version"] != FORMAT_VERSION:
                raise BundleCorrupt(f"format {document['format_version']} of the features is not known", file=file)
            return cls(
                {
                    node_type: [_block(description, folder) for description in blocks]
                    for node_type, blocks in document["node_types"].items()
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleCorrupt(f"the feature transforms cannot be read: {error}", file=file) from error


def numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Numbers, booleans, dates and times (as days) as float64; NaN where missing."""
    kind = values.type
    if pa.types.is_date(kind):
        values = values.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_timestamp(kind):
        times = values.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).cast(pa.float64(), safe=False)
        return np.asarray(pc.fill_null(times, float("nan")).to_numpy(), dtype=np.float64) / _MICROSECONDS_PER_DAY
    filled = pc.fill_null(values.cast(pa.float64()), float("nan"))
    return np.asarray(filled.to_numpy(), dtype=np.float64)


def vectors(values: pa.ChunkedArray, dimension: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows of a list column as ``[N, dimension]`` (zeros where missing or of another length) and which are known."""
    out = np.zeros((len(values), dimension), np.float32)
    if pa.types.is_null(values.type):
        return out, np.zeros(len(values), bool)
    known = np.asarray(pc.fill_null(pc.equal(pc.list_value_length(values), dimension), False).to_numpy(), dtype=bool)
    if known.any():
        rows = values.filter(pa.array(known)).combine_chunks()
        rows = rows.chunk(0) if isinstance(rows, pa.ChunkedArray) else rows
        flat = pc.fill_null(pc.list_flatten(rows), 0.0)
        out[known] = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, dimension)
    finite = np.isfinite(out).all(axis=1)
    out[~finite] = 0.0
    return out, known & finite


def token_counts(
    values: pa.ChunkedArray, text: bool, buckets: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Row, bucket and count of every token, ordered by row and bucket."""
    keys: list[int] = []
    for row, value in enumerate(values.to_pylist()):
        for token in tokens(value, text):
            keys.append(row * buckets + zlib.crc32(token.encode()) % buckets)
    unique, count = np.unique(np.asarray(keys, dtype=np.int64), return_counts=True)
    return unique // buckets, unique % buckets, count.astype(np.float64)


def tokens(value: Any, text: bool) -> list[str]:
    """Tokens of one value: itself, its members, or its words and their character trigrams."""
    if value is None:
        return []
    if not text:
        members = value if isinstance(value, (list, tuple)) else [value]
        return [str(member) for member in members if member is not None]
    folded = unicodedata.normalize("NFKC", str(value)).casefold()
    words = "".join(letter if letter.isalnum() else " " for letter in folded).split()
    found = list(words)
    for word in words:
        padded = f"<{word}>"
        found += [f"#{padded[start : start + 3]}" for start in range(len(padded) - 2)]
    return found


def link_weight(csr: Csr, median: float, bounds: tuple[float, float] = (0.0, 0.0)) -> Floats:
    """``f(w) = ln(1 + w / median) / ln 2`` of every edge, within the bounds; 1 where there is no weight."""
    if csr.weight is None or median <= 0:
        return np.ones(csr.num_edges, np.float32)
    weight = np.nan_to_num(np.asarray(csr.weight, dtype=np.float32), nan=median, posinf=median, neginf=0.0)
    scaled = np.log1p(np.maximum(weight, 0.0) / np.float32(median)) / np.float32(np.log(2.0))
    least, most = bounds
    return np.clip(scaled, least, most if most > 0 else None).astype(np.float32)


def _column(properties: pa.Table, name: str, rows: int) -> pa.ChunkedArray:
    return properties[name] if name in properties.column_names else pa.chunked_array([pa.nulls(rows, pa.null())])


def _unit(matrix: Floats) -> Floats:
    length = np.sqrt(np.einsum("nd,nd->n", matrix, matrix))[:, None]
    return np.where(length > 1e-12, matrix / np.maximum(length, 1e-12), 0.0).astype(np.float32)


def _sum_factors(indptr: NDArray[Any], indices: NDArray[Any], weight: Floats, factors: Floats) -> Floats:
    """Per row ``sum_j weight_j factors[j]``; a neighbour that was not there when fitted adds nothing."""
    rows = len(indptr) - 1
    out = np.zeros((rows, factors.shape[1]), np.float32)
    for first in range(0, rows, _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, rows)
        low, high = int(indptr[first]), int(indptr[last])
        # Bounded memory: a chunk of rows may still hold many edges.
        if high - low > 8 * _ROWS_AT_ONCE and last - first > 1:
            half = (first + last) // 2
            for a, b in ((first, half), (half, last)):
                part = _sum_factors(
                    np.asarray(indptr[a : b + 1]) - indptr[a],
                    indices[int(indptr[a]) : int(indptr[b])],
                    weight[int(indptr[a]) : int(indptr[b])],
                    factors,
                )
                out[a:b] = part
            continue
        neighbour = np.asarray(indices[low:high])
        known = neighbour < len(factors)
        scaled = factors[np.where(known, neighbour, 0)] * np.where(known, weight[low:high], 0.0)[:, None]
        lengths = np.diff(np.asarray(indptr[first : last + 1]))
        filled = np.flatnonzero(lengths)
        if len(filled):
            starts = (np.asarray(indptr[first : last + 1])[filled] - low).astype(np.int64)
            out[first + filled] = np.add.reduceat(scaled, starts, axis=0)
    return out


def _describe(block: Block, folder: Path, shared: dict[int, str]) -> dict[str, Any]:
    description: dict[str, Any] = {"kind": block.kind}
    fields = asdict(block) if not isinstance(block, LinkBlock) else _link_fields(block)  # type: ignore[call-overload]
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            original = getattr(block, name)
            if id(original) not in shared:
                shared[id(original)] = f"array-{len(shared):03}.npy"
                save_array(folder / shared[id(original)], original)
            description[name] = {"npy": shared[id(original)]}
        else:
            description[name] = value
    return description


def _link_fields(block: LinkBlock) -> dict[str, Any]:
    return {
        "neighbour_type": block.neighbour_type,
        "role": block.role,
        "edge_types": [[*each.triple, each.reversed] for each in block.edge_types],
        "medians": list(block.medians),
        "bounds": list(block.bounds),
        "factors": block.factors,
    }


def _block(description: dict[str, Any], folder: Path) -> Block:
    fields = dict(description)
    kind = _KINDS[fields.pop("kind")]
    for name, value in fields.items():
        if isinstance(value, dict):
            fields[name] = np.load(folder / value["npy"], mmap_mode="r", allow_pickle=False)
        elif name == "edge_types":
            fields[name] = tuple(EdgeType(Triple(*each[:3]), bool(each[3])) for each in value)
        elif isinstance(value, list):
            fields[name] = tuple(value)
    block: Block = kind(**fields)
    return block
