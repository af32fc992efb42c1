"""``kithkin init``: what is guessed from files, and that it reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_store.errors import ConfigError, InputError
from graph_store.ingest import IngestReport, ingest
from graph_store.project import Project, load_project
from graph_store.scaffold import write_project
from graph_store.scaffold.naming import base, property_name, singular, type_name
from graph_store.schema import NodeRole, RelationRole, Triple
from tests.memory_store import MemoryStore


def started(folder: Path, files: dict[str, str]) -> tuple[Project, MemoryStore, IngestReport]:
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    project = load_project(write_project(folder), environment={})
    store = MemoryStore(project.schema)
    return project, store, ingest(project, store)


def roles(project: Project) -> dict[str, str]:
    return {node_type.name: node_type.role.value for node_type in project.schema.node_types}


MOVIES = "movieId,title,genres\n" + "".join(
    f'{n},"Film {n}, the ({1990 + n})",{"Drama|Crime" if n % 2 else "(no genres listed)"}\n' for n in range(1, 21)
)
RATINGS = "userId,movieId,rating,timestamp,,\n" + "".join(
    f"{n % 7},{n % 20 + 1},{n % 5 + 0.5},{1260759144 + n},,\n" for n in range(60)
)
TAGS = "userId,movieId,tag,timestamp\n" + "".join(
    f"{n % 7},{n % 20 + 1},{['Funny', 'funny', 'dark'][n % 3]},{1260759144 + n}\n" for n in range(30)
)
LINKS = "movieId,imdbId,tmdbId\n" + "".join(f"{n},{n:07d},{n + 100}\n" for n in range(1, 21))


def test_movielens_as_it_comes(tmp_path: Path) -> None:
    files = {"movies.csv": MOVIES, "ratings.csv": RATINGS, "tags.csv": TAGS, "links.csv": LINKS, "README.txt": "Hello"}
    project, store, report = started(tmp_path, files)
    assert roles(project) == {"Movie": "entity", "User": "user", "Tag": "concept", "Genre": "concept"}
    assert [relation.triple for relation in project.schema.relations] == [
        Triple("User", "RATED", "Movie"),
        Triple("Movie", "CO_RATED", "Movie"),
        Triple("Movie", "HAS_TAG", "Tag"),
        Triple("Movie", "HAS_GENRE", "Genre"),
    ]
    rated = project.schema.relation(("User", "RATED", "Movie"))
    assert (rated.role, rated.weight, rated.time) == (RelationRole.ENGAGEMENT, "rating", "timestamp")
    assert store.nodes["Movie"][("3",)] == {
        "id": "3",
        "title": "Film 3, the",
        "year": 1993,
        "imdbId": "0000003",
        "tmdbId": "103",
    }
    assert sorted(store.nodes["Genre"]) == [("Crime",), ("Drama",)]
    assert sorted(store.nodes["Tag"]) == [("dark",), ("funny",)]
    edge = store.edges[rated.triple][("0", "1", datetime.fromtimestamp(1260759144, UTC))]
    assert edge["rating"] == 0.5
    assert (report.rejected, len(store.edges[rated.triple])) == (0, 60)
    assert project.schema.node_type("Movie").display == "title"
    text = (tmp_path / "kithkin.toml").read_text()
    assert (
        "# userId looks like a user's id by its name; movieId holds ids of Movie, by its name and its values." in text
    )
    assert "# genres in movies.csv holds several values, split at '|'." in text


def test_facts_friends_and_lists_of_ids(tmp_path: Path) -> None:
    artists = "id,name\n" + "".join(f"{n * 3},Artist {n}\n" for n in range(1, 30))
    plays = "user,artist,plays\n" + "".join(f"{n % 5},{(n % 29 + 1) * 3},{n + 1}\n" for n in range(50))
    friends = "user,friend\n" + "".join(f"{n},{(n + 1) % 5}\n" for n in range(5))
    facts = "artist,relation,target_type,target\n" + "".join(
        f"{(n % 29 + 1) * 3},{['genre', 'birthPlace'][n % 2]},x,Value_{n % 6}\n" for n in range(58)
    )
    judged = "artist\n" + "".join(f"{n * 3}\n" for n in range(1, 9))
    files = {
        "artists.csv": artists,
        "plays.csv": plays,
        "friends.csv": friends,
        "dbpedia.csv": facts,
        "judged.csv": judged,
    }
    project, store, report = started(tmp_path, files)
    assert roles(project) == {"Artist": "entity", "User": "user", "Genre": "concept", "BirthPlace": "concept"}
    assert {str(triple): len(rows) for triple, rows in store.edges.items()} == {
        "(User)-[PLAYED]->(Artist)": 50,
        "(Artist)-[CO_PLAYED]->(Artist)": 0,
        "(User)-[FRIEND]->(User)": 5,
        "(Artist)-[HAS_GENRE]->(Genre)": 29,
        "(Artist)-[HAS_BIRTH_PLACE]->(BirthPlace)": 29,
    }
    assert report.rejected == 0
    assert "# Not used: judged.csv (only ids that another file lists too)." in (tmp_path / "kithkin.toml").read_text()


def test_a_shop_with_brands_a_log_of_events_and_typed_columns(tmp_path: Path) -> None:
    products = "id;name;brand_id;price;in_stock;launched;colour;vector\n" + "".join(
        f"p{n};Product {n};b{n % 3};{n}.5;{'true' if n % 2 else 'false'};2020-01-{n:02d};{['red', 'blue'][n % 2]};"
        f"[{n}.0, 0.5]\n"
        for n in range(1, 21)
    )
    brands = "id;name\n" + "".join(f"b{n};Brand {n}\n" for n in range(3))
    customers = [{"customer_id": f"c{n}", "country": ["de", "fr"][n % 2], "age": 20 + n} for n in range(10)]
    pq.write_table(pa.Table.from_pylist(customers), tmp_path / "customers.parquet")
    events = [
        {"customer_id": f"c{n % 10}", "product_id": f"p{n % 20 + 1}", "event_type": "view", "ts": 1600000000000 + n}
        for n in range(40)
    ]
    files = {
        "products.csv": products,
        "brands.csv": brands,
        "events.jsonl": "\n".join(map(json.dumps, events)) + "\n",
    }
    project, store, report = started(tmp_path, files)
    assert roles(project) == {"Product": "entity", "Customer": "user", "Brand": "concept", "Colour": "concept"}
    types = {name: (p.type.value, p.dimension) for name, p in project.schema.node_type("Product").properties.items()}
    assert types == {
        "name": ("string", None),
        "price": ("float", None),
        "in_stock": ("bool", None),
        "launched": ("date", None),
        "vector": ("vector", 2),
    }
    country = project.schema.node_type("Customer").properties["country"]
    assert (country.feature, country.filter) == ("category", True)
    log = project.schema.relation(("Customer", "INTERACTED", "Product"))
    assert (log.time, log.kind) == ("ts", "event_type")
    assert {str(triple): len(rows) for triple, rows in store.edges.items() if rows} == {
        "(Customer)-[INTERACTED]->(Product)": 40,
        "(Product)-[HAS_BRAND]->(Brand)": 20,
        "(Product)-[HAS_COLOUR]->(Colour)": 20,
    }
    assert report.rejected == 0


def test_a_log_alone_makes_its_nodes(tmp_path: Path) -> None:
    log = "".join(f"u{n % 3}\ti{n % 4}\n" for n in range(20))
    project, store, report = started(tmp_path, {"clicks.tsv": "user_id\titem_id\n" + log})
    assert roles(project) == {"User": "user", "Item": "entity"}
    clicked = project.schema.relation(("User", "CLICKED", "Item"))
    assert clicked.weight == "count"
    assert sum(row["count"] for row in store.edges[clicked.triple].values()) == 20
    assert report.rejected == 0


def test_orders_with_ids_of_their_own_are_edges(tmp_path: Path) -> None:
    products = "id,name\n" + "".join(f"{n},Product {n}\n" for n in range(10))
    orders = "order_id,user_id,product_id,quantity\n" + "".join(f"{n},{n % 3},{n % 10},{n % 2}\n" for n in range(20))
    project, store, _ = started(tmp_path, {"products.csv": products, "orders.csv": orders})
    assert roles(project) == {"Product": "entity", "User": "user"}
    assert len(store.edges[Triple("User", "BOUGHT", "Product")]) == 20
    # 20 rows, 30 pairs possible: the last quantity of a pair counts.
    assert project.schema.relation(("User", "BOUGHT", "Product")).weight == "quantity"


def test_a_catalogue_alone_in_another_encoding(tmp_path: Path) -> None:
    rows = "".join(f"{n},Café {n},{['jazz', 'rock'][n % 2]}\n" for n in range(20))
    (tmp_path / "albums.csv").write_bytes(("id,name,style\n" + rows).encode("latin-1"))
    project, store, _ = started(tmp_path, {})
    assert roles(project) == {"Album": "entity", "Style": "concept"}
    assert store.nodes["Album"][("3",)]["name"] == "Café 3"
    assert project.sources[0].encoding == "cp1252"


def test_a_file_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(MOVIES)
    path = write_project(tmp_path)
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_project(tmp_path)
    assert path.read_text() == "mine"
    assert write_project(tmp_path, force=True) == path
    assert load_project(path, environment={}).schema.of_role(NodeRole.ENTITY)[0].name == "Movie"


def test_the_file_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "movies.csv").write_text(MOVIES)
    path = write_project(tmp_path / "data", out=tmp_path / "project" / "kithkin.toml")
    project = load_project(path, environment={})
    assert ingest(project, MemoryStore(project.schema)).rejected == 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no data file"),
        ({"notes.txt": "hello"}, "holds no data file"),
        ({"empty.csv": ""}, "no file can be read: the file is empty"),
        ({"numbers.csv": "1,2\n3,4\n3,4\n"}, "nothing here looks like a catalogue"),
    ],
)
def test_where_nothing_can_be_guessed_it_says_so(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        write_project(tmp_path)
    assert message in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "kithkin.toml").exists()


def test_names() -> None:
    plurals = ("movies", "genres", "categories", "boxes", "bus", "tags", "class")
    assert [singular(word) for word in plurals] == ["movie", "genre", "category", "box", "bus", "tag", "class"]
    assert [base(name) for name in ("movieId", "movie_id", "id", "userid", "paid", "Brand ID", "artist")] == [
        "movie", "movie", "", "user", "paid", "brand", "artist",
    ]  # fmt: skip
    assert type_name("film studio") == "FilmStudio"
    assert type_name("3d") == "Type3d"
    assert property_name("Größe (cm)") == "Gr_e_cm"
    assert property_name("source") == "source_value"
    assert property_name("Name", ["name"]) == "Name_2"
