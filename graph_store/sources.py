"""Declared sources: which columns of which files fill which node type or relation."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from graph_store.schema import Triple


class FileFormat(StrEnum):
    """Format of a source file; each may be plain, ``.gz`` or ``.zst``."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class TimeFormat(StrEnum):
    """How a time is written; anything else in ``format`` is a strptime pattern."""

    ISO = "iso"
    UNIX = "unix"
    UNIX_MS = "unix_ms"


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ColumnSpec(_Declared):
    """One value read from a column, in the order: null, extract, strip/case, split, format."""

    column: str | None = None
    """Name of the file's column; nothing with ``value`` set: a constant."""
    value: str | None = None
    """A constant in place of a column."""
    extract: str | None = None
    """Regular expression; its first group is the value, no match is a missing value."""
    split: str | None = None
    """Character(s) between several values in one field."""
    null: tuple[str, ...] = ()
    """Texts that mean "no value", beside the empty field."""
    lower: bool = False
    """Lower-case it."""
    format: str | None = None
    """For times: iso (default), unix, unix_ms, or a strptime pattern."""

    @field_validator("extract")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                compiled = re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
            if compiled.groups < 1:
                raise ValueError("the expression needs one group, the part to keep: (…)")
        return value

    @model_validator(mode="after")
    def _one(self) -> ColumnSpec:
        if (self.column is None) == (self.value is None):
            raise ValueError("give either a column or a value")
        return self


def column_spec(value: Any) -> Any:
    """A plain string in kithkin.toml is short for ``{column = "..."}``."""
    return {"column": value} if isinstance(value, str) else value


class Source(_Declared):
    """One reading of one file: fills a node type (``node``) or a relation (``relation``)."""

    file: str
    """Path, relative to the folder of kithkin.toml (or to ``data`` there); may hold * and ?."""
    format: FileFormat | None = None
    """Nothing: by the file's ending."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """CSV: the character between fields; "\\t" for a tab."""
    quote: str = Field(default='"', max_length=1)
    """CSV: the character around fields; "" where quotes mean nothing."""
    header: bool = True
    """CSV: whether the first line names the columns."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a file without a header."""
    encoding: str = "utf-8"
    """CSV and JSONL: what the text is written in ("latin-1", "cp1252", "utf-16", ...)."""
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Only rows whose column has this text, or one of these."""

    node: str | None = None
    """The node type to fill."""
    id: ColumnSpec | None = None
    """Column with the nodes' ids."""

    relation: Triple | None = None
    """The relation to fill, as its triple."""
    source: ColumnSpec | None = None
    """Column with the ids that the edges start from; may be split."""
    target: ColumnSpec | None = None
    """Column with the ids that the edges lead to; may be split."""
    create_source: bool = False
    """Source ids that no node source brought become nodes (id only); otherwise such a row is bad."""
    create_target: bool = False
    """The same for targets; the new node's display property, if declared, gets the id's text."""
    count_as: str | None = None
    """Property that receives how many rows gave the same edge."""

    properties: dict[str, ColumnSpec] = Field(default_factory=dict)
    """Declared property = its column, or a table: column or value, null, extract, lower, split, format."""

    @field_validator("id", "source", "target", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return column_spec(value)

    @field_validator("properties", mode="before")
    @classmethod
    def _short_properties(cls, value: Any) -> Any:
        return {name: column_spec(spec) for name, spec in value.items()} if isinstance(value, dict) else value

    @field_validator("relation", mode="before")
    @classmethod
    def _triple(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise ValueError('a relation is three names: ["Movie", "HAS_GENRE", "Genre"]')
        return Triple(*value)

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.node is None) == (self.relation is None):
            raise ValueError("a source fills either a node or a relation")
        if self.node is not None and self.id is None:
            raise ValueError("a node source needs id, the column with the key")
        if self.relation is not None and (self.source is None or self.target is None):
            raise ValueError("a relation source needs source and target columns")
        if self.id is not None and self.id.split:
            raise ValueError("id cannot be split")
        if not self.header and not self.columns and self.format is not FileFormat.PARQUET:
            raise ValueError("a file without a header needs columns, their names in order")
        return self
