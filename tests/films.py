"""A bundle of 60 films with properties of every type and links of every kind, and what is told of them as plain values.

Nothing in it means anything: it is drawn from a fixed seed, with missing values, ties, empty lists, NaN and films of
which nothing is known. Lists are cut as publishing cuts them, each end by itself, so that some links are kept by one
end alone, and some by none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from graph_store.schema import NodeType, RelationRole, Triple
from graph_store.settings import PublishSettings
from kithkin.v1 import model_service_pb2
from kithkin.v1.types_pb2 import Filter, FilterList, PropertyEquals, PropertyValue
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from server.filters.filters import Filters
from server.model.catalogue import Catalogue
from server.model.description import Describer

FILMS, USERS, GENRES = 60, 12, 5
DIMENSION = 8
KEPT = 2
"""Links of a list that is cut."""
HAS_GENRE = Triple("Film", "HAS_GENRE", "Genre")
SEQUEL_OF = Triple("Film", "SEQUEL_OF", "Film")
LIKED = Triple("User", "LIKED", "Film")
MOMENT = datetime(2020, 5, 17, 12, 30, 0, 5, tzinfo=UTC)

FILM = NodeType.model_validate(
    {
        "name": "Film",
        "role": "entity",
        "display": "title",
        "properties": {
            "title": {"type": "string", "show": True},
            "country": {"type": "string", "filter": True},
            "year": {"type": "int", "filter": True, "show": True},
            "rating": {"type": "float", "filter": True},
            "colour": {"type": "bool", "filter": True},
            "opened": {"type": "date", "filter": True},
            "added": {"type": "timestamp", "filter": True},
            "moods": {"type": "strings", "filter": True},
            "still": {"type": "vector", "dimension": 2, "filter": True},
            "budget": {"type": "int", "show": True},
        },
    }
)
USER = NodeType.model_validate({"name": "User", "role": "user", "properties": {"age": {"type": "int", "filter": True}}})
GENRE = NodeType.model_validate(
    {"name": "Genre", "role": "concept", "properties": {"old": {"type": "bool", "filter": True}}}
)


@dataclass(frozen=True, kw_only=True)
class Films:
    """What the bundle holds."""

    version: str
    ids: list[str]
    properties: list[dict[str, Any]]
    """Of each film, None where it has no value."""
    vectors: NDArray[np.float32]
    users: NDArray[np.float32]
    tastes: NDArray[np.float32]
    """Vectors of the films in the space ``user``."""
    links: dict[EdgeType, list[list[int]]] = field(default_factory=dict)
    """The lists as they were published, by edge type and row."""

    def linked(self, row: int, edge_type: EdgeType, neighbours: list[int]) -> bool:
        """Whether a film is linked to one of these, by its own list or theirs."""
        opposite = EdgeType(edge_type.triple, not edge_type.reversed)
        return any(
            neighbour in self.links[edge_type][row] or row in self.links[opposite][neighbour]
            for neighbour in neighbours
        )


def write_films(store: BundleStore, *, seed: int = 7) -> Films:
    """Publish the bundle (not activated)."""
    from server.index.publish import build_indexes

    random = np.random.default_rng(seed)
    ids = [f"f{number:02}" for number in range(FILMS)]
    properties = [_film(random, number) for number in range(FILMS)]
    edges = {
        HAS_GENRE: _edges(random, FILMS, GENRES, 0.4),
        SEQUEL_OF: _edges(random, FILMS, FILMS, 0.03),
        LIKED: _edges(random, USERS, FILMS, 0.2),
    }
    links = {
        EdgeType(triple, end): _lists(triple, end, pairs) for triple, pairs in edges.items() for end in (False, True)
    }
    vectors = random.normal(size=(FILMS, DIMENSION)).astype(np.float32)
    tastes, users = (random.normal(size=(count, DIMENSION)).astype(np.float32) for count in (FILMS, USERS))
    for matrix in (vectors, tastes):
        matrix[[4, 21]] = 0
    # Two of a kind, for ties.
    vectors[30] = vectors[31] = vectors[9]
    with store.writer("films") as writer:
        schema = {name: each.type.arrow for name, each in FILM.properties.items()}
        writer.write_nodes(
            FILM,
            pa.table(
                {
                    "id": ids,
                    "name": [each["title"] for each in properties],
                    "popularity": [float(FILMS - number // 2) for number in range(FILMS)],
                }
                | {name: pa.array([each[name] for each in properties], kind) for name, kind in schema.items()}
            ),
        )
        names = [f"u{number:02}" for number in range(USERS)]
        ages = pa.array([None if number % 5 == 0 else 20 + number for number in range(USERS)], pa.int64())
        writer.write_nodes(USER, pa.table({"id": names, "name": names, "popularity": [0.0] * USERS, "age": ages}))
        genres = [f"g{number}" for number in range(GENRES)]
        writer.write_nodes(
            GENRE,
            pa.table(
                {
                    "id": genres,
                    "name": ["Drama", "Comedy", "drama of old", None, "Noir"],
                    "popularity": [0.0] * GENRES,
                    "old": [False, False, True, None, True],
                }
            ),
        )
        for triple, role in (
            (HAS_GENRE, RelationRole.SEMANTIC),
            (SEQUEL_OF, RelationRole.SEMANTIC),
            (LIKED, RelationRole.ENGAGEMENT),
        ):
            writer.manifest.relations.add(
                source=triple.source, name=triple.name, target=triple.target, role=role.value, edges=len(edges[triple])
            )
        for edge_type, lists in links.items():
            writer.write_neighbours(edge_type, _csr(lists))
        for space, metric, matrices in (
            ("similar", model_service_pb2.COSINE, {"Film": vectors}),
            ("user", model_service_pb2.INNER_PRODUCT, {"Film": tastes, "User": users}),
        ):
            described = writer.manifest.spaces.add(name=space, metric=metric, dimension=DIMENSION, max_neighbours=KEPT)
            for node_type, matrix in matrices.items():
                described.node_types.append(node_type)
                writer.write_vectors(space, node_type, matrix)
        build_indexes(writer, PublishSettings())
        version = writer.commit()
    return Films(
        version=version,
        ids=ids,
        properties=properties,
        vectors=vectors,
        users=users,
        tastes=tastes,
        links=links,
    )


def _film(random: np.random.Generator, number: int) -> dict[str, Any]:
    def some(value: Any) -> Any:
        return None if random.random() < 0.2 else value

    days = int(random.integers(0, 6))
    return {
        "title": some(f"{random.choice(['The', 'A', 'No'])} Film {number % 7}"),
        "country": some(str(random.choice(["France", "Österreich", "", "日本"]))),
        "year": some(int(random.choice([1990, 1995, 2000, 2005, -(2**62), 2**62]))),
        "rating": some(float(random.choice([-1.5, 0.0, -0.0, 2.5, float("nan"), float("inf")]))),
        "colour": some(bool(random.random() < 0.5)),
        "opened": some(date(2020, 5, 15) + timedelta(days=days)),
        "added": some(MOMENT + timedelta(microseconds=int(random.integers(-2, 3)))),
        "moods": some([str(each) for each in random.choice(["calm", "loud", "dark"], random.integers(0, 4))]),
        "still": some([1.0, 2.0]),
        "budget": some(number),
    }


def _edges(random: np.random.Generator, rows: int, columns: int, share: float) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in np.argwhere(random.random((rows, columns)) < share)]


def _lists(triple: Triple, end: bool, pairs: list[tuple[int, int]]) -> list[list[int]]:
    sizes = {"Film": FILMS, "Genre": GENRES, "User": USERS}
    edge_type = EdgeType(triple, end)
    lists: list[list[int]] = [[] for _ in range(sizes[edge_type.node_type])]
    for source, target in pairs:
        here, there = (target, source) if end else (source, target)
        lists[here].append(there)
    whole = triple == LIKED and not end
    return [each if whole else each[:KEPT] for each in lists]


def _csr(lists: list[list[int]]) -> Csr:
    return Csr(
        indptr=np.cumsum([0, *(len(each) for each in lists)]).astype(np.int64),
        indices=np.array([each for row in lists for each in row], np.int32),
    )


def filters_of(bundle: Bundle) -> Filters:
    catalogue = Catalogue(bundle)
    return Filters(bundle, catalogue, Describer(bundle, catalogue))


def value_of(value: Any) -> PropertyValue:
    if isinstance(value, bool):
        return PropertyValue(bool_value=value)
    if isinstance(value, int):
        return PropertyValue(int_value=value)
    if isinstance(value, float):
        return PropertyValue(float_value=value)
    if isinstance(value, str):
        return PropertyValue(string_value=value)
    return PropertyValue(time_value=stamp(value))


def stamp(nanoseconds: int | tuple[int]) -> Timestamp:
    total = nanoseconds[0] if isinstance(nanoseconds, tuple) else nanoseconds
    return Timestamp(seconds=total // 10**9, nanos=total % 10**9)


def nanoseconds(value: date | datetime) -> int:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def all_of(*parts: Filter) -> Filter:
    return Filter(all_of=FilterList(filters=parts))


def deep(levels: int) -> Filter:
    """A filter of so many levels."""
    found = Filter(present="year")
    for _ in range(levels - 1):
        found = Filter(negated=found)
    return found


def equal(name: str, value: PropertyValue) -> Filter:
    return Filter(equals=PropertyEquals(property=name, value=value))
