import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Score(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_UNSPECIFIED: _ClassVar[Score]
    NEURAL: _ClassVar[Score]

class Fallback(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FALLBACK_UNSPECIFIED: _ClassVar[Fallback]
    FALLBACK_POPULAR: _ClassVar[Fallback]

class ErrorReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_REASON_UNSPECIFIED: _ClassVar[ErrorReason]
    UNDECODABLE_REQUEST: _ClassVar[ErrorReason]
    INVALID_FIELD: _ClassVar[ErrorReason]
    TOP_K_OUT_OF_RANGE: _ClassVar[ErrorReason]
    WRONG_DIMENSION: _ClassVar[ErrorReason]
    VECTOR_NOT_FINITE: _ClassVar[ErrorReason]
    OTHER_BUNDLE: _ClassVar[ErrorReason]
    NOT_DECLARED: _ClassVar[ErrorReason]
    NODE_NOT_FOUND: _ClassVar[ErrorReason]
    NODE_WITHOUT_VECTOR: _ClassVar[ErrorReason]
    TYPE_NEEDED: _ClassVar[ErrorReason]
    NO_SUCH_SPACE: _ClassVar[ErrorReason]
    NO_BUNDLE: _ClassVar[ErrorReason]
    SHUTTING_DOWN: _ClassVar[ErrorReason]
    DEADLINE: _ClassVar[ErrorReason]
    MESSAGE_TOO_LARGE: _ClassVar[ErrorReason]
    INTERNAL_ERROR: _ClassVar[ErrorReason]
    BUNDLE_NOT_FOUND: _ClassVar[ErrorReason]
    BUNDLE_REFUSED: _ClassVar[ErrorReason]
    NO_PREVIOUS_BUNDLE: _ClassVar[ErrorReason]
    BUNDLES_NOT_MANAGED: _ClassVar[ErrorReason]
    ACTIVATION_OVERTAKEN: _ClassVar[ErrorReason]
    OVERLOADED: _ClassVar[ErrorReason]
    UNAUTHENTICATED_CALLER: _ClassVar[ErrorReason]
    ROLE_NEEDED: _ClassVar[ErrorReason]
    NO_SCORER: _ClassVar[ErrorReason]
    BUNDLE_NOT_LOADED: _ClassVar[ErrorReason]
    BAD_PAGE_TOKEN: _ClassVar[ErrorReason]
SCORE_UNSPECIFIED: Score
NEURAL: Score
FALLBACK_UNSPECIFIED: Fallback
FALLBACK_POPULAR: Fallback
ERROR_REASON_UNSPECIFIED: ErrorReason
UNDECODABLE_REQUEST: ErrorReason
INVALID_FIELD: ErrorReason
TOP_K_OUT_OF_RANGE: ErrorReason
WRONG_DIMENSION: ErrorReason
VECTOR_NOT_FINITE: ErrorReason
OTHER_BUNDLE: ErrorReason
NOT_DECLARED: ErrorReason
NODE_NOT_FOUND: ErrorReason
NODE_WITHOUT_VECTOR: ErrorReason
TYPE_NEEDED: ErrorReason
NO_SUCH_SPACE: ErrorReason
NO_BUNDLE: ErrorReason
SHUTTING_DOWN: ErrorReason
DEADLINE: ErrorReason
MESSAGE_TOO_LARGE: ErrorReason
INTERNAL_ERROR: ErrorReason
BUNDLE_NOT_FOUND: ErrorReason
BUNDLE_REFUSED: ErrorReason
NO_PREVIOUS_BUNDLE: ErrorReason
BUNDLES_NOT_MANAGED: ErrorReason
ACTIVATION_OVERTAKEN: ErrorReason
OVERLOADED: ErrorReason
UNAUTHENTICATED_CALLER: ErrorReason
ROLE_NEEDED: ErrorReason
NO_SCORER: ErrorReason
BUNDLE_NOT_LOADED: ErrorReason
BAD_PAGE_TOKEN: ErrorReason

class NodeRef(_message.Message):
    __slots__ = ("type", "id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    type: str
    id: str
    def __init__(self, type: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class PropertyValue(_message.Message):
    __slots__ = ("string_value", "int_value", "float_value", "bool_value", "strings_value", "time_value", "vector_value")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    FLOAT_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRINGS_VALUE_FIELD_NUMBER: _ClassVar[int]
    TIME_VALUE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_VALUE_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    int_value: int
    float_value: float
    bool_value: bool
    strings_value: StringList
    time_value: _timestamp_pb2.Timestamp
    vector_value: FloatList
    def __init__(self, string_value: _Optional[str] = ..., int_value: _Optional[int] = ..., float_value: _Optional[float] = ..., bool_value: _Optional[bool] = ..., strings_value: _Optional[_Union[StringList, _Mapping]] = ..., time_value: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., vector_value: _Optional[_Union[FloatList, _Mapping]] = ...) -> None: ...

class StringList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class FloatList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("ref", "name", "properties")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: PropertyValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[PropertyValue, _Mapping]] = ...) -> None: ...
    REF_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    ref: NodeRef
    name: str
    properties: _containers.MessageMap[str, PropertyValue]
    def __init__(self, ref: _Optional[_Union[NodeRef, _Mapping]] = ..., name: _Optional[str] = ..., properties: _Optional[_Mapping[str, PropertyValue]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("values", "space", "bundle_version")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    space: str
    bundle_version: str
    def __init__(self, values: _Optional[_Iterable[float]] = ..., space: _Optional[str] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class DescribedLink(_message.Message):
    __slots__ = ("relation", "node", "weight")
    RELATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    relation: str
    node: NodeRef
    weight: float
    def __init__(self, relation: _Optional[str] = ..., node: _Optional[_Union[NodeRef, _Mapping]] = ..., weight: _Optional[float] = ...) -> None: ...

class DescribedEntity(_message.Message):
    __slots__ = ("type", "properties", "links")
    class PropertiesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: PropertyValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[PropertyValue, _Mapping]] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    type: str
    properties: _containers.MessageMap[str, PropertyValue]
    links: _containers.RepeatedCompositeFieldContainer[DescribedLink]
    def __init__(self, type: _Optional[str] = ..., properties: _Optional[_Mapping[str, PropertyValue]] = ..., links: _Optional[_Iterable[_Union[DescribedLink, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("entity", "weight", "time")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    entity: NodeRef
    weight: float
    time: _timestamp_pb2.Timestamp
    def __init__(self, entity: _Optional[_Union[NodeRef, _Mapping]] = ..., weight: _Optional[float] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EventList(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("all_of", "any_of", "negated", "equals", "one_of", "range", "present", "linked")
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NEGATED_FIELD_NUMBER: _ClassVar[int]
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    ONE_OF_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    LINKED_FIELD_NUMBER: _ClassVar[int]
    all_of: FilterList
    any_of: FilterList
    negated: Filter
    equals: PropertyEquals
    one_of: PropertyOneOf
    range: PropertyRange
    present: str
    linked: LinkedTo
    def __init__(self, all_of: _Optional[_Union[FilterList, _Mapping]] = ..., any_of: _Optional[_Union[FilterList, _Mapping]] = ..., negated: _Optional[_Union[Filter, _Mapping]] = ..., equals: _Optional[_Union[PropertyEquals, _Mapping]] = ..., one_of: _Optional[_Union[PropertyOneOf, _Mapping]] = ..., range: _Optional[_Union[PropertyRange, _Mapping]] = ..., present: _Optional[str] = ..., linked: _Optional[_Union[LinkedTo, _Mapping]] = ...) -> None: ...

class FilterList(_message.Message):
    __slots__ = ("filters",)
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class PropertyEquals(_message.Message):
    __slots__ = ("property", "value")
    PROPERTY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    property: str
    value: PropertyValue
    def __init__(self, property: _Optional[str] = ..., value: _Optional[_Union[PropertyValue, _Mapping]] = ...) -> None: ...

class PropertyOneOf(_message.Message):
    __slots__ = ("property", "values")
    PROPERTY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    property: str
    values: _containers.RepeatedCompositeFieldContainer[PropertyValue]
    def __init__(self, property: _Optional[str] = ..., values: _Optional[_Iterable[_Union[PropertyValue, _Mapping]]] = ...) -> None: ...

class PropertyRange(_message.Message):
    __slots__ = ("property", "min", "max", "min_excluded", "max_excluded")
    PROPERTY_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    MIN_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    MAX_EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    property: str
    min: PropertyValue
    max: PropertyValue
    min_excluded: bool
    max_excluded: bool
    def __init__(self, property: _Optional[str] = ..., min: _Optional[_Union[PropertyValue, _Mapping]] = ..., max: _Optional[_Union[PropertyValue, _Mapping]] = ..., min_excluded: _Optional[bool] = ..., max_excluded: _Optional[bool] = ...) -> None: ...

class LinkedTo(_message.Message):
    __slots__ = ("relation", "nodes")
    RELATION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    relation: str
    nodes: _containers.RepeatedCompositeFieldContainer[NodeRef]
    def __init__(self, relation: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[NodeRef, _Mapping]]] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("entity", "concepts")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    CONCEPTS_FIELD_NUMBER: _ClassVar[int]
    entity: NodeRef
    concepts: _containers.RepeatedCompositeFieldContainer[NodeRef]
    def __init__(self, entity: _Optional[_Union[NodeRef, _Mapping]] = ..., concepts: _Optional[_Iterable[_Union[NodeRef, _Mapping]]] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("path", "relations", "contribution", "text", "score_part")
    PATH_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_PART_FIELD_NUMBER: _ClassVar[int]
    path: _containers.RepeatedCompositeFieldContainer[Node]
    relations: _containers.RepeatedScalarFieldContainer[str]
    contribution: float
    text: str
    score_part: float
    def __init__(self, path: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., relations: _Optional[_Iterable[str]] = ..., contribution: _Optional[float] = ..., text: _Optional[str] = ..., score_part: _Optional[float] = ...) -> None: ...

class ScoredNode(_message.Message):
    __slots__ = ("node", "score", "reasons")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    node: Node
    score: float
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ..., score: _Optional[float] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ...) -> None: ...

class ResponseInfo(_message.Message):
    __slots__ = ("bundle_version", "exact", "candidates_scored", "truncated", "fallback", "shortfall_reason", "server_time", "filter_passed", "network_calls")
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_SCORED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_REASON_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    FILTER_PASSED_FIELD_NUMBER: _ClassVar[int]
    NETWORK_CALLS_FIELD_NUMBER: _ClassVar[int]
    bundle_version: str
    exact: bool
    candidates_scored: int
    truncated: bool
    fallback: Fallback
    shortfall_reason: str
    server_time: _duration_pb2.Duration
    filter_passed: int
    network_calls: int
    def __init__(self, bundle_version: _Optional[str] = ..., exact: _Optional[bool] = ..., candidates_scored: _Optional[int] = ..., truncated: _Optional[bool] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., shortfall_reason: _Optional[str] = ..., server_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., filter_passed: _Optional[int] = ..., network_calls: _Optional[int] = ...) -> None: ...
