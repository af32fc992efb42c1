"""What calls answer: frozen, typed, plain Python values; lists of results iterate and index like lists."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from kithkin.errors import KithkinError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PropertyValue = str | int | float | bool | tuple[str, ...] | tuple[float, ...] | datetime | None
"""A property as answers give it. Times and dates are datetimes in UTC; None: the node has no value."""

Fallback = Literal["popular"]
Health = Literal["SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "UNKNOWN"]
Metric = Literal["cosine", "inner_product", "unspecified"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ref:
    """Names one node: its type and its id. An empty type stands for the graph's only entity (or user) type."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph with the properties that kithkin.toml shows."""

    ref: Ref
    name: str
    properties: Mapping[str, PropertyValue] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """Its key."""
        return self.ref.id

    @property
    def type(self) -> str:
        """Its node type, such as ``Movie``."""
        return self.ref.type

    def __repr__(self) -> str:
        shown = "".join(f", {key}={value!r}" for key, value in self.properties.items() if value != self.name)
        return f"<{self.type} {self.id!r} {self.name!r}{shown}>"


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence that connects two nodes: a path of the graph, and its share of the whole in [0, 1]."""

    path: tuple[Node, ...]
    relations: tuple[str, ...]
    contribution: float
    text: str

    def __repr__(self) -> str:
        return f"<Reason {self.contribution:.0%} {self.text!r}>"


@dataclass(frozen=True, slots=True)
class ScoredEntity:
    """One result: a node, its score (higher is better) and, where asked for, the reasons."""

    node: Node
    score: float
    reasons: tuple[Reason, ...] = ()

    @property
    def ref(self) -> Ref:
        """Type and id of the node."""
        return self.node.ref

    @property
    def id(self) -> str:
        """Key of the node."""
        return self.node.ref.id

    @property
    def type(self) -> str:
        """Type of the node."""
        return self.node.ref.type

    @property
    def name(self) -> str:
        """What people call it."""
        return self.node.name

    @property
    def properties(self) -> Mapping[str, PropertyValue]:
        """Its shown properties."""
        return self.node.properties

    def __repr__(self) -> str:
        because = f" because {'; '.join(reason.text for reason in self.reasons)}" if self.reasons else ""
        return f"<{self.score:.4f} {self.type} {self.id!r} {self.name!r}{because}>"


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """About the answer itself."""

    bundle_version: str = ""
    exact: bool = False
    """Every candidate was scored exactly; else an approximate index chose them."""
    candidates_scored: int = 0
    truncated: bool = False
    """More nodes have the name than came."""
    fallback: Fallback | None = None
    """What was answered instead, where the call allowed it."""
    shortfall_reason: str = ""
    """Why fewer came than asked; empty: as many as asked."""
    server_time: timedelta = timedelta()
    request_id: str = ""
    """What the call sent as `x-request-id`; the server's log has it."""


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Sequence[T], Generic[T]):
    """An immutable list of what was asked for, with ``info`` about how it was found."""

    items: tuple[T, ...]
    info: ResponseInfo

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __repr__(self) -> str:
        notes = [f"{len(self.items)} from bundle {self.info.bundle_version or '?'}"]
        if self.info.fallback:
            notes.append(f"fallback: {self.info.fallback}")
        if self.info.truncated:
            notes.append("more have the name")
        if self.info.shortfall_reason:
            notes.append(self.info.shortfall_reason)
        return "\n".join([f"{type(self).__name__}({', '.join(notes)})", *(f"  {item!r}" for item in self.items)])


