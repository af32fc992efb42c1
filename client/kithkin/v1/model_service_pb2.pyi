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

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    COSINE: _ClassVar[Metric]
    INNER_PRODUCT: _ClassVar[Metric]
METRIC_UNSPECIFIED: Metric
COSINE: Metric
INNER_PRODUCT: Metric

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("server_version", "bundle", "uptime", "worker_pid", "refused_bundle", "workers", "workers_serving", "beside", "delta")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    WORKER_PID_FIELD_NUMBER: _ClassVar[int]
    REFUSED_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_SERVING_FIELD_NUMBER: _ClassVar[int]
    BESIDE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    bundle: BundleStatus
    uptime: _duration_pb2.Duration
    worker_pid: int
    refused_bundle: str
    workers: int
    workers_serving: int
    beside: _containers.RepeatedScalarFieldContainer[str]
    delta: DeltaStatus
    def __init__(self, server_version: _Optional[str] = ..., bundle: _Optional[_Union[BundleStatus, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., worker_pid: _Optional[int] = ..., refused_bundle: _Optional[str] = ..., workers: _Optional[int] = ..., workers_serving: _Optional[int] = ..., beside: _Optional[_Iterable[str]] = ..., delta: _Optional[_Union[DeltaStatus, _Mapping]] = ...) -> None: ...

class DeltaStatus(_message.Message):
    __slots__ = ("fresh", "changed", "deleted", "lag")
    FRESH_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    fresh: int
    changed: int
    deleted: int
    lag: _duration_pb2.Duration
    def __init__(self, fresh: _Optional[int] = ..., changed: _Optional[int] = ..., deleted: _Optional[int] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BundleStatus(_message.Message):
    __slots__ = ("version", "published_at", "snapshot_hash", "spaces", "nodes")
    class NodesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_HASH_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    version: str
    published_at: _timestamp_pb2.Timestamp
    snapshot_hash: str
    spaces: _containers.RepeatedCompositeFieldContainer[SpaceStatus]
    nodes: _containers.ScalarMap[str, int]
    def __init__(self, version: _Optional[str] = ..., published_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., snapshot_hash: _Optional[str] = ..., spaces: _Optional[_Iterable[_Union[SpaceStatus, _Mapping]]] = ..., nodes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SpaceStatus(_message.Message):
    __slots__ = ("name", "metric", "dimension", "indexes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    name: str
    metric: Metric
    dimension: int
    indexes: _containers.RepeatedCompositeFieldContainer[IndexStatus]
    def __init__(self, name: _Optional[str] = ..., metric: _Optional[_Union[Metric, str]] = ..., dimension: _Optional[int] = ..., indexes: _Optional[_Iterable[_Union[IndexStatus, _Mapping]]] = ...) -> None: ...

class IndexStatus(_message.Message):
    __slots__ = ("node_type", "vectors", "kind", "exact_reason", "recall_at_10", "recall_target")
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXACT_REASON_FIELD_NUMBER: _ClassVar[int]
    RECALL_AT_10_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    node_type: str
    vectors: int
    kind: str
    exact_reason: str
    recall_at_10: float
    recall_target: float
    def __init__(self, node_type: _Optional[str] = ..., vectors: _Optional[int] = ..., kind: _Optional[str] = ..., exact_reason: _Optional[str] = ..., recall_at_10: _Optional[float] = ..., recall_target: _Optional[float] = ...) -> None: ...

class ListBundlesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListBundlesResponse(_message.Message):
    __slots__ = ("bundles", "next_page_token")
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[BundleSummary]
    next_page_token: str
    def __init__(self, bundles: _Optional[_Iterable[_Union[BundleSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class BundleSummary(_message.Message):
    __slots__ = ("version", "published_at", "snapshot_hash", "nodes", "active", "serving", "problem")
    class NodesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_HASH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    version: str
    published_at: _timestamp_pb2.Timestamp
    snapshot_hash: str
    nodes: _containers.ScalarMap[str, int]
    active: bool
    serving: bool
    problem: str
    def __init__(self, version: _Optional[str] = ..., published_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., snapshot_hash: _Optional[str] = ..., nodes: _Optional[_Mapping[str, int]] = ..., active: _Optional[bool] = ..., serving: _Optional[bool] = ..., problem: _Optional[str] = ...) -> None: ...

class ActivateBundleRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class ActivateBundleResponse(_message.Message):
    __slots__ = ("version", "previous_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    previous_version: str
    def __init__(self, version: _Optional[str] = ..., previous_version: _Optional[str] = ...) -> None: ...

class RollbackBundleRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RollbackBundleResponse(_message.Message):
    __slots__ = ("version", "previous_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    previous_version: str
    def __init__(self, version: _Optional[str] = ..., previous_version: _Optional[str] = ...) -> None: ...
