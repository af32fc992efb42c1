"""The rows of click prediction, split by time, and the graph that the links of some rows make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.schema import GraphSchema, Property, PropertyType, Relation, RelationRole, Triple
from graph_store.settings import ClickEvaluation
from model_store.csr import Csr, EdgeType
from training.errors import GraphTooSmall, TrainingError
from training.graph import Graph, transposed

How = Literal["per_user", "global"]
Clock = Literal["time", "place"]
MILLION = 1_000_000
_TIES = 0x71E5


class Snapshot(Protocol):
    """What click prediction reads of ``training.export.Snapshot``."""

    @property
    def schema(self) -> GraphSchema: ...

    @property
    def content_hash(self) -> str: ...

    @property
    def edge_types(self) -> tuple[EdgeType, ...]: ...

    def num_nodes(self, node_type: str) -> int: ...

    def ids(self, node_type: str) -> pa.StringArray: ...

    def nodes(self, node_type: str) -> pa.Table: ...

    def csr(self, edge_type: EdgeType) -> Csr: ...

    def edges(self, triple: Triple) -> pa.Table: ...


@dataclass(frozen=True, kw_only=True)
class Clicks:
    """Rows of (user, entity, when, clicked or not); a view without a click is a row too."""

    users: NDArray[np.int64]
    """``[n]`` rows of the user type."""
    entities: NDArray[np.int64]
    """``[n]`` rows of the entity type."""
    time: NDArray[np.int64]
    """``[n]`` UTC microseconds of the first view."""
    weight: NDArray[np.float64]
    """``[n]`` the engagement's weight (a rating, say), 1 where the relation has none; of several, the greatest."""
    clicked: NDArray[np.bool_]
    """``[n]``"""
    place: NDArray[np.int64]
    """``[n]`` share of the user's own views (in a global split, of all) that are older, in millionths: the time that
    the parts are cut by."""

    def __len__(self) -> int:
        return len(self.users)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Clicks:
        """The rows of a mask, or at these positions."""
        return Clicks(
            users=self.users[chosen],
            entities=self.entities[chosen],
            time=self.time[chosen],
            weight=self.weight[chosen],
            clicked=self.clicked[chosen],
            place=self.place[chosen],
        )

    def __add__(self, other: Clicks) -> Clicks:
        """These rows, then the others."""
        return Clicks(
            users=np.concatenate([self.users, other.users]),
            entities=np.concatenate([self.entities, other.entities]),
            time=np.concatenate([self.time, other.time]),
            weight=np.concatenate([self.weight, other.weight]),
            clicked=np.concatenate([self.clicked, other.clicked]),
            place=np.concatenate([self.place, other.place]),
        )


@dataclass(frozen=True, kw_only=True)
class ClickSplit:
    """Three parts, one after the other in time; no pair of user and entity is in two."""

    message: Clicks
    """The oldest: links that carry messages, never asked for in the headline's tables."""
    supervision: Clicks
    """The next: what models learn from."""
    test: Clicks
    """The newest: what they are measured on."""

    @property
    def earlier(self) -> Clicks:
        """All links that are there when the test rows are asked for."""
        return self.message + self.supervision

    def new_users(self) -> NDArray[np.bool_]:
        """Which test rows are of users with no earlier row ``[test]``."""
        return ~np.isin(self.test.users, self.earlier.users)

    def new_entities(self) -> NDArray[np.bool_]:
        """Which test rows are of entities with no earlier row ``[test]``."""
        return ~np.isin(self.test.entities, self.earlier.entities)


