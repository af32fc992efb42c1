"""kithkin.toml: every mistake is named with file, key and value; settings come in layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph_store.errors import ConfigError
from graph_store.project import find_project_file, load_project
from graph_store.schema import Triple

GOOD = """
name = "films"
[nodes.Film]
role = "entity"
[nodes.Film.properties]
title = { type = "string" }
[nodes.User]
role = "user"
[nodes.Genre]
role = "concept"
[[relations]]
triple = ["User", "SAW", "Film"]
role = "engagement"
time = "at"
properties = { at = { type = "timestamp" } }
[[relations]]
triple = ["Film", "CO_SAW", "Film"]
role = "co_engagement"
derive = { via = "SAW" }
[[sources]]
file = "films.csv"
node = "Film"
id = "id"
properties = { title = "name" }
[[sources]]
file = "log.csv"
relation = ["User", "SAW", "Film"]
source = "user"
target = "film"
properties = { at = "at" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "kithkin.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_declaration_is_read(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, GOOD), environment={})
    assert project.name == "films"
    assert [node_type.name for node_type in project.schema.node_types] == ["Film", "User", "Genre"]
    assert project.schema.relation(("User", "SAW", "Film")).key_columns == ("source", "target", "at")
    assert project.schema.relation(("Film", "CO_SAW", "Film")).arrow_schema.names == [
        "source",
        "target",
        "weight",
        "support",
    ]
    assert project.sources[1].relation == Triple("User", "SAW", "Film")
    assert project.sources[0].properties["title"].column == "name"
    assert project.work == tmp_path / ".kithkin"
    assert project.settings.store.uri == ".kithkin/graph.lbug"


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ('name = "films"', 'nmae = "films"', "nmae", "unknown key (got 'films')\n  Did you mean 'name'?"),
        ('name = "films"', "name = 7", "name", "must be a text (got 7)"),
        ('role = "concept"', 'role = "concpt"', "nodes.Genre.role", "'entity', 'concept' or 'user' (got 'concpt')"),
        ('role = "concept"', 'role = "concept"\nshow = true', "nodes.Genre.show", "unknown key (got True)"),
        ("[nodes.Genre]", '[nodes."Gen re"]', "nodes.Gen re.name", "'Gen re' is not a name"),
        ("[nodes.Genre]", "[nodes.film]", "", "differ only in upper and lower case"),
        ('type = "string"', 'type = "text"', "nodes.Film.properties.title.type", "'vector' (got 'text')"),
        ('type = "string"', 'type = "vector"', "nodes.Film.properties.title", "a vector, and only a vector, has a dim"),
        ('type = "string"', 'type = "string", fature = "text"', "nodes.Film.properties.title.fature", "'feature'?"),
        ('type = "string"', 'type = "string", feature = "number"', "nodes.Film.properties.title", "needs type bool,"),
        ("title = {", "id = {", "nodes.Film", "'id' is reserved"),
        ('role = "entity"', 'role = "entity"\ndisplay = "name"', "nodes.Film", "display: 'name' is not a declared"),
        ('role = "entity"', 'role = "concept"', "", "no node type has the role entity"),
        ('triple = ["User", "SAW", "Film"]', 'triple = ["User", "SAW"]', "relations[0].triple", "is three names"),
        ('triple = ["User", "SAW", "Film"]', 'triple = ["User", "SAW", "Flm"]', "", "type 'Flm' is not declared"),
        ('role = "engagement"', 'role = "semantic"', "relations[0]", "only an engagement relation has time and kind"),
        ('time = "at"', 'time = "when"', "relations[0]", "time: 'when' is not a declared property"),
        ('via = "SAW"', 'via = "SOW"', "", "derive.via: no engagement 'SOW' reaches Film"),
        ('via = "SAW"', 'via = "SAW", top_k = 0', "relations[1].derive.top_k", "greater than or equal to 1 (got 0)"),
        ('via = "SAW"', 'via = "SAW", topk = 9', "relations[1].derive.topk", "Did you mean 'top_k'?"),
        ('node = "Film"', 'node = "Movie"', "sources[0].node", "is not a declared node type (got 'Movie')"),
        ('id = "id"', "", "sources[0]", "a node source needs id"),
        ('id = "id"', 'id = { column = "id", split = "|" }', "sources[0]", "id cannot be split"),
        ('id = "id"', 'id = "id"\ndelimiter = "::"', "sources[0].delimiter", "at most 1 character (got '::')"),
        ('id = "id"', 'id = "id"\nheader = false', "sources[0]", "without a header needs columns"),
        (
            'title = "name"',
            'titel = "name"',
            "sources[0].properties",
            "property (got 'titel')\n  Did you mean 'title'?",
        ),
        ('"name" }', '{ column = "n", value = "x" } }', "sources[0].properties.title", "either a column or a value"),
        ('"name" }', "{ column = 'n', extract = '(' } }", "sources[0].properties.title.extract", "not a regular expre"),
        ('"name" }', "{ column = 'n', extract = 'a' } }", "sources[0].properties.title.extract", "needs one group"),
        ('"name" }', "{ column = 'n', split = '|' } }", "sources[0].properties.title.split", "is of type string"),
        (
            '"log.csv"\nrelation = ["User", "SAW"',
            '"log.csv"\nrelation = ["User", "SEEN"',
            "sources[1].relation",
            "SEEN]->",
        ),
        ('["User", "SAW", "Film"]\nsource', '["Film", "CO_SAW", "Film"]\nsource', "sources[1].relation", "is derived"),
        ('properties = { at = "at" }', "", "sources[1].properties", "is identified by 'at' too"),
        ('"film"\n', '"film"\ncount_as = "n"\n', "sources[1].count_as", "must be a declared int property (got 'n')"),
        ("[[sources]]", "[store]\nport = 7\n[[sources]]", "store.port", "unknown key (got 7)"),
        ("[[sources]]", "[serving]\nport = 70000\n[[sources]]", "serving.port", "less than or equal to 65535 (got 700"),
        (
            "[[sources]]",
            "[training.similar]\nlayer = 1\n[[sources]]",
            "training.similar.layer",
            "Did you mean 'layers'?",
        ),
        ("[[sources]]", "[ingest]\nreject_share = 'all'\n[[sources]]", "ingest.reject_share", "valid number"),
    ],
)
def test_every_mistake_names_file_key_and_value(tmp_path: Path, old: str, new: str, key: str, message: str) -> None:
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_project(file, environment={})
    assert caught.value.key == key
    assert caught.value.file == file
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = films\n", "not valid TOML: Invalid value (at line 1, column 8)"),
        (b"\xff\xfen", "not UTF-8: invalid start byte at byte 0"),
        (b"", "nodes: declares no node types"),
    ],
)
def test_what_is_no_toml_says_where(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "kithkin.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_project(file, environment={})
    assert f"{file}: {message}" in str(caught.value)


def test_sources_and_relations_are_arrays(tmp_path: Path) -> None:
    nodes = GOOD.partition("[[relations]]")[0]
    for key in ("sources", "relations"):
        with pytest.raises(ConfigError, match=rf"{key}: must be an array of tables") as caught:
            load_project(write(tmp_path, f"{nodes}\n[{key}]\nfile = 'x'\n"), environment={})
        assert caught.value.hint == f"Write each under [[{key}]]."


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "kithkin.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_project(tmp_path, environment={}).name == "films"


def test_the_file_is_found_from_a_folder_below(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD)
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find_project_file(tmp_path / "a" / "b") == file.resolve()
    with pytest.raises(ConfigError, match="no such file or folder") as caught:
        find_project_file(tmp_path / "nowhere" / "kithkin.toml")
    assert caught.value.hint


def test_a_flag_stands_above_the_environment_above_the_file_above_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD + "[serving]\nport = 1\nhost = 'file'\nmax_top_k = 2\n")
    environment = {"KITHKIN_SERVING__PORT": "2", "KITHKIN_SERVING__HOST": "environment", "KITHKIN_DATA": "/data"}
    project = load_project(file, environment=environment, overrides={"serving.port": 3, "serving.max_top_k": None})
    serving = project.settings.serving
    assert (serving.port, serving.host, serving.max_top_k, serving.drain_s) == (3, "environment", 2, 10.0)
    assert project.data == Path("/data")


@pytest.mark.parametrize(
    ("environment", "overrides", "message"),
    [
        ({"KITHKIN_SERVING__PORT": "http"}, {}, "serving.port: Input should be a valid integer"),
        ({"KITHKIN_SERVING__PORT": "http"}, {}, "from the environment's KITHKIN_SERVING__PORT (got 'http')"),
        ({"KITHKIN_SREVING__PORT": "1"}, {}, "sreving: unknown key, from the environment's KITHKIN_SREVING__PORT"),
        ({}, {"serving.max_top_k": 0}, "greater than or equal to 1, from the command line (got 0)"),
        ({"KITHKIN_WORK": "w"}, {"work.deep": 1}, "work.deep: is not a section, from the command line"),
    ],
)
def test_a_wrong_setting_says_where_it_came_from(
    tmp_path: Path, environment: dict[str, str], overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_project(write(tmp_path, GOOD), environment=environment, overrides=overrides)
    assert message in str(caught.value)


def test_the_password_is_not_a_setting(tmp_path: Path) -> None:
    load_project(write(tmp_path, GOOD), environment={"KITHKIN_STORE_PASSWORD": "secret"})
