"""A declared column as SQL: the text cleaned, the value typed, and what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graph_store.ingest.raw import RawColumn, RawFile, quoted
from graph_store.schema import Property, PropertyType
from graph_store.sources import ColumnSpec, TimeFormat

_BLANKS = "' \t\r\n\u00a0\ufeff'"
_ENDS = tuple(f"'{sign}'" for sign in " \t\r\n\u00a0\ufeff")
_PLAIN_COLUMN = re.compile(r"c\d+(::VARCHAR)?")
_INT = r"[+-]?\d+(\.0*)?"
_FLOAT = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_ISO = r"[+-]?\d{1,6}-\d{1,2}-\d{1,2}([T ]\d{1,2}:.*)?"
# Years 1 to 9999, in microseconds and days: what Python, Arrow and both stores can hold.
_FIRST_TIME, _LAST_TIME = "TIMESTAMP '0001-01-01'", "TIMESTAMP '9999-12-31 23:59:59.999999'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One value that a source reads: an id, an end of an edge, or a property."""

    key: str
    """What its columns in DuckDB are called: id, source, target, p0, p1, ... (names there know no upper case)."""
    name: str
    """The property, or the same as ``key``."""
    spec: ColumnSpec
    declared: Property
    end: bool = False
    """An end of an edge: may be several at once."""

    @property
    def cleaned(self) -> str:
        """Column of the cleaned text."""
        return f"t_{self.key}"

    @property
    def value(self) -> str:
        """Column of the typed value."""
        return f"v_{self.key}"

    @property
    def label(self) -> str:
        """What a reject names: the file's column, or the property of a constant."""
        return self.spec.column if self.spec.column is not None else self.name

    @property
    def optional(self) -> bool:
        """True where no value is no fault, because the declaration provides for it."""
        return bool(self.spec.split or self.spec.null or self.spec.extract)


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSql:
    """The steps of reading a field; ``cleaned`` over the raw table, the others over cleaned and native columns."""

    cleaned: str
    value: str
    wrong: str
    """True where a value is there that does not fit (never null)."""
    reason: str
    """Text expression that says what it should have been."""
    many: bool
    """``value`` is a list of ids."""
    native: str = ""
    """Column of the raw table that ``value`` reads in place of the cleaned text."""


def field_sql(field: Field, raw: RawFile) -> FieldSql:
    """SQL that reads ``field`` from ``raw``; the text becomes ``field.cleaned``, the value ``field.value``."""
    spec, kind = field.spec, field.declared.type
    column = RawColumn(text=quoted(spec.value)) if spec.value is not None else raw.column(spec.column or "")
    cleaned, value = field.cleaned, field.value
    if kind is PropertyType.VECTOR:
        length = field.declared.dimension
        return FieldSql(
            cleaned=_vector_items(spec, column),
            value=f"CASE WHEN len({cleaned}) = {length} THEN try_cast({cleaned} AS FLOAT[]) END",
            # A number that is not one became null, one too large for 32 bits became infinite.
            wrong=f"{cleaned} IS NOT NULL AND ({value} IS NULL OR len({value}) <> {length} "
            f"OR list_bool_or(list_transform({value}, lambda x: x IS NULL OR NOT isfinite(x))))",
            reason=f"'not a vector of {length} finite numbers, it has ' || len({cleaned})",
            many=False,
        )
    many = kind is PropertyType.STRINGS or (field.end and (bool(spec.split) or column.items is not None))
    if many:
        return FieldSql(
            cleaned=_items(spec, column),
            value=cleaned,
            wrong="false",
            reason="''",
            many=True,
        )
    text = _clean(spec, column.text)
    if kind in column.types and not spec.null and spec.extract is None and spec.format in (None, TimeFormat.ISO):
        value = _native(kind, column.native)
        wrong = "false" if value == column.native else f"{column.native} IS NOT NULL AND ({value}) IS NULL"
        reason = quoted(_expected(kind, spec.format))
        return FieldSql(cleaned=text, value=value, wrong=wrong, reason=reason, many=False, native=column.native)
    if column.items is not None:
        # A list where one value is wanted must not pass for a missing value.
        text = f"coalesce({text}, ({column.items})::VARCHAR)"
        if kind is PropertyType.STRING:
            text = f"CASE WHEN ({column.items}) IS NULL THEN {text} ELSE chr(0) || ({column.items})::VARCHAR END"
    typed = _typed(kind, spec.format, cleaned)
    if column.items is not None and kind is PropertyType.STRING:
        typed = f"CASE WHEN starts_with({cleaned}, chr(0)) THEN NULL ELSE {cleaned} END"
    return FieldSql(
        cleaned=text,
        value=typed,
        wrong=f"{cleaned} IS NOT NULL AND {value} IS NULL",
        reason=quoted(_expected(kind, spec.format)),
        many=False,
    )


def _clean(spec: ColumnSpec, text: str) -> str:
    """Null, extract, strip, lower, in this order; an empty text is no value."""
    if spec.null:
        nulls = ", ".join(quoted(null) for null in spec.null)
        text = f"CASE WHEN {text} IN ({nulls}) OR trim({text}, {_BLANKS}) IN ({nulls}) THEN NULL ELSE {text} END"
    if spec.extract is not None:
        text = f"regexp_extract({text}, {quoted(spec.extract)}, 1)"
    trimmed = f"nullif(trim({text}, {_BLANKS}), '')"
    if _PLAIN_COLUMN.fullmatch(text):
        # Trimming costs ten times what looking does, and few texts have blanks at an end.
        ends = [f"ends_with({text}, {sign})" for sign in _ENDS]
        starts = [f"starts_with({text}, {sign})" for sign in _ENDS[4:]]
        trimmed = f"CASE WHEN {text} < '!' OR {' OR '.join([*ends, *starts])} THEN {trimmed} ELSE {text} END"
    return f"lower({trimmed})" if spec.lower else trimmed