class ClickFrame:
    """One click protocol on one snapshot: its rows, split, and the graph that any rows make."""

    def __init__(
        self, snapshot: Snapshot, relation: Relation, split: ClickSplit, settings: ClickEvaluation, how: How
    ) -> None:
        self.snapshot, self.relation, self.split = snapshot, relation, split
        self.settings, self.how = settings, how
        self.user_type, self.entity_type = relation.triple.source, relation.triple.target
        name = relation.triple.name
        self.clicked = Triple(self.user_type, f"{name}_CLICKED", self.entity_type)
        """Relation of the views that were clicked, in ``graph``."""
        self.passed = Triple(self.user_type, f"{name}_PASSED", self.entity_type)
        """Relation of the views that were not."""

    @classmethod
    def of(cls, snapshot: Snapshot, settings: ClickEvaluation, how: How | None = None) -> ClickFrame:
        """Read and split the rows; ``how`` None: the first of ``settings.splits``.

        Raises TrainingError where the relation cannot serve, GraphTooSmall where a part has no rows.
        """
        how = how or settings.splits[0]
        relation = _relation(snapshot.schema, settings)
        split = split_by_time(_events(snapshot, relation, settings), settings.supervision, settings.test, how)
        for name, rows in (("message", split.message), ("supervision", split.supervision), ("test", split.test)):
            if len(rows) < 2 or rows.clicked.all() or not rows.clicked.any():
                raise GraphTooSmall(
                    f"{settings.name}, {how}: the {name} rows ({len(rows)}) do not hold both clicks and views without",
                    hint="More engagements are needed, or another rule of what a click is.",
                )
        return cls(snapshot, relation, split, settings, how)

    def span_begins(self, spans: int) -> NDArray[np.int64]:
        """Places ``[spans]``, ascending, where spans of the message rows begin, each as long as the supervision part.

        The last ends with the message rows; those before the first are in none, and only carry messages.
        """
        supervision, test = self.settings.supervision, self.settings.test
        shares = 1.0 - test - supervision * np.arange(spans + 1, 1, -1)
        begins: NDArray[np.int64] = np.rint(shares[shares > 0] * MILLION).astype(np.int64)
        return begins

    @cached_property
    def schema(self) -> GraphSchema:
        """The snapshot's, with the relations ``clicked`` and ``passed`` (with time) in place of the engagement.

        Derived co-engagement is left out: it is counted over all engagements, those of the test too.
        """
        relations: list[Relation] = []
        for relation in self.snapshot.schema.relations:
            if relation.triple == self.relation.triple:
                relations += [self._part(self.clicked), self._part(self.passed)]
            elif relation.derive is None:
                relations.append(relation)
        return GraphSchema(node_types=self.snapshot.schema.node_types, relations=tuple(relations))

    def graph(self, rows: Clicks, *, clock: Clock = "time") -> Graph:
        """The graph in which these rows are the only links of users with entities by this relation.

        Neighbours ascending; the edges' ``time`` is the rows' ``time``, or their ``place``. Other relations are as in
        the snapshot.
        """
        return Graph(_ClickSnapshot(self, rows if clock == "time" else replace(rows, time=rows.place)))

    def _part(self, triple: Triple) -> Relation:
        return Relation(
            triple=triple,
            role=RelationRole.ENGAGEMENT,
            time="time",
            properties={"time": Property(type=PropertyType.TIMESTAMP)},
        )


