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

class Reason(_message.Message):
    __slots__ = ("path", "relations", "contribution", "text")
    PATH_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    path: _containers.RepeatedCompositeFieldContainer[Node]
    relations: _containers.RepeatedScalarFieldContainer[str]
    contribution: float
    text: str
    def __init__(self, path: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., relations: _Optional[_Iterable[str]] = ..., contribution: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("bundle_version", "exact", "candidates_scored", "truncated", "fallback", "shortfall_reason", "server_time")
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_SCORED_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    SHORTFALL_REASON_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    bundle_version: str
    exact: bool
    candidates_scored: int
    truncated: bool
    fallback: Fallback
    shortfall_reason: str
    server_time: _duration_pb2.Duration
    def __init__(self, bundle_version: _Optional[str] = ..., exact: _Optional[bool] = ..., candidates_scored: _Optional[int] = ..., truncated: _Optional[bool] = ..., fallback: _Optional[_Union[Fallback, str]] = ..., shortfall_reason: _Optional[str] = ..., server_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
