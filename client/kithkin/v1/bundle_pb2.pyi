import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from kithkin.v1 import model_service_pb2 as _model_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BundleManifest(_message.Message):
    __slots__ = ("format_version", "version", "published_at", "project", "snapshot_hash", "software", "node_types", "relations", "spaces", "evaluation", "configuration", "files", "neural")
    class SoftwareEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_HASH_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPES_FIELD_NUMBER: _ClassVar[int]
    RELATIONS_FIELD_NUMBER: _ClassVar[int]
    SPACES_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    NEURAL_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    version: str
    published_at: _timestamp_pb2.Timestamp
    project: str
    snapshot_hash: str
    software: _containers.ScalarMap[str, str]
    node_types: _containers.RepeatedCompositeFieldContainer[NodeTypeManifest]
    relations: _containers.RepeatedCompositeFieldContainer[RelationManifest]
    spaces: _containers.RepeatedCompositeFieldContainer[SpaceManifest]
    evaluation: _struct_pb2.Struct
    configuration: _struct_pb2.Struct
    files: _containers.RepeatedCompositeFieldContainer[FileChecksum]
    neural: NeuralManifest
    def __init__(self, format_version: _Optional[int] = ..., version: _Optional[str] = ..., published_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., project: _Optional[str] = ..., snapshot_hash: _Optional[str] = ..., software: _Optional[_Mapping[str, str]] = ..., node_types: _Optional[_Iterable[_Union[NodeTypeManifest, _Mapping]]] = ..., relations: _Optional[_Iterable[_Union[RelationManifest, _Mapping]]] = ..., spaces: _Optional[_Iterable[_Union[SpaceManifest, _Mapping]]] = ..., evaluation: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., configuration: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., files: _Optional[_Iterable[_Union[FileChecksum, _Mapping]]] = ..., neural: _Optional[_Union[NeuralManifest, _Mapping]] = ...) -> None: ...

class NodeTypeManifest(_message.Message):
    __slots__ = ("name", "role", "count", "properties")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    count: int
    properties: _containers.RepeatedCompositeFieldContainer[PropertyManifest]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., count: _Optional[int] = ..., properties: _Optional[_Iterable[_Union[PropertyManifest, _Mapping]]] = ...) -> None: ...

class PropertyManifest(_message.Message):
    __slots__ = ("name", "type", "show", "filter", "feature", "dimension")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHOW_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    show: bool
    filter: bool
    feature: str
    dimension: int
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., show: _Optional[bool] = ..., filter: _Optional[bool] = ..., feature: _Optional[str] = ..., dimension: _Optional[int] = ...) -> None: ...

class RelationManifest(_message.Message):
    __slots__ = ("source", "name", "target", "role", "edges", "timed")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    TIMED_FIELD_NUMBER: _ClassVar[int]
    source: str
    name: str
    target: str
    role: str
    edges: int
    timed: bool
    def __init__(self, source: _Optional[str] = ..., name: _Optional[str] = ..., target: _Optional[str] = ..., role: _Optional[str] = ..., edges: _Optional[int] = ..., timed: _Optional[bool] = ...) -> None: ...

class SpaceManifest(_message.Message):
    __slots__ = ("name", "metric", "dimension", "node_types", "indexes", "encoders", "layers", "edge_types", "max_neighbours", "focal")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPES_FIELD_NUMBER: _ClassVar[int]
    INDEXES_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    EDGE_TYPES_FIELD_NUMBER: _ClassVar[int]
    MAX_NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    FOCAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    metric: _model_service_pb2.Metric
    dimension: int
    node_types: _containers.RepeatedScalarFieldContainer[str]
    indexes: _containers.RepeatedCompositeFieldContainer[IndexManifest]
    encoders: _containers.RepeatedCompositeFieldContainer[EncoderManifest]
    layers: int
    edge_types: _containers.RepeatedCompositeFieldContainer[EdgeType]
    max_neighbours: int
    focal: FocalManifest
    def __init__(self, name: _Optional[str] = ..., metric: _Optional[_Union[_model_service_pb2.Metric, str]] = ..., dimension: _Optional[int] = ..., node_types: _Optional[_Iterable[str]] = ..., indexes: _Optional[_Iterable[_Union[IndexManifest, _Mapping]]] = ..., encoders: _Optional[_Iterable[_Union[EncoderManifest, _Mapping]]] = ..., layers: _Optional[int] = ..., edge_types: _Optional[_Iterable[_Union[EdgeType, _Mapping]]] = ..., max_neighbours: _Optional[int] = ..., focal: _Optional[_Union[FocalManifest, _Mapping]] = ...) -> None: ...

