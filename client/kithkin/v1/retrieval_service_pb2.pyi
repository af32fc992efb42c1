from google.rpc import status_pb2 as _status_pb2
from kithkin.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchSimilarEntitiesRequest(_message.Message):
    __slots__ = ("entity", "vector", "described", "target_type", "top_k", "exclude", "reasons", "filter", "min_score", "diversity", "bundle_version")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    DESCRIBED_FIELD_NUMBER: _ClassVar[int]
    TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    entity: _types_pb2.NodeRef
    vector: _types_pb2.Vector
    described: _types_pb2.DescribedEntity
    target_type: str
    top_k: int
    exclude: _containers.RepeatedCompositeFieldContainer[_types_pb2.NodeRef]
    reasons: int
    filter: _types_pb2.Filter
    min_score: float
    diversity: float
    bundle_version: str
    def __init__(self, entity: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., vector: _Optional[_Union[_types_pb2.Vector, _Mapping]] = ..., described: _Optional[_Union[_types_pb2.DescribedEntity, _Mapping]] = ..., target_type: _Optional[str] = ..., top_k: _Optional[int] = ..., exclude: _Optional[_Iterable[_Union[_types_pb2.NodeRef, _Mapping]]] = ..., reasons: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., diversity: _Optional[float] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class SearchSimilarEntitiesResponse(_message.Message):
    __slots__ = ("results", "info")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_types_pb2.ScoredNode]
    info: _types_pb2.ResponseInfo
    def __init__(self, results: _Optional[_Iterable[_Union[_types_pb2.ScoredNode, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class BatchSearchSimilarEntitiesRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SearchSimilarEntitiesRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[SearchSimilarEntitiesRequest, _Mapping]]] = ...) -> None: ...

class BatchSearchSimilarEntitiesResponse(_message.Message):
    __slots__ = ("items", "info")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BatchSearchSimilarEntitiesItem]
    info: _types_pb2.ResponseInfo
    def __init__(self, items: _Optional[_Iterable[_Union[BatchSearchSimilarEntitiesItem, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class BatchSearchSimilarEntitiesItem(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: SearchSimilarEntitiesResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[SearchSimilarEntitiesResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class RetrieveEntitiesForUserRequest(_message.Message):
    __slots__ = ("user", "events", "vector", "target_type", "top_k", "exclude", "include_engaged", "fallback", "reasons", "filter", "min_score", "diversity", "bundle_version", "score", "context")
    USER_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ENGAGED_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    user: _types_pb2.NodeRef
    events: _types_pb2.EventList
    vector: _types_pb2.Vector
    target_type: str
    top_k: int
    exclude: _containers.RepeatedCompositeFieldContainer[_types_pb2.NodeRef]
    include_engaged: bool
    fallback: _types_pb2.Fallback
    reasons: int
    filter: _types_pb2.Filter
    min_score: float
    diversity: float
    bundle_version: str
    score: _types_pb2.Score
    context: _types_pb2.Context
    def __init__(self, user: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., events: _Optional[_Union[_types_pb2.EventList, _Mapping]] = ..., vector: _Optional[_Union[_types_pb2.Vector, _Mapping]] = ..., target_type: _Optional[str] = ..., top_k: _Optional[int] = ..., exclude: _Optional[_Iterable[_Union[_types_pb2.NodeRef, _Mapping]]] = ..., include_engaged: _Optional[bool] = ..., fallback: _Optional[_Union[_types_pb2.Fallback, str]] = ..., reasons: _Optional[int] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., diversity: _Optional[float] = ..., bundle_version: _Optional[str] = ..., score: _Optional[_Union[_types_pb2.Score, str]] = ..., context: _Optional[_Union[_types_pb2.Context, _Mapping]] = ...) -> None: ...

class RetrieveEntitiesForUserResponse(_message.Message):
    __slots__ = ("results", "info")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_types_pb2.ScoredNode]
    info: _types_pb2.ResponseInfo
    def __init__(self, results: _Optional[_Iterable[_Union[_types_pb2.ScoredNode, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class BatchRetrieveEntitiesForUserRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RetrieveEntitiesForUserRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RetrieveEntitiesForUserRequest, _Mapping]]] = ...) -> None: ...

class BatchRetrieveEntitiesForUserResponse(_message.Message):
    __slots__ = ("items", "info")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BatchRetrieveEntitiesForUserItem]
    info: _types_pb2.ResponseInfo
    def __init__(self, items: _Optional[_Iterable[_Union[BatchRetrieveEntitiesForUserItem, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class BatchRetrieveEntitiesForUserItem(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: RetrieveEntitiesForUserResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[RetrieveEntitiesForUserResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class RetrieveUsersForEntityRequest(_message.Message):
    __slots__ = ("entity", "vector", "target_type", "top_k", "exclude", "include_engaged", "filter", "min_score", "bundle_version")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    TARGET_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ENGAGED_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    entity: _types_pb2.NodeRef
    vector: _types_pb2.Vector
    target_type: str
    top_k: int
    exclude: _containers.RepeatedCompositeFieldContainer[_types_pb2.NodeRef]
    include_engaged: bool
    filter: _types_pb2.Filter
    min_score: float
    bundle_version: str
    def __init__(self, entity: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., vector: _Optional[_Union[_types_pb2.Vector, _Mapping]] = ..., target_type: _Optional[str] = ..., top_k: _Optional[int] = ..., exclude: _Optional[_Iterable[_Union[_types_pb2.NodeRef, _Mapping]]] = ..., include_engaged: _Optional[bool] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class RetrieveUsersForEntityResponse(_message.Message):
    __slots__ = ("results", "info")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_types_pb2.ScoredNode]
    info: _types_pb2.ResponseInfo
    def __init__(self, results: _Optional[_Iterable[_Union[_types_pb2.ScoredNode, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class ScorePairsRequest(_message.Message):
    __slots__ = ("pairs", "context", "score", "bundle_version")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[NodePair]
    context: _types_pb2.Context
    score: _types_pb2.Score
    bundle_version: str
    def __init__(self, pairs: _Optional[_Iterable[_Union[NodePair, _Mapping]]] = ..., context: _Optional[_Union[_types_pb2.Context, _Mapping]] = ..., score: _Optional[_Union[_types_pb2.Score, str]] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class NodePair(_message.Message):
    __slots__ = ("source", "target")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    source: _types_pb2.NodeRef
    target: _types_pb2.NodeRef
    def __init__(self, source: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., target: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ...) -> None: ...

class ScorePairsResponse(_message.Message):
    __slots__ = ("items", "info")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ScorePairsItem]
    info: _types_pb2.ResponseInfo
    def __init__(self, items: _Optional[_Iterable[_Union[ScorePairsItem, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class ScorePairsItem(_message.Message):
    __slots__ = ("score", "error")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    score: float
    error: _status_pb2.Status
    def __init__(self, score: _Optional[float] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class EmbedUsersRequest(_message.Message):
    __slots__ = ("items", "bundle_version")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[EmbedUserItem]
    bundle_version: str
    def __init__(self, items: _Optional[_Iterable[_Union[EmbedUserItem, _Mapping]]] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class EmbedUserItem(_message.Message):
    __slots__ = ("user", "events")
    USER_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    user: _types_pb2.NodeRef
    events: _types_pb2.EventList
    def __init__(self, user: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., events: _Optional[_Union[_types_pb2.EventList, _Mapping]] = ...) -> None: ...

class EmbedUsersResponse(_message.Message):
    __slots__ = ("vectors", "info")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[_types_pb2.Vector]
    info: _types_pb2.ResponseInfo
    def __init__(self, vectors: _Optional[_Iterable[_Union[_types_pb2.Vector, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class EmbedEntitiesRequest(_message.Message):
    __slots__ = ("items", "space", "bundle_version")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SPACE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[EmbedEntityItem]
    space: str
    bundle_version: str
    def __init__(self, items: _Optional[_Iterable[_Union[EmbedEntityItem, _Mapping]]] = ..., space: _Optional[str] = ..., bundle_version: _Optional[str] = ...) -> None: ...

class EmbedEntityItem(_message.Message):
    __slots__ = ("entity", "described")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    DESCRIBED_FIELD_NUMBER: _ClassVar[int]
    entity: _types_pb2.NodeRef
    described: _types_pb2.DescribedEntity
    def __init__(self, entity: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., described: _Optional[_Union[_types_pb2.DescribedEntity, _Mapping]] = ...) -> None: ...

class EmbedEntitiesResponse(_message.Message):
    __slots__ = ("vectors", "info")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedCompositeFieldContainer[_types_pb2.Vector]
    info: _types_pb2.ResponseInfo
    def __init__(self, vectors: _Optional[_Iterable[_Union[_types_pb2.Vector, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class ExplainSimilarityRequest(_message.Message):
    __slots__ = ("source", "target", "max_reasons")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    MAX_REASONS_FIELD_NUMBER: _ClassVar[int]
    source: _types_pb2.NodeRef
    target: _types_pb2.NodeRef
    max_reasons: int
    def __init__(self, source: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., target: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., max_reasons: _Optional[int] = ...) -> None: ...

class ExplainSimilarityResponse(_message.Message):
    __slots__ = ("source", "target", "score", "reasons", "info", "explained_score", "rest")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_SCORE_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    source: _types_pb2.Node
    target: _types_pb2.Node
    score: float
    reasons: _containers.RepeatedCompositeFieldContainer[_types_pb2.Reason]
    info: _types_pb2.ResponseInfo
    explained_score: float
    rest: str
    def __init__(self, source: _Optional[_Union[_types_pb2.Node, _Mapping]] = ..., target: _Optional[_Union[_types_pb2.Node, _Mapping]] = ..., score: _Optional[float] = ..., reasons: _Optional[_Iterable[_Union[_types_pb2.Reason, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ..., explained_score: _Optional[float] = ..., rest: _Optional[str] = ...) -> None: ...

class GetEntityRequest(_message.Message):
    __slots__ = ("ref", "name")
    REF_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ref: _types_pb2.NodeRef
    name: NameQuery
    def __init__(self, ref: _Optional[_Union[_types_pb2.NodeRef, _Mapping]] = ..., name: _Optional[_Union[NameQuery, _Mapping]] = ...) -> None: ...

class NameQuery(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ...) -> None: ...

class GetEntityResponse(_message.Message):
    __slots__ = ("nodes", "info")
    NODES_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Node]
    info: _types_pb2.ResponseInfo
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.Node, _Mapping]]] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...

class ListEntitiesRequest(_message.Message):
    __slots__ = ("type", "filter", "name_contains", "page_size", "page_token")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    NAME_CONTAINS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    type: str
    filter: _types_pb2.Filter
    name_contains: str
    page_size: int
    page_token: str
    def __init__(self, type: _Optional[str] = ..., filter: _Optional[_Union[_types_pb2.Filter, _Mapping]] = ..., name_contains: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListEntitiesResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token", "info")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_types_pb2.Node]
    next_page_token: str
    info: _types_pb2.ResponseInfo
    def __init__(self, nodes: _Optional[_Iterable[_Union[_types_pb2.Node, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., info: _Optional[_Union[_types_pb2.ResponseInfo, _Mapping]] = ...) -> None: ...
