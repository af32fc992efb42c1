"""Answers as tables: plain dicts, pandas or Polars frames. The two are loaded only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from kithkin.types.nodes import Node

NODE_COLUMNS: Mapping[str, type] = {"type": str, "id": str, "name": str}


class Table:
    """What has rows."""

    __slots__ = ()
    columns: ClassVar[Mapping[str, type]] = NODE_COLUMNS
    """The columns that are always there, also where there is no row."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat row for each."""
        raise NotImplementedError

    def to_pandas(self) -> pd.DataFrame:
        """The rows of `to_dicts` as a pandas frame; raises ImportError where pandas is not installed."""
        pandas, rows = _library("pandas"), self.to_dicts()
        frame: pd.DataFrame = pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=list(self.columns))
        return frame

    def to_polars(self) -> pl.DataFrame:
        """The rows of `to_dicts` as a Polars frame; raises ImportError where Polars is not installed."""
        polars, rows = _library("polars"), self.to_dicts()
        if rows:
            # The first rows may lack a property that later ones have; numbers of one column may be whole or not.
            frame: pl.DataFrame = polars.DataFrame(rows, infer_schema_length=None, strict=False)
        else:
            frame = polars.DataFrame(schema=dict(self.columns))
        return frame


def node_row(node: Node, **more: object) -> dict[str, Any]:
    """Type, id, name, what else is said of it, then its properties; a property does not hide what comes before."""
    row: dict[str, Any] = {"type": node.ref.type, "id": node.ref.id, "name": node.name, **more}
    return row | {key: value for key, value in node.properties.items() if key not in row}


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"to_{name}() needs {name}, which is not installed here: pip install {name}. to_dicts() needs nothing."
        ) from error
