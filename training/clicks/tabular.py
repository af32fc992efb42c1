"""What a click model knows without vectors: declared properties, and counts over the earlier links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.schema import FeatureKind, NodeType
from model_store.features import numbers, tokens
from training.clicks.data import ClickFrame, Clicks

Floats = NDArray[np.float64]

_MOST_VALUES = 50
"""A category's most frequent values get a column each."""
_PRIOR_VIEWS = 5.0
"""Means start from the mean of all, as if it had been seen so many times: one view says little."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Named columns of some rows."""

    names: tuple[str, ...]
    values: Floats
    """``[rows, names]``; NaN where nothing is known."""

    def beside(self, other: Columns) -> Columns:
        """These columns, then the others, of the same rows."""
        return Columns(names=self.names + other.names, values=np.hstack([self.values, other.values]))

    def take(self, rows: NDArray[np.int64]) -> Columns:
        """These rows."""
        return Columns(names=self.names, values=self.values[rows])


def tabular(frame: ClickFrame, rows: Clicks, history: Clicks) -> Columns:
    """Columns of ``rows``: properties of both ends, and what ``history``, all of it earlier, says of each.

    Per end: ln(1 + views), the mean weight and the share of clicks, the means drawn towards those of all rows where
    there are few views.
    """
    parts = []
    for node_type, nodes in ((frame.user_type, rows.users), (frame.entity_type, rows.entities)):
        declared = frame.schema.node_type(node_type)
        parts.append(properties(declared, frame.snapshot.nodes(node_type)).take(nodes))
        ends = history.users if node_type == frame.user_type else history.entities
        parts.append(_counts(node_type, ends, history, frame.snapshot.num_nodes(node_type)).take(nodes))
    joined = parts[0]
    for part in parts[1:]:
        joined = joined.beside(part)
    return joined


def properties(node_type: NodeType, table: pa.Table) -> Columns:
    """The feature properties of every node: numbers and dates as they are, categories as a column a value.

    Texts and vectors are left out: a table has no column for them.
    """
    names: list[str] = []
    columns: list[Floats] = []
    for name, declared in node_type.properties.items():
        if declared.feature in (FeatureKind.NUMBER, FeatureKind.DATE):
            names.append(f"{node_type.name}.{name}")
            columns.append(numbers(table[name]))
        elif declared.feature in (FeatureKind.CATEGORY, FeatureKind.CATEGORIES):
            values = [tokens(each, False) for each in table[name].to_pylist()]
            known, count = np.unique([each for row in values for each in row], return_counts=True)
            for value in known[np.lexsort((known, -count))][:_MOST_VALUES]:
                names.append(f"{node_type.name}.{name}={value}")
                columns.append(np.array([float(value in row) for row in values]))
    stacked = np.stack(columns, axis=1) if columns else np.empty((table.num_rows, 0))
    return Columns(names=tuple(names), values=stacked)


def _counts(node_type: str, ends: NDArray[np.int64], history: Clicks, nodes: int) -> Columns:
    views = np.bincount(ends, minlength=nodes).astype(np.float64)
    columns = [np.log1p(views)]
    for values in (history.weight, history.clicked.astype(np.float64)):
        prior = float(values.mean()) if len(values) else 0.0
        total = np.bincount(ends, weights=values, minlength=nodes)
        columns.append((total + _PRIOR_VIEWS * prior) / (views + _PRIOR_VIEWS))
    names = tuple(f"{node_type}: {what}" for what in ("ln(1 + views)", "mean weight", "share of clicks"))
    return Columns(names=names, values=np.stack(columns, axis=1))