class FocalManifest(_message.Message):
    __slots__ = ("relevance", "fan_out", "node_types", "encoders")
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    FAN_OUT_FIELD_NUMBER: _ClassVar[int]
    NODE_TYPES_FIELD_NUMBER: _ClassVar[int]
    ENCODERS_FIELD_NUMBER: _ClassVar[int]
    relevance: str
    fan_out: int
    node_types: _containers.RepeatedScalarFieldContainer[str]
    encoders: _containers.RepeatedCompositeFieldContainer[EncoderManifest]
    def __init__(self, relevance: _Optional[str] = ..., fan_out: _Optional[int] = ..., node_types: _Optional[_Iterable[str]] = ..., encoders: _Optional[_Iterable[_Union[EncoderManifest, _Mapping]]] = ...) -> None: ...

class EncoderManifest(_message.Message):
    __slots__ = ("node_type", "onnx", "feature_width", "max_difference")
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    ONNX_FIELD_NUMBER: _ClassVar[int]
    FEATURE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    MAX_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    node_type: str
    onnx: str
    feature_width: int
    max_difference: float
    def __init__(self, node_type: _Optional[str] = ..., onnx: _Optional[str] = ..., feature_width: _Optional[int] = ..., max_difference: _Optional[float] = ...) -> None: ...

class EdgeType(_message.Message):
    __slots__ = ("source", "name", "target", "reversed")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REVERSED_FIELD_NUMBER: _ClassVar[int]
    source: str
    name: str
    target: str
    reversed: bool
    def __init__(self, source: _Optional[str] = ..., name: _Optional[str] = ..., target: _Optional[str] = ..., reversed: _Optional[bool] = ...) -> None: ...

class IndexManifest(_message.Message):
    __slots__ = ("node_type", "kind", "exact_reason", "scann_version", "leaves", "leaves_to_search", "reorder", "recall_at_10", "recall_target")
    NODE_TYPE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXACT_REASON_FIELD_NUMBER: _ClassVar[int]
    SCANN_VERSION_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    LEAVES_TO_SEARCH_FIELD_NUMBER: _ClassVar[int]
    REORDER_FIELD_NUMBER: _ClassVar[int]
    RECALL_AT_10_FIELD_NUMBER: _ClassVar[int]
    RECALL_TARGET_FIELD_NUMBER: _ClassVar[int]
    node_type: str
    kind: str
    exact_reason: str
    scann_version: str
    leaves: int
    leaves_to_search: int
    reorder: int
    recall_at_10: float
    recall_target: float
    def __init__(self, node_type: _Optional[str] = ..., kind: _Optional[str] = ..., exact_reason: _Optional[str] = ..., scann_version: _Optional[str] = ..., leaves: _Optional[int] = ..., leaves_to_search: _Optional[int] = ..., reorder: _Optional[int] = ..., recall_at_10: _Optional[float] = ..., recall_target: _Optional[float] = ...) -> None: ...

class NeuralManifest(_message.Message):
    __slots__ = ("scorer", "inputs", "events", "max_events", "dimension", "mean_degree", "max_degree", "layers", "beam", "width", "max_difference", "source", "overlap", "overlap_target", "share_evaluated", "network_calls", "audited_at", "audited_users")
    SCORER_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MEAN_DEGREE_FIELD_NUMBER: _ClassVar[int]
    MAX_DEGREE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    BEAM_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MAX_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_TARGET_FIELD_NUMBER: _ClassVar[int]
    SHARE_EVALUATED_FIELD_NUMBER: _ClassVar[int]
    NETWORK_CALLS_FIELD_NUMBER: _ClassVar[int]
    AUDITED_AT_FIELD_NUMBER: _ClassVar[int]
    AUDITED_USERS_FIELD_NUMBER: _ClassVar[int]
    scorer: str
    inputs: _containers.RepeatedCompositeFieldContainer[TensorManifest]
    events: EdgeType
    max_events: int
    dimension: int
    mean_degree: float
    max_degree: int
    layers: int
    beam: int
    width: int
    max_difference: float
    source: str
    overlap: float
    overlap_target: float
    share_evaluated: float
    network_calls: float
    audited_at: int
    audited_users: int
    def __init__(self, scorer: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TensorManifest, _Mapping]]] = ..., events: _Optional[_Union[EdgeType, _Mapping]] = ..., max_events: _Optional[int] = ..., dimension: _Optional[int] = ..., mean_degree: _Optional[float] = ..., max_degree: _Optional[int] = ..., layers: _Optional[int] = ..., beam: _Optional[int] = ..., width: _Optional[int] = ..., max_difference: _Optional[float] = ..., source: _Optional[str] = ..., overlap: _Optional[float] = ..., overlap_target: _Optional[float] = ..., share_evaluated: _Optional[float] = ..., network_calls: _Optional[float] = ..., audited_at: _Optional[int] = ..., audited_users: _Optional[int] = ...) -> None: ...

class TensorManifest(_message.Message):
    __slots__ = ("name", "type", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    shape: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., shape: _Optional[_Iterable[str]] = ...) -> None: ...

class FileChecksum(_message.Message):
    __slots__ = ("path", "bytes", "sha256")
    PATH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    path: str
    bytes: int
    sha256: str
    def __init__(self, path: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...