@dataclass(frozen=True, slots=True, repr=False)
class Results(Answer[ScoredEntity]):
    """Scored entities, best first, ties by id."""

    @property
    def ids(self) -> list[str]:
        """The ids, best first."""
        return [item.id for item in self.items]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat row per result, ready for ``pandas.DataFrame(...)``: type, id, name, score, then the properties."""
        rows = []
        for item in self.items:
            row: dict[str, Any] = {"type": item.type, "id": item.id, "name": item.name, "score": item.score}
            rows.append(row | {key: value for key, value in item.properties.items() if key not in row})
        return rows


@dataclass(frozen=True, slots=True, repr=False)
class Batch(Answer[Results | KithkinError]):
    """The outcome of every item, in the order given: its `Results`, or the error that the call would have raised."""

    @property
    def errors(self) -> dict[int, KithkinError]:
        """The errors by the place of their item."""
        return {place: item for place, item in enumerate(self.items) if isinstance(item, KithkinError)}

    def all(self) -> list[Results]:
        """The results of every item; raises the first error where there is one."""
        results = []
        for item in self.items:
            if isinstance(item, KithkinError):
                raise item
            results.append(item)
        return results


@dataclass(frozen=True, slots=True, repr=False)
class Nodes(Answer[Node]):
    """Nodes of one name, the most engaged first."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Vector(Sequence[float]):
    """A float32 vector of one space of one bundle; ``numpy.asarray(vector)`` gives float32 [dimension].

    Vectors of different bundles or spaces do not compare; searching with one sends both along, so the server can tell.
    """

    _values: array[float]
    space: str
    bundle_version: str

    def __init__(self, values: Iterable[float], space: str = "", bundle_version: str = "") -> None:
        object.__setattr__(self, "_values", array("f", values))
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "bundle_version", bundle_version)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[float, ...]: ...
    def __getitem__(self, index: int | slice) -> float | tuple[float, ...]:
        return tuple(self._values[index]) if isinstance(index, slice) else self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[float]:
        return iter(self._values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        import numpy as np

        # Always a copy: what NumPy hands out is writable, this vector is not to be.
        if copy is False:
            raise ValueError("a kithkin.Vector cannot be viewed without a copy")
        return np.array(self._values, dtype=np.float32 if dtype is None else dtype)

    def __hash__(self) -> int:
        return hash((self._values.tobytes(), self.space, self.bundle_version))

    def __repr__(self) -> str:
        start = ", ".join(f"{value:.4f}" for value in self._values[:4])
        more = ", ..." if len(self._values) > 4 else ""
        return f"<Vector {self.space!r} [{len(self._values)}] {start}{more}>"


@dataclass(frozen=True, slots=True, repr=False)
class Vectors(Answer[Vector]):
    """Vectors in the order asked for; ``numpy.asarray(vectors)`` gives float32 [vectors, dimension]."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        import numpy as np

        if copy is False:
            raise ValueError("kithkin.Vectors cannot be viewed without a copy")
        return np.array([np.asarray(vector) for vector in self.items], dtype=np.float32 if dtype is None else dtype)


@dataclass(frozen=True, slots=True)
class Explanation(Sequence[Reason]):
    """Why two entities belong together; iterates over the reasons, strongest first."""

    source: Node
    target: Node
    score: float | None
    """Score of the pair in the space ``similar``; None where one of the two has no vector."""
    reasons: tuple[Reason, ...]
    info: ResponseInfo

    @overload
    def __getitem__(self, index: int) -> Reason: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Reason, ...]: ...
    def __getitem__(self, index: int | slice) -> Reason | tuple[Reason, ...]:
        return self.reasons[index]

    def __len__(self) -> int:
        return len(self.reasons)

    def __iter__(self) -> Iterator[Reason]:
        return iter(self.reasons)

    def __repr__(self) -> str:
        score = "no score" if self.score is None else f"{self.score:.4f}"
        return "\n".join(
            [f"Explanation({self.source!r} -> {self.target!r}, {score})", *(f"  {reason!r}" for reason in self.reasons)]
        )


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The index of one node type in one space."""

    node_type: str
    vectors: int
    kind: str
    """``scann`` or ``exact``."""
    exact_reason: str
    recall_at_10: float
    recall_target: float


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """One vector space of the bundle."""

    name: str
    metric: Metric
    dimension: int
    indexes: tuple[IndexStatus, ...]


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """The bundle that answers."""

    version: str
    published_at: datetime | None
    snapshot_hash: str
    spaces: tuple[SpaceStatus, ...]
    nodes: Mapping[str, int] = field(hash=False)
    """Nodes by type."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a server has loaded."""

    server_version: str
    bundle: BundleStatus | None
    """None: no bundle is loaded."""
    uptime: timedelta
    worker_pid: int
    refused_bundle: str
    """Why the newest bundle was refused while an older one serves; empty: none was."""


@dataclass(frozen=True, slots=True)
class BundleSummary:
    """One bundle that the server could serve."""

    version: str
    published_at: datetime | None
    snapshot_hash: str
    nodes: Mapping[str, int] = field(hash=False)
    """Nodes by type."""
    active: bool
    """What a server starts with."""
    serving: bool
    """The process that answered has it loaded."""
    problem: str
    """Why it cannot be opened; empty: it can."""


@dataclass(frozen=True, slots=True)
class Bundles(Sequence[BundleSummary]):
    """A page of bundles, newest first."""

    items: tuple[BundleSummary, ...]
    next_page_token: str
    """For ``bundles(page_token=...)``; empty: this is the last page."""

    @overload
    def __getitem__(self, index: int) -> BundleSummary: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BundleSummary, ...]: ...
    def __getitem__(self, index: int | slice) -> BundleSummary | tuple[BundleSummary, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[BundleSummary]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Activation:
    """Which bundle serves now, and which was active before."""

    version: str
    previous_version: str
    """Empty: none."""