def _items(spec: ColumnSpec, column: RawColumn) -> str:
    """A list of texts, null where there is none."""
    text = _clean(spec, column.text)
    one = f"CASE WHEN ({text}) IS NULL THEN [] ELSE [{text}] END"
    if spec.split:
        part = f"trim(part, {_BLANKS})"
        one = (
            f"list_filter(list_transform(string_split({text}, {quoted(spec.split)}), lambda part: {part}), "
            "lambda part: part <> '')"
        )
    if column.items is not None:
        # Elements pass through the same cleaning as a text of its own.
        each = f"list_transform(({column.items})::VARCHAR[], lambda item: {_clean(spec, 'item')})"
        one = (
            f"CASE WHEN ({column.items}) IS NOT NULL THEN list_filter({each}, lambda item: item IS NOT NULL) "
            f"ELSE {one} END"
        )
    return f"CASE WHEN len({one}) > 0 THEN {one} END"


def _vector_items(spec: ColumnSpec, column: RawColumn) -> str:
    """The numbers of a vector, as texts or as they are; null where there is none."""
    if column.numbers:
        return f"{column.items}"
    text = f"nullif(trim({_clean(spec, column.text)}, '[]() \t'), '')"
    pattern = f"'\\s*' || regexp_escape({quoted(spec.split)}) || '\\s*'" if spec.split else "'[,;\\s]+'"
    split = f"string_split_regex({text}, {pattern})"
    if column.items is None:
        return split
    return f"CASE WHEN ({column.items}) IS NOT NULL THEN ({column.items})::VARCHAR[] ELSE {split} END"


def _typed(kind: PropertyType, time_format: str | None, text: str) -> str:
    match kind:
        case PropertyType.INT:
            # The expression keeps out what a cast would round (2.5) or read as 1_000.
            return f"CASE WHEN regexp_full_match({text}, {quoted(_INT)}) THEN try_cast({text} AS BIGINT) END"
        case PropertyType.FLOAT:
            number = f"CASE WHEN regexp_full_match({text}, {quoted(_FLOAT)}) THEN try_cast({text} AS DOUBLE) END"
            return f"CASE WHEN isfinite({number}) THEN {number} END"
        case PropertyType.BOOL:
            return (
                f"CASE WHEN lower({text}) IN ('true', 't', 'yes', 'y', '1') THEN true "
                f"WHEN lower({text}) IN ('false', 'f', 'no', 'n', '0') THEN false END"
            )
        case PropertyType.DATE:
            return f"({_time(time_format, text)})::DATE"
        case PropertyType.TIMESTAMP:
            return _time(time_format, text)
        case _:
            return text


def _native(kind: PropertyType, column: str) -> str:
    """The same of a value that is typed in the file."""
    match kind:
        case PropertyType.INT:
            return f"{column}::BIGINT"
        case PropertyType.FLOAT:
            return f"CASE WHEN isfinite({column}::DOUBLE) THEN {column}::DOUBLE END"
        case PropertyType.DATE:
            return f"CASE WHEN {column} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' THEN {column} END"
        case PropertyType.TIMESTAMP:
            # A zoned time as UTC; a cast would ask for the zone's rules, row by row.
            low, high = -62_135_596_800_000_000, 253_402_300_799_999_999
            moment = f"epoch_us({column})"
            return f"make_timestamp(CASE WHEN {moment} BETWEEN {low} AND {high} THEN {moment} END)"
        case _:
            return column


def _time(time_format: str | None, text: str) -> str:
    """A UTC TIMESTAMP, null where the text is none or the year is beyond 1 to 9999."""
    units = {TimeFormat.UNIX.value: 1_000_000, TimeFormat.UNIX_MS.value: 1_000}
    if unit := units.get(time_format or ""):
        # Most are whole and positive; the others go by decimals, as a double would lose microseconds. Both are kept
        # within years 1 to 9999, so that the multiplication cannot overflow.
        digits = 11 if unit == 1_000_000 else 14
        whole = f"regexp_full_match({text}, '\\d{{1,{digits}}}')"
        number, per_second = f"try_cast({text} AS DECIMAL(38, 9))", 1_000_000 // unit
        within = f"{number} BETWEEN {-62_135_596_800 * per_second} AND {253_402_300_799 * per_second}"
        return (
            f"make_timestamp(CASE WHEN {whole} THEN {text}::BIGINT * {unit} "
            f"WHEN {within} THEN round({number} * {unit}, 0)::BIGINT END)"
        )
    if time_format in (None, TimeFormat.ISO):
        # As TIMESTAMP alone, DuckDB would pass over an offset (+02:00); without one, the session's zone is UTC.
        moment = (
            f"CASE WHEN regexp_full_match({text}, {quoted(_ISO)}) THEN try_cast({text} AS TIMESTAMPTZ)::TIMESTAMP END"
        )
    else:
        moment = f"try_strptime({text}, {quoted(time_format or '')})::TIMESTAMP"
    return f"CASE WHEN ({moment}) BETWEEN {_FIRST_TIME} AND {_LAST_TIME} THEN ({moment}) END"


def _expected(kind: PropertyType, time_format: str | None) -> str:
    written = {
        PropertyType.INT: "a whole number",
        PropertyType.FLOAT: "a finite number",
        PropertyType.BOOL: "true or false",
        PropertyType.STRING: "a single text",
    }
    if kind in written:
        return f"not {written[kind]}"
    name = "date" if kind is PropertyType.DATE else "time"
    return f"not a {name} in the format {time_format or TimeFormat.ISO.value}"