def split_by_time(events: Clicks, supervision: float, test: float, how: How) -> ClickSplit:
    """Oldest, next and newest events, by share of each user's own (``per_user``) or of all (``global``).

    Ties in time are broken at random, the same in every run. In a part, several events of one pair are one row, a click
    if one of them is; a pair that is in an older part is left out of a later one.
    """
    tie = np.random.default_rng(_TIES).permutation(len(events))
    group = events.users if how == "per_user" else np.zeros(len(events), np.int64)
    order = np.lexsort((tie, events.time, group))
    count = np.bincount(group[order])
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    place = np.empty(len(events), np.int64)  # from the newest, 0
    place[order] = (first + count)[group[order]] - 1 - np.arange(len(events))
    older = count[group] - 1 - place
    events = replace(events, place=older * MILLION // count[group])
    of_test = np.rint(count * test).astype(np.int64)[group]
    of_supervision = np.rint(count * (test + supervision)).astype(np.int64)[group]
    parts = [
        _pairs(events.take(place >= of_supervision)),
        _pairs(events.take((place >= of_test) & (place < of_supervision))),
        _pairs(events.take(place < of_test)),
    ]
    width = int(events.entities.max(initial=0)) + 1
    for later in (1, 2):
        seen = np.concatenate([each.users * width + each.entities for each in parts[:later]])
        parts[later] = parts[later].take(~np.isin(parts[later].users * width + parts[later].entities, seen))
    return ClickSplit(message=parts[0], supervision=parts[1], test=parts[2])


def newest(rows: Clicks, share: float, how: How) -> NDArray[np.bool_]:
    """Which rows are the newest ``share``, of each user's own or of all ``[n]``: a part to stop early on."""
    tie = np.random.default_rng(_TIES).permutation(len(rows))
    group = rows.users if how == "per_user" else np.zeros(len(rows), np.int64)
    # Turned round as bits: the smallest int64 stands for a missing time.
    order = np.lexsort((tie, ~rows.time, group))
    count = np.bincount(group)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - first[group[order]]
    # A user with few rows has a share of one by chance, so that the part is not of the active alone.
    least = count[group] * share
    chance = np.random.default_rng(_TIES + 1).random(len(count))[group]
    result: NDArray[np.bool_] = place < np.floor(least + chance)
    return result


def _relation(schema: GraphSchema, settings: ClickEvaluation) -> Relation:
    named = f"[[evaluation.clicks]] {settings.name}"
    try:
        relation = schema.relation(settings.relation)
    except KeyError:
        raise TrainingError(f"{named}: {settings.relation} is no declared relation") from None
    if relation.role is not RelationRole.ENGAGEMENT or relation.time is None:
        raise TrainingError(f"{named}: {relation.triple} is no engagement relation with a time")
    if settings.kinds and relation.kind is None:
        raise TrainingError(f"{named}: {relation.triple} declares no kind, so clicks need least_weight")
    if settings.least_weight is not None and relation.weight is None:
        raise TrainingError(f"{named}: {relation.triple} declares no weight, so clicks need kinds")
    return relation


def _events(snapshot: Snapshot, relation: Relation, settings: ClickEvaluation) -> Clicks:
    """Every engagement as a row; those without a time come first, before everything."""
    csr = snapshot.csr(EdgeType(relation.triple))
    assert csr.time is not None
    weight = np.ones(csr.num_edges) if csr.weight is None else np.asarray(csr.weight, dtype=np.float64)
    if settings.least_weight is not None:
        clicked = weight >= settings.least_weight
    else:
        kinds = snapshot.edges(relation.triple).column(relation.kind or "").to_pylist()
        clicked = np.isin(np.array([kind or "" for kind in kinds]), settings.kinds)
    return Clicks(
        users=np.repeat(np.arange(csr.num_rows, dtype=np.int64), np.diff(csr.indptr)),
        entities=np.asarray(csr.indices).astype(np.int64),
        time=np.asarray(csr.time).astype(np.int64),
        weight=weight,
        clicked=clicked,
        place=np.zeros(csr.num_edges, np.int64),
    )


def _pairs(events: Clicks) -> Clicks:
    """One row a pair, by user, then time, then entity."""
    order = np.lexsort((events.time, events.entities, events.users))
    events = events.take(order)
    if not len(events):
        return events
    begins = np.flatnonzero(np.concatenate([[True], (np.diff(events.users) != 0) | (np.diff(events.entities) != 0)]))
    merged = Clicks(
        users=events.users[begins],
        entities=events.entities[begins],
        time=events.time[begins],
        weight=np.maximum.reduceat(events.weight, begins),
        clicked=np.logical_or.reduceat(events.clicked, begins),
        place=events.place[begins],
    )
    return merged.take(np.lexsort((merged.entities, merged.time, merged.users)))


class _ClickSnapshot:
    """The frame's snapshot with the links of some rows; see ``ClickFrame.graph``."""

    def __init__(self, frame: ClickFrame, rows: Clicks) -> None:
        self._snapshot = frame.snapshot
        self.schema = frame.schema
        self.edge_types = tuple(
            EdgeType(relation.triple, backward) for relation in self.schema.relations for backward in (False, True)
        )
        users, entities = (self.num_nodes(each) for each in (frame.user_type, frame.entity_type))
        self._own: dict[EdgeType, Csr] = {}
        for triple, chosen in ((frame.clicked, rows.clicked), (frame.passed, ~rows.clicked)):
            forward = _adjacency(rows.take(chosen), users)
            self._own[EdgeType(triple)] = forward
            self._own[EdgeType(triple, True)] = transposed(forward, entities)

    @property
    def content_hash(self) -> str:
        return self._snapshot.content_hash

    def num_nodes(self, node_type: str) -> int:
        return self._snapshot.num_nodes(node_type)

    def ids(self, node_type: str) -> pa.StringArray:
        return self._snapshot.ids(node_type)

    def nodes(self, node_type: str) -> pa.Table:
        return self._snapshot.nodes(node_type)

    def csr(self, edge_type: EdgeType) -> Csr:
        own = self._own.get(edge_type)
        return self._snapshot.csr(edge_type) if own is None else own


def _adjacency(rows: Clicks, users: int) -> Csr:
    rows = rows.take(np.lexsort((rows.entities, rows.users)))
    return Csr(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(rows.users, minlength=users))]).astype(np.int64),
        indices=rows.entities.astype(np.int32),
        time=rows.time,
    )
