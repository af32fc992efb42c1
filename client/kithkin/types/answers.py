"""Answers of the retrieval calls: lists with ``info`` about how they were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, overload

from kithkin.errors import KithkinError
from kithkin.types.nodes import Node, Reason, ScoredEntity
from kithkin.types.tables import NODE_COLUMNS, Table, node_row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Fallback = Literal["popular"]
Score = Literal["neural"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """About the answer itself."""

    bundle_version: str = ""
    exact: bool = False
    """Every candidate was scored exactly; else an approximate index chose them."""
    candidates_scored: int = 0
    truncated: bool = False
    """More was to be found: more nodes have the name, or a neural search ended at the deadline with the best so far."""
    fallback: Fallback | None = None
    """What was answered instead, where the call allowed it."""
    shortfall_reason: str = ""
    """Why fewer came than asked; empty: as many as asked."""
    server_time: timedelta = timedelta()
    """Of a call that was split, the time of all parts together."""
    request_id: str = ""
    """What the call sent as `x-request-id`; the server's log has it."""
    filter_passed: int | None = None
    """Entities that the filter lets pass; None: no filter."""
    network_calls: int = 0
    """Calls of the neural scorer's network, each over many candidates; 0: it was not asked."""
    other_bundles: tuple[str, ...] = ()
    """Further bundles that answered parts of a call that was split, where another one was activated in between."""


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
        info = self.info
        bundles = " and ".join([info.bundle_version or "?", *info.other_bundles])
        notes = [f"{len(self.items)} from bundle{'s' if info.other_bundles else ''} {bundles}"]
        if info.fallback:
            notes.append(f"fallback: {info.fallback}")
        if info.truncated:
            notes.append("more have the name" if isinstance(self, Nodes) else "ended at the deadline")
        if info.shortfall_reason:
            notes.append(info.shortfall_reason)
        return "\n".join([f"{type(self).__name__}({', '.join(notes)})", *(f"  {item!r}" for item in self.items)])


@dataclass(frozen=True, slots=True, repr=False)
class Results(Answer[ScoredEntity], Table):
    """Scored entities, best first, ties by id; with diversity, in the order they were chosen."""

    columns: ClassVar[Mapping[str, type]] = {**NODE_COLUMNS, "score": float}

    @property
    def ids(self) -> list[str]:
        """The ids, best first."""
        return [item.id for item in self.items]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat row per result: type, id, name, score, then the properties."""
        return [node_row(item.node, score=item.score) for item in self.items]

    def to_numpy(self) -> NDArray[np.float32]:
        """The scores, float32 [results]; ``ids`` names them."""
        import numpy as np

        return np.array([item.score for item in self.items], dtype=np.float32)


@dataclass(frozen=True, slots=True, repr=False)
class Batch(Answer[Results | KithkinError], Table):
    """The outcome of every item, in the order given: its `Results`, or the error that the call would have raised."""

    columns: ClassVar[Mapping[str, type]] = {"item": int, "rank": int, **Results.columns}

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

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat row per result of every item: the item's place, rank from 1, and as `Results.to_dicts`.

        An item with an error has no row; ``errors`` has it.
        """
        return [
            {"item": place, "rank": rank} | {key: value for key, value in row.items() if key not in ("item", "rank")}
            for place, item in enumerate(self.items)
            if not isinstance(item, KithkinError)
            for rank, row in enumerate(item.to_dicts(), start=1)
        ]


@dataclass(frozen=True, slots=True, repr=False)
class Scores(Answer[float | KithkinError], Table):
    """The score of every pair, in the order given, or the error that stands in its way."""

    columns: ClassVar[Mapping[str, type]] = {"score": float, "error": str}

    @property
    def errors(self) -> dict[int, KithkinError]:
        """The errors by the place of their pair."""
        return {place: item for place, item in enumerate(self.items) if isinstance(item, KithkinError)}

    def all(self) -> list[float]:
        """The score of every pair; raises the first error where there is one."""
        scores = []
        for item in self.items:
            if isinstance(item, KithkinError):
                raise item
            scores.append(item)
        return scores

    def to_numpy(self) -> NDArray[np.float32]:
        """The scores, float32 [pairs]; NaN where a pair has an error."""
        import numpy as np

        scores = (float("nan") if isinstance(item, KithkinError) else item for item in self.items)
        return np.fromiter(scores, dtype=np.float32, count=len(self.items))

    def to_dicts(self) -> list[dict[str, Any]]:
        """One row per pair: score (None where it has an error) and the error's reason (None where it has none)."""
        return [
            {"score": None, "error": item.reason or item.code}
            if isinstance(item, KithkinError)
            else {"score": item, "error": None}
            for item in self.items
        ]


@dataclass(frozen=True, slots=True, repr=False)
class Nodes(Answer[Node], Table):
    """Nodes of one name, the most engaged first."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat row per node: type, id, name, then the properties."""
        return [node_row(item) for item in self.items]


@dataclass(frozen=True, slots=True, repr=False)
class Page(Answer[Node], Table):
    """A page of a listing, by id."""

    next_page_token: str = ""
    """For ``list_entities_page(page_token=...)``; empty: this is the last page."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat row per node: type, id, name, then the properties."""
        return [node_row(item) for item in self.items]


@dataclass(frozen=True, slots=True)
class Explanation(Sequence[Reason]):
    """Why two entities belong together; iterates over the reasons, strongest first."""

    source: Node
    target: Node
    score: float | None
    """Score of the pair: in the space ``user`` for a user and an entity, else in ``similar``; None where one of the two
    has no vector."""
    reasons: tuple[Reason, ...]
    info: ResponseInfo
    explained_score: float | None = None
    """The part of the score that goes when all evidence found is taken away from the source, whether asked for or not;
    None where the bundle's encoder cannot tell."""
    rest: str = ""
    """What the rest of the score comes from, as a sentence."""

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
